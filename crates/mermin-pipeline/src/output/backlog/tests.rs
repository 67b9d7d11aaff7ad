//! The backlog against a simple model, and record by record.

use super::*;
use crate::testing::record;
use mermin_flow::Tally;
use proptest::prelude::*;

use Class::{High, Low, Normal};
use FlowEvent::{End, Start, Update};

/// What a test does.
#[derive(Clone, Debug)]
enum Step {
    /// The flow with this number has the next record: the choice says which.
    Record {
        flow: usize,
        choice: u8,
        class: Class,
    },
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let class = prop_oneof![Just(High), Just(Normal), Just(Low)];
    prop_oneof![
        5 => (0_usize..5, 0_u8..10, class).prop_map(|(flow, choice, class)| Step::Record { flow, choice, class }),
        1 => (1_usize..6).prop_map(Step::Take),
    ]
}

/// Flows that go on: each number's next record.
#[derive(Default)]
struct Flows {
    ids: HashMap<usize, (u128, u32, u64)>,
    next: u128,
}

impl Flows {
    /// Each tenth record or so is an end, behind which a flow with a new id begins, half of them with a start. Every
    /// packet count is another, so that sums tell what they are of.
    fn next(&mut self, flow: usize, choice: u8) -> FlowRecord {
        let (id, sequence, total) = *self.ids.entry(flow).or_insert_with(|| {
            self.next += 1;
            (self.next, 0, 0)
        });
        let event = match choice {
            0..5 if sequence == 0 => Start,
            9 => End,
            _ => Update,
        };
        let packets = if event == Start { 0 } else { u64::from(choice) + 1 };
        let total = total + packets;
        if event == End {
            self.ids.remove(&flow);
        } else {
            self.ids.insert(flow, (id, sequence + 1, total));
        }
        let mut record = record(id, event);
        record.sequence = sequence;
        (record.forward.delta.packets, record.forward.total.packets) = (packets, total);
        record.tally = Tally { packets, bytes: 60 * packets, buffers: packets, buffer_bytes: 60 * packets };
        // Now and then an end gets another name: such neighbours stay apart.
        record.source.identity.name = (choice == 7).then(|| "seven".into());
        record
    }
}

/// The same by looking at all records each time.
#[derive(Default)]
struct Model {
    /// In order of arrival: class, whether periodic, the record.
    records: Vec<(Class, bool, u64, FlowRecord)>,
    arrivals: u64,
}

impl Model {
    fn push(&mut self, record: FlowRecord, class: Class) {
        let periodic = record.event == Update;
        for (its_class, its_periodic, _, before) in &mut self.records {
            if before.id == record.id {
                (*its_class, *its_periodic) = (*its_class, *its_periodic).min((class, periodic));
            }
        }
        self.records.push((class, periodic, self.arrivals, record));
        self.arrivals += 1;
    }

    fn place(&self, at: usize) -> (Class, bool, u64) {
        let (class, periodic, arrival, _) = self.records[at];
        (class, periodic, arrival)
    }

    /// The nearest record of the same flow ahead of it.
    fn ahead(&self, at: usize) -> Option<usize> {
        (0..at).rev().find(|before| self.records[*before].3.id == self.records[at].3.id)
    }

    fn shed(&mut self) -> Option<Shed> {
        let all = 0..self.records.len();
        let may_merge = |at: &usize| {
            self.ahead(*at).is_some_and(|before| self.records[before].3.may_go_into(&self.records[*at].3))
        };
        if let Some(at) = all.clone().filter(may_merge).max_by_key(|at| self.place(*at)) {
            let before = self.ahead(at).unwrap();
            let mut later = self.records.remove(at).3;
            later.take_in(&self.records[before].3);
            self.records[before].3 = later;
            return Some(Shed::Merged);
        }
        let at = all.max_by_key(|at| self.place(*at))?;
        Some(Shed::Dropped(Box::new(self.records.remove(at).3)))
    }

    fn take(&mut self, n: usize) -> Vec<FlowRecord> {
        let mut taken = Vec::new();
        while taken.len() < n
            && let Some(at) = (0..self.records.len()).min_by_key(|at| self.place(*at))
        {
            taken.push(self.records.remove(at).3);
        }
        taken
    }
}

/// What has to be true of what comes out, whatever the order.
#[derive(Default)]
struct Out {
    /// Of each flow: the last sequence, and packets of all deltas that were taken.
    taken: HashMap<FlowId, (Option<u32>, u64)>,
    /// Of each flow: sequence and packets of what was given up.
    dropped: HashMap<FlowId, Vec<(u32, u64)>>,
}

impl Out {
    fn taken(&mut self, record: &FlowRecord) {
        let (sequence, packets) = self.taken.entry(record.id).or_default();
        assert!(sequence.is_none_or(|before| before < record.sequence), "records of a flow stay in order");
        *sequence = Some(record.sequence);
        *packets += record.forward.delta.packets;
        assert_eq!(record.tally.packets, record.forward.delta.packets);
        let dropped = self.dropped.get(&record.id).into_iter().flatten();
        let dropped: u64 = dropped.filter(|(at, _)| *at < record.sequence).map(|(_, packets)| packets).sum();
        assert_eq!(
            *packets + dropped,
            record.forward.total.packets,
            "deltas add up but for what was dropped"
        );
    }

    fn dropped(&mut self, record: &FlowRecord) {
        let dropped = (record.sequence, record.forward.delta.packets);
        self.dropped.entry(record.id).or_default().push(dropped);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_simple_model_does(steps in prop::collection::vec(step(), 1..120), capacity in 1_usize..14) {
        let (mut backlog, mut model) = (Backlog::default(), Model::default());
        let (mut flows, mut out) = (Flows::default(), Out::default());
        let mut pushed = Tally::ZERO;
        let mut gone = Tally::ZERO;
        for step in steps.into_iter().chain([Step::Take(usize::MAX)]) {
            match step {
                Step::Record { flow, choice, class } => {
                    let record = flows.next(flow, choice);
                    pushed += record.tally;
                    backlog.push(record.clone(), class, None);
                    model.push(record, class);
                    while backlog.len() > capacity {
                        let shed = backlog.shed();
                        prop_assert_eq!(&shed, &model.shed());
                        if let Some(Shed::Dropped(record)) = shed {
                            gone += record.tally;
                            out.dropped(&record);
                        }
                    }
                }
                Step::Take(n) => {
                    let taken = backlog.take(n.min(1_000)).0;
                    prop_assert_eq!(&taken, &model.take(n));
                    for record in &taken {
                        gone += record.tally;
                        out.taken(record);
                    }
                }
            }
            prop_assert_eq!(backlog.len(), model.records.len());
        }
        prop_assert_eq!(gone, pushed);
        prop_assert!(backlog.flows.is_empty() && backlog.mergeable.is_empty() && backlog.shed().is_none());
    }
}

/// `(flow, event, class)`, each with a packet more than the one before; in the order in which they come out.
fn order(records: &[(u128, FlowEvent, Class)], room: usize) -> (Vec<(u128, u64)>, Vec<Shed>) {
    let (mut backlog, mut shed) = (Backlog::default(), Vec::new());
    let mut totals = HashMap::<u128, (u32, u64)>::new();
    for (n, (flow, event, class)) in records.iter().enumerate() {
        let (sequence, total) = totals.entry(*flow).or_default();
        let packets = n as u64 + 1;
        *total += packets;
        let mut record = record(*flow, *event);
        record.sequence = *sequence;
        (record.forward.delta.packets, record.forward.total.packets) = (packets, *total);
        record.tally = Tally { packets, ..Tally::ZERO };
        *sequence += 1;
        backlog.push(record, *class, None);
        if backlog.len() > room {
            shed.extend(backlog.shed());
        }
    }
    let taken = backlog.take(usize::MAX).0;
    (taken.iter().map(|record| (record.id.0, record.forward.delta.packets)).collect(), shed)
}

#[test]
fn what_begins_or_ends_a_flow_goes_ahead_of_periodic_reports() {
    let records = [(1, Update, Normal), (2, Start, Normal), (3, Update, Normal), (4, End, Normal)];
    assert_eq!(order(&records, 10).0, [(2, 2), (4, 4), (1, 1), (3, 3)]);
}

#[test]
fn the_class_decides_first() {
    let records = [(1, End, Low), (2, Update, Normal), (3, End, Normal), (4, Update, High)];
    assert_eq!(order(&records, 10).0, [(4, 4), (3, 3), (2, 2), (1, 1)]);
}

#[test]
fn an_end_takes_what_waits_ahead_of_it_along() {
    let records = [(1, Update, Low), (2, Update, Normal), (3, End, Normal), (1, End, High)];
    assert_eq!(order(&records, 10).0, [(1, 1), (1, 4), (3, 3), (2, 2)]);
}

#[test]
fn reports_of_one_flow_are_merged_before_anything_is_dropped_the_least_important_first() {
    let records =
        [(1, Update, Normal), (2, Update, Low), (1, Update, Normal), (2, Update, Low), (3, Update, High)];
    let (taken, shed) = order(&records, 4);
    assert_eq!(taken, [(3, 5), (1, 1), (1, 3), (2, 6)]);
    assert_eq!(shed, [Shed::Merged]);
    let (taken, shed) = order(&records, 3);
    assert_eq!(taken, [(3, 5), (1, 4), (2, 6)]);
    assert_eq!(shed, [Shed::Merged, Shed::Merged]);
}

#[test]
fn an_end_absorbs_the_report_that_waits() {
    let (taken, shed) = order(&[(1, Start, Normal), (1, Update, Normal), (1, End, Normal)], 2);
    assert_eq!(taken, [(1, 1), (1, 5)]);
    assert_eq!(shed, [Shed::Merged]);
}

#[test]
fn where_nothing_can_be_merged_the_latest_report_of_the_lowest_class_goes() {
    let records =
        [(1, Update, Low), (2, Update, Low), (3, End, Low), (4, Update, Normal), (5, Update, Normal)];
    let (taken, shed) = order(&records, 3);
    assert_eq!(taken, [(4, 4), (5, 5), (3, 3)]);
    let dropped: Vec<_> = shed
        .iter()
        .map(|shed| match shed {
            Shed::Dropped(record) => record.id.0,
            Shed::Merged => 0,
        })
        .collect();
    assert_eq!(dropped, [2, 1]);
}
