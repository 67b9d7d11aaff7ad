//! What a flow worker publishes, and for how long workers wait and work.

use crate::counts::{Lives, TallyCell};
use mermin_flow::{MeterBook, Source};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a flow worker publishes after each message.
#[derive(Debug, Default)]
pub(crate) struct MeterCells {
    metered: TallyCell,
    secondary: TallyCell,
    reported: TallyCell,
    quarantined: TallyCell,
    lives: Lives,
    evicted: AtomicU64,
    /// Messages handled: how often the worker woke.
    pub(crate) messages: AtomicU64,
    pub(crate) idle: Idle,
    pub(crate) at_work: AtWork,
}

/// How long a worker has waited for something to do, ns.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    /// Without the wait that may be under way.
    waited: AtomicU64,
    /// When that began, on the pipeline's clock; 0: none is.
    since: AtomicU64,
}

impl Idle {
    /// Waits within `wait`.
    pub(crate) fn during<T>(&self, started: Instant, wait: impl FnOnce() -> T) -> T {
        let since = nanos_since(started);
        self.since.store(since, Ordering::Relaxed);
        let result = wait();
        self.waited.fetch_add(nanos_since(started) - since, Ordering::Relaxed);
        self.since.store(0, Ordering::Relaxed);
        result
    }

    /// All waits so far, that under way too. Between its two reads a wait may end, and is then missing or counted twice
    /// until the next look.
    pub(crate) fn total(&self, started: Instant) -> u64 {
        let waited = self.waited.load(Ordering::Relaxed);
        match self.since.load(Ordering::Relaxed) {
            0 => waited,
            since => waited + nanos_since(started).saturating_sub(since),
        }
    }
}

/// Since when a worker has been at what it does, ns on the pipeline's clock; 0 while it has nothing to do.
#[derive(Debug, Default)]
pub(crate) struct AtWork(AtomicU64);

impl AtWork {
    /// Does `work`, and lets others see for how long.
    pub(crate) fn during<T>(&self, started: Instant, work: impl FnOnce() -> T) -> T {
        self.0.store(nanos_since(started), Ordering::Relaxed);
        let result = work();
        self.0.store(0, Ordering::Relaxed);
        result
    }

    /// For how long by now.
    pub(crate) fn for_how_long(&self, started: Instant) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_nanos(nanos_since(started).saturating_sub(since)),
        }
    }
}

/// At least 1.
fn nanos_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
}

impl MeterCells {
    /// Those of a worker whose verdicts the source keeps, too.
    pub(crate) fn of(source: &impl Source) -> Self {
        let settling = || TallyCell::from(source.settlement());
        Self { secondary: settling(), quarantined: settling(), ..Self::default() }
    }

    pub(crate) fn set(&self, book: &MeterBook) {
        self.metered.set(book.metered);
        self.secondary.set(book.secondary);
        self.reported.set(book.reported);
        self.quarantined.set(book.quarantined);
        self.evicted.store(book.evicted, Ordering::Relaxed);
        self.lives.set(book.created, book.released);
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> MeterBook {
        let (created, released) = self.lives.get();
        MeterBook {
            metered: self.metered.get(),
            secondary: self.secondary.get(),
            reported: self.reported.get(),
            quarantined: self.quarantined.get(),
            created,
            released,
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mermin_flow::Tally;

    #[test]
    fn every_count_comes_out_of_the_cell_that_it_was_put_in() {
        let tally = |n| Tally { packets: n, bytes: n + 1, buffers: n + 2, buffer_bytes: n + 3 };
        let book = MeterBook {
            metered: tally(10),
            secondary: tally(20),
            reported: tally(30),
            quarantined: tally(35),
            created: 40,
            released: 39,
            evicted: 38,
        };
        let cells = MeterCells::default();
        cells.set(&book);
        cells.set(&book);
        assert_eq!(cells.get(), book);
        assert_eq!(cells.messages.into_inner(), 2);
    }
}
