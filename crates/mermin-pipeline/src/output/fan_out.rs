//! From the stages to every output: one batch, shared.

use super::book::{amount, lock};
use super::{Output, Treatment};
use crate::snapshot::{Arrivals, Marker, OutputBook};
use mermin_flow::FlowRecord;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// An output that stands full is waited for this part of the time that records may be held.
const PARTS: u32 = 4;

/// Hands records to every output.
pub(crate) struct FanOut {
    pub(crate) outputs: Vec<Output>,
    /// Whether a full output is waited for.
    waits: Arc<AtomicBool>,
    /// How all outputs are treated.
    treatment: Mutex<Treatment>,
    /// Threads that hand records over.
    producers: usize,
    arrivals: Mutex<Arrivals>,
    /// Records that were promised room and have not been released yet.
    promised: Mutex<usize>,
}

impl FanOut {
    /// `producers` is how many threads hand records over.
    pub(crate) fn new(outputs: Vec<Output>, producers: usize, treatment: Treatment) -> Self {
        Self {
            outputs,
            waits: Arc::clone(&treatment.waits),
            treatment: Mutex::new(treatment),
            producers,
            arrivals: Mutex::default(),
            promised: Mutex::default(),
        }
    }

    /// From now on all outputs are treated as `change` leaves it.
    pub(crate) fn treat(&self, change: impl FnOnce(&mut Treatment)) {
        let mut treatment = lock(&self.treatment);
        change(&mut treatment);
        self.outputs.iter().for_each(|output| output.treat(&treatment));
    }

    /// From now on every output is waited for: the end has begun, and what is left is to be delivered.
    pub(crate) fn wait_from_now(&self) {
        self.waits.store(true, Ordering::Release);
    }

    /// How much each output has taken from its queue, of those that have more to take.
    pub(crate) fn waiting(&self) -> Vec<Option<u64>> {
        self.outputs.iter().map(|output| output.queue.waiting()).collect()
    }

    /// From now on outputs that had records to take at both looks and have taken none in between are not waited for: a
    /// stuck one must not keep the others from getting theirs.
    pub(crate) fn give_up_stuck(&self, before: &[Option<u64>], now: &[Option<u64>]) {
        for (output, (before, now)) in self.outputs.iter().zip(before.iter().zip(now)) {
            if before.is_some() && before == now {
                output.queue.give_up();
            }
        }
    }

    /// Looks for outputs that don't answer; to be called several times a second.
    pub(crate) fn look(&self) {
        let now = Instant::now();
        self.outputs.iter().for_each(|output| output.look(now));
    }

    /// What outputs have on disk may stay there from now on; with `only_if_let_be` that of outputs that are let be.
    pub(crate) fn leave(&self, only_if_let_be: bool) {
        self.outputs.iter().for_each(|output| output.leave(only_if_let_be));
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
            let room = self.outputs.iter().map(|output| output.queue.room(at_most)).min();
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
        for output in &self.outputs {
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

    /// The outputs' names and books.
    pub(crate) fn books(&self) -> Vec<(String, OutputBook)> {
        self.outputs.iter().map(|output| (output.name.clone(), output.book())).collect()
    }

    /// Time is up: exporters that wait for a receiver give up. Whether there are such.
    pub(crate) fn interrupt(&self) -> bool {
        self.outputs.iter().map(Output::interrupt).fold(false, |any, one| any | one)
    }

    pub(crate) fn end(&self) {
        for output in &self.outputs {
            output.queue.end();
        }
    }

    /// Whether there are outputs with readers and all of them have lost their reader.
    pub(crate) fn nobody_reads(&self) -> bool {
        let mut with_readers = self.outputs.iter().filter(|output| output.has_readers).peekable();
        with_readers.peek().is_some() && with_readers.all(Output::is_closed)
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

    #[test]
    fn room_is_that_of_the_fullest_output_which_is_not_full_for_long() {
        const LONG: Duration = Duration::from_secs(3_600);
        let of = |capacity| Output::new(Box::new(Idle), None, &Treatment::with_room_for(capacity), 1);
        // The threads' work isn't done, but it holds the queues' other ends.
        let ((small, _keep), (large, _this)) = (of(10), of(100));
        let fan_out = FanOut::new(vec![small, large], 1, Treatment::with_room_for(10));
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
        let output = || Output::new(Box::new(Idle), None, &Treatment::with_room_for(10), 1);
        let ((stuck, _a), (moves, _b), (gets, _c)) = (output(), output(), output());
        let batch = || Arc::new(vec![record(1, FlowEvent::End); 10]);
        let consumer = super::super::queue::Consumer(Arc::clone(&moves.queue));
        for output in [&stuck, &moves] {
            output.queue.push(batch()).unwrap();
        }
        let fan_out = FanOut::new(vec![stuck, moves, gets], 1, Treatment::with_room_for(10));
        let before = fan_out.waiting();
        assert_eq!(before, [Some(0), Some(0), None]);
        assert!(consumer.next(Duration::ZERO).is_some());
        for output in &fan_out.outputs[1..] {
            output.queue.push(batch()).unwrap();
        }
        let now = fan_out.waiting();
        assert_eq!(now, [Some(0), Some(1), Some(0)]);
        fan_out.give_up_stuck(&before, &now);
        assert!(fan_out.outputs[0].queue.push(batch()).is_err(), "it is not waited for");
        for output in &fan_out.outputs[1..] {
            assert!(!output.queue.is_given_up());
        }
    }
}
