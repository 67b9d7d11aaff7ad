//! The path over the disk, driven step by step by an exporter that may do anything, against a list.

use super::super::breaker::BreakerConfig;
use super::super::guard::Guard;
use super::super::intake::{Intake, Settled};
use super::super::queue::Item;
use super::*;
use crate::incidents::Incidents;
use crate::output::book::{Books, DiskBook, OutputState, amount};
use crate::testing::record;
use mermin_flow::{Amount, Exporter, Failure, FlowEvent, FlowId, FlowRecord, Receipt};
use mermin_spool::{Fsync, SpoolSettings, Stored};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

/// The sequence of records that can't be written, and of those that can't be read.
const POISON: u32 = 1_000_000;
const UNREADABLE: u32 = 2_000_000;

const PASSING: &[&str] = &["write_failed"];

/// Only its name counts.
struct Nobody;

/// Panics without the hook's words on standard error: hundreds of them would hide why a test has failed.
fn bug_if(so: bool) {
    if so {
        std::panic::resume_unwind(Box::new("this panic is the test's"));
    }
}

impl Exporter for Nobody {
    fn name(&self) -> &str {
        "nobody"
    }

    fn export(&mut self, _: &[FlowRecord], _: &mut Receipt) -> Result<(), Failure> {
        Ok(())
    }

    fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Store(u8),
    /// The exporter is given what is next.
    Next,
    /// It delivers the first so many that it holds.
    Deliver(usize),
    /// It drops them for good.
    Refuse(usize),
    /// It gives up all that it holds, for a reason that may pass.
    GiveUp,
    /// The agent is started anew.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40_u8).prop_map(Step::Store),
        6 => Just(Step::Next),
        4 => (1..60_usize).prop_map(Step::Deliver),
        1 => (1..30_usize).prop_map(Step::Refuse),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Restart),
    ]
}

/// One run of an agent.
struct Run {
    buffer: Arc<Buffer>,
    state: Arc<OutputState>,
    to_disk: ToDisk,
    from_disk: FromDisk,
    receipt: Receipt,
    /// What the exporter holds: the records' numbers.
    held: VecDeque<FlowRecord>,
}

impl Run {
    fn open(folder: &Path) -> Self {
        let settings = SpoolSettings { bytes: 1 << 24, fsync: Fsync::Never };
        let spool = Spool::open(folder, settings).unwrap();
        let books = Books::on_disk(DiskBook::new(spool.recovery(), PASSING));
        let guard = Guard::new(&Nobody, &BreakerConfig::default(), Arc::default());
        let state = Arc::new(OutputState::new(guard, books, Arc::default()));
        let (mut encoder, mut decoder) = mermin_spool::codec(Arc::default());
        let encode = move |records: &[FlowRecord]| {
            bug_if(records.iter().any(|record| record.sequence == POISON));
            encoder.encode(records)
        };
        let decode = move |stored: &Stored| {
            let records = decoder.decode(stored)?;
            bug_if(records.iter().any(|record| record.sequence == UNREADABLE));
            Ok(records)
        };
        let incidents = Incidents::new("The test", Arc::default());
        let buffer = Buffer::new("nobody", spool);
        Self {
            to_disk: ToDisk::new(Arc::clone(&buffer), Arc::clone(&state), Box::new(encode), incidents),
            from_disk: FromDisk::new(Arc::clone(&buffer), Arc::clone(&state), Box::new(decode)),
            buffer,
            state,
            receipt: Receipt::default(),
            held: VecDeque::new(),
        }
    }

    /// As the output's thread does after each call.
    fn publish(&mut self, taken: Amount) {
        self.publish_in_order(taken, None);
    }

    fn publish_in_order(&mut self, taken: Amount, in_order: Option<u64>) {
        let mut books = lock(&self.state.books);
        books.taken += taken;
        books.receipt.clone_from(&self.receipt);
        let settled = books.settled().records;
        drop(books);
        let given_up = self.receipt.dropped.get("write_failed").map_or(0, |amount| amount.records);
        self.from_disk.settled(Settled { settled, given_up, in_order });
    }

    fn next(&mut self) {
        // Whoever has given up waits for a while: not here.
        self.from_disk.not_before = None;
        let item = self.from_disk.next(Duration::ZERO);
        self.from_disk.not_before = None;
        let item = item.or_else(|| self.from_disk.next(Duration::ZERO));
        if let Some(Item::Records(records)) = item {
            self.held.extend(records.iter().cloned());
            self.publish(amount(&records));
        }
    }

    fn settle(&mut self, n: usize, what: impl Fn(&mut Receipt) -> &mut Amount) -> Vec<u128> {
        let settled: Vec<_> = self.held.drain(..n.min(self.held.len())).collect();
        for record in &settled {
            *what(&mut self.receipt) += Amount::of(record);
        }
        self.publish(Amount::default());
        settled.iter().map(|record| record.id.0).collect()
    }

    fn check(&self) {
        let book = lock(&self.state.books).book();
        assert!(book.balances(), "{book:?}");
        assert_eq!(book.spooled, self.buffer.lock().spool.spooled());
    }
}

proptest! {
    #[test]
    fn what_was_stored_is_delivered_or_in_the_book(steps in prop::collection::vec(step(), 1..120)) {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::open(folder.path());
        let (mut stored, mut delivered, mut refused) = (0_u128, BTreeSet::new(), BTreeSet::new());
        let restart = |run: &mut Run| {
            let left = lock(&run.state.books).book().spooled;
            // The folder is locked as long as the old one is there.
            let elsewhere = tempfile::tempdir().unwrap();
            *run = Run::open(elsewhere.path());
            *run = Run::open(folder.path());
            assert_eq!(lock(&run.state.books).book().recovered, left);
        };
        for step in steps {
            match step {
                Step::Store(n) => {
                    let batch = batch(stored..stored + u128::from(n));
                    lock(&run.state.books).handed += amount(&batch);
                    run.to_disk.store(&batch);
                    stored += u128::from(n);
                }
                Step::Next => run.next(),
                Step::Deliver(n) => delivered.extend(run.settle(n, |receipt| &mut receipt.delivered)),
                Step::Refuse(n) => {
                    refused.extend(run.settle(n, |receipt| receipt.dropped.entry("refused").or_default()));
                }
                Step::GiveUp => {
                    let all = run.held.len();
                    run.settle(all, |receipt| receipt.dropped.entry("write_failed").or_default());
                }
                Step::Restart => restart(&mut run),
            }
            run.check();
        }
        // In the end all of it is delivered, once at least.
        restart(&mut run);
        let mut turns = 0..1_000;
        while run.buffer.lock().spool.spooled() != Amount::default() {
            prop_assert!(turns.next().is_some(), "it does not come");
            run.next();
            delivered.extend(run.settle(usize::MAX, |receipt| &mut receipt.delivered));
            run.check();
        }
        delivered.extend(refused);
        prop_assert_eq!(delivered.len() as u128, stored);
    }
}

fn batch(numbers: std::ops::Range<u128>) -> Batch {
    let numbered = |n| FlowRecord { id: FlowId(n), ..record(1, FlowEvent::End) };
    Arc::new(numbers.map(numbered).collect())
}

/// A request behind one that is still under way is refused for good, then the other is given up: which of both the refusal
/// was of isn't known once they are read again.
#[test]
fn a_refusal_behind_what_is_given_up_makes_the_book_inexact() {
    for refused in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut run = Run::open(folder.path());
        for n in 0..2 {
            let batch = batch(n..n + 1);
            lock(&run.state.books).handed += amount(&batch);
            run.to_disk.store(&batch);
            run.next();
        }
        let one = Amount::of(&run.held[0]);
        if refused {
            *run.receipt.dropped.entry("refused").or_default() += one;
            run.publish_in_order(Amount::default(), Some(0));
        }
        for _ in 0..2 - usize::from(refused) {
            *run.receipt.dropped.entry("write_failed").or_default() += one;
        }
        run.publish_in_order(Amount::default(), Some(0));
        run.held.clear();
        run.next();
        assert_eq!(run.held.len(), 1, "it comes again");
        run.check();
        let inexact = lock(&run.state.books).book().inexact;
        assert_eq!(inexact.is_empty(), !refused, "{inexact:?}");
    }
}

/// Of a batch with a record that can't be written the others are; what can't be read is in the book as that.
#[test]
fn what_the_codec_panics_at_is_in_the_book_and_the_others_are_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::open(folder.path());
    let with = |numbers, at: usize, sequence| {
        let mut records = batch(numbers).to_vec();
        records[at].sequence = sequence;
        Arc::new(records)
    };
    for batch in [with(0..10, 3, POISON), with(10..14, 1, UNREADABLE), batch(14..20)] {
        lock(&run.state.books).handed += amount(&batch);
        run.to_disk.store(&batch);
        run.check();
    }
    let mut delivered = Vec::new();
    for _ in 0..20 {
        run.next();
        delivered.extend(run.settle(usize::MAX, |receipt| &mut receipt.delivered));
        run.check();
    }
    assert_eq!(delivered, (0..20).filter(|n| *n != 3 && !(10..14).contains(n)).collect::<Vec<_>>());
    let book = lock(&run.state.books).book();
    let dropped: Vec<_> = book.dropped.iter().map(|(reason, dropped)| (*reason, dropped.records)).collect();
    assert_eq!(dropped, [("buffer_unreadable", 4), ("quarantine", 1)]);
    assert_eq!((book.spooled, book.queued), (Amount::default(), Amount::default()));
}

/// A disk that fails, and a receiver that doesn't settle the first record: memory has a bound.
#[test]
fn no_more_is_taken_from_memory_than_may_be_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::open(folder.path());
    let offer = |run: &Run, records: Batch| {
        lock(&run.state.books).handed += amount(&records);
        run.buffer.lock().offered = Some(records);
    };
    let most = u128::from(from_disk::IN_MEMORY_MAX);
    offer(&run, batch(0..most));
    assert!(!run.from_disk.is_empty());
    run.next();
    assert_eq!(run.held.len() as u128, most);
    offer(&run, batch(most..most + 1));
    assert!(run.from_disk.is_empty(), "nothing that may be taken");
    run.next();
    assert!(run.buffer.lock().offered.is_some());
    run.settle(1 << 20, |receipt| &mut receipt.delivered);
    run.next();
    assert_eq!((run.held.len(), run.buffer.lock().offered.is_some()), (1, false));
}

#[test]
fn trouble_is_said_once_a_minute() {
    let (mut said, start) = (Said::default(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let due = |said: &mut Said, what| (0..150).filter(|second| said.is_due(what, at(*second))).count();
    assert_eq!(due(&mut said, What::Full), 3);
    assert_eq!(due(&mut said, What::Write), 3, "each by itself");
}
