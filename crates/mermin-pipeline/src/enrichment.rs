//! An enrichment worker: adds to each record what is known about its ends, then hands it to the outputs.
//!
//! What is known may lag behind the packets: who has an address *now* is learned a moment later. Records whose packets
//! are younger than that wait for it, in order, for a bounded time and in bounded number; they are resident until then.
//! An answer that frees many of them at once must not overrun the outputs: while their time lasts, records whose answer
//! has come wait for room as well; but an output that stays full is not waited for long, for the sake of the others.

use crate::adjustable::Adjustable;
use crate::budget::Shed;
use crate::cells::AtWork;
use crate::counts::TallyCell;
use crate::incidents::{Incidents, containing};
use crate::output::FanOut;
use crate::record_queue::{Consumer, Item};
use crate::snapshot::{Arrivals, Marker};
use mermin_flow::{Enricher, Enrichment, FlowRecord, Tally, panic_message};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often held records are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long the worker sleeps when it has nothing.
const NAP: Duration = Duration::from_secs(1);

/// What an enrichment worker is made of.
pub(crate) struct EnrichmentWorker {
    pub(crate) intake: Consumer,
    pub(crate) enricher: Arc<dyn Enricher>,
    pub(crate) fan_out: Arc<FanOut>,
    /// Flow workers that send records here.
    pub(crate) producers: usize,
    /// Records that may be held for a later answer.
    pub(crate) hold_max: usize,
    /// What the agent does without: names may be among it.
    pub(crate) shed: Arc<Shed>,
    /// How long the end of the run may take. Records are held for a part of it at most.
    pub(crate) shutdown_timeout: Arc<Adjustable>,
    pub(crate) cells: Arc<EnrichmentCells>,
    pub(crate) incidents: Incidents,
    /// The pipeline's clock.
    pub(crate) started: Instant,
}

/// What an enrichment worker publishes.
#[derive(Debug, Default)]
pub(crate) struct EnrichmentCells {
    pub(crate) released: TallyCell,
    pub(crate) records: AtomicU64,
    /// Records that wait for a later answer, or for room.
    pub(crate) held: AtomicU64,
    /// Records that were handed on before everything could be known about them: they had waited long enough, or
    /// others needed their place.
    pub(crate) early: AtomicU64,
    pub(crate) at_work: AtWork,
}

/// Tells the outputs that this producer has ended, also by a panic: they must not wait for it.
struct End(Arc<FanOut>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Records that wait for a later answer, or for room: what is left of a batch of one flow worker.
struct Held {
    batch: std::vec::IntoIter<FlowRecord>,
    producer: usize,
    since: Instant,
}

/// The worker at work.
struct Running {
    worker: EnrichmentWorker,
    held: VecDeque<Held>,
    held_records: usize,
    /// Released so far, by producer.
    released: Vec<Tally>,
}

impl EnrichmentWorker {
    pub(crate) fn run(self) {
        let _end = End(Arc::clone(&self.fan_out));
        let released = vec![Tally::ZERO; self.producers];
        Running { worker: self, held: VecDeque::new(), held_records: 0, released }.run();
    }
}

impl Running {
    fn run(mut self) {
        let (mut ended, mut arrivals) = (0, Arrivals::default());
        let full_patience = self.worker.enricher.patience();
        while ended < self.worker.producers {
            // Without names there is nothing to wait for.
            let patience = if self.worker.shed.is_nameless() { Duration::ZERO } else { full_patience };
            let nap = if self.held.is_empty() { NAP } else { LOOK };
            let item = self.worker.intake.next(nap);
            let (cells, started) = (Arc::clone(&self.worker.cells), self.worker.started);
            cells.at_work.during(started, || {
                match item {
                    Some(Item::Records(producer, batch)) => self.take(producer, batch, patience),
                    Some(Item::Marker(producer, marker)) => self.mark(producer, &marker, &mut arrivals),
                    Some(Item::End) => ended += 1,
                    None => {}
                }
                self.release_ripe(patience);
            });
        }
        let began = Instant::now();
        let last_patience = full_patience.min(self.worker.shutdown_timeout.get() / 4);
        while !self.held.is_empty() {
            let left = last_patience.saturating_sub(began.elapsed());
            std::thread::sleep(left.min(LOOK));
            self.release_ripe(if left.is_zero() { Duration::ZERO } else { full_patience });
        }
    }

    fn take(&mut self, producer: usize, batch: Vec<FlowRecord>, patience: Duration) {
        // Behind those that still wait, if there are any: records of a flow stay in order.
        if patience.is_zero() && self.held.is_empty() {
            return self.release(batch, producer);
        }
        self.held_records += batch.len();
        self.held.push_back(Held { batch: batch.into_iter(), producer, since: Instant::now() });
    }

    /// Hands on what need not wait any longer. Records stay in order, so one that waits holds up those behind it: for
    /// no longer than their own patience.
    fn release_ripe(&mut self, patience: Duration) {
        if self.held.is_empty() {
            return;
        }
        let known_until = self.worker.enricher.known_until();
        let is_ripe = |record: &&FlowRecord| record.end_time <= known_until;
        while let Some(head) = self.held.front_mut() {
            let records = head.batch.as_slice();
            let (go, promised) =
                if head.since.elapsed() >= patience || self.held_records > self.worker.hold_max {
                    let early = records.iter().filter(|record| !is_ripe(record)).count();
                    self.worker.cells.early.fetch_add(early as u64, Ordering::Relaxed);
                    (records.len(), 0)
                } else {
                    let ripe = records.iter().take_while(is_ripe).count();
                    let promised = self.worker.fan_out.promise(ripe, patience);
                    (promised, promised)
                };
            if go == 0 {
                break;
            }
            // All that is left is collected where it stands, without a copy.
            let (batch, producer) = if go == records.len() {
                let Some(head) = self.held.pop_front() else { break };
                (head.batch.collect(), head.producer)
            } else {
                (head.batch.by_ref().take(go).collect(), head.producer)
            };
            self.held_records -= go;
            self.release(batch, producer);
            self.worker.fan_out.keep_promise(promised);
        }
        self.worker.cells.held.store(self.held_records as u64, Ordering::Relaxed);
    }

    fn release(&mut self, mut batch: Vec<FlowRecord>, producer: usize) {
        let worker = &mut self.worker;
        if worker.shed.is_nameless() {
            batch.iter_mut().for_each(|record| record.enrichment.omitted = true);
        } else {
            containing(|| enrich(&*worker.enricher, &mut batch, &mut worker.incidents));
        }
        self.released[producer] += batch.iter().map(|record| record.tally).sum();
        worker.cells.released.set(self.released.iter().copied().sum());
        worker.cells.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
        worker.fan_out.release(batch);
    }

    /// A marker has come from a producer. Records of other producers may be behind their marker or not: each producer
    /// is counted by itself.
    fn mark(&self, producer: usize, marker: &Marker, arrivals: &mut Arrivals) {
        let released = self.released[producer];
        let held = self.held.iter().filter(|held| held.producer == producer);
        let held: Tally = held.flat_map(|held| held.batch.as_slice()).map(|record| record.tally).sum();
        marker.add(|parts| {
            parts.released += released;
            parts.in_enrichment += held;
        });
        if arrivals.is_last(marker, self.worker.producers) {
            self.worker.fan_out.mark(marker);
        }
    }
}

/// Adds names to all records. One at which the enricher panics goes on without any: it is no less true for that.
fn enrich(enricher: &dyn Enricher, records: &mut [FlowRecord], incidents: &mut Incidents) {
    let mut next = 0;
    while next < records.len() {
        let work = || {
            for record in &mut records[next..] {
                enricher.enrich(record);
                next += 1;
            }
        };
        let Err(payload) = catch_unwind(AssertUnwindSafe(work)) else { return };
        let record = &mut records[next];
        (record.source.identity, record.destination.identity) = Default::default();
        record.enrichment = Enrichment::default();
        next += 1;
        incidents.note(&panic_message(&*payload), || {
            format!("a record of flow {} goes on without names", record.community_id)
        });
    }
}
