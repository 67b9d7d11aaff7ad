//! Where an output's thread takes records from: its queue, or the disk behind it.

use super::queue::{Consumer, Item};
use mermin_flow::Lease;
use std::collections::VecDeque;
use std::time::Duration;

/// What an exporter has said of all records that it was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    /// Settled, whatever became of them.
    pub(super) settled: u64,
    /// Of those, given up for reasons that may pass.
    pub(super) given_up: u64,
    /// See [`mermin_flow::Exporter::settled_in_order`].
    pub(super) in_order: Option<u64>,
}

/// See the module's text.
pub(super) trait Intake {
    /// Whether records that the exporter gives up for a passing reason are given to it again.
    const KEEPS: bool;

    /// Waits for the next item; `None` after `at_most` without one.
    fn next(&mut self, at_most: Duration) -> Option<Item>;

    /// Whether there is nothing to take.
    fn is_empty(&self) -> bool;

    /// The exporter was called.
    fn settled(&mut self, settled: Settled);

    /// It was called for the last time.
    fn ended(&mut self);
}

/// The queue. Records that a journal has are kept from being settled there until the exporter has settled them.
pub(super) struct FromQueue {
    consumer: Consumer,
    /// Records taken so far.
    taken: u64,
    /// How many had been taken with the last of a lease.
    under_way: VecDeque<(u64, Lease)>,
}

impl FromQueue {
    pub(super) const fn new(consumer: Consumer) -> Self {
        Self { consumer, taken: 0, under_way: VecDeque::new() }
    }
}

impl Intake for FromQueue {
    const KEEPS: bool = false;

    fn next(&mut self, at_most: Duration) -> Option<Item> {
        let item = self.consumer.next(at_most);
        if let Some(Item::Records(batch)) = &item {
            for record in &**batch {
                self.taken += 1;
                if record.lease.is_none() {
                    continue;
                }
                match self.under_way.back_mut() {
                    Some((last, lease)) if lease.is_of(&record.lease) => *last = self.taken,
                    _ => self.under_way.push_back((self.taken, record.lease.clone())),
                }
            }
        }
        item
    }

    fn is_empty(&self) -> bool {
        self.consumer.0.is_empty()
    }

    fn settled(&mut self, settled: Settled) {
        let in_order = settled.in_order.unwrap_or(settled.settled);
        while self.under_way.pop_front_if(|(last, _)| *last <= in_order).is_some() {}
    }

    fn ended(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::super::queue::{OutputQueue, QueueCounts};
    use super::*;
    use crate::testing::record;
    use mermin_flow::FlowEvent;
    use std::sync::Arc;

    #[test]
    fn a_record_is_not_settled_before_its_exporter_says_so() {
        let queue = OutputQueue::new(QueueCounts::default(), 100, false, Arc::default());
        let mut intake = FromQueue::new(Consumer(Arc::clone(&queue)));
        let leases = [Lease::new(), Lease::new()];
        let of =
            |lease: &Lease| mermin_flow::FlowRecord { lease: lease.clone(), ..record(1, FlowEvent::End) };
        let none = Lease::default();
        let batches = [vec![of(&none), of(&leases[0]), of(&leases[0])], vec![of(&leases[0]), of(&leases[1])]];
        for batch in batches {
            queue.push(Arc::new(batch)).unwrap();
            drop(intake.next(Duration::ZERO));
        }
        let are_settled = || [leases[0].is_last(), leases[1].is_last()];
        let mut says = |settled, in_order| {
            intake.settled(Settled { settled, given_up: 0, in_order });
            are_settled()
        };
        assert_eq!(says(0, None), [false; 2]);
        assert_eq!(says(3, None), [false; 2]);
        assert_eq!(says(5, Some(3)), [false; 2], "a later one was settled first");
        assert_eq!(says(5, Some(4)), [true, false]);
        assert_eq!(says(5, None), [true; 2]);
    }
}
