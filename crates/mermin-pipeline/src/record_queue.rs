//! A bounded queue of flow records, in batches, with markers and an end: to an enrichment worker, to an output.
//!
//! Counted in records. A mutex and two condition variables: records are two orders of magnitude fewer than packets,
//! and a queue that one can look into is what merging needs. Whoever consumes holds a [`Consumer`]; when that is gone
//! (also by a panic) producers don't wait for it.

use crate::snapshot::Marker;
use mermin_flow::FlowRecord;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

struct Inner<B> {
    items: VecDeque<Item<B>>,
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
}

/// Depth, high-water mark and waits of a queue, in records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueFigures {
    pub(crate) capacity: usize,
    pub(crate) depth: usize,
    pub(crate) high_water: usize,
    pub(crate) waits: u64,
}

impl<B: Batch> RecordQueue<B> {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        let inner = Inner {
            items: VecDeque::new(),
            records: 0,
            high_water: 0,
            waits: 0,
            taken: 0,
            consumer_gone: false,
            given_up: false,
        };
        Arc::new(Self { inner: Mutex::new(inner), capacity, filled: Condvar::new(), emptied: Condvar::new() })
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
        inner.items.push_back(Item::Records(batch));
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

    pub(crate) fn is_full(&self) -> bool {
        self.lock().records >= self.capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    pub(crate) fn mark(&self, producer: usize, marker: Marker) {
        self.lock().items.push_back(Item::Marker(producer, marker));
        self.filled.notify_one();
    }

    pub(crate) fn end(&self) {
        self.lock().items.push_back(Item::End);
        self.filled.notify_one();
    }

    pub(crate) fn figures(&self) -> QueueFigures {
        let inner = self.lock();
        QueueFigures {
            capacity: self.capacity,
            depth: inner.records,
            high_water: inner.high_water,
            waits: inner.waits,
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
        let item = inner.items.pop_front()?;
        if let Item::Records(batch) = &item {
            inner.records -= batch.records().len();
            inner.taken += 1;
            drop(inner);
            queue.emptied.notify_all();
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
