//! What the closed epochs' books say, and what was handed on from each epoch.

use super::book::Book;
use super::kept::TakenOver;
use crate::filters::{EARLIER_RULES, Filtered, Filtering};
use mermin_flow::{Loss, Sightings, Tally};
use std::collections::BTreeMap;
use std::sync::Arc;

const NANOS_PER_MS: u64 = 1_000_000;

/// What the closed epochs' books say, and what was handed on from each epoch.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) sightings: Sightings,
    filtering: Option<Arc<Filtering>>,
    filtered: Filtered,
    /// By rules of an earlier run that are no more.
    filtered_earlier: Tally,
    ip_length_over_frame: u64,
    unresolved_fragments: u64,
    ethertypes_other: u64,
    out_of_balance: u64,
    /// Epochs whose hash could not be read, or not be emptied.
    hash_failures: u64,
    /// Nanoseconds in which the programs counted nothing.
    uncounted: u64,
    /// What is to be handed on of closed epochs: by the ring, slots and hash.
    due: Tally,
    /// Epochs below are closed.
    live: u32,
    pub(super) handed_closed: Tally,
    /// By parity: at most two epochs are not closed.
    pub(super) handed_live: [Tally; 2],
    /// Of what was handed on, lost by a panic.
    pub(super) quarantined: Tally,
    /// Of what was due, lost with an earlier process.
    crashed: Tally,
    /// Lost in maps of another version.
    unread: Tally,
}

impl Totals {
    pub(super) fn new(filtering: Option<Arc<Filtering>>) -> Self {
        Self { filtering, ..Self::default() }
    }

    /// Whether an event is of an epoch whose book is still open.
    #[inline]
    pub(super) fn is_live(&self, epoch: u32) -> bool {
        epoch.wrapping_sub(self.live) < 1 << 31
    }

    #[inline]
    pub(super) fn handed(&mut self, epoch: u32, tally: Tally) {
        if self.is_live(epoch) {
            self.handed_live[(epoch & 1) as usize] += tally;
        } else {
            self.handed_closed += tally;
        }
    }

    /// What was handed on and is not among what the sink has taken was lost by a panic.
    pub(super) fn after_panic(&mut self, observed: Tally) -> Tally {
        let [even, odd] = self.handed_live;
        let lost = self.handed_closed + even + odd - observed - self.quarantined;
        self.quarantined += lost;
        lost
    }

    /// What earlier processes have left.
    pub(super) fn begin_with(&mut self, over: &TakenOver) {
        let TakenOver { ahead, crashed, unread, held, books, drained, .. } = over;
        drained.iter().for_each(|book| self.close(book));
        if !over.has_our_rules {
            self.filtered_earlier = std::mem::take(&mut self.filtered).tallies().sum();
        }
        books.iter().for_each(|book| self.close(book));
        let Tally { buffers, buffer_bytes, .. } = *ahead;
        let seen = self.sightings.seen - Tally { buffers, buffer_bytes, ..Tally::ZERO };
        self.sightings.seen = seen;
        self.due = self.due - *ahead - *crashed;
        self.crashed = *crashed;
        self.handed_closed += *held;
        // Of maps that can't be read no book tells.
        self.sightings.seen.buffers += unread.buffers;
        self.sightings.seen.buffer_bytes += unread.buffer_bytes;
        self.unread = *unread;
    }

    pub(super) fn close(&mut self, book: &Book) {
        if !book.balances() {
            self.out_of_balance += 1;
            tracing::error!(
                epoch = book.epoch,
                "the kernel programs' counters do not balance: this is a bug"
            );
        }
        self.hash_failures += u64::from(book.hash_failed);
        self.uncounted += book.uncounted;
        self.live = book.epoch.wrapping_add(1);
        self.handed_closed += std::mem::take(&mut self.handed_live[(book.epoch & 1) as usize]);
        self.due += book.metered();
        self.filtered.add_all(book.filtered.tallies());
        self.ip_length_over_frame += book.ip_length_over_frame;
        self.unresolved_fragments += book.unresolved_fragments;
        self.ethertypes_other += book.ethertypes_other;
        let sightings = &mut self.sightings;
        sightings.seen += book.seen;
        for (reason, tally) in [(Loss::RingFull, book.ring_full), (Loss::KernelTableFull, book.table_full)] {
            *sightings.lost.entry(reason).or_default() += tally;
        }
        for (sum, tally) in sightings.unmetered.iter_mut().zip(book.unmetered) {
            *sum += tally;
        }
        for (&ethertype, packets) in &book.ethertypes {
            *sightings.ethertypes.entry(ethertype).or_default() += packets;
        }
    }

    /// By rule.
    fn filtered(&self) -> BTreeMap<Arc<str>, Tally> {
        let mut book =
            self.filtering.as_ref().map(|filtering| filtering.book(&self.filtered)).unwrap_or_default();
        if self.filtered_earlier != Tally::ZERO {
            book.insert(EARLIER_RULES.into(), self.filtered_earlier);
        }
        book
    }

    /// Packets that the programs gave a verdict but to meter them.
    pub(super) fn rejected(&self) -> u64 {
        let unmetered = self.sightings.unmetered.iter().copied();
        unmetered.chain(self.filtered.tallies()).map(|tally| tally.packets).sum()
    }

    /// Cumulative counts up to the last closed epoch, and of the epochs since then what was handed on: that much was
    /// certainly seen. `sums`: of what is due, what the programs have summed up.
    pub(super) fn sightings(&self, sums: Tally) -> Sightings {
        let mut sightings = self.sightings.clone();
        for handed in self.handed_live {
            sightings.seen.buffers += handed.buffers;
            sightings.seen.buffer_bytes += handed.buffer_bytes;
        }
        sightings.in_ring = self.due - self.handed_closed - sums;
        sightings.in_kernel_table = sums;
        sightings.filtered = self.filtered();
        if self.quarantined != Tally::ZERO {
            sightings.lost.insert(Loss::WorkerQuarantine, self.quarantined);
        }
        for (reason, lost) in [(Loss::Crash, self.crashed), (Loss::AbiChange, self.unread)] {
            if lost != Tally::ZERO {
                sightings.lost.insert(reason, lost);
            }
        }
        for (name, count) in [
            ("ip_length_over_frame", self.ip_length_over_frame),
            ("unresolved_fragments", self.unresolved_fragments),
            ("ethertypes_other", self.ethertypes_other),
            ("epochs_out_of_balance", self.out_of_balance),
            ("kernel_hash_failures", self.hash_failures),
            ("uncounted_ms", self.uncounted.div_ceil(NANOS_PER_MS)),
        ] {
            if count > 0 {
                sightings.anomalies.insert(name, count);
            }
        }
        sightings
    }
}
