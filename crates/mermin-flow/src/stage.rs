//! The seams of the pipeline: what a source, an enricher and an exporter are. Stages implement these and don't know
//! each other; `mermin` joins them.

use crate::delivery::Delivery;
use crate::observation::Observation;
use crate::point::ObservationPoints;
use crate::record::FlowRecord;
use crate::sightings::Sightings;
use crate::tally::Tally;
use crate::wall::WallClock;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Takes what a source observes.
pub trait Sink {
    /// One observation, unoriented: `watermark`, `hash`, `reversed` and `shard` are the sink's to set.
    fn observe(&mut self, observation: Observation);

    /// From now on time goes no further than this, ns since 1970, whatever observations say: earlier packets are still to come.
    /// Never goes back.
    fn hold_back(&mut self, until: u64) {
        let _ = until;
    }
}

/// Keeps a cumulative count, beginning with zero, where it outlasts the process. For one thread at a time.
pub type Settlement = Box<dyn Fn(Tally) + Send + Sync>;

/// See [`Source::voider`].
pub type Voider = Box<dyn Fn() + Send + Sync>;

/// What a call of [`Source::poll`] ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// The budget is used up; there is more to read.
    More,
    /// Everything that has arrived so far is read.
    Drained,
    /// There will never be more.
    Ended,
}

/// Where a source stands at a moment, as it says it itself: what a later run goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceCut {
    /// In the source's own form.
    pub state: Vec<u8>,
    /// The first part of what it writes down as it reads that is behind it.
    pub read_from: u64,
    /// Of what it has handed over, what earlier runs and it itself have settled.
    pub settled: Tally,
}

/// Where observations come from.
pub trait Source: Send {
    /// Whether packets come at their own pace and can't wait; a replay can.
    const LIVE: bool;

    /// Hands observations of at most `budget` frames to `sink`, without waiting for frames to come.
    fn poll(&mut self, sink: &mut impl Sink, budget: usize) -> Polled;

    /// Live: returns when there is something to read, or after `at_most`, or on a signal. A replay returns at once.
    fn wait(&mut self, at_most: Duration);

    /// The time up to which everything was handed over, ns since 1970. Live: the time before the last drain began;
    /// replay: the highest capture time so far. Never goes back.
    fn watermark(&self) -> u64;

    /// Packets that the source has given a verdict itself so far (unmetered). For progress messages: it may lag.
    fn rejected(&self) -> u64;

    /// A flag that ends a wait for input in [`Source::poll`] when another thread sets it: a replay may read from a
    /// pipe that is silent. What comes after is as if it was closed. `None`: this source never waits there.
    fn interrupter(&self) -> Option<Arc<AtomicBool>> {
        None
    }

    /// The wall clock's steps since the source was opened; it times observations by a clock that has none. Of a replay
    /// there are none.
    fn wall_clock(&self) -> WallClock {
        WallClock::default()
    }

    /// Where it stands: all that it has handed over so far was read before, and all that it has read was handed over. `None`: it holds
    /// something just now, or can't be gone on with.
    ///
    /// # Errors
    /// What follows can't be written down.
    fn cut(&mut self) -> Result<Option<SourceCut>, String> {
        Ok(None)
    }

    /// What makes all cuts so far void: from then on nobody goes on from them, whatever is found of them.
    fn voider(&self) -> Option<Voider> {
        None
    }

    /// The observation points that observations name.
    fn points(&self) -> Arc<ObservationPoints> {
        Arc::default()
    }

    /// Where a count of what has come to an end, of all that it hands over, is kept beside the count itself: what was handed
    /// over and is in none of them was in memory when the process was killed. Asked once for each such count. `None`: nobody
    /// goes on after the process.
    fn settlement(&self) -> Option<Settlement> {
        None
    }

    /// Stops the flow of packets: takes programs off their hooks, closes the socket's intake. What was taken before
    /// can still be polled, up to `Ended`.
    fn close(&mut self);

    /// A call of [`Source::poll`] has panicked; the sink has taken `observed` in all. Puts what was left half done in
    /// order, so that the source can be called again: what it was at is behind it, and stands in its book as lost. The
    /// answer is that loss; nothing, where it panicked at no packet.
    fn after_panic(&mut self, observed: Tally) -> Tally;

    /// Cumulative counts that balance with what was handed to the sink so far, or `None` while the source can't yet
    /// say (a kernel-side grace period is running: ask again later). After `Ended` it always answers.
    fn sightings(&mut self) -> Option<Sightings>;
}

/// Adds what is known about the ends of a flow. Runs on several threads at once.
pub trait Enricher: Send + Sync {
    /// Fills in the identities of `record`, and what enrichment says of it as a whole.
    fn enrich(&self, record: &mut FlowRecord);

    /// The time up to which everything is known that will be, ns since 1970: a record whose last packet came later may
    /// be answered better when this has moved on. Never goes back.
    fn known_until(&self) -> u64 {
        u64::MAX
    }

    /// How long a record may be held for that.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
}

/// The key in [`Receipt::dropped`] of records that an exporter panics at.
pub const QUARANTINE: &str = "quarantine";

/// Takes flow records to where users want them. Runs on a thread of its own; may block.
///
/// An exporter may hold records back, to write more at once or until a receiver has acknowledged them. What became of
/// each record it tells by the [`Receipt`], exactly once: summed over all calls, `handed == delivered + dropped + held`.
/// After `flush` nothing is held.
pub trait Exporter: Send {
    /// A short name, unique in the run: the key in `outputs` of the statistics, for example `json` or `text:flows.log`.
    fn name(&self) -> &str;

    /// Takes all of `records`, in order.
    ///
    /// # Errors
    /// [`Failure`], when records were dropped: all that weren't delivered, of this call and held from earlier ones.
    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure>;

    /// Called before the end: delivers what is held, or gives it up.
    ///
    /// # Errors
    /// As [`Exporter::export`].
    fn flush(&mut self, receipt: &mut Receipt) -> Result<(), Failure>;

    /// Called when no record is waiting: delivers what is held, as far as that takes no long time. The answer is how
    /// soon it should be called again although no record came; `None` when nothing is held.
    ///
    /// # Errors
    /// As [`Exporter::export`].
    fn idle(&mut self, receipt: &mut Receipt) -> Result<Option<Duration>, Failure> {
        self.flush(receipt).map(|()| None)
    }

    /// A call has panicked. Puts what it left half done in order, so that the exporter can be called again, and says how
    /// many records it holds, without a receipt: from that its caller knows which one it panicked at, as it takes them in
    /// order. `None`: it can't be called again.
    fn after_panic(&mut self) -> Option<u64> {
        None
    }

    /// A record that it panics at, also when it is given nothing else, is given up: what it holds of earlier ones, it
    /// settles before where it settles in order.
    ///
    /// # Errors
    /// As [`Exporter::export`], of those earlier records.
    fn quarantine(&mut self, record: &FlowRecord, receipt: &mut Receipt) -> Result<(), Failure> {
        *receipt.dropped.entry(QUARANTINE).or_default() += Amount::of(record);
        Ok(())
    }

    /// A flag that another thread sets when time is up: a call that waits for a receiver gives up soon after, and
    /// what it held is in the receipt as dropped (`shutdown_timeout`). `None`: this exporter doesn't wait.
    fn interrupter(&self) -> Option<Arc<AtomicBool>> {
        None
    }

    /// Whether it takes records whatever its receiver does, in bounded memory, because it sums them up: then nothing is
    /// kept from it while deliveries fail.
    fn sums_up(&self) -> bool {
        false
    }

    /// The keys that [`Receipt::dropped`] may get from this exporter.
    fn drop_reasons(&self) -> &'static [&'static str] {
        &[]
    }

    /// Of these, those that say nothing about the records: the same ones may be taken later. Where they wait on disk they
    /// are given to it again.
    fn passing_reasons(&self) -> &'static [&'static str] {
        &[]
    }

    /// How many of the records that it got are in the receipt, counted from the first one without a gap. `None`: as many as
    /// the receipt says, for it settles them in order.
    fn settled_in_order(&self) -> Option<u64> {
        None
    }

    /// How its deliveries go, if it has a receiver.
    fn delivery(&self) -> Option<Arc<Delivery>> {
        None
    }
}

/// Records and what they carry: the unit of an output's book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Flow records.
    pub records: u64,
    /// Packets of both deltas.
    pub packets: u64,
    /// Frame bytes of both deltas.
    pub bytes: u64,
}

impl Amount {
    /// What one record carries.
    #[inline]
    #[must_use]
    pub const fn of(record: &FlowRecord) -> Self {
        Self { records: 1, packets: record.tally.packets, bytes: record.tally.bytes }
    }
}

impl AddAssign for Amount {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Where an exporter adds what became of its records. The caller makes one per output and keeps it for the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Acknowledged.
    pub delivered: Amount,
    /// Given up, by the key in `dropped` of the output's book: `closed`, `write_failed`, …
    pub dropped: BTreeMap<&'static str, Amount>,
    /// Dotted paths of counts in the book that are bounds: a receiver that rejects 3 of 512 records doesn't say which,
    /// so all packets of the 512 stand in `dropped.rejected.packets`.
    pub inexact: BTreeSet<&'static str>,
}

/// An export that did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// The key in [`Receipt::dropped`] where the records went.
    pub reason: &'static str,
    /// Nobody reads any more (a closed pipe): stop quietly.
    pub closed: bool,
    /// What happened.
    pub error: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_add_up() {
        let mut sum = Amount { records: 1, packets: 20, bytes: 300 };
        sum += Amount { records: 4, packets: 50, bytes: 600 };
        assert_eq!(sum, Amount { records: 5, packets: 70, bytes: 900 });
    }
}
