//! What each stage and channel does at the moment: for the statistics, for metrics and for health.
//!
//! Read where the threads have put it, each figure by itself: unlike the ledger's, they need not speak of the same
//! packets.

use crate::budget::BudgetsPulse;
use crate::cells::AtWork;
use crate::channel_room::Coalescing;
use crate::observer::{Observer, Shared};
use crate::output::BreakerState;
use crate::waits::WaitFigures;
use mermin_flow::{Delivery, DeliveryState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A message is handled in milliseconds. A worker that has been at one for so long hangs: it loops, or waits for what does
/// not come. (In a replay it may wait for room.)
pub const WORKER_PATIENCE: Duration = Duration::from_secs(30);

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Pulse {
    /// Whether the configuration wants each stage's details told: rates, depths, waits.
    pub detailed: bool,
    /// Since the pipeline's start.
    pub running: Duration,
    /// The packet reader.
    pub reader: ReaderPulse,
    /// To the flow workers, in observations.
    pub packet_channel: ChannelPulse,
    /// What waits in the reader while the packet channel is full; absent where nothing ever does.
    pub coalescing: Option<CoalescingPulse>,
    /// The flow workers.
    pub flow_workers: WorkersPulse,
    /// To the enrichment workers in records, and those; absent where nothing is added to records.
    pub enrichment: Option<(ChannelPulse, EnrichmentPulse)>,
    /// The outputs that there are.
    pub outputs: Vec<OutputPulse>,
    /// Panics that were contained of outputs that were removed.
    pub past_panics: u64,
    /// The journal; absent where there is none.
    pub journal: Option<JournalPulse>,
    /// What the agent may take, and what it does without to keep to that.
    pub budgets: BudgetsPulse,
    /// Panics of the tasks beside the packets that were contained: statistics, scaling, budgets.
    pub task_panics: u64,
    /// A thread has panicked: the run is about to end.
    pub panicked: bool,
    /// The run was told to end, or its source has.
    pub ending: bool,
}

/// The packet reader.
#[derive(Clone, Copy, Debug)]
pub struct ReaderPulse {
    /// Packets handed over or rejected by the source.
    pub packets: u64,
    /// Calls of the source.
    pub polls: u64,
    /// Panics that were contained.
    pub panics: u64,
    /// Longest time between two looks at the source.
    pub longest_gap: Duration,
    /// Since the last look at the source; none so far where it has not looked yet.
    pub idle: Option<Duration>,
}

/// A channel between two stages.
#[derive(Clone, Debug, Default)]
pub struct ChannelPulse {
    /// Packets dropped for want of room.
    pub drops: u64,
    /// What fits.
    pub capacity: u64,
    /// What is in it.
    pub depth: u64,
    /// The most that was in it.
    pub high_water: u64,
    /// Times that a producer waited for room.
    pub waits: u64,
    /// How long batches were in it; only with details.
    pub wait: Option<WaitFigures>,
}

/// What waits in the reader, merged by flow.
#[derive(Clone, Debug)]
pub struct CoalescingPulse {
    /// In observations.
    pub room: ChannelPulse,
    /// Observations that became part of others.
    pub merges: u64,
}

/// The flow workers.
#[derive(Clone, Copy, Debug)]
pub struct WorkersPulse {
    /// How many.
    pub threads: u64,
    /// Packets metered.
    pub packets: u64,
    /// Messages handled.
    pub batches: u64,
    /// Panics that were contained.
    pub panics: u64,
    /// For how long one of them has been at one message, at most.
    pub at_work: Duration,
}

/// The enrichment workers.
#[derive(Clone, Copy, Debug)]
pub struct EnrichmentPulse {
    /// How many.
    pub threads: u64,
    /// Records enriched.
    pub records: u64,
    /// Records that wait for a later answer, or for room.
    pub held: u64,
    /// Records handed on before everything could be known about them.
    pub early: u64,
    /// Panics that were contained.
    pub panics: u64,
    /// For how long one of them has been at one batch, at most.
    pub at_work: Duration,
}

/// What is written down of what is in memory.
#[derive(Clone, Debug)]
pub struct JournalPulse {
    /// Cuts so far, those of earlier runs too.
    pub cuts: u64,
    /// Size of the file of cuts.
    pub bytes: u64,
    /// Why nothing is written down; absent where it is.
    pub trouble: Option<String>,
}

/// An output's disk buffer.
#[derive(Clone, Debug)]
pub struct BufferPulse {
    /// Size of its files.
    pub bytes: u64,
    /// The bound on that.
    pub capacity: u64,
    /// Why records are not written; absent where they are.
    pub trouble: Option<String>,
}

/// An output.
#[derive(Clone, Debug)]
pub struct OutputPulse {
    /// Its name.
    pub name: String,
    /// Records handed over and dropped so far. This, `delivered`, `merged` and `opened` count those of outputs that had its
    /// name before, too.
    pub drops: u64,
    /// Records delivered so far.
    pub delivered: u64,
    /// Records merged into others so far.
    pub merged: u64,
    /// Panics that were contained.
    pub panics: u64,
    /// All reasons for which it may drop records.
    pub drop_reasons: Vec<&'static str>,
    /// Its queue, in records.
    pub queue: ChannelPulse,
    /// Its records on disk; absent where they wait in memory only.
    pub buffer: Option<BufferPulse>,
    /// Nobody reads it any more.
    pub closed: bool,
    /// Why the last attempt failed; absent where it did not.
    pub failing: Option<String>,
    /// How deliveries go, where there is a receiver.
    pub delivery: Option<Arc<Delivery>>,
    /// Whether it gets its records.
    pub breaker: BreakerState,
    /// Why it gets none; absent where it does.
    pub let_be: Option<String>,
    /// How often it came to that.
    pub opened: u64,
}

impl Pulse {
    /// Panics that were contained.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.task_panics
            + self.reader.panics
            + self.past_panics
            + self.flow_workers.panics
            + self.enrichment.as_ref().map_or(0, |(_, workers)| workers.panics)
            + self.outputs.iter().map(|output| output.panics).sum::<u64>()
    }
}

impl OutputPulse {
    /// Whether it takes records: what may pass (a receiver that is away for a moment) is no failure.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let failing = |delivery: &Arc<Delivery>| delivery.condition().0 == DeliveryState::Failing;
        let let_be = self.breaker != BreakerState::Closed;
        !self.closed && !let_be && self.failing.is_none() && !self.delivery.as_ref().is_some_and(failing)
    }
}

impl Observer {
    /// What the stages do at the moment.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.0.pulse()
    }
}

impl Shared {
    pub(crate) fn pulse(&self) -> Pulse {
        let control = &self.control;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let looked = load(&control.looked);
        let running = self.started.elapsed();
        let reader = ReaderPulse {
            packets: control.observed.get().packets + load(&control.rejected),
            polls: load(&control.polls),
            panics: load(&self.panics.reader),
            longest_gap: Duration::from_nanos(load(&control.longest_gap)),
            idle: (looked > 0).then(|| running.saturating_sub(Duration::from_nanos(looked))),
        };
        let (outputs, past_panics) = self.fan_out.pulses();
        let packet_channel = self.room.pulse(control.lost.get().packets);
        let flow_workers = WorkersPulse {
            threads: self.staff.working() as u64,
            packets: self.meters.iter().map(|cells| cells.get().metered.packets).sum(),
            batches: self.meters.iter().map(|cells| load(&cells.messages)).sum(),
            panics: load(&self.panics.flow),
            at_work: self.longest(self.meters.iter().map(|cells| &cells.at_work)),
        };
        Pulse {
            detailed: self.enable_metrics,
            running,
            reader,
            packet_channel,
            coalescing: self.room.coalescing.as_ref().map(Coalescing::pulse),
            flow_workers,
            enrichment: (!self.enrichment.is_empty()).then(|| self.enrichment_pulse()),
            outputs,
            past_panics,
            journal: self.journal.as_ref().map(|journal| journal.pulse()),
            budgets: self.budgets.pulse(),
            task_panics: load(&self.panics.tasks),
            panicked: self.panicked.load(Ordering::Acquire),
            ending: control.is_ending(),
        }
    }

    pub(crate) fn longest<'a>(&self, workers: impl Iterator<Item = &'a AtWork>) -> Duration {
        workers.map(|at_work| at_work.for_how_long(self.started)).max().unwrap_or_default()
    }

    /// Which workers hang, and for how long: stage by stage.
    pub(crate) fn hanging(&self) -> Vec<(&'static str, Duration)> {
        let flow = self.longest(self.meters.iter().map(|cells| &cells.at_work));
        let enrichment = self.longest(self.enrichment.iter().map(|(_, cells)| &cells.at_work));
        let stages = [("A flow worker", flow), ("An enrichment worker", enrichment)];
        stages.into_iter().filter(|(_, at_work)| *at_work >= WORKER_PATIENCE).collect()
    }

    fn enrichment_pulse(&self) -> (ChannelPulse, EnrichmentPulse) {
        let channel = self.enrichment.iter().map(|(queue, _)| queue.pulse());
        let channel = channel.reduce(ChannelPulse::plus).unwrap_or_default();
        let mut workers = EnrichmentPulse {
            threads: self.enrichment_crew.as_ref().map_or(0, |crew| crew.staff().working()) as u64,
            records: 0,
            held: 0,
            early: 0,
            panics: self.panics.enrichment.load(Ordering::Relaxed),
            at_work: self.longest(self.enrichment.iter().map(|(_, cells)| &cells.at_work)),
        };
        for (_, cells) in &self.enrichment {
            workers.records += cells.records.load(Ordering::Relaxed);
            workers.held += cells.held.load(Ordering::Relaxed);
            workers.early += cells.early.load(Ordering::Relaxed);
        }
        (channel, workers)
    }
}

impl ChannelPulse {
    /// This and another lane of the same channel. High-water marks were not reached at one time, so their sum is an
    /// upper bound.
    fn plus(self, other: Self) -> Self {
        Self {
            drops: self.drops + other.drops,
            capacity: self.capacity + other.capacity,
            depth: self.depth + other.depth,
            high_water: self.high_water + other.high_water,
            waits: self.waits + other.waits,
            wait: match (self.wait, other.wait) {
                (Some(one), Some(other)) => Some(one.plus(&other)),
                (one, other) => one.or(other),
            },
        }
    }
}
