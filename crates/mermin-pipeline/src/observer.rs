//! Looks at the stages while they run and when they have come to rest.

use crate::adjustable::Adjustable;
use crate::budget::Budgets;
use crate::cells::MeterCells;
use crate::channel_room::ChannelRoom;
use crate::counts::TallyCell;
use crate::created_log::CreatedLog;
use crate::enrichment::{EnrichmentCells, EnrichmentCrew};
use crate::incidents::Panics;
use crate::journal::Progress;
use crate::output::FanOut;
use crate::reader::ReaderControl;
use crate::record_queue::RecordQueue;
use crate::snapshot::{Collector, Parts, ReaderPart};
use crate::staff::Staff;
use crate::statistics::Statistics;
use crate::threads::Panicked;
use mermin_flow::{MeterBook, Sightings, Tally};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Counts of the ledger that only the source's book has. `lost` has what the reader itself has lost.
pub(crate) const SOURCE_UNKNOWN: [&str; 6] =
    ["seen.packets", "seen.bytes", "seen.buffers", "seen.buffer_bytes", "unmetered", "lost"];

/// The queue of a lane of enrichment, and what it publishes.
pub(crate) type LaneOfRecords = (Arc<RecordQueue>, Arc<EnrichmentCells>);

/// What the statistics task and the end of a run look at.
pub(crate) struct Shared {
    pub(crate) started: Instant,
    /// Packets come whether anybody is ready for them or not.
    pub(crate) live: bool,
    pub(crate) enable_metrics: bool,
    pub(crate) control: Arc<ReaderControl>,
    pub(crate) room: Arc<ChannelRoom>,
    pub(crate) meters: Vec<Arc<MeterCells>>,
    pub(crate) panics: Panics,
    pub(crate) enrichment: Vec<LaneOfRecords>,
    /// Who works on those; absent where nothing is added to records.
    pub(crate) enrichment_crew: Option<Arc<EnrichmentCrew>>,
    /// What flow workers have released themselves, when enrichment is off.
    pub(crate) released: Vec<Arc<TallyCell>>,
    pub(crate) fan_out: Arc<FanOut>,
    pub(crate) created: Arc<CreatedLog>,
    pub(crate) panicked: Panicked,
    pub(crate) staff: Arc<Staff>,
    pub(crate) budgets: Budgets,
    /// How far the journal is.
    pub(crate) journal: Option<Arc<Progress>>,
    pub(crate) journal_thread: Option<ThreadId>,
    pub(crate) ended: Mutex<bool>,
    /// How long the end may take.
    pub(crate) shutdown_timeout: Arc<Adjustable>,
    pub(crate) end: Condvar,
    /// What reader and source said of themselves in the last snapshot.
    pub(crate) last_part: Mutex<Option<ReaderPart>>,
    /// What every stage has said at an orderly end.
    pub(crate) at_end: OnceLock<Statistics>,
}

/// Looks at a pipeline while it runs.
#[derive(Clone)]
pub struct Observer(pub(crate) Arc<Shared>);

impl Observer {
    /// A consistent snapshot; `None` when a stage doesn't answer in time. Of a run that has come to its end in order:
    /// its last counts.
    #[must_use]
    pub fn snapshot(&self, at_most: Duration) -> Option<Statistics> {
        self.look(at_most).ok()
    }

    /// Whether the run has come to its end in order, and its last counts stand.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.at_end.get().is_some()
    }

    /// A consistent snapshot, and `true`. When a stage doesn't answer in time: the counts where they are, and `false`;
    /// what only the source knows is then as it was in the last snapshot, so that no count ever falls.
    #[must_use]
    pub fn statistics(&self, at_most: Duration) -> (Statistics, bool) {
        let shared = &self.0;
        match self.look(at_most) {
            Ok(statistics) => (statistics, true),
            Err(reader) => {
                let reader = reader.unwrap_or_else(|| shared.published_by_reader_and_last_known());
                (shared.statistics_in_passing(Some(reader)), false)
            }
        }
    }

    /// A snapshot, or the reader's part if only that has come.
    pub(crate) fn look(&self, at_most: Duration) -> Result<Statistics, Box<Option<ReaderPart>>> {
        let shared = &self.0;
        if let Some(last) = shared.at_end.get() {
            return Ok(last.clone());
        }
        let marker = Collector::new(shared.parts_expected());
        if !shared.control.snapshot(&marker) {
            return Err(Box::new(None));
        }
        let parts = marker.wait(at_most);
        let reader = parts.as_ref().map(|parts| parts.reader.clone()).or_else(|| marker.reader());
        if let Some(reader) = &reader {
            shared.remember(reader);
        }
        match parts {
            Some(parts) => Ok(shared.statistics_of(parts)),
            // The end may have come meanwhile.
            None => shared.at_end.get().cloned().ok_or(Box::new(reader)),
        }
    }

    /// Packets seen so far: handed over by the source or rejected by it.
    #[must_use]
    pub fn packets(&self) -> u64 {
        let control = &self.0.control;
        control.observed.get().packets + control.rejected.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn parts_expected(&self) -> usize {
        let workers = self.meters.len();
        let releases = if self.enrichment.is_empty() { workers } else { workers * self.enrichment.len() };
        1 + workers + releases + 1
    }

    pub(crate) fn statistics_in_passing(&self, reader: Option<ReaderPart>) -> Statistics {
        self.statistics_of(self.parts_at_rest(reader, true))
    }

    pub(crate) fn statistics_of(&self, parts: Parts) -> Statistics {
        let budgets = Some(self.budgets.pulse());
        Statistics { budgets, ..Statistics::of(parts, self.started.elapsed(), self.stages()) }
    }

    /// What the reader has published; how much its source has seen is then not known.
    fn published_by_reader(&self) -> ReaderPart {
        let control = &self.control;
        let (observed, lost) = (control.observed.get(), control.lost.get());
        let sampled_out = control.sampled_out.get();
        let sightings = Sightings { inexact: SOURCE_UNKNOWN.to_vec(), ..Sightings::default() };
        let time = |at: &AtomicU64| at.load(Ordering::Relaxed);
        let (first, last) = (time(&control.first_packet), time(&control.last_packet));
        let span = (first <= last).then_some((first, last));
        ReaderPart { observed, lost, sampled_out, sightings, span, ..ReaderPart::default() }
    }

    fn published_by_reader_and_last_known(&self) -> ReaderPart {
        // In this order: what is published is then no older than the last part.
        let last = self.last_part.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let published = self.published_by_reader();
        let Some(mut last) = last else { return published };
        last.went_on(published.observed);
        let ReaderPart { sightings, unresolved_fragments, .. } = last;
        let sightings = Sightings { inexact: SOURCE_UNKNOWN.to_vec(), ..sightings };
        ReaderPart { sightings, unresolved_fragments, ..published }
    }

    /// Two may look at once, and the older part may come second.
    fn remember(&self, part: &ReaderPart) {
        let mut last = self.last_part.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |part: &ReaderPart| (part.sightings.seen.buffers, part.observed.buffers);
        if last.as_ref().is_none_or(|last| at(last) <= at(part)) {
            *last = Some(part.clone());
        }
    }

    /// The parts as the threads have left them. While threads run, or when one has panicked (`incomplete`), what is
    /// between two stages is what the one has handed over and the other not yet accounted for; a stage that has not
    /// published its latest counts has done at least what the one behind it has.
    pub(crate) fn parts_at_rest(&self, reader: Option<ReaderPart>, incomplete: bool) -> Parts {
        let mut meter = MeterBook::default();
        for cells in &self.meters {
            meter += cells.get();
        }
        let mut released: Tally = self.released.iter().map(|cell| cell.get()).sum();
        for (_, cells) in &self.enrichment {
            released += cells.released.get();
        }
        let mut reader = reader.unwrap_or_else(|| self.published_by_reader());
        let mut parts = Parts { released, active: meter.created - meter.released, ..Parts::default() };
        if incomplete {
            meter.reported = meter.reported.at_least(released);
            meter.metered = meter.metered.at_least(meter.reported);
            let handled =
                reader.lost + reader.sampled_out + meter.metered + meter.secondary + meter.quarantined;
            reader.went_on(reader.observed.at_least(handled));
            reader.waiting = reader.observed - handled;
            parts.resident = meter.metered - meter.reported;
            parts.in_enrichment = meter.reported - released;
        }
        (parts.meter, parts.reader) = (meter, reader);
        parts.outputs = self.fan_out.books();
        parts
    }
}
