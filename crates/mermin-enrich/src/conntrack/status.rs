//! What connection tracking says of itself, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts, raised by the thread that follows the kernel and by those that enrich.
#[derive(Debug, Default)]
pub struct ConntrackStatus {
    pub(crate) connections: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) looks: AtomicU64,
    pub(crate) overruns: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) forgotten: AtomicU64,
    pub(crate) translated: AtomicU64,
    pub(crate) ambiguous: AtomicU64,
}

/// A [`ConntrackStatus`] at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackReading {
    /// Translated connections that are remembered, those that have ended too.
    pub connections: u64,
    /// Messages of the kernel that a connection began or ended, translated or not.
    pub events: u64,
    /// How often the kernel was asked for all connections.
    pub looks: u64,
    /// How often the kernel had more to say than was read; a look at all follows.
    pub overruns: u64,
    /// Translated connections that found no room.
    pub refused: u64,
    /// Ended ones that had to go before their records had surely come.
    pub forgotten: u64,
    /// Records that got their other tuple.
    pub translated: u64,
    /// Records that didn't, because several connections had theirs in their time.
    pub ambiguous: u64,
}

impl ConntrackStatus {
    /// As of now.
    #[must_use]
    pub fn read(&self) -> ConntrackReading {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ConntrackReading {
            connections: of(&self.connections),
            events: of(&self.events),
            looks: of(&self.looks),
            overruns: of(&self.overruns),
            refused: of(&self.refused),
            forgotten: of(&self.forgotten),
            translated: of(&self.translated),
            ambiguous: of(&self.ambiguous),
        }
    }
}

pub(crate) fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
