//! A bounded queue of flow records, in batches, with markers and an end: to an enrichment worker, to an output.
//!
//! Counted in records. A mutex and two condition variables: records are two orders of magnitude fewer than packets,
//! and a queue that one can look into is what merging needs. Whoever consumes holds a [`Consumer`]; when that is gone
//! (also by a panic) producers don't wait for it.

use crate::pulse::ChannelPulse;
use crate::snapshot::Marker;
use crate::waits::Waits;
use mermin_flow::FlowRecord;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a consumer takes.
pub(crate) enum Item<B> {
    /// Records of one producer, in its order.
    Records(B),
    /// A snapshot passes, from this producer.
    Marker(usize, Marker),
    /// This producer has ended.
    End,
}

/// A batch of records.
pub(crate) trait Batch {
    fn records(&self) -> &[FlowRecord];
}

impl Batch for Vec<FlowRecord> {
    fn records(&self) -> &[FlowRecord] {
        self
    }
}

impl Batch for Arc<Vec<FlowRecord>> {
    fn records(&self) -> &[FlowRecord] {
        self
    }
}

/// An item, and when it came where somebody wants to know.
type Queued<B> = (Item<B>, Option<Instant>);

struct Inner<B> {
    items: VecDeque<Queued<B>>,
    records: usize,
    high_water: usize,
    waits: u64,
    taken: u64,
    consumer_gone: bool,
    given_up: bool,
}

impl<B> Inner<B> {
    /// Whether waiting for room makes sense.
    const fn may_empty(&self) -> bool {
        !self.consumer_gone && !self.given_up
    }
}

/// See the module's text.
pub(crate) struct RecordQueue<B> {
    inner: Mutex<Inner<B>>,
    capacity: usize,
    filled: Condvar,
    emptied: Condvar,
    /// How long batches were in the queue; only where somebody wants to know.
    waited: Option<Waits>,
}

impl<B: Batch> RecordQueue<B> {
    pub(crate) fn new(capacity: usize, detailed: bool) -> Arc<Self> {
        let inner = Inner {
            items: VecDeque::new(),
            records: 0,
            high_water: 0,
            waits: 0,
            taken: 0,
            consumer_gone: false,
            given_up: false,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            capacity,
            filled: Condvar::new(),
            emptied: Condvar::new(),
            waited: detailed.then(Waits::default),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<B>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a batch of `n` fits. An empty queue takes any batch, however small the capacity.
    fn fits(&self, inner: &Inner<B>, n: usize) -> bool {
        inner.records == 0 || inner.records + n <= self.capacity
    }

    fn put(&self, mut inner: MutexGuard<'_, Inner<B>>, batch: B) {
        inner.records += batch.records().len();
        inner.high_water = inner.high_water.max(inner.records);
        let now = self.waited.as_ref().map(|_| Instant::now());
        inner.items.push_back((Item::Records(batch), now));
        drop(inner);
        self.filled.notify_one();
    }

    /// Waits for room. Gives the batch back when nobody consumes any more, or when there is no room and waiting was
    /// given up.
    pub(crate) fn push(&self, batch: B) -> Result<(), B> {
        let (mut inner, n) = (self.lock(), batch.records().len());
        if !self.fits(&inner, n) && inner.may_empty() {
            inner.waits += 1;
            inner = self
                .emptied
                .wait_while(inner, |inner| !self.fits(inner, n) && inner.may_empty())
                .unwrap_or_else(PoisonError::into_inner);
        }
        if inner.consumer_gone || !self.fits(&inner, n) {
            return Err(batch);
        }
        self.put(inner, batch);
        Ok(())
    }

    /// Gives the batch back when there is no room, or when nobody consumes any more.
    pub(crate) fn try_push(&self, batch: B) -> Result<(), B> {
        let inner = self.lock();
        if inner.consumer_gone || !self.fits(&inner, batch.records().len()) {
            return Err(batch);
        }
        self.put(inner, batch);
        Ok(())
    }

    /// From now on nobody waits for room.
    pub(crate) fn give_up(&self) {
        self.lock().given_up = true;
        self.emptied.notify_all();
    }

    /// Batches that the consumer has taken.
    pub(crate) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Records that fit; a queue that nobody consumes takes (and gives back) any number.
    pub(crate) fn room(&self) -> usize {
        let inner = self.lock();
        if inner.consumer_gone { usize::MAX } else { self.capacity.saturating_sub(inner.records) }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.lock().records >= self.capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    pub(crate) fn mark(&self, producer: usize, marker: Marker) {
        self.lock().items.push_back((Item::Marker(producer, marker), None));
        self.filled.notify_one();
    }

    pub(crate) fn end(&self) {
        self.lock().items.push_back((Item::End, None));
        self.filled.notify_one();
    }

    pub(crate) fn pulse(&self) -> ChannelPulse {
        let wait = self.waited.as_ref().map(Waits::figures);
        let inner = self.lock();
        ChannelPulse {
            drops: 0,
            capacity: self.capacity as u64,
            depth: inner.records as u64,
            high_water: inner.high_water as u64,
            waits: inner.waits,
            wait,
        }
    }
}

/// The consumer's end.
pub(crate) struct Consumer<B: Batch>(pub(crate) Arc<RecordQueue<B>>);

impl<B: Batch> Consumer<B> {
    /// Waits for the next item; `None` after `at_most` without one.
    pub(crate) fn next(&self, at_most: Duration) -> Option<Item<B>> {
        let queue = &self.0;
        let (mut inner, _) = queue
            .filled
            .wait_timeout_while(queue.lock(), at_most, |inner| inner.items.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let (item, since) = inner.items.pop_front()?;
        if let Item::Records(batch) = &item {
            inner.records -= batch.records().len();
            inner.taken += 1;
            drop(inner);
            queue.emptied.notify_all();
            if let (Some(waits), Some(since)) = (&queue.waited, since) {
                waits.until_now(since);
            }
        }
        Some(item)
    }
}

impl<B: Batch> Drop for Consumer<B> {
    fn drop(&mut self) {
        self.0.lock().consumer_gone = true;
        self.0.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Collector;
    use crossbeam_channel::{Receiver, bounded};
    use mermin_flow::{
        CommunityId, Counts, Direction, End, Enrichment, FlowEvent, FlowId, Identity, Initiator, Tally,
        TcpState,
    };
    use std::thread;

    type Queue = RecordQueue<Vec<FlowRecord>>;

    /// A queue that never comes to an end fails the test instead of holding it up.
    const LONG: Duration = Duration::from_secs(10);

    fn batch(n: usize) -> Vec<FlowRecord> {
        let counts = Counts::default();
        let side =
            Direction { delta: counts, total: counts, tcp_flags: None, ttl: None, traffic_class: None };
        let end =
            End { address: [192, 0, 2, 1].into(), port: None, mac: None, identity: Identity::default() };
        let record = FlowRecord {
            id: FlowId(1),
            sequence: 0,
            community_id: CommunityId([0; 20]),
            event: FlowEvent::Start,
            end_reason: None,
            start_time: 0,
            end_time: 0,
            counts_from: 0,
            protocol: 1,
            source: end.clone(),
            destination: end,
            initiator: Initiator::FirstSeen,
            enrichment: Enrichment::default(),
            icmp: None,
            forward: side,
            reverse: side,
            tcp_state: TcpState::Unknown,
            vlan: None,
            inner_vlan: None,
            point: 0,
            shard: 0,
            tally: Tally::ZERO,
        };
        vec![record; n]
    }

    fn full(capacity: usize) -> (Arc<Queue>, Consumer<Vec<FlowRecord>>) {
        let queue = Queue::new(capacity, false);
        assert!(queue.push(batch(capacity)).is_ok());
        (Arc::clone(&queue), Consumer(queue))
    }

    /// Pushes from another thread, and comes back when that waits for room.
    fn pushing(queue: &Arc<Queue>, n: usize) -> Receiver<Result<(), usize>> {
        let (done, outcome) = bounded(1);
        let pusher = Arc::clone(queue);
        thread::spawn(move || done.send(pusher.push(batch(n)).map_err(|back| back.len())));
        while queue.pulse().waits == 0 {
            assert!(outcome.try_recv().is_err(), "it did not wait");
            thread::yield_now();
        }
        outcome
    }

    fn taken(consumer: &Consumer<Vec<FlowRecord>>) -> Option<usize> {
        match consumer.next(Duration::ZERO) {
            Some(Item::Records(batch)) => Some(batch.len()),
            Some(Item::Marker(..) | Item::End) | None => None,
        }
    }

    #[test]
    fn room_is_counted_in_records_and_an_empty_queue_takes_any_batch() {
        let queue = Queue::new(10, false);
        let consumer = Consumer(Arc::clone(&queue));
        for (n, fits, depth) in [(2, true, 2), (9, false, 2), (8, true, 10), (1, false, 10)] {
            assert_eq!(
                queue.try_push(batch(n)).map_err(|back| back.len()),
                if fits { Ok(()) } else { Err(n) }
            );
            assert_eq!(queue.pulse().depth, depth, "{n}");
            assert_eq!(queue.is_full(), depth == 10, "{n}");
        }
        assert_eq!([taken(&consumer), taken(&consumer), taken(&consumer)], [Some(2), Some(8), None]);
        assert!(queue.try_push(batch(25)).is_ok());
        assert!(queue.try_push(batch(1)).is_err());
        assert_eq!(taken(&consumer), Some(25));
        assert!(queue.push(batch(11)).is_ok());
        let figures = queue.pulse();
        assert_eq!((figures.capacity, figures.depth, figures.high_water, figures.waits), (10, 11, 25, 0));
        assert!(queue.is_full());
    }

    #[test]
    fn records_markers_and_ends_come_in_order_and_only_batches_are_counted_as_taken() {
        let queue = Queue::new(10, false);
        let consumer = Consumer(Arc::clone(&queue));
        let marker = Collector::new(1);
        assert!(queue.is_empty() && !queue.is_full());
        assert!(queue.push(batch(3)).is_ok());
        queue.mark(7, Arc::clone(&marker));
        assert!(queue.push(batch(1)).is_ok());
        queue.end();
        assert!(!queue.is_empty());
        assert_eq!(taken(&consumer), Some(3));
        let Some(Item::Marker(7, passed)) = consumer.next(Duration::ZERO) else { panic!("the marker") };
        assert!(Arc::ptr_eq(&passed, &marker));
        assert_eq!((queue.taken(), queue.pulse().depth), (1, 1));
        assert_eq!(taken(&consumer), Some(1));
        assert!(matches!(consumer.next(Duration::ZERO), Some(Item::End)));
        assert!(consumer.next(Duration::ZERO).is_none() && queue.is_empty());
        assert_eq!((queue.taken(), queue.pulse().depth), (2, 0));
    }

    #[test]
    fn whoever_waits_for_room_goes_on_when_there_is_some() {
        let (queue, consumer) = full(4);
        let outcome = pushing(&queue, 2);
        assert_eq!(taken(&consumer), Some(4));
        assert_eq!(outcome.recv_timeout(LONG), Ok(Ok(())));
        assert_eq!((taken(&consumer), queue.pulse().waits), (Some(2), 1));
    }

    #[test]
    fn a_consumer_that_waits_hears_of_what_comes() {
        let queue = Queue::new(4, false);
        let (done, outcome) = bounded(1);
        let consumer = Consumer(Arc::clone(&queue));
        thread::spawn(move || {
            let heard = [(); 3].map(|()| consumer.next(LONG * 6).is_some());
            done.send(heard)
        });
        assert!(queue.push(batch(1)).is_ok());
        queue.mark(0, Collector::new(1));
        queue.end();
        assert_eq!(outcome.recv_timeout(LONG), Ok([true; 3]));
    }

    #[test]
    fn nobody_waits_for_a_consumer_that_is_gone() {
        let (queue, consumer) = full(4);
        let outcome = pushing(&queue, 2);
        drop(consumer);
        assert_eq!(outcome.recv_timeout(LONG), Ok(Err(2)));
        let queue = Queue::new(4, false);
        drop(Consumer(Arc::clone(&queue)));
        assert!(queue.push(batch(1)).is_err() && queue.try_push(batch(1)).is_err(), "though there is room");
        assert!(queue.is_empty());
    }

    #[test]
    fn after_giving_up_nobody_waits_but_what_has_room_still_passes() {
        let (queue, consumer) = full(4);
        let outcome = pushing(&queue, 2);
        queue.give_up();
        assert_eq!(outcome.recv_timeout(LONG), Ok(Err(2)));
        let (done, outcome) = bounded(1);
        let pusher = Arc::clone(&queue);
        thread::spawn(move || done.send(pusher.push(batch(3)).map_err(|back| back.len())));
        assert_eq!(outcome.recv_timeout(LONG), Ok(Err(3)));
        assert_eq!((taken(&consumer), queue.pulse().waits), (Some(4), 1));
        assert!(queue.push(batch(3)).is_ok());
        assert_eq!(taken(&consumer), Some(3));
    }
}
