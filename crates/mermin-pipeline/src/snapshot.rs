//! A consistent view of the ledger while packets flow.
//!
//! A marker goes down every channel behind the data. Each stage reports its counts when the marker passes, so all
//! parts speak of the same packets, whatever came behind the marker. What waits in a channel when the marker enters
//! it has left it when the marker does: in such a cut channels are empty, and what is in flight waits in the source
//! or in the reader.

use crate::output::TOO_LATE;
use mermin_flow::{MeterBook, Sightings, Tally};
use std::ops::AddAssign;
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
    /// Of those, left out by sampling.
    pub(crate) sampled_out: Tally,
    /// Times of the first and last packet.
    pub(crate) span: Option<(u64, u64)>,
    pub(crate) unresolved_fragments: u64,
}

impl ReaderPart {
    /// The source has handed over `observed` by now: so much of what was in the ring is there no longer.
    pub(crate) fn went_on(&mut self, observed: Tally) {
        let mut more = observed - self.observed;
        for waiting in [&mut self.sightings.in_ring, &mut self.sightings.in_kernel_table] {
            let left = waiting.at_least(more) - more;
            more = more - (*waiting - left);
            *waiting = left;
        }
        self.observed = observed;
    }
}

/// All parts, added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    pub(crate) reader: ReaderPart,
    pub(crate) meter: MeterBook,
    /// Flows in the tables, and what they hold, by looking at each.
    pub(crate) active: u64,
    pub(crate) resident: Tally,
    /// In records on their way to the fan-out: when a marker has passed those that are held for a later answer, at
    /// the end nothing.
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
    /// What an earlier run has left on disk.
    pub recovered: mermin_flow::Amount,
    /// Acknowledged.
    pub delivered: mermin_flow::Amount,
    /// Waiting in memory.
    pub queued: mermin_flow::Amount,
    /// Waiting on disk, for this run or the next.
    pub spooled: mermin_flow::Amount,
    /// Given up, by reason.
    pub dropped: std::collections::BTreeMap<&'static str, mermin_flow::Amount>,
    /// Records that became part of others, which carry their packets and bytes on.
    pub merged: u64,
    /// Dotted paths of counts that are bounds; see [`mermin_flow::Receipt::inexact`].
    pub inexact: std::collections::BTreeSet<&'static str>,
}

impl OutputBook {
    /// The run is over: what still waits was not delivered in time.
    pub(crate) fn close(&mut self) {
        let queued = std::mem::take(&mut self.queued);
        if queued != mermin_flow::Amount::default() {
            *self.dropped.entry(TOO_LATE).or_default() += queued;
        }
    }

    /// Whether everything handed to the output or left to it was delivered, waits, was given up or became part of
    /// something else.
    #[must_use]
    pub fn balances(&self) -> bool {
        let mut out = self.delivered;
        out.records += self.merged;
        for amount in [&self.queued, &self.spooled].into_iter().chain(self.dropped.values()) {
            out += *amount;
        }
        let mut came = self.handed;
        came += self.recovered;
        came == out
    }
}

/// Of outputs that had one name one after the other: their books are one.
impl AddAssign<&Self> for OutputBook {
    fn add_assign(&mut self, other: &Self) {
        let Self { handed, recovered, delivered, queued, spooled, dropped, merged, inexact } = other;
        self.handed += *handed;
        self.recovered += *recovered;
        self.delivered += *delivered;
        self.queued += *queued;
        self.spooled += *spooled;
        for (reason, amount) in dropped {
            *self.dropped.entry(reason).or_default() += *amount;
        }
        self.merged += merged;
        self.inexact.extend(inexact);
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
    /// each flow worker, one of the fan-out for all outputs.
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

    /// A worker's records that wait for their cut; no part of its own.
    pub(crate) fn holds(&self, tally: Tally) {
        self.lock().parts.in_enrichment += tally;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use mermin_flow::Amount;
    use std::thread;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_snapshot_is_complete_with_its_last_part() {
        let marker = Collector::new(3);
        let began = Instant::now();
        assert!(marker.wait(Duration::from_millis(20)).is_none());
        assert!(began.elapsed() >= Duration::from_millis(20), "it waits for what may still come");
        marker.add(|parts| parts.released = Tally::frame(60));
        assert!(marker.reader().is_none());
        marker.add_reader(ReaderPart { lost: Tally::frame(70), ..ReaderPart::default() });
        assert_eq!(marker.reader().map(|part| part.lost), Some(Tally::frame(70)));
        assert!(marker.wait(Duration::ZERO).is_none());
        marker.add(|parts| parts.active = 5);
        let parts = marker.wait(Duration::ZERO).expect("all parts are there");
        assert_eq!(
            (parts.active, parts.released, parts.reader.lost),
            (5, Tally::frame(60), Tally::frame(70))
        );
    }

    /// Many rounds: whether the other thread already sleeps when the last part comes is not in our hands.
    #[test]
    fn whoever_waits_for_a_snapshot_is_told_at_once() {
        for _ in 0..50 {
            let marker = Collector::new(1);
            let (about_to_wait, begins) = bounded(1);
            let (done, outcome) = bounded(1);
            let waiter = Arc::clone(&marker);
            thread::spawn(move || {
                about_to_wait.send(()).expect("the test listens");
                let twice = [(); 2].map(|()| waiter.wait(LONG * 6).is_some());
                done.send(twice)
            });
            assert_eq!(begins.recv_timeout(LONG), Ok(()));
            (0..20).for_each(|_| thread::yield_now());
            marker.add(|_| {});
            assert_eq!(outcome.recv_timeout(LONG), Ok([true; 2]));
        }
    }

    #[test]
    fn markers_that_overtake_each_other_are_told_apart() {
        let markers = [(); 3].map(|()| Collector::new(1));
        let mut arrivals = Arrivals::default();
        let mut arrives = |which: usize| arrivals.is_last(&markers[which], 2);
        assert_eq!([0, 1, 2, 1, 0, 2].map(&mut arrives), [false, false, false, true, true, true]);
        assert_eq!([0, 0].map(&mut arrives), [false, true], "one that is complete is forgotten");
        assert!(arrivals.is_last(&markers[0], 1));
    }

    #[test]
    fn an_outputs_book_balances_when_all_it_was_handed_stands_in_it() {
        let amount = |n: u64| Amount { records: n, packets: n * 10, bytes: n * 100 };
        let mut book = OutputBook {
            handed: amount(15),
            delivered: amount(8),
            queued: amount(4),
            dropped: [("queue_full", amount(2)), ("crash", amount(1))].into(),
            ..OutputBook::default()
        };
        assert!(book.balances());
        book.queued = amount(3);
        assert!(!book.balances());
        book.queued = amount(4);
        book.dropped.remove("crash");
        assert!(!book.balances());
    }
}
