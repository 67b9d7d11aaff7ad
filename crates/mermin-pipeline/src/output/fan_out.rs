//! From the stages to every output: one batch, shared. Outputs come and go while batches do.
//!
//! Whoever hands a batch over takes the set of outputs as it is at that moment, and that batch goes to those, all of them and
//! no other. A change puts another set in its place (`change.rs`).

use super::book::amount;
use super::change::Changes;
use super::{Output, OutputFailure, TOO_LATE, Treatment};
use crate::lock::lock;
use crate::pulse::OutputPulse;
use crate::snapshot::{Arrivals, Marker, OutputBook};
use crate::threads::Threads;
use mermin_flow::{Amount, FlowRecord};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// An output that stands full is waited for this part of the time that records may be held.
const PARTS: u32 = 4;

/// Outputs as they are between two changes.
type Set = Arc<[Arc<Output>]>;

/// Hands records to every output.
pub(crate) struct FanOut {
    /// Behind a lock that is held for as long as a reference is copied.
    set: RwLock<Set>,
    /// Held while the set is changed, and while books of what was changed are read.
    pub(super) changes: Mutex<Changes>,
    /// Whether a full output is waited for.
    waits: AtomicBool,
    /// Threads that hand records over.
    producers: usize,
    arrivals: Mutex<Arrivals>,
    /// Records that were promised room and have not been released yet.
    promised: Mutex<usize>,
    pub(super) threads: Arc<Threads>,
}

impl FanOut {
    /// Without outputs. `producers` is how many threads hand records over.
    pub(crate) fn new(producers: usize, treatment: Treatment, threads: Arc<Threads>) -> Self {
        let waits = AtomicBool::new(treatment.waits);
        Self {
            set: RwLock::new(Arc::new([])),
            changes: Mutex::new(Changes::none_yet(treatment)),
            waits,
            producers,
            arrivals: Mutex::default(),
            promised: Mutex::default(),
            threads,
        }
    }

    /// Those that there are at this moment.
    pub(super) fn outputs(&self) -> Set {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on there are these.
    pub(super) fn set_outputs(&self, set: Vec<Arc<Output>>) {
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = set.into();
    }

    /// From now on every output is waited for, and none comes or goes: the end has begun, and what is left is to be delivered.
    pub(crate) fn wait_from_now(&self) {
        let mut changes = lock(&self.changes);
        if !std::mem::replace(&mut changes.over, true) {
            self.waits.store(true, Ordering::Release);
            self.outputs().iter().for_each(|output| output.wait_from_now());
        }
    }

    /// How much each output has taken from its queue, of those that have more to take.
    pub(crate) fn waiting(&self) -> Vec<Option<u64>> {
        self.outputs().iter().map(|output| output.queue.waiting()).collect()
    }

    /// From now on outputs that had records to take at both looks and have taken none in between are not waited for: a
    /// stuck one must not keep the others from getting theirs. When the end has begun, so that both speak of the same.
    pub(crate) fn give_up_stuck(&self, before: &[Option<u64>], now: &[Option<u64>]) {
        for (output, (before, now)) in self.outputs().iter().zip(before.iter().zip(now)) {
            if before.is_some() && before == now {
                output.queue.give_up();
            }
        }
    }

    /// What outputs have on disk may stay there from now on; with `only_if_let_be` that of outputs that are let be.
    pub(crate) fn leave(&self, only_if_let_be: bool) {
        self.outputs().iter().for_each(|output| output.leave(only_if_let_be));
    }

    /// How many of `n` records every output has room for, besides those promised before. The promise stands until
    /// they are released and it is taken back by [`Self::keep_promise`]. Outputs that are waited for take any number. One
    /// that was full a part of `patience` ago, and has not worked off half of what waits for it since, doesn't count until
    /// it has: the others get their records.
    pub(crate) fn promise(&self, n: usize, patience: Duration) -> usize {
        if n == 0 {
            return 0;
        }
        let mut promised = lock(&self.promised);
        let n = if self.waits.load(Ordering::Acquire) {
            n
        } else {
            let at_most = patience / PARTS;
            let room = self.outputs().iter().map(|output| output.queue.room(at_most)).min();
            let room = room.unwrap_or(usize::MAX);
            n.min(room.saturating_sub(*promised))
        };
        *promised += n;
        n
    }

    /// `n` records that were promised room have been released.
    pub(crate) fn keep_promise(&self, n: usize) {
        if n > 0 {
            *lock(&self.promised) -= n;
        }
    }

    pub(crate) fn release(&self, records: Vec<FlowRecord>) {
        let (carried, wait) = (amount(&records), self.waits.load(Ordering::Acquire));
        let batch = Arc::new(records);
        for output in &*self.outputs() {
            output.hand(&batch, carried, wait);
        }
    }

    /// A producer has handed over everything ahead of `marker`. With the last one the outputs' books are read where
    /// they are: a receiver that is slow to answer must not hold up a snapshot.
    pub(crate) fn mark(&self, marker: &Marker) {
        if lock(&self.arrivals).is_last(marker, self.producers) {
            marker.add(|parts| parts.outputs = self.books());
        }
    }

    /// Names and books: of outputs that there are, and behind them of those that there were. All that had a name one after
    /// the other have one book.
    pub(crate) fn books(&self) -> Vec<(String, OutputBook)> {
        let changes = lock(&self.changes);
        let mut books = Vec::<(String, OutputBook)>::new();
        let mut add = |name: &str, more: &OutputBook| match books.iter_mut().find(|(one, _)| one == name) {
            Some((_, book)) => *book += more,
            None => books.push((name.to_owned(), more.clone())),
        };
        let outputs = self.outputs();
        for output in outputs.iter().chain(changes.leaving.iter().map(|leaving| &leaving.output)) {
            add(&output.name, &output.own_book());
        }
        changes.past.books().for_each(|(name, book)| add(name, book));
        books
    }

    /// How the outputs do that there are, and panics of those that there were.
    pub(crate) fn pulses(&self) -> (Vec<OutputPulse>, u64) {
        let books = self.books();
        let changes = lock(&self.changes);
        let leaving = || changes.leaving.iter().map(|leaving| &leaving.output);
        let pulse = |output: &Arc<Output>| {
            let own = OutputBook::default();
            let book = books.iter().find(|(name, _)| *name == output.name).map_or(&own, |(_, book)| book);
            let before = leaving().filter(|one| one.name == output.name).map(|one| one.opened()).sum::<u64>();
            let pulse = output.pulse(book);
            OutputPulse { opened: pulse.opened + before + changes.past.opened(&output.name), ..pulse }
        };
        let panics = changes.past.panics() + leaving().map(|one| one.panics()).sum::<u64>();
        (self.outputs().iter().map(pulse).collect(), panics)
    }

    /// The first failure of each output that had one. What became of outputs that have gone is no matter of the end: the log
    /// has said it, and their books do.
    pub(crate) fn failures(&self) -> Vec<OutputFailure> {
        self.outputs().iter().filter_map(|output| output.failure()).collect()
    }

    /// Whether an output that there is has records that it did not deliver in time, when all is over.
    pub(crate) fn is_late(&self) -> bool {
        let is_late = |output: &Arc<Output>| {
            let book = output.own_book();
            book.queued != Amount::default() || book.dropped.contains_key(TOO_LATE)
        };
        self.outputs().iter().any(is_late)
    }

    /// Time is up: exporters of outputs that there are give up waiting for a receiver. Whether there are such.
    pub(crate) fn interrupt(&self) -> bool {
        self.outputs().iter().map(|output| output.interrupt()).fold(false, |any, one| any | one)
    }

    /// A producer has handed over all it will. With the last one outputs hear of the end.
    pub(crate) fn end(&self) {
        let mut changes = lock(&self.changes);
        changes.ended += 1;
        if changes.ended == self.producers {
            self.outputs().iter().for_each(|output| output.queue.end());
        }
    }

    /// Whether there are outputs with readers and all of them have lost their reader.
    pub(crate) fn nobody_reads(&self) -> bool {
        let outputs = self.outputs();
        let mut with_readers = outputs.iter().filter(|output| output.has_readers).peekable();
        with_readers.peek().is_some() && with_readers.all(|output| output.is_closed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;
    use mermin_flow::{Exporter, Failure, FlowEvent, Receipt};

    /// Nobody calls it.
    struct Idle;

    impl Exporter for Idle {
        fn name(&self) -> &str {
            "idle"
        }

        fn export(&mut self, _: &[FlowRecord], _: &mut Receipt) -> Result<(), Failure> {
            Ok(())
        }

        fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
            Ok(())
        }
    }

    /// Hands records to these, which have no threads.
    fn of_these(outputs: impl IntoIterator<Item = Output>) -> FanOut {
        let mut fan_out = FanOut::new(1, Treatment::with_room_for(10), Arc::default());
        fan_out.set = RwLock::new(outputs.into_iter().map(Arc::new).collect());
        fan_out
    }

    #[test]
    fn room_is_that_of_the_fullest_output_which_is_not_full_for_long() {
        const LONG: Duration = Duration::from_secs(3_600);
        let of = |capacity| Output::new(Box::new(Idle), None, &Treatment::with_room_for(capacity), None);
        // The threads' work isn't done, but it holds the queues' other ends.
        let ((small, _keep), (large, _this)) = (of(10), of(100));
        let fan_out = of_these([small, large]);
        let records = |n| vec![record(1, FlowEvent::End); n];
        assert_eq!(fan_out.promise(30, LONG), 10);
        assert_eq!(fan_out.promise(1, LONG), 0, "all of that is promised");
        fan_out.release(records(10));
        fan_out.keep_promise(10);
        assert_eq!(fan_out.promise(30, LONG), 0);
        // It has been full for no time at all, which is too long for somebody without patience.
        assert_eq!(fan_out.promise(200, Duration::ZERO), 90);
        fan_out.keep_promise(90);
        fan_out.wait_from_now();
        assert_eq!(fan_out.promise(200, LONG), 200);
    }

    #[test]
    fn given_up_are_those_that_had_records_at_both_looks_and_took_none() {
        let output = || Output::new(Box::new(Idle), None, &Treatment::with_room_for(10), None);
        let ((stuck, _a), (moves, _b), (gets, _c)) = (output(), output(), output());
        let batch = || Arc::new(vec![record(1, FlowEvent::End); 10]);
        let consumer = super::super::queue::Consumer(Arc::clone(&moves.queue));
        for output in [&stuck, &moves] {
            output.queue.push(batch()).unwrap();
        }
        let fan_out = of_these([stuck, moves, gets]);
        let before = fan_out.waiting();
        assert_eq!(before, [Some(0), Some(0), None]);
        assert!(consumer.next(Duration::ZERO).is_some());
        for output in &fan_out.outputs()[1..] {
            output.queue.push(batch()).unwrap();
        }
        let now = fan_out.waiting();
        assert_eq!(now, [Some(0), Some(1), Some(0)]);
        fan_out.give_up_stuck(&before, &now);
        assert!(fan_out.outputs()[0].queue.push(batch()).is_err(), "it is not waited for");
        for output in &fan_out.outputs()[1..] {
            assert!(!output.queue.is_given_up());
        }
    }
}
