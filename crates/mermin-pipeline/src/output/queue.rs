//! The queue in front of an output, bounded in records.
//!
//! While the output keeps up it is a line of batches that all outputs share. Where it is full and nobody waits for room
//! (live), it becomes a [`Backlog`]: records by importance, merged and, at last, given up so that the bound holds. When
//! that has been worked off the queue is a line of batches again. A producer that waits for room (a replay with
//! backpressure, the end of a run) changes nothing in the order.
//!
//! A capacity that becomes smaller drops nothing by itself: the queue keeps to what it holds, and to less with each record
//! that is taken or comes, until it is there. So a mistake of a zero costs little until it is put right.
//!
//! A mutex and two condition variables: records are two orders of magnitude fewer than packets, and a queue that one can
//! look into is what merging needs. Whoever consumes holds a [`Consumer`]; when that is gone (also by a panic) producers
//! don't wait for it.

use super::Batch;
use super::backlog::{Backlog, Shed};
use super::book::amount;
use crate::priority::{PriorityRule, class_of};
use crate::pulse::ChannelPulse;
use crate::waits::Waits;
use mermin_flow::{Amount, FlowRecord};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Records that the output's thread takes from a backlog at once.
const BATCH: usize = 256;

/// What a consumer takes.
pub(super) enum Item {
    /// Records, in order.
    Records(Batch),
    /// A producer has ended; what it handed over before has been taken.
    End,
}

/// How records wait.
enum Line {
    /// As they came, and when where somebody wants to know.
    Batches(VecDeque<(Batch, Option<Instant>)>),
    /// By importance.
    Backlog(Backlog),
}

struct Inner {
    line: Line,
    records: usize,
    /// Ends that nobody has taken yet.
    ends: usize,
    high_water: usize,
    waits: u64,
    taken: u64,
    /// When somebody who could wait first found no room: until half of it is free.
    full_since: Option<Instant>,
    consumer_gone: bool,
    given_up: bool,
    /// Records that may wait.
    capacity: usize,
    /// To what the backlog is kept: the capacity, or more while it comes down to that.
    bound: usize,
    rules: Arc<[PriorityRule]>,
}

impl Inner {
    /// Whether waiting for room makes sense.
    const fn may_empty(&self) -> bool {
        !self.consumer_gone && !self.given_up
    }

    const fn has_items(&self) -> bool {
        self.records > 0 || self.ends > 0
    }

    /// Whether a batch of `n` fits. An empty queue takes any batch, however small the capacity.
    const fn fits(&self, n: usize) -> bool {
        self.records == 0 || self.records + n <= self.capacity
    }

    /// The bound doesn't stay above what waits.
    fn lower_bound(&mut self) {
        self.bound = self.bound.min(self.records).max(self.capacity);
    }
}

/// What became of a batch for want of room, or what of others had to make room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strained {
    /// Records that became part of others.
    pub(super) merged: u64,
    /// What was given up.
    pub(super) dropped: Amount,
}

/// What a queue has counted of those that waited for room, and of the records' waiting.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueCounts {
    waits: u64,
    waited: Option<Arc<Waits>>,
}

impl QueueCounts {
    /// The greater of both, which share what says how long records waited.
    pub(super) fn raise_to(&mut self, other: Self) {
        self.waits = self.waits.max(other.waits);
        self.waited = other.waited.or(self.waited.take());
    }
}

/// See the module's text.
pub(crate) struct OutputQueue {
    inner: Mutex<Inner>,
    filled: Condvar,
    emptied: Condvar,
    /// How long records were in the queue, of each batch taken the first that came; only where somebody wants to know.
    waited: Option<Arc<Waits>>,
}

impl OutputQueue {
    /// It goes on counting from `so_far`.
    pub(super) fn new(
        so_far: QueueCounts,
        capacity: usize,
        detailed: bool,
        rules: Arc<[PriorityRule]>,
    ) -> Arc<Self> {
        let QueueCounts { waits, waited } = so_far;
        let inner = Inner {
            line: Line::Batches(VecDeque::new()),
            records: 0,
            ends: 0,
            high_water: 0,
            waits,
            taken: 0,
            full_since: None,
            consumer_gone: false,
            given_up: false,
            capacity,
            bound: capacity,
            rules,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            waited: detailed.then(|| waited.unwrap_or_default()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on there is room for so many records, and these rules say which of those that come go first.
    pub(super) fn change(&self, capacity: usize, rules: Arc<[PriorityRule]>) {
        let mut inner = self.lock();
        (inner.capacity, inner.rules) = (capacity, rules);
        inner.lower_bound();
        drop(inner);
        self.emptied.notify_all();
    }

    fn now(&self) -> Option<Instant> {
        self.waited.as_ref().map(|_| Instant::now())
    }

    /// Puts a batch for which there is room.
    fn put(&self, mut inner: MutexGuard<'_, Inner>, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        inner.records += batch.len();
        let now = self.now();
        let Inner { line, rules, .. } = &mut *inner;
        match line {
            Line::Batches(batches) => batches.push_back((batch, now)),
            Line::Backlog(backlog) => sort_in(backlog, rules, batch, now, |_| {}),
        }
        inner.high_water = inner.high_water.max(inner.records);
        drop(inner);
        self.filled.notify_one();
    }

    /// Waits for room. Gives the batch back when nobody consumes any more, or when there is no room and waiting was
    /// given up.
    pub(super) fn push(&self, batch: Batch) -> Result<(), Batch> {
        let (mut inner, n) = (self.lock(), batch.len());
        if !inner.fits(n) && inner.may_empty() {
            inner.waits += 1;
            inner = self
                .emptied
                .wait_while(inner, |inner| !inner.fits(n) && inner.may_empty())
                .unwrap_or_else(PoisonError::into_inner);
        }
        if inner.consumer_gone || !inner.fits(n) {
            return Err(batch);
        }
        self.put(inner, batch);
        Ok(())
    }

    /// Never waits: makes room by merging and, where that doesn't do, by giving up what is least important, of what waits
    /// and of the batch. Gives the batch back when nobody consumes any more.
    pub(super) fn offer(&self, batch: Batch) -> Result<Strained, Batch> {
        let mut inner = self.lock();
        if inner.consumer_gone {
            return Err(batch);
        }
        if inner.fits(batch.len()) {
            self.put(inner, batch);
            return Ok(Strained::default());
        }
        let mut strained = Strained::default();
        let mut keep_to = |bound: usize, backlog: &mut Backlog| {
            while backlog.len() > bound {
                match backlog.shed() {
                    Some(Shed::Merged) => strained.merged += 1,
                    Some(Shed::Dropped(record)) => strained.dropped += Amount::of(&record),
                    None => break,
                }
            }
        };
        let now = self.now();
        let inner = &mut *inner;
        let Inner { line, rules, bound, capacity, .. } = inner;
        if let Line::Batches(batches) = line {
            let batches = std::mem::take(batches);
            let mut backlog = Backlog::default();
            for (batch, since) in batches {
                sort_in(&mut backlog, rules, batch, since, |backlog| keep_to(*bound, backlog));
            }
            *line = Line::Backlog(backlog);
        }
        if let Line::Backlog(backlog) = line {
            sort_in(backlog, rules, batch, now, |backlog| {
                *bound = bound.saturating_sub(1).max(*capacity);
                keep_to(*bound, backlog);
            });
            inner.records = backlog.len();
        }
        inner.high_water = inner.high_water.max(inner.records);
        Ok(strained)
    }

    /// From now on nobody waits for room.
    pub(super) fn give_up(&self) {
        self.lock().given_up = true;
        self.emptied.notify_all();
    }

    #[cfg(test)]
    pub(super) fn is_given_up(&self) -> bool {
        self.lock().given_up
    }

    /// Takes away all that waits. How much that was.
    pub(super) fn clear(&self) -> Amount {
        let mut inner = self.lock();
        let line = std::mem::replace(&mut inner.line, Line::Batches(VecDeque::new()));
        inner.records = 0;
        inner.lower_bound();
        drop(inner);
        self.emptied.notify_all();
        let mut cleared = Amount::default();
        match line {
            Line::Batches(batches) => batches.iter().for_each(|(batch, _)| cleared += amount(batch)),
            Line::Backlog(mut backlog) => cleared += amount(&backlog.take(usize::MAX).0),
        }
        cleared
    }

    /// Batches that the consumer has taken, where there are more to take.
    pub(super) fn waiting(&self) -> Option<u64> {
        let inner = self.lock();
        inner.has_items().then_some(inner.taken)
    }

    /// Records that fit, for whoever can wait for room. A queue that nobody consumes takes (and gives back) any number,
    /// and one that was full so long ago, and has not come down to half since, is not worth waiting for any more.
    pub(super) fn room(&self, at_most: Duration) -> usize {
        self.room_at(Instant::now(), at_most)
    }

    fn room_at(&self, now: Instant, at_most: Duration) -> usize {
        let mut inner = self.lock();
        let room = inner.capacity.saturating_sub(inner.records);
        if room == 0 {
            inner.full_since.get_or_insert(now);
        }
        let too_long = inner.full_since.is_some_and(|since| now.saturating_duration_since(since) >= at_most);
        if inner.consumer_gone || too_long { usize::MAX } else { room }
    }

    /// Whether there is nothing to take.
    pub(super) fn is_empty(&self) -> bool {
        !self.lock().has_items()
    }

    pub(super) fn end(&self) {
        self.lock().ends += 1;
        self.filled.notify_one();
    }

    pub(super) fn counts(&self) -> QueueCounts {
        QueueCounts { waits: self.lock().waits, waited: self.waited.clone() }
    }

    pub(super) fn pulse(&self) -> ChannelPulse {
        let wait = self.waited.as_deref().map(Waits::figures);
        let inner = self.lock();
        ChannelPulse {
            drops: 0,
            capacity: inner.capacity as u64,
            depth: inner.records as u64,
            high_water: inner.high_water as u64,
            waits: inner.waits,
            wait,
        }
    }
}

/// Puts each record of a batch in its place; `after` each of them something may be done.
fn sort_in(
    backlog: &mut Backlog,
    rules: &[PriorityRule],
    batch: Batch,
    since: Option<Instant>,
    mut after: impl FnMut(&mut Backlog),
) {
    let mut put = |record: FlowRecord| {
        let class = class_of(rules, &record);
        backlog.push(record, class, since);
        after(backlog);
    };
    // Other outputs may have the batch as well.
    match Arc::try_unwrap(batch) {
        Ok(records) => records.into_iter().for_each(&mut put),
        Err(batch) => batch.iter().cloned().for_each(&mut put),
    }
}

/// The consumer's end.
pub(super) struct Consumer(pub(super) Arc<OutputQueue>);

impl Consumer {
    /// Waits for the next item; `None` after `at_most` without one.
    pub(super) fn next(&self, at_most: Duration) -> Option<Item> {
        let queue = &self.0;
        let (mut inner, _) = queue
            .filled
            .wait_timeout_while(queue.lock(), at_most, |inner| !inner.has_items())
            .unwrap_or_else(PoisonError::into_inner);
        if inner.records == 0 {
            inner.ends = inner.ends.checked_sub(1)?;
            return Some(Item::End);
        }
        let (batch, since) = match &mut inner.line {
            Line::Batches(batches) => batches.pop_front()?,
            Line::Backlog(backlog) => {
                let (records, since) = backlog.take(BATCH);
                (Arc::new(records), since)
            }
        };
        inner.records -= batch.len();
        inner.taken += 1;
        inner.lower_bound();
        if inner.records <= inner.capacity / 2 {
            inner.full_since = None;
        }
        if inner.records == 0 && matches!(inner.line, Line::Backlog(_)) {
            inner.line = Line::Batches(VecDeque::new());
        }
        drop(inner);
        queue.emptied.notify_all();
        if let (Some(waits), Some(since)) = (&queue.waited, since) {
            waits.until_now(since);
        }
        Some(Item::Records(batch))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.0.lock().consumer_gone = true;
        self.0.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests;
