//! Puts the stages together: channels, queues, and a thread for each worker, output, the reader and the statistics.

use crate::Hold;
use crate::cells::{MeterCells, TallyCell};
use crate::config::{PipelineConfig, ReplayMetering};
use crate::created_log::CreatedLog;
use crate::credits::Credits;
use crate::enrichment::{EnrichmentCells, EnrichmentWorker};
use crate::flow_worker::{Downstream, FlowWorker, Outlet};
use crate::handover::Handover;
use crate::in_place::InPlace;
use crate::look::Looks;
use crate::observer::Shared;
use crate::output::{FanOut, Output};
use crate::packet_channel::{WhenFull, packet_channel};
use crate::reader::{Reader, ReaderControl, ReaderEnd};
use crate::record_queue::{Consumer, RecordQueue};
use crate::running::Running;
use mermin_flow::{Enricher, Exporter, FlowConfig, HashSecret, Meter, Orientation, Source};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tracing::info;

/// Flow records that an enrichment worker may hold for later answers, where the channel has no room for more: 5 s of
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

/// Raised when a thread panics.
pub(crate) type Panicked = Arc<AtomicBool>;

struct Alarm(Panicked);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// Gives each stage its threads.
struct Threads(Panicked);

impl Threads {
    fn spawn<T: Send + 'static>(
        &self,
        stage: &'static str,
        name: String,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, StartError> {
        let alarm = Alarm(Arc::clone(&self.0));
        let work = move || {
            let _alarm = alarm;
            work()
        };
        thread::Builder::new().name(name).spawn(work).map_err(|source| StartError::Thread { stage, source })
    }

    fn spawn_reader<S: Source + 'static>(
        &self,
        begin: Begin<S>,
        handover: impl Handover + Send + 'static,
    ) -> Result<JoinHandle<ReaderEnd<S>>, StartError> {
        let Begin { source, orientation, control, started, interval } = begin;
        let reader = Reader::new(source, orientation, handover, control, (started, interval));
        self.spawn("packet reader", "reader".to_owned(), move || reader.run())
    }
}

/// What a reader begins with, whatever becomes of its observations.
struct Begin<S> {
    source: S,
    orientation: Orientation,
    control: Arc<ReaderControl>,
    started: Instant,
    interval: Duration,
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
    let enrichment_workers = config.enrichment_workers.get();
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let in_place = !S::LIVE && meters_in_reader(config, cores);
    let flow_workers = if in_place { 1 } else { config.flow_workers.get() };
    let when_full = match (config.enable_backpressure, S::LIVE) {
        (false, _) => WhenFull::Drop,
        (true, true) => WhenFull::Leave,
        (true, false) => WhenFull::Wait,
    };
    let enriches = stages.enricher.is_some();
    let producers = if enriches { enrichment_workers } else { flow_workers };
    let (spawner, mut threads) = (Threads(Panicked::default()), Vec::new());

    let mut outputs = Vec::new();
    for exporter in stages.exporters {
        let room = (stages.output_queue_capacity, config.enable_metrics);
        let (output, work) = Output::new(exporter, room, producers);
        threads.push(spawner.spawn("output", format!("out-{}", output.name), work)?);
        outputs.push(output);
    }
    let fan_out = Arc::new(FanOut::new(outputs, producers, when_full == WhenFull::Wait));

    let capacity = config.enrichment_channel_capacity.get();
    let mut enrichment = Vec::new();
    if let Some(enricher) = stages.enricher {
        for number in 0..enrichment_workers {
            let queue = RecordQueue::new((capacity / enrichment_workers).max(1), config.enable_metrics);
            let cells = Arc::new(EnrichmentCells::default());
            let worker = EnrichmentWorker {
                intake: Consumer(Arc::clone(&queue)),
                enricher: Arc::clone(&enricher),
                fan_out: Arc::clone(&fan_out),
                producers: flow_workers,
                hold_max: (capacity / enrichment_workers).max(HELD),
                last_patience: enricher.patience().min(config.shutdown_timeout.0 / 4),
                cells: Arc::clone(&cells),
            };
            threads
                .push(spawner.spawn("enrichment worker", format!("enrich-{number}"), move || worker.run())?);
            enrichment.push((queue, cells));
        }
    }

    let created = Arc::new(CreatedLog::new());
    let record_batch = (capacity / (4 * flow_workers)).clamp(1, RECORD_BATCH_MAX);
    let orientation = Orientation::new(HashSecret::new(random()));
    let (mut workers, mut meters, mut released) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..flow_workers {
        let downstream = if enriches {
            Downstream::Enrichment(enrichment.iter().map(|(queue, _)| Arc::clone(queue)).collect())
        } else {
            let cell = Arc::new(TallyCell::default());
            released.push(Arc::clone(&cell));
            Downstream::FanOut { fan_out: Arc::clone(&fan_out), released: cell }
        };
        let cells = Arc::new(MeterCells::default());
        let mut meter = Meter::new(flow, &stages.agent_id);
        meter.allow_for(orientation.lateness());
        workers.push(FlowWorker {
            meter,
            outlet: Outlet::new(number, downstream, record_batch, Arc::clone(&created)),
            cells: Arc::clone(&cells),
            may_postpone: when_full != WhenFull::Wait,
            postponing: false,
            hold: stages.hold.clone(),
            looks: Looks::default(),
        });
        meters.push(cells);
    }

    let credits = Arc::new(Credits::new(config.packet_channel_capacity.get(), config.enable_metrics));
    let control = Arc::new(ReaderControl::new(stages.source.interrupter()));
    let started = Instant::now();
    let shared = Arc::new(Shared {
        started,
        enable_metrics: config.enable_metrics,
        control: Arc::clone(&control),
        credits: Arc::clone(&credits),
        meters,
        enrichment,
        released,
        fan_out,
        created,
        panicked: spawner.0.clone(),
        ended: Mutex::new(false),
        end: Condvar::new(),
        last_part: Mutex::default(),
        at_end: OnceLock::new(),
    });
    info!("Flow processing pipeline initialized");
    let interval = config.stats_interval.0;
    let begin = Begin { source: stages.source, orientation, control, started, interval };
    let reader = if in_place && let Some(worker) = workers.pop() {
        spawner.spawn_reader(begin, InPlace::new(worker))?
    } else {
        let (lanes, intakes) = packet_channel(credits, flow_workers, when_full);
        for (number, (worker, intake)) in workers.into_iter().zip(intakes).enumerate() {
            let work = move || worker.run(&intake);
            threads.push(spawner.spawn("flow worker", format!("flow-{number}"), work)?);
        }
        spawner.spawn_reader(begin, lanes)?
    };
    let task = Arc::clone(&shared);
    let statistics =
        spawner.spawn("statistics task", "statistics".to_owned(), move || task.log_statistics(interval))?;
    Ok(Running { shared, reader, threads, statistics, shutdown_timeout: config.shutdown_timeout.0 })
}

/// Whether the reader of a replay meters itself, on a machine with `cores` for this process.
fn meters_in_reader(config: &PipelineConfig, cores: usize) -> bool {
    config.enable_backpressure
        && match config.replay_metering {
            ReplayMetering::Reader => true,
            ReplayMetering::Workers => false,
            ReplayMetering::Auto => cores < config.flow_workers.get() + 2,
        }
}

/// 64 bits that nobody outside the process knows: the seed that the standard library gives its hash maps.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_meters_in_the_reader_where_threads_would_share_cores() {
        let config = |workers: usize, replay_metering, enable_backpressure| PipelineConfig {
            flow_workers: NonZeroUsize::new(workers).unwrap(),
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
