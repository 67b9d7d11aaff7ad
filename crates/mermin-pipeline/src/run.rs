//! Puts the stages together, runs them and brings them to an orderly end.

use crate::Hold;
use crate::cells::{MeterCells, TallyCell};
use crate::config::PipelineConfig;
use crate::created_log::CreatedLog;
use crate::enrichment::{EnrichmentCells, EnrichmentWorker};
use crate::flow_worker::{Downstream, FlowWorker, Outlet};
use crate::output::{FanOut, Output, OutputFailure};
use crate::packet_channel::{Credits, WhenFull, packet_channel, worker_of};
use crate::reader::{Reader, ReaderControl, ReaderEnd};
use crate::record_queue::{Consumer, RecordQueue};
use crate::snapshot::{Collector, Parts, ReaderPart};
use crate::statistics::{Figures, Statistics};
use mermin_flow::Tally;
use mermin_flow::{
    Enricher, Exporter, FlowConfig, FlowRecord, HashSecret, Meter, MeterBook, Orientation, Source,
};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tracing::info;

/// Flow records that a batch between two stages holds at most.
const RECORD_BATCH_MAX: usize = 256;

/// What a run is made of.
pub struct Stages<S> {
    /// Where observations come from.
    pub source: S,
    /// Adds names; `None` bypasses the enrichment workers.
    pub enricher: Option<Arc<dyn Enricher>>,
    /// Where records go.
    pub exporters: Vec<Box<dyn Exporter>>,
    /// Records that may wait for one exporter.
    pub output_queue_capacity: usize,
    /// Goes into flow ids; empty in a replay.
    pub agent_id: String,
    /// Lets tests hold the flow workers.
    pub hold: Hold,
}

/// A pipeline could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gave no thread.
    #[error("no thread for the {stage}")]
    Thread {
        /// Which stage.
        stage: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// How a run ended.
pub struct Outcome<S> {
    /// The last statistics.
    pub statistics: Statistics,
    /// The source, unless it could not be brought to its end in time.
    pub source: Option<S>,
    /// The first failure of each output that had one.
    pub failures: Vec<OutputFailure>,
    /// `shutdown_timeout` passed before everything was delivered.
    pub timed_out: bool,
    /// Nobody reads the outputs any more: the run ended because of that.
    pub nobody_reads: bool,
    /// Threads that panicked: a bug.
    pub panicked: Vec<String>,
}

/// A running pipeline.
pub struct Running<S> {
    shared: Arc<Shared>,
    reader: JoinHandle<ReaderEnd<S>>,
    threads: Vec<JoinHandle<()>>,
    statistics: JoinHandle<()>,
    shutdown_timeout: Duration,
}

/// An enrichment worker's queue, and what it publishes.
type EnrichmentLane = (Arc<RecordQueue<Vec<FlowRecord>>>, Arc<EnrichmentCells>);

/// What the statistics task and the end of a run look at.
struct Shared {
    started: Instant,
    enable_metrics: bool,
    control: Arc<ReaderControl>,
    credits: Arc<Credits>,
    meters: Vec<Arc<MeterCells>>,
    enrichment: Vec<EnrichmentLane>,
    /// What flow workers have released themselves, when enrichment is off.
    released: Vec<Arc<TallyCell>>,
    fan_out: Arc<FanOut>,
    created: Arc<CreatedLog>,
    ended: Mutex<bool>,
    end: Condvar,
}

fn spawn<T: Send + 'static>(
    stage: &'static str,
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    thread::Builder::new().name(name).spawn(work).map_err(|source| StartError::Thread { stage, source })
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
    let (flow_workers, enrichment_workers) = (config.flow_workers.get(), config.enrichment_workers.get());
    let when_full = match (config.enable_backpressure, S::LIVE) {
        (false, _) => WhenFull::Drop,
        (true, true) => WhenFull::Leave,
        (true, false) => WhenFull::Wait,
    };
    let enriches = stages.enricher.is_some();
    let producers = if enriches { enrichment_workers } else { flow_workers };
    let mut threads = Vec::new();

    let mut outputs = Vec::new();
    for exporter in stages.exporters {
        let (output, work) = Output::new(exporter, stages.output_queue_capacity, producers);
        threads.push(spawn("output", format!("out-{}", output.name), work)?);
        outputs.push(output);
    }
    let fan_out = Arc::new(FanOut::new(outputs, when_full == WhenFull::Wait));

    let capacity = config.enrichment_channel_capacity.get();
    let mut enrichment = Vec::new();
    if let Some(enricher) = stages.enricher {
        for number in 0..enrichment_workers {
            let queue = RecordQueue::new((capacity / enrichment_workers).max(1));
            let cells = Arc::new(EnrichmentCells::default());
            let worker = EnrichmentWorker {
                number,
                intake: Consumer(Arc::clone(&queue)),
                enricher: Arc::clone(&enricher),
                fan_out: Arc::clone(&fan_out),
                producers: flow_workers,
                cells: Arc::clone(&cells),
            };
            threads.push(spawn("enrichment worker", format!("enrich-{number}"), move || worker.run())?);
            enrichment.push((queue, cells));
        }
    }

    let (lanes, intakes) = packet_channel(config.packet_channel_capacity.get(), flow_workers, when_full);
    let created = Arc::new(CreatedLog::new());
    let record_batch = (capacity / (4 * flow_workers)).clamp(1, RECORD_BATCH_MAX);
    let (mut meters, mut released) = (Vec::new(), Vec::new());
    for (number, intake) in intakes.into_iter().enumerate() {
        let downstream = if enriches {
            Downstream::Enrichment(enrichment.iter().map(|(queue, _)| Arc::clone(queue)).collect())
        } else {
            let cell = Arc::new(TallyCell::default());
            released.push(Arc::clone(&cell));
            Downstream::FanOut { fan_out: Arc::clone(&fan_out), released: cell }
        };
        let cells = Arc::new(MeterCells::default());
        let worker = FlowWorker {
            intake,
            meter: Meter::new(flow, &stages.agent_id, |shard| worker_of(shard, flow_workers) == number),
            outlet: Outlet::new(number, downstream, record_batch, Arc::clone(&created)),
            cells: Arc::clone(&cells),
            may_postpone: when_full != WhenFull::Wait,
            hold: stages.hold.clone(),
        };
        threads.push(spawn("flow worker", format!("flow-{number}"), move || worker.run())?);
        meters.push(cells);
    }

    let control = Arc::new(ReaderControl::default());
    let shared = Arc::new(Shared {
        started: Instant::now(),
        enable_metrics: config.enable_metrics,
        control: Arc::clone(&control),
        credits: lanes.credits(),
        meters,
        enrichment,
        released,
        fan_out,
        created,
        ended: Mutex::new(false),
        end: Condvar::new(),
    });
    info!("Flow processing pipeline initialized");
    let orientation = Orientation::new(HashSecret::new(random()));
    let interval = config.stats_interval.0;
    let reader = Reader::new(stages.source, orientation, lanes, control, interval);
    let reader = spawn("packet reader", "reader".to_owned(), move || reader.run())?;
    let task = Arc::clone(&shared);
    let statistics =
        spawn("statistics task", "statistics".to_owned(), move || task.log_statistics(interval))?;
    Ok(Running { shared, reader, threads, statistics, shutdown_timeout: config.shutdown_timeout.0 })
}

/// 64 bits that nobody outside the process knows: the seed that the standard library gives its hash maps.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

impl<S: Source + 'static> Running<S> {
    /// A handle that can ask for the end from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shared.control))
    }

    /// A view of the running pipeline.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer(Arc::clone(&self.shared))
    }

    /// Waits until the source has ended or `stopping` says that it was told to, then brings everything to its end
    /// within the configured time. `stopping` is asked several times a second.
    pub fn wait(self, mut stopping: impl FnMut() -> bool) -> Outcome<S> {
        let mut deadline = None;
        let mut nobody_reads = false;
        loop {
            let workers_done = self.threads.iter().all(JoinHandle::is_finished);
            if self.reader.is_finished() && workers_done {
                break;
            }
            if deadline.is_none() {
                nobody_reads = self.shared.fan_out.nobody_reads();
                if stopping() || nobody_reads {
                    self.shared.control.stop();
                    self.shared.fan_out.wait_from_now();
                    deadline = Some(Instant::now() + self.shutdown_timeout);
                } else if self.reader.is_finished() {
                    self.shared.fan_out.wait_from_now();
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.finish(nobody_reads)
    }

    fn finish(self, nobody_reads: bool) -> Outcome<S> {
        let shared = self.shared;
        *shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        shared.end.notify_all();
        let timed_out = !self.reader.is_finished() || self.threads.iter().any(|thread| !thread.is_finished());
        let mut panicked = Vec::new();
        let mut reader = None;
        if self.reader.is_finished() {
            match self.reader.join() {
                Ok(end) => reader = Some(end),
                Err(_) => panicked.push("reader".to_owned()),
            }
        }
        for thread in self.threads.into_iter().filter(JoinHandle::is_finished) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                panicked.push(name);
            }
        }
        drop(self.statistics);
        let (source, part) = match reader {
            Some(end) => (Some(end.source), Some(end.part)),
            None => (None, None),
        };
        let parts = shared.parts_at_rest(part, timed_out);
        let statistics = Statistics::of(parts, shared.started.elapsed(), shared.stages());
        shared.created.say_suppressed();
        info!("{}", statistics.line());
        let failures = shared.fan_out.outputs.iter().filter_map(Output::failure).collect();
        Outcome { statistics, source, failures, timed_out, nobody_reads, panicked }
    }
}

/// Asks a pipeline to end.
#[derive(Clone)]
pub struct Stopper(Arc<ReaderControl>);

impl Stopper {
    /// The reader takes what has arrived and ends.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// Looks at a pipeline while it runs.
#[derive(Clone)]
pub struct Observer(Arc<Shared>);

impl Observer {
    /// A consistent snapshot; `None` when a stage doesn't answer in time.
    #[must_use]
    pub fn snapshot(&self, at_most: Duration) -> Option<Statistics> {
        let shared = &self.0;
        let marker = Collector::new(shared.parts_expected());
        shared.control.snapshot(Arc::clone(&marker));
        let parts = marker.wait(at_most)?;
        Some(Statistics::of(parts, shared.started.elapsed(), shared.stages()))
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
        1 + workers + releases + self.fan_out.outputs.len()
    }

    /// The statistics task.
    fn log_statistics(self: Arc<Self>, interval: Duration) {
        let observer = Observer(Arc::clone(&self));
        let mut next = Instant::now() + interval;
        loop {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let left = next.saturating_duration_since(Instant::now());
            let (ended, _) = self
                .end
                .wait_timeout_while(ended, left, |ended| !*ended)
                .unwrap_or_else(PoisonError::into_inner);
            if *ended {
                return;
            }
            drop(ended);
            if Instant::now() < next {
                continue;
            }
            next += interval;
            // A stage that is held up doesn't hold up the statistics: then the counts are read where they are.
            let patience = Duration::from_secs(1).min(interval / 2);
            let statistics = observer.snapshot(patience).unwrap_or_else(|| self.statistics_in_passing());
            self.created.say_suppressed();
            info!("{}", statistics.line());
            if self.enable_metrics {
                for (name, figures) in &statistics.stages {
                    let figures: Vec<_> =
                        figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    info!("Stage {name}: {}", figures.join(" "));
                }
            }
        }
    }

    fn statistics_in_passing(&self) -> Statistics {
        let part = ReaderPart {
            observed: self.control.observed.get(),
            lost: self.control.lost.get(),
            ..ReaderPart::default()
        };
        Statistics::of(self.parts_at_rest(Some(part), true), self.started.elapsed(), self.stages())
    }

    /// The parts as the threads have left them. While threads run (`incomplete`), what is between two stages is what
    /// the one has handed over and the other not yet accounted for.
    fn parts_at_rest(&self, reader: Option<ReaderPart>, incomplete: bool) -> Parts {
        let mut meter = MeterBook::default();
        for cells in &self.meters {
            meter += cells.get();
        }
        let mut released: Tally = self.released.iter().map(|cell| cell.get()).sum();
        for (_, cells) in &self.enrichment {
            released += cells.released.get();
        }
        let mut reader = reader.unwrap_or_else(|| ReaderPart {
            observed: self.control.observed.get(),
            lost: self.control.lost.get(),
            ..ReaderPart::default()
        });
        let mut parts = Parts { released, meter, active: meter.created - meter.released, ..Parts::default() };
        if incomplete {
            reader.waiting = reader.observed - reader.lost - meter.metered - meter.secondary;
            parts.resident = meter.metered - meter.reported;
            parts.in_enrichment = meter.reported - released;
        }
        parts.reader = reader;
        parts.outputs =
            self.fan_out.outputs.iter().map(|output| (output.name.clone(), output.book())).collect();
        parts
    }

    /// Figures of each stage and channel: drops and merges always, the rest with `enable_metrics`.
    fn stages(&self) -> Vec<(String, Figures)> {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let rate = |count: u64| json!((count as f64 / seconds).round());
        let (control, credits) = (&self.control, &self.credits);
        let metrics = self.enable_metrics;
        let mut stages = Vec::new();
        let mut stage = |name: &str, drops: u64, more: Figures| {
            let mut figures: Figures = vec![("drops", json!(drops)), ("merges", json!(0))];
            if metrics {
                figures.extend(more);
            }
            stages.push((name.to_owned(), figures));
        };
        let observed = control.observed.get().packets;
        let reader_waits = credits.waits.load(Ordering::Relaxed);
        stage(
            "packet_reader",
            0,
            vec![
                ("rate", rate(observed + control.rejected.load(Ordering::Relaxed))),
                ("waits", json!(reader_waits)),
                ("polls", json!(control.polls.load(Ordering::Relaxed))),
                ("longest_gap_seconds", json!(control.longest_gap.load(Ordering::Relaxed) as f64 / 1e9)),
            ],
        );
        stage(
            "packet_channel",
            control.lost.get().packets,
            vec![
                ("capacity", json!(credits.capacity)),
                ("depth", json!(credits.used())),
                ("high_water", json!(credits.high_water.load(Ordering::Relaxed))),
            ],
        );
        let metered: u64 = self.meters.iter().map(|cells| cells.get().metered.packets).sum();
        let wakes: u64 = self.meters.iter().map(|cells| cells.messages.load(Ordering::Relaxed)).sum();
        stage("flow_workers", 0, vec![("rate", rate(metered)), ("batches", json!(wakes))]);
        if !self.enrichment.is_empty() {
            let figures: Vec<_> = self.enrichment.iter().map(|(queue, _)| queue.figures()).collect();
            stage(
                "enrichment_channel",
                0,
                vec![
                    ("capacity", json!(figures.iter().map(|f| f.capacity).sum::<usize>())),
                    ("depth", json!(figures.iter().map(|f| f.depth).sum::<usize>())),
                    ("high_water", json!(figures.iter().map(|f| f.high_water).sum::<usize>())),
                    ("waits", json!(figures.iter().map(|f| f.waits).sum::<u64>())),
                ],
            );
            let records =
                self.enrichment.iter().map(|(_, cells)| cells.records.load(Ordering::Relaxed)).sum();
            stage("enrichment_workers", 0, vec![("rate", rate(records))]);
        }
        for output in &self.fan_out.outputs {
            let (book, figures) = (output.book(), output.figures());
            stage(
                &format!("output {}", output.name),
                book.dropped.values().map(|dropped| dropped.records).sum(),
                vec![
                    ("rate", rate(book.delivered.records)),
                    ("capacity", json!(figures.capacity)),
                    ("depth", json!(figures.depth)),
                    ("high_water", json!(figures.high_water)),
                    ("waits", json!(figures.waits)),
                ],
            );
        }
        stages
    }
}
