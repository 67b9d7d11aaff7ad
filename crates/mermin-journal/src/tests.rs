//! Whatever was done before a crash, it is there afterwards.

use super::*;
use mermin_flow::{FlowConfig, FlowRecord, HashSecret, Meter, Observation, RecordSink, Tally};
use proptest::prelude::*;
use std::path::Path;

struct Nowhere;

impl RecordSink for Nowhere {
    fn record(&mut self, _: FlowRecord) {}
}

/// A run: a meter, its journal, and what should be found.
struct Run {
    meter: Meter,
    journal: Journal,
    read_log: ReadLog,
    cut: u64,
    expected: Expected,
    /// What the next cut has, whatever becomes of the files.
    unsettled: Vec<(u64, Vec<u8>)>,
    /// It is not begun, or was abandoned and not begun again.
    has_none: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    cut: u64,
    state: Vec<u8>,
    resident: Tally,
    records: Vec<(u64, Vec<u8>)>,
    read: Vec<Vec<u8>>,
}

fn found(recovered: &Recovered) -> Expected {
    Expected {
        cut: recovered.cut,
        state: recovered.state.clone(),
        resident: recovered.flows.resident(),
        records: recovered.records.clone(),
        read: recovered.read.clone(),
    }
}

impl Run {
    fn begin(folder: &Path, expected: &Expected) -> Self {
        let Opened { journal, read_log, recovered } = Journal::open(folder, b"me").unwrap();
        assert_eq!(found(&recovered), *expected);
        let mut meter = Meter::new(&FlowConfig::default(), "");
        meter.keep_track();
        let cut = recovered.cut;
        for (number, shard) in recovered.flows.into_shards().into_iter().enumerate() {
            meter.restore(number, shard);
        }
        Self {
            meter,
            journal,
            read_log,
            cut,
            expected: expected.clone(),
            unsettled: expected.records.clone(),
            has_none: cut == 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Read(flow) => {
                let mut o = Observation {
                    ports: [u16::from(*flow), 53],
                    packets: 1,
                    bytes: 60,
                    frame_bytes: 74,
                    protocol: 17,
                    ..Observation::EMPTY
                };
                o.port_form = mermin_flow::PortForm::Ports;
                o.orient(&HashSecret::new(1));
                self.read_log.append(&[&[*flow]]).unwrap();
                // Without a cut it is behind none.
                if !self.has_none {
                    self.expected.read.push(vec![*flow]);
                }
                self.meter.observe(&[o], &mut Nowhere);
            }
            Step::Cut(records) => {
                self.cut += 1;
                self.has_none = false;
                let is_whole = self.journal.wants_whole();
                let read_from = self.read_log.cut().unwrap();
                let mut changes = Vec::new();
                if is_whole {
                    self.meter.cut_whole(&mut changes);
                } else {
                    self.meter.cut(&mut changes);
                }
                let records: Vec<Vec<u8>> = records.iter().map(|record| vec![*record; 9]).collect();
                let state = self.cut.to_le_bytes();
                self.journal
                    .commit(&Cut {
                        number: self.cut,
                        is_whole,
                        state: &state,
                        read_from,
                        changes: &[changes],
                        records: &records,
                    })
                    .unwrap();
                let expected = &mut self.expected;
                (expected.cut, expected.state, expected.resident) =
                    (self.cut, state.to_vec(), self.meter.resident());
                self.unsettled.extend(records.into_iter().map(|batch| (self.cut, batch)));
                expected.records.clone_from(&self.unsettled);
                expected.read.clear();
            }
            Step::Abandon => {
                self.journal.abandon(self.read_log.pause()).unwrap();
                self.expected = Expected::default();
                self.has_none = true;
            }
            Step::Settle(back) => {
                let settled = self.cut.saturating_sub(u64::from(*back));
                self.journal.settle(&[settled, settled + 100]).unwrap();
                self.unsettled.retain(|(cut, _)| *cut != settled);
                self.expected.records.retain(|(cut, _)| *cut != settled);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Read(u8),
    Cut(Vec<u8>),
    Settle(u8),
    Abandon,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u8..9).prop_map(Step::Read),
        2 => prop::collection::vec(any::<u8>(), 0..3).prop_map(Step::Cut),
        2 => (0_u8..3).prop_map(Step::Settle),
        1 => Just(Step::Abandon),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Runs that are killed, one after the other.
    #[test]
    fn what_was_written_is_found(runs in prop::collection::vec(prop::collection::vec(step(), 0..20), 1..5)) {
        let folder = tempfile::tempdir().unwrap();
        let mut expected = Expected::default();
        for steps in &runs {
            let mut run = Run::begin(folder.path(), &expected);
            steps.iter().for_each(|step| run.step(step));
            expected = run.expected;
        }
        let last = Run::begin(folder.path(), &expected);
        last.journal.close().unwrap();
        drop(last);
        let Opened { recovered, .. } = Journal::open(folder.path(), b"me").unwrap();
        prop_assert_eq!(found(&recovered), Expected::default(), "after an orderly end nothing is left");
    }
}

#[test]
fn another_owner_finds_nothing_and_two_at_once_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::begin(folder.path(), &Expected::default());
    [Step::Read(1), Step::Cut(vec![7]), Step::Read(2)].iter().for_each(|step| run.step(step));
    assert!(matches!(Journal::open(folder.path(), b"me"), Err(JournalError::InUse { .. })));
    drop(run);
    let opened = Journal::open(folder.path(), b"another").unwrap();
    assert_eq!(found(&opened.recovered), Expected::default());
}

/// An entry that was not written to its end was not made.
#[test]
fn a_torn_cut_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::begin(folder.path(), &Expected::default());
    [Step::Read(1), Step::Cut(vec![7]), Step::Read(2)].iter().for_each(|step| run.step(step));
    let before = run.expected.clone();
    let path = folder.path().join("cuts.0");
    let length = std::fs::metadata(&path).unwrap().len();
    [Step::Cut(vec![8])].iter().for_each(|step| run.step(step));
    drop(run);
    let whole = std::fs::read(&path).unwrap();
    for cut in [length, length + 1, length + 17, whole.len() as u64 - 1] {
        std::fs::write(&path, &whole[..cut as usize]).unwrap();
        let opened = Journal::open(folder.path(), b"me").unwrap();
        // The file of what was read behind the cut before it is gone by then.
        assert_eq!(Expected { read: before.read.clone(), ..found(&opened.recovered) }, before);
    }
}

/// A disk without room for it: what was written there before counts no more once that is said, and it can be begun again.
#[test]
fn a_disk_that_is_full_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::begin(folder.path(), &Expected::default());
    run.step(&Step::Cut(vec![1]));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (file, state) = (std::mem::replace(&mut run.journal.file, full), [9]);
    let cut = |is_whole| Cut { number: 7, is_whole, state: &state, read_from: 0, changes: &[], records: &[] };
    assert!(run.journal.commit(&cut(false)).is_err());
    drop(file);
    assert!(run.journal.wants_whole());
    run.step(&Step::Abandon);
    assert_eq!(run.journal.too_many(8), [1], "they go with the next cut");
    drop(run);
    let opened = Journal::open(folder.path(), b"me").unwrap();
    assert_eq!(found(&opened.recovered), Expected::default());
    let mut journal = opened.journal;
    journal.commit(&cut(true)).unwrap();
    drop((journal, opened.read_log));
    assert_eq!(Journal::open(folder.path(), b"me").unwrap().recovered.cut, 7);
}
