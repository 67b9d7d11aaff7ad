//! A bounded queue of flow records, in batches, with markers and an end: to an enrichment worker.
//!
//! Counted in records. Behind a mutex: records are two orders of magnitude fewer than packets. Whoever consumes holds a
//! [`Consumer`]; when that is gone (also by a panic) producers don't wait for it. What comes rings the bell of the thread
//! that looks after the queue at the time.

use crate::bell::Bell;
use crate::pulse::ChannelPulse;
use crate::snapshot::Marker;
use crate::waits::Waits;
use mermin_flow::FlowRecord;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a consumer takes.
pub(crate) enum Item {
    /// Records of this producer, in its order.
    Records(usize, Vec<FlowRecord>),
    /// A snapshot passes, from this producer.
    Marker(usize, Marker),
    /// This producer has ended.
    End,
}

/// An item, and when it came where somebody wants to know.
type Queued = (Item, Option<Instant>);

struct Inner {
    items: VecDeque<Queued>,
    records: usize,
    high_water: usize,
    waits: u64,
    consumer_gone: bool,
    /// Of whoever takes what comes.
    bell: Arc<Bell>,
}

/// See the module's text.
pub(crate) struct RecordQueue {
    inner: Mutex<Inner>,
    capacity: usize,
    emptied: Condvar,
    /// How long batches were in the queue; only where somebody wants to know.
    waited: Option<Waits>,
}

impl RecordQueue {
    pub(crate) fn new(capacity: usize, detailed: bool) -> Arc<Self> {
        let inner = Inner {
            items: VecDeque::new(),
            records: 0,
            high_water: 0,
            waits: 0,
            consumer_gone: false,
            bell: Arc::default(),
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            capacity,
            emptied: Condvar::new(),
            waited: detailed.then(Waits::default),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a batch of `n` fits. An empty queue takes any batch, however small the capacity.
    fn fits(&self, inner: &Inner, n: usize) -> bool {
        inner.records == 0 || inner.records + n <= self.capacity
    }

    fn put(&self, mut inner: MutexGuard<'_, Inner>, producer: usize, batch: Vec<FlowRecord>) {
        inner.records += batch.len();
        inner.high_water = inner.high_water.max(inner.records);
        let now = self.waited.as_ref().map(|_| Instant::now());
        Self::add(inner, (Item::Records(producer, batch), now));
    }

    fn add(mut inner: MutexGuard<'_, Inner>, item: Queued) {
        inner.items.push_back(item);
        let bell = Arc::clone(&inner.bell);
        drop(inner);
        bell.ring();
    }

    /// From now on what comes rings this; what has come may have rung another.
    pub(crate) fn rings(&self, bell: &Arc<Bell>) {
        self.lock().bell = Arc::clone(bell);
    }

    /// Waits for room. Gives the batch back when nobody consumes any more.
    pub(crate) fn push(&self, producer: usize, batch: Vec<FlowRecord>) -> Result<(), Vec<FlowRecord>> {
        let (mut inner, n) = (self.lock(), batch.len());
        if !self.fits(&inner, n) && !inner.consumer_gone {
            inner.waits += 1;
            inner = self
                .emptied
                .wait_while(inner, |inner| !self.fits(inner, n) && !inner.consumer_gone)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if inner.consumer_gone {
            return Err(batch);
        }
        self.put(inner, producer, batch);
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.lock().records >= self.capacity
    }

    pub(crate) fn mark(&self, producer: usize, marker: Marker) {
        Self::add(self.lock(), (Item::Marker(producer, marker), None));
    }

    pub(crate) fn end(&self) {
        Self::add(self.lock(), (Item::End, None));
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
pub(crate) struct Consumer(pub(crate) Arc<RecordQueue>);

impl Consumer {
    /// The next item, if there is one.
    pub(crate) fn next(&self) -> Option<Item> {
        let queue = &self.0;
        let mut inner = queue.lock();
        let (item, since) = inner.items.pop_front()?;
        if let Item::Records(_, batch) = &item {
            inner.records -= batch.len();
            drop(inner);
            queue.emptied.notify_all();
            if let (Some(waits), Some(since)) = (&queue.waited, since) {
                waits.until_now(since);
            }
        }
        Some(item)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.0.lock().consumer_gone = true;
        self.0.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Collector;
    use crate::testing::record;
    use crossbeam_channel::{Receiver, bounded};
    use mermin_flow::FlowEvent;
    use std::thread;
    use std::time::Duration;

    /// A queue that never comes to an end fails the test instead of holding it up.
    const LONG: Duration = Duration::from_secs(10);

    fn batch(n: usize) -> Vec<FlowRecord> {
        vec![record(1, FlowEvent::Start); n]
    }

    fn full(capacity: usize) -> (Arc<RecordQueue>, Consumer) {
        let queue = RecordQueue::new(capacity, false);
        assert!(queue.push(0, batch(capacity)).is_ok());
        (Arc::clone(&queue), Consumer(queue))
    }

    /// Pushes from another thread, and comes back when that waits for room.
    fn pushing(queue: &Arc<RecordQueue>, n: usize) -> Receiver<Result<(), usize>> {
        let (done, outcome) = bounded(1);
        let pusher = Arc::clone(queue);
        thread::spawn(move || done.send(pusher.push(0, batch(n)).map_err(|back| back.len())));
        while queue.pulse().waits == 0 {
            assert!(outcome.try_recv().is_err(), "it did not wait");
            thread::yield_now();
        }
        outcome
    }

    fn taken(consumer: &Consumer) -> Option<usize> {
        match consumer.next() {
            Some(Item::Records(_, batch)) => Some(batch.len()),
            Some(Item::Marker(..) | Item::End) | None => None,
        }
    }

    #[test]
    fn room_is_counted_in_records_and_an_empty_queue_takes_any_batch() {
        let queue = RecordQueue::new(10, false);
        let consumer = Consumer(Arc::clone(&queue));
        for (n, depth) in [(2, 2), (8, 10)] {
            assert!(queue.push(0, batch(n)).is_ok());
            assert_eq!((queue.pulse().depth, queue.is_full()), (depth, depth == 10), "{n}");
        }
        let outcome = pushing(&queue, 1);
        assert_eq!([taken(&consumer), taken(&consumer)], [Some(2), Some(8)]);
        assert_eq!(outcome.recv_timeout(LONG), Ok(Ok(())));
        assert_eq!([taken(&consumer), taken(&consumer)], [Some(1), None]);
        assert!(queue.push(0, batch(25)).is_ok());
        let figures = queue.pulse();
        assert_eq!((figures.capacity, figures.depth, figures.high_water, figures.waits), (10, 25, 25, 1));
        assert!(queue.is_full());
    }

    #[test]
    fn records_markers_and_ends_come_in_order() {
        let queue = RecordQueue::new(10, false);
        let consumer = Consumer(Arc::clone(&queue));
        let marker = Collector::new(1);
        assert!(!queue.is_full());
        assert!(queue.push(0, batch(3)).is_ok());
        queue.mark(7, Arc::clone(&marker));
        assert!(queue.push(0, batch(1)).is_ok());
        queue.end();
        assert_eq!(taken(&consumer), Some(3));
        let Some(Item::Marker(7, passed)) = consumer.next() else { panic!("the marker") };
        assert!(Arc::ptr_eq(&passed, &marker));
        assert_eq!(queue.pulse().depth, 1);
        assert_eq!(taken(&consumer), Some(1));
        assert!(matches!(consumer.next(), Some(Item::End)));
        assert!(consumer.next().is_none());
        assert_eq!(queue.pulse().depth, 0);
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
    fn what_comes_rings_the_bell_of_the_time() {
        let queue = RecordQueue::new(4, false);
        let bells: [Arc<Bell>; 2] = Default::default();
        let (done, outcome) = bounded(3);
        for bell in &bells {
            queue.rings(bell);
            for put in [
                (|queue| drop(queue.push(0, batch(1)))) as fn(&RecordQueue),
                |queue| queue.mark(0, Collector::new(1)),
                RecordQueue::end,
            ] {
                let (bell, done) = (Arc::clone(bell), done.clone());
                thread::spawn(move || {
                    bell.wait(LONG * 6);
                    done.send(())
                });
                put(&queue);
                assert_eq!(outcome.recv_timeout(LONG), Ok(()));
            }
        }
    }

    #[test]
    fn nobody_waits_for_a_consumer_that_is_gone() {
        let (queue, consumer) = full(4);
        let outcome = pushing(&queue, 2);
        drop(consumer);
        assert_eq!(outcome.recv_timeout(LONG), Ok(Err(2)));
        let queue = RecordQueue::new(4, false);
        drop(Consumer(Arc::clone(&queue)));
        assert!(queue.push(0, batch(1)).is_err(), "though there is room");
        assert_eq!(queue.pulse().depth, 0);
    }
}
