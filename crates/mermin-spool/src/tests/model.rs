//! Random use and random misfortune against a list of what was appended.

use super::disk::SmallDisk;
use super::{carried, entry, id, on_disk, segments, sum};
use crate::{Position, Read, Spool, SpoolError, SpoolSettings};
use mermin_flow::Amount;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
enum Step {
    /// Of so many bytes.
    Append(usize),
    Read,
    /// One of what was read and not acknowledged yet.
    Acknowledge(Index),
    Rewind,
    Reopen,
    /// The last segment loses so many bytes.
    Tear(u64),
    /// The last segment gets some bytes more.
    Noise(Vec<u8>),
    /// A bit of some segment, while it is open or before it is opened again.
    Flip(Index, Index, bool),
    /// A bit of the position.
    FlipPosition(Index),
    RemoveSegment(Index),
    /// Other files leave no room, or some bytes of it, or are gone.
    Ballast(Option<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        20 => (0_usize..6_000).prop_map(Step::Append),
        15 => Just(Step::Read),
        8 => index().prop_map(Step::Acknowledge),
        2 => Just(Step::Rewind),
        3 => Just(Step::Reopen),
        1 => (1_u64..9_000).prop_map(Step::Tear),
        1 => prop::collection::vec(any::<u8>(), 1..300).prop_map(Step::Noise),
        2 => (index(), index(), any::<bool>()).prop_map(|(file, bit, open)| Step::Flip(file, bit, open)),
        1 => index().prop_map(Step::FlipPosition),
        1 => index().prop_map(Step::RemoveSegment),
    ]
}

fn step_on_a_disk() -> impl Strategy<Value = Step> {
    let ballast = prop_oneof![Just(None), (0_usize..20_000).prop_map(Some)].prop_map(Step::Ballast);
    prop_oneof![12 => step(), 1 => ballast]
}

const BOUND: u64 = 1 << 17;

/// What the spool must agree with.
struct Model {
    folder: PathBuf,
    spool: Option<Spool>,
    /// All that were taken, by the number of the entry.
    taken: BTreeMap<u64, u64>,
    /// Of these: told as lost in this run.
    lost: Vec<u64>,
    next_id: u64,
    /// Number of the first entry that isn't acknowledged, and of the one that is read next.
    acknowledged: u64,
    read: u64,
    /// What was read and can be acknowledged: position, and the number of the next entry.
    outstanding: Vec<(Position, u64)>,
    /// Files were changed since it was opened.
    harmed: bool,
}

impl Model {
    fn new(folder: PathBuf) -> Self {
        let spool = Some(super::open(&folder, BOUND));
        let (taken, lost, outstanding) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { folder, spool, taken, lost, next_id: 0, acknowledged: 0, read: 0, outstanding, harmed: false }
    }

    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }

    fn left(&self) -> Amount {
        let left = self.taken.range(self.acknowledged..).filter(|(number, _)| !self.lost.contains(number));
        sum(left.map(|(_, id)| *id))
    }

    fn step(&mut self, step: &Step, ballast: Option<&Path>) {
        match step {
            Step::Append(length) => self.append(*length),
            Step::Read => self.read(),
            Step::Acknowledge(index) => self.acknowledge(index),
            Step::Rewind => {
                self.spool().rewind();
                self.read = self.acknowledged;
                self.outstanding.clear();
            }
            Step::Reopen => self.reopen(false, |_| {}),
            Step::Tear(bytes) => self.reopen(true, |folder| {
                let Some(last) = segments(folder).pop() else { return };
                let file = File::options().write(true).open(last).unwrap();
                file.set_len(file.metadata().unwrap().len().saturating_sub(*bytes)).unwrap();
            }),
            Step::Noise(noise) => self.reopen(false, |folder| {
                let Some(last) = segments(folder).pop() else { return };
                // Not on a full disk.
                let _ = io_append(&last, noise);
            }),
            Step::Flip(file, bit, true) => {
                flip_segment(&self.folder, file, bit);
                self.harmed = true;
            }
            Step::Flip(file, bit, false) => self.reopen(true, |folder| flip_segment(folder, file, bit)),
            Step::FlipPosition(bit) => self.reopen(true, |folder| flip(&folder.join("position"), bit)),
            Step::RemoveSegment(file) => {
                let all = segments(&self.folder);
                // What is removed before the first that is there can't be known to have been there.
                if all.len() > 1 {
                    self.harmed = true;
                    fs::remove_file(&all[1 + file.index(all.len() - 1)]).unwrap();
                }
            }
            Step::Ballast(left) => {
                let Some(path) = ballast else { return };
                let _ = fs::remove_file(path);
                if let Some(left) = left {
                    fill(path, *left);
                }
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let expected = self.left();
        let folder = self.folder.clone();
        let spool = self.spool();
        assert_eq!(spool.spooled(), expected);
        assert!(spool.bytes() <= BOUND && on_disk(&folder) <= BOUND);
    }

    fn append(&mut self, length: usize) {
        let id = self.next_id;
        let number = self.spool().tail.entry;
        let mut entry = entry(id, length);
        match self.spool().append(&mut entry) {
            Ok(()) => {
                // One that is told of a folder or a segment that was removed may come later than it was meant to.
                let number = self.spool().tail.entry - 1;
                self.taken.insert(number, id);
                self.next_id += 1;
            }
            Err(SpoolError::Full { used, .. }) => {
                assert!(used + entry.size() + 72 > BOUND, "there was room");
                assert_eq!(self.spool().tail.entry, number);
            }
            Err(SpoolError::Write { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&mut self) {
        match self.spool().read().unwrap() {
            None => {
                let rest = self.taken.range(self.read..).filter(|(number, _)| !self.lost.contains(number));
                assert_eq!(rest.count(), 0, "all were read");
            }
            Some(Read::Batch(stored)) => {
                let next = self.taken.range(self.read..).find(|(number, _)| !self.lost.contains(number));
                let (number, expected) = next.expect("it was taken");
                assert_eq!(id(&stored), *expected, "in order, and nothing is left out");
                self.read = number + 1;
                self.outstanding.push((stored.position(), self.read));
            }
            Some(Read::Lost(lost)) => {
                let mut rest = Amount::default();
                while rest != lost.amount {
                    let mut coming = self.taken.range(self.read..);
                    let next = coming.find(|(number, _)| !self.lost.contains(number));
                    let (number, id) =
                        next.expect("what is lost was there, and nothing was told as lost beside it");
                    rest += carried(*id);
                    self.lost.push(*number);
                }
                self.absorb();
                let first =
                    self.taken.range(self.acknowledged..).find(|(number, _)| !self.lost.contains(number));
                let _ = first;
            }
        }
    }

    fn acknowledge(&mut self, index: &Index) {
        if self.outstanding.is_empty() {
            return;
        }
        let at = index.index(self.outstanding.len());
        let (position, next) = self.outstanding[at];
        self.spool().acknowledge(position).unwrap();
        self.outstanding.drain(..=at);
        self.acknowledged = self.acknowledged.max(next);
        self.absorb();
    }

    /// What is lost behind what is acknowledged is done with.
    fn absorb(&mut self) {
        while let Some((number, _)) = self.taken.range(self.acknowledged..).next()
            && self.lost.contains(number)
        {
            self.acknowledged = number + 1;
        }
    }

    /// Closes, does something to the files, opens. `harmful`: entries may be gone from the end, or acknowledged ones back.
    fn reopen(&mut self, harmful: bool, harm: impl FnOnce(&Path)) {
        self.spool = None;
        harm(&self.folder);
        let harmful = harmful || std::mem::take(&mut self.harmed);
        let spool =
            Spool::open(&self.folder, SpoolSettings { bytes: BOUND, ..super::settings(BOUND) }).unwrap();
        let (begin, recovery) = (spool.acknowledged.mark.entry, spool.recovery());
        self.spool = Some(spool);
        self.lost.clear();
        self.outstanding.clear();
        let before: Vec<u64> = self.taken.range(self.acknowledged..).map(|(number, _)| *number).collect();
        if harmful {
            self.acknowledged = self.acknowledged.min(begin);
        }
        // What is there now: all from the begin on, up to what the spool says to have.
        let mut rest = Amount::default();
        let mut there = self.taken.range(self.acknowledged..);
        let end = loop {
            if rest == recovery.spooled {
                break there.next().map(|(number, _)| *number);
            }
            let (_, id) = there.next().expect("no more is there than was taken");
            rest += carried(*id);
        };
        let gone = end.map(|end| self.taken.split_off(&end)).unwrap_or_default();
        let gone: Vec<_> = gone.into_iter().filter(|(number, _)| before.contains(number)).collect();
        assert!(harmful || gone.is_empty(), "nothing happened, and {gone:?} are gone");
        self.read = self.acknowledged;
    }
}

fn io_append(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.write_all_at(bytes, file.metadata()?.len())
}

fn flip_segment(folder: &Path, file: &Index, bit: &Index) {
    let all = segments(folder);
    if !all.is_empty() {
        flip(file.get::<PathBuf>(&all), bit);
    }
}

fn flip(path: &Path, bit: &Index) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    if length > 0 {
        let bit = bit.index(length as usize * 8);
        let mut byte = [0];
        file.read_exact_at(&mut byte, bit as u64 / 8).unwrap();
        byte[0] ^= 1 << (bit % 8);
        file.write_all_at(&byte, bit as u64 / 8).unwrap();
    }
}

/// Takes all room but about `left` bytes.
fn fill(path: &Path, left: usize) {
    let file = File::create(path).unwrap();
    let mut length = 0;
    while let Ok(written @ 1..) = file.write_at(&[0; 4_096], length) {
        length += written as u64;
    }
    file.set_len(length.saturating_sub(left as u64)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::default() })]
    #[test]
    fn it_is_a_queue_that_counts_what_it_lost(steps in prop::collection::vec(step(), 1..150)) {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Model::new(folder.path().to_owned());
        steps.iter().for_each(|step| model.step(step, None));
    }

    #[test]
    fn it_is_one_on_a_disk_that_is_full_at_times(steps in prop::collection::vec(step_on_a_disk(), 1..150)) {
        // Smaller than the bound.
        let Some(disk) = SmallDisk::mount(c"size=100k") else {
            eprintln!("SKIP it_is_one_on_a_disk_that_is_full_at_times: the privilege to mount a tmpfs");
            return Ok(());
        };
        let mut model = Model::new(disk.path().join("spool"));
        let ballast = disk.path().join("ballast");
        steps.iter().for_each(|step| model.step(step, Some(&ballast)));
    }
}
