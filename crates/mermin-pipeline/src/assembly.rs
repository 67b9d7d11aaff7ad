//! Puts the stages together: channels, queues, and a thread for each worker, output, the reader and the statistics.

use crate::Hold;
use crate::adjustable::Adjustable;
use crate::budget::{Bounds, Budget, Budgets};
use crate::cells::MeterCells;
use crate::channel_room::ChannelRoom;
use crate::config::{PipelineConfig, ReplayMetering};
use crate::counts::TallyCell;
use crate::created_log::CreatedLog;
use crate::crew::{Chair, Crew, Rested};
use crate::cut::Cuts;
use crate::enrichment::{EnrichmentCells, EnrichmentCrew, EnrichmentLane, Setup};
use crate::flow_worker::{Downstream, FlowWorker, Outlet};
use crate::handover::Handover;
use crate::in_place::InPlace;
use crate::incidents::{Incidents, Panics};
use crate::journal::{Progress, RunJournal};
use crate::look::Looks;
use crate::observer::Shared;
use crate::output::{DiskBuffer, FanOut, NewOutput, Treatment};
use crate::packet_channel::{WhenFull, packet_channel};
use crate::random::random;
use crate::reader::{Reader, ReaderControl, ReaderEnd};
use crate::record_queue::{Consumer, RecordQueue};
use crate::running::Running;
use crate::sampler::Sampler;
use crate::staff::Staff;
use crate::threads::{StartError, Threads};
use crate::tuning::Change;
use crossbeam_channel::bounded;
use mermin_flow::{Enricher, Exporter, FlowConfig, HashSecret, Meter, Orientation, Source, Tally};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use tracing::info;

/// Flow records that enrichment may hold for later answers, where the channel has no room for more: 5 s of
/// 3 000 young records a second, in about 8 MiB.
const HELD: usize = 16_384;
/// Flow records that a batch between two stages holds at most.
const RECORD_BATCH_MAX: usize = 256;

/// What a run is made of.
pub struct Stages<S> {
    /// Where observations come from.
    pub source: S,
    /// Adds names; `None` bypasses the enrichment workers.
    pub enricher: Option<Arc<dyn Enricher>>,
    /// Where records go. Their names differ.
    pub exporters: Vec<Box<dyn Exporter>>,
    /// Where records of exporters wait on disk, by the exporters' names; of others they wait in memory only.
    pub buffers: HashMap<String, DiskBuffer>,
    /// Records that may wait for one exporter.
    pub output_queue_capacity: usize,
    /// Goes into flow ids; empty in a replay.
    pub agent_id: String,
    /// Where what is in memory is written down, and what an earlier run has left there.
    pub journal: Option<RunJournal>,
    /// What the agent may take.
    pub budget: Budget,
    /// Lets tests hold the flow workers.
    pub hold: Hold,
}

/// What a reader begins with, whatever becomes of its observations.
struct Begin<S> {
    source: S,
    orientation: Orientation,
    sampler: Sampler,
    control: Arc<ReaderControl>,
    started: Instant,
    incidents: Incidents,
    cuts: Option<Cuts>,
    /// What an earlier run has left in flows and records.
    restored: Tally,
}

/// Starts all stages.
///
/// # Errors
/// [`StartError`], when the system gives no threads.
pub fn start<S: Source + 'static>(
    config: &PipelineConfig,
    flow: &FlowConfig,
    stages: Stages<S>,
) -> Result<Running<S>, StartError> {
    let (least_enrichment, enrichment_workers) = config.enrichment_workers.range();
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let in_place = !S::LIVE && meters_in_reader(config, cores);
    let (least, flow_workers) = if in_place { (1, 1) } else { config.flow_workers.range() };
    let staff = Arc::new(Staff::new(least, flow_workers));
    let when_full = match (config.enable_backpressure, S::LIVE) {
        (false, _) => WhenFull::Drop,
        (true, true) => WhenFull::Coalesce {
            capacity: config.coalescing_capacity.get(),
            gap: flow.shortest_idle_timeout(),
        },
        (true, false) => WhenFull::Wait,
    };
    let enriches = stages.enricher.is_some();
    let mut budget = stages.budget;
    let bounds = Bounds {
        flows: flow.table_capacity.get(),
        waiting: if let WhenFull::Coalesce { capacity, .. } = when_full { capacity } else { 0 },
        records: stages.output_queue_capacity * stages.exporters.len()
            + if enriches { HELD.max(config.enrichment_channel_capacity.get()) } else { 0 },
    };
    let budgets = Budgets::new(&mut budget, (S::LIVE, enriches), bounds);
    let shed = Arc::clone(&budgets.shed);
    let producers = if enriches { enrichment_workers } else { flow_workers };
    let threads = Arc::new(Threads::default());

    let treatment = Treatment {
        capacity: stages.output_queue_capacity,
        detailed: config.enable_metrics,
        rules: config.priority.iter().cloned().collect(),
        breaker: config.breaker.clone(),
        waits: when_full == WhenFull::Wait,
    };
    let mut buffers = stages.buffers;
    let comes = |exporter: Box<dyn Exporter>| {
        let buffer = buffers.remove(exporter.name());
        NewOutput { exporter, after: Vec::new(), buffer }
    };
    let outputs = stages.exporters.into_iter().map(comes).collect();
    let fan_out = FanOut::new(producers, treatment, Arc::clone(&threads));
    fan_out.start(outputs)?;
    let fan_out = Arc::new(fan_out);

    let shutdown_timeout = Arc::new(Adjustable::new(config.shutdown_timeout.0));
    let (panics, started) = (Panics::default(), Instant::now());
    let incidents = Incidents::new("The packet reader", Arc::clone(&panics.reader));
    let capacity = config.enrichment_channel_capacity.get();
    let (mut enrichment, mut lanes, left) = (Vec::new(), Vec::new(), Arc::new(AtomicUsize::new(0)));
    if let Some(enricher) = stages.enricher {
        left.store(enrichment_workers, Ordering::Release);
        for _ in 0..enrichment_workers {
            let queue = RecordQueue::new((capacity / enrichment_workers).max(1), config.enable_metrics);
            let cells = Arc::new(EnrichmentCells::of(&stages.source));
            let setup = Setup {
                intake: Consumer(Arc::clone(&queue)),
                enricher: Arc::clone(&enricher),
                fan_out: Arc::clone(&fan_out),
                producers: flow_workers,
                hold_max: (capacity.max(HELD) / enrichment_workers).max(1),
                shed: Arc::clone(&shed),
                shutdown_timeout: Arc::clone(&shutdown_timeout),
                cells: Arc::clone(&cells),
                incidents: Incidents::new("An enrichment worker", Arc::clone(&panics.enrichment)),
                started,
            };
            lanes.push(EnrichmentLane::new(setup, &left));
            enrichment.push((queue, cells));
        }
    }
    let enrichment_crew = match lanes.is_empty() {
        true => None,
        false => Some(EnrichmentCrew::begin(lanes, left, least_enrichment, &threads, started)?),
    };

    let created = Arc::new(CreatedLog::new());
    // Of the room of one lane: a batch must not fill it.
    let lanes = if enriches { enrichment_workers } else { 1 };
    let record_batch = (capacity / (4 * flow_workers * lanes)).clamp(1, RECORD_BATCH_MAX);
    let secret = stages.journal.as_ref().map_or_else(random, |journal| journal.secret);
    let orientation = Orientation::new(HashSecret::new(secret));
    let (mut workers, mut meters, mut released) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..flow_workers {
        let downstream = if enriches {
            Downstream::Enrichment(enrichment.iter().map(|(queue, _)| Arc::clone(queue)).collect())
        } else {
            let cell = Arc::new(TallyCell::from(stages.source.settlement()));
            released.push(Arc::clone(&cell));
            Downstream::FanOut { fan_out: Arc::clone(&fan_out), released: cell }
        };
        let cells = Arc::new(MeterCells::of(&stages.source));
        let mut meter = Meter::new(flow, &stages.agent_id);
        meter.allow_for(orientation.lateness());
        meter.tell_times_of(stages.source.wall_clock());
        meter.observe_at(stages.source.points());
        workers.push(FlowWorker {
            meter,
            outlet: Outlet::new(
                number,
                downstream,
                record_batch,
                (Arc::clone(&created), stages.hold.clone()),
            ),
            cells: Arc::clone(&cells),
            may_postpone: when_full != WhenFull::Wait,
            postponing: false,
            shed: Arc::clone(&shed),
            halvings: 0,
            hold: stages.hold.clone(),
            looks: Looks::default(),
            incidents: Incidents::new("A flow worker", Arc::clone(&panics.flow)),
            started,
        });
        meters.push(cells);
    }

    let (mut cuts, mut journal_thread, mut restored) = (None, None, Tally::ZERO);
    let progress =
        stages.journal.as_ref().map(|journal| Arc::new(Progress::new(journal.cut(), stages.source.voider())));
    if let (Some(mut journal), Some(progress)) = (stages.journal, progress.clone()) {
        let points = stages.source.points();
        restored = journal.restore(&mut workers, staff.working(), &points, &progress);
        let (to, told) = bounded(flow_workers);
        cuts = Some(Cuts::new(Arc::clone(&progress), to, journal.cut(), flow_workers, points));
        let committer = journal.committer(secret, progress);
        journal_thread = Some(threads.keep("journal", "journal".to_owned(), move || committer.run(&told))?);
    }

    let room = ChannelRoom::new(config.packet_channel_capacity.get(), when_full, config.enable_metrics);
    let sampler = Sampler::new(Arc::clone(&shed));
    let room = Arc::new(ChannelRoom { shed, ..room });
    let control =
        Arc::new(ReaderControl::new(&stages.source, config.stats_interval.0, Change::to(config, flow)));
    let shared = Arc::new(Shared {
        started,
        live: S::LIVE,
        enable_metrics: config.enable_metrics,
        control: Arc::clone(&control),
        room: Arc::clone(&room),
        meters,
        panics,
        enrichment,
        enrichment_crew,
        released,
        fan_out,
        created,
        panicked: Arc::clone(&threads.panicked),
        staff: Arc::clone(&staff),
        budgets,
        journal: progress,
        journal_thread,
        ended: Mutex::new(false),
        shutdown_timeout,
        end: Condvar::new(),
        last_part: Mutex::default(),
        at_end: OnceLock::new(),
    });
    info!("Flow processing pipeline initialized");
    let begin =
        Begin { source: stages.source, orientation, sampler, control, started, incidents, cuts, restored };
    let reader = if in_place && let Some(worker) = workers.pop() {
        spawn_reader(&threads, begin, InPlace::new(worker))?
    } else {
        let (lanes, intakes) = packet_channel(room, (staff.working(), flow_workers), when_full);
        let rested = |(worker, intake)| Rested { worker, intake };
        let workers = workers.into_iter().zip(intakes).map(rested).collect();
        let hire = {
            let threads = Arc::clone(&threads);
            move |number, chair: Chair| {
                threads.keep("flow worker", format!("flow-{number}"), move || chair.work()).map(drop)
            }
        };
        let mut crew = Crew::new(lanes, workers, Arc::clone(&staff), Box::new(hire));
        crew.begin()?;
        spawn_reader(&threads, begin, crew)?
    };
    let task = Arc::clone(&shared);
    // Tasks beside the stages are not waited for: one may be in the middle of a line.
    threads.spawn("statistics task", "statistics".to_owned(), move || task.log_statistics())?;
    // Of a fixed number, too: a range may come later.
    if flow_workers > 1 || enrichment_workers > 1 {
        let task = Arc::clone(&shared);
        threads.spawn("scaling of workers", "scaling".to_owned(), move || task.scale())?;
    }
    if !shared.budgets.is_none() {
        let task = Arc::clone(&shared);
        threads.spawn("budget task", "budget".to_owned(), move || task.keep_within(budget))?;
    }
    Ok(Running { shared, reader, threads })
}

fn spawn_reader<S: Source + 'static>(
    threads: &Threads,
    begin: Begin<S>,
    handover: impl Handover + Send + 'static,
) -> Result<JoinHandle<ReaderEnd<S>>, StartError> {
    let Begin { source, orientation, sampler, control, started, incidents, cuts, restored } = begin;
    let beside = (cuts, restored);
    let reader = Reader::new(source, (orientation, sampler), handover, control, started, incidents, beside);
    threads.spawn("packet reader", "reader".to_owned(), move || reader.run())
}

/// Whether the reader of a replay meters itself, on a machine with `cores` for this process.
fn meters_in_reader(config: &PipelineConfig, cores: usize) -> bool {
    config.enable_backpressure
        && match config.replay_metering {
            ReplayMetering::Reader => true,
            ReplayMetering::Workers => false,
            ReplayMetering::Auto => cores < config.flow_workers.most() + 2,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_meters_in_the_reader_where_threads_would_share_cores() {
        let config = |workers: usize, replay_metering, enable_backpressure| PipelineConfig {
            flow_workers: NonZeroUsize::new(workers).unwrap().into(),
            replay_metering,
            enable_backpressure,
            ..PipelineConfig::default()
        };
        for (workers, cores, in_reader) in
            [(1, 1, true), (1, 2, true), (1, 3, false), (2, 3, true), (2, 4, false)]
        {
            for (metering, expected) in [
                (ReplayMetering::Auto, in_reader),
                (ReplayMetering::Reader, true),
                (ReplayMetering::Workers, false),
            ] {
                assert_eq!(meters_in_reader(&config(workers, metering, true), cores), expected);
                assert!(!meters_in_reader(&config(workers, metering, false), cores), "the channel drops");
            }
        }
    }
}
