//! What the thread writes and enrichment workers read.
//!
//! One lock around one table, because it is held for less than a microsecond by who reads and for some by who writes (a
//! batch of events), and a write touches the index in two places that no division of it would keep together. Figures:
//! `docs/design/0028-nat.md`.

use crate::clock::Time;
use crate::conntrack::status::ConntrackStatus;
use crate::conntrack::table::Table;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The thread hears of a connection this long after it began, at the most, when it has nothing else to do.
const SETTLE: Time = 50_000_000;

/// [`Shared::busy`] of a thread that waits for events.
const IDLE: Time = Time::MAX;
/// The same of one that is no more: nothing will be known.
const GONE: Time = Time::MAX - 1;

/// The table, and how far it goes.
pub(crate) struct Shared {
    table: RwLock<Table>,
    pub(crate) status: Arc<ConntrackStatus>,
    /// While events are read: up to when all were. Else [`IDLE`].
    busy: AtomicU64,
    /// How long ended connections are remembered.
    retention: AtomicU64,
}

impl Shared {
    pub(crate) fn new(table: Table, retention: Duration) -> Self {
        let shared = Self {
            table: RwLock::new(table),
            status: Arc::default(),
            busy: AtomicU64::new(IDLE),
            retention: AtomicU64::new(0),
        };
        shared.remember(retention);
        shared
    }

    /// Ended connections are remembered for so long at least, from now on.
    pub(crate) fn remember(&self, at_least: Duration) {
        self.retention.fetch_max(at_least.as_nanos() as Time, Ordering::Relaxed);
    }

    pub(super) fn retention(&self) -> Time {
        self.retention.load(Ordering::Relaxed)
    }

    /// Changes the table. A panic in between leaves it as it is: it is only about names.
    pub(super) fn with_table<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let done = change(&mut table);
        let (known, given_up) = (table.len() as u64, table.given_up());
        drop(table);
        self.status.connections.store(known, Ordering::Relaxed);
        self.status.refused.store(given_up.refused, Ordering::Relaxed);
        self.status.forgotten.store(given_up.forgotten, Ordering::Relaxed);
        done
    }

    /// Looks something up.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Table) -> T) -> T {
        question(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn busy_since(&self, drained: Time) {
        self.busy.store(drained, Ordering::Release);
    }

    pub(super) fn idle(&self) {
        self.busy.store(IDLE, Ordering::Release);
    }

    /// There is nobody any more who writes: what is known grows old and is better not said.
    pub(super) fn give_up(&self) {
        self.with_table(Table::clear);
        self.busy.store(GONE, Ordering::Release);
    }

    /// Up to when all is known, though not further back than `patience`.
    pub(crate) fn known_until(&self, now: Time, patience: Duration) -> Time {
        let known = match self.busy.load(Ordering::Acquire) {
            GONE => return Time::MAX,
            IDLE => now.saturating_sub(SETTLE),
            drained => drained,
        };
        known.max(now.saturating_sub(patience.as_nanos() as Time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_wait_for_events_but_not_for_long() {
        let shared = Shared::new(Table::new(1, 1), Duration::ZERO);
        let (now, patience) = (10 * SETTLE, Duration::from_nanos(2 * SETTLE));
        let known = || shared.known_until(now, patience);
        assert_eq!(known(), now - SETTLE, "idle");
        shared.busy_since(now - SETTLE / 2);
        assert_eq!(known(), now - SETTLE / 2);
        shared.busy_since(now - 9 * SETTLE);
        assert_eq!(known(), now - 2 * SETTLE, "behind");
        shared.give_up();
        assert_eq!(known(), Time::MAX);
    }

    #[test]
    fn the_longest_retention_counts() {
        let shared = Shared::new(Table::new(1, 1), Duration::from_secs(3));
        shared.remember(Duration::from_secs(2));
        assert_eq!(shared.retention(), 3_000_000_000);
        shared.remember(Duration::from_secs(4));
        assert_eq!(shared.retention(), 4_000_000_000);
    }
}
