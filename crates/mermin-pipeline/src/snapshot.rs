//! A consistent view of the ledger while packets flow.
//!
//! A marker goes down every channel behind the data. Each stage reports its counts when the marker passes, so all
//! parts speak of the same packets, whatever came behind the marker. What waits in a channel when the marker enters
//! it has left it when the marker does: in such a cut channels are empty, and what is in flight waits in the source
//! or in the reader.

use mermin_flow::{MeterBook, Sightings, Tally};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The reader's part.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReaderPart {
    pub(crate) sightings: Sightings,
    /// Observations that the source has handed over.
    pub(crate) observed: Tally,
    /// Of those, on their way to a worker: waiting in the reader for room when a marker passes, nothing at the end.
    pub(crate) waiting: Tally,
    /// Of those, dropped because the packet channel was full.
    pub(crate) lost: Tally,
    /// Times of the first and last packet.
    pub(crate) span: Option<(u64, u64)>,
    pub(crate) unresolved_fragments: u64,
}

/// All parts, added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    pub(crate) reader: ReaderPart,
    pub(crate) meter: MeterBook,
    /// Flows in the tables, and what they hold, by looking at each.
    pub(crate) active: u64,
    pub(crate) resident: Tally,
    /// In records on their way to the fan-out: nothing when a marker has passed, nor at the end.
    pub(crate) in_enrichment: Tally,
    /// Handed to the fan-out.
    pub(crate) released: Tally,
    pub(crate) outputs: Vec<(String, OutputBook)>,
}

/// An output's book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputBook {
    /// Given to the output.
    pub handed: mermin_flow::Amount,
    /// Acknowledged.
    pub delivered: mermin_flow::Amount,
    /// Waiting.
    pub queued: mermin_flow::Amount,
    /// Given up, by reason.
    pub dropped: std::collections::BTreeMap<&'static str, mermin_flow::Amount>,
}

impl OutputBook {
    /// Whether everything handed to the output was delivered, waits or was given up.
    #[must_use]
    pub fn balances(&self) -> bool {
        let mut out = self.delivered;
        for amount in [&self.queued].into_iter().chain(self.dropped.values()) {
            out += *amount;
        }
        self.handed == out
    }
}

struct Collected {
    parts: Parts,
    missing: usize,
    has_reader: bool,
}

/// Collects the parts of one snapshot.
pub(crate) struct Collector {
    collected: Mutex<Collected>,
    complete: Condvar,
}

/// Carried by a marker.
pub(crate) type Marker = Arc<Collector>;

impl Collector {
    /// For `expected` parts: one of the reader, one of each flow worker, one of each thread that releases records for
    /// each flow worker, one of each output.
    pub(crate) fn new(expected: usize) -> Marker {
        let collected = Collected { parts: Parts::default(), missing: expected, has_reader: false };
        Arc::new(Self { collected: Mutex::new(collected), complete: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one part.
    pub(crate) fn add(&self, part: impl FnOnce(&mut Parts)) {
        let mut collected = self.lock();
        part(&mut collected.parts);
        collected.missing = collected.missing.saturating_sub(1);
        if collected.missing == 0 {
            self.complete.notify_all();
        }
    }

    /// Adds the reader's part.
    pub(crate) fn add_reader(&self, part: ReaderPart) {
        self.lock().has_reader = true;
        self.add(|parts| parts.reader = part);
    }

    /// The reader's part, if it has come.
    pub(crate) fn reader(&self) -> Option<ReaderPart> {
        let collected = self.lock();
        collected.has_reader.then(|| collected.parts.reader.clone())
    }

    /// Waits for all parts; `None` if they don't come in time (a worker or an output is held up).
    pub(crate) fn wait(&self, at_most: Duration) -> Option<Parts> {
        let (collected, _) = self
            .complete
            .wait_timeout_while(self.lock(), at_most, |collected| collected.missing > 0)
            .unwrap_or_else(PoisonError::into_inner);
        (collected.missing == 0).then(|| collected.parts.clone())
    }
}

/// Tells when a marker has come from every producer of a queue.
#[derive(Default)]
pub(crate) struct Arrivals(Vec<(Marker, usize)>);

impl Arrivals {
    /// Notes one arrival; whether it was the last of `producers`.
    pub(crate) fn is_last(&mut self, marker: &Marker, producers: usize) -> bool {
        let at = self.0.iter().position(|(known, _)| Arc::ptr_eq(known, marker)).unwrap_or_else(|| {
            self.0.push((Arc::clone(marker), 0));
            self.0.len() - 1
        });
        self.0[at].1 += 1;
        let last = self.0[at].1 == producers;
        if last {
            self.0.swap_remove(at);
        }
        last
    }
}
