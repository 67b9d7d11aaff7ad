//! What the programs have summed up in epochs that have ended, on its way to the sink, and when the next one ends.

use super::book::Book;
use super::mapped::Pressure;
use super::options::Aggregation;
use super::pace::Pace;
use super::slots::tally;
use super::ticks::Ticks;
use mermin_abi::Event;
use mermin_flow::Tally;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the programs have summed up in closed epochs, on its way to the sink.
pub(super) struct Summed {
    pub(super) epochs: VecDeque<ClosedEpoch>,
    pub(super) ticks: Ticks,
    /// Packets of the live epoch were not seen before this time since boot.
    live_began: u64,
    /// When the last book came.
    drained: Instant,
    pub(super) pace: Pace,
    /// Least and greatest.
    intervals: [Duration; 2],
    pressure: Pressure,
    /// What the sums that are not handed on count.
    pub(super) waiting: Tally,
    /// Flows in the hash that make a drain due after the least interval.
    many: u64,
}

pub(super) struct ClosedEpoch {
    /// Its events lie in the ring before this position, and go first.
    pub(super) up_to: u64,
    /// No packet of it was seen before this time since boot.
    began: u64,
    pub(super) deltas: std::vec::IntoIter<Event>,
}

impl Summed {
    pub(super) fn new(
        ticks: Ticks,
        began: u64,
        pressure: Pressure,
        pace: Pace,
        aggregation: &Aggregation,
    ) -> Self {
        let most = aggregation.drain_max;
        Self {
            epochs: VecDeque::new(),
            ticks,
            live_began: began,
            drained: Instant::now(),
            pace,
            intervals: [aggregation.drain_min.min(most), most],
            pressure,
            waiting: Tally::ZERO,
            many: u64::from(aggregation.hash_flows / 4),
        }
    }

    /// `order`: of the observation point of a delta ([`mermin_flow::ObservationPoints::order`]).
    pub(super) fn take(&mut self, book: &mut Book, mut order: impl FnMut(&Event) -> u8) {
        if let Some(ticks) = book.ticks {
            self.ticks = ticks;
        }
        // Who was seen first began the flow, where nothing else tells. Where the time is a tick's, a packet's whole way is of one.
        let mut deltas = std::mem::take(&mut book.deltas);
        self.waiting += deltas.iter().map(tally).sum();
        deltas.sort_by_cached_key(|delta| (self.ticks.first(delta.first), order(delta)));
        let deltas = deltas.into_iter();
        self.epochs.push_back(ClosedEpoch { up_to: book.up_to, began: self.live_began, deltas });
        self.live_began = book.next_began;
        self.drained = Instant::now();
    }

    /// How long nothing is due.
    pub(super) fn until_due(&self) -> Duration {
        let [least, most] = self.intervals;
        let since = self.drained.elapsed();
        if since < least { least - since } else { most.saturating_sub(since).min(least) }
    }

    pub(super) fn is_due(&self) -> bool {
        let ([least, most], since) = (self.intervals, self.drained.elapsed());
        self.epochs.is_empty()
            && (since >= most || since >= least && self.pressure.flows_in_hash() > self.many)
    }

    /// No epoch could be ended: the next attempt waits its time.
    pub(super) fn put_off(&mut self) {
        self.drained = Instant::now();
    }

    /// No packet that is still to come was seen before this time since boot.
    pub(super) fn floor(&self) -> u64 {
        self.epochs.front().map_or(self.live_began, |epoch| epoch.began)
    }
}
