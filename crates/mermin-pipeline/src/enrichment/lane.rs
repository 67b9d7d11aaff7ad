//! A lane of enrichment: adds to each record of its flows what is known about its ends, then hands it to the outputs.
//!
//! What is known may lag behind the packets: who has an address *now* is learned a moment later. Records whose packets
//! are younger than that wait for it, in order, for a bounded time and in bounded number; they are resident until then.
//! An answer that frees many of them at once must not overrun the outputs: while their time lasts, records whose answer
//! has come wait for room as well; but an output that stays full is not waited for long, for the sake of the others.

use crate::adjustable::Adjustable;
use crate::bell::Bell;
use crate::cells::AtWork;
use crate::counts::TallyCell;
use crate::incidents::{Incidents, containing};
use crate::output::FanOut;
use crate::record_queue::{Consumer, Item};
use crate::shed::Shed;
use crate::snapshot::{Arrivals, Marker};
use mermin_flow::{Enricher, Enrichment, FlowRecord, Source, Tally, panic_message};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a lane is made of.
pub(crate) struct Setup {
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

/// What a lane publishes.
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

impl EnrichmentCells {
    /// Those of a lane whose releases the source keeps, too.
    pub(crate) fn of(source: &impl Source) -> Self {
        Self { released: source.settlement().into(), ..Self::default() }
    }
}

/// Tells the outputs that this producer has ended, also by a panic: they must not wait for it.
struct End {
    fan_out: Arc<FanOut>,
    /// Lanes that have not ended.
    left: Arc<AtomicUsize>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.fan_out.end();
        self.left.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a lane's step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// There may be more to do at once.
    Work,
    /// Nothing to do but to wait for an answer, or for room.
    Waiting,
    /// Nothing to do.
    Nothing,
    /// Nothing more will come, and nothing waits.
    End,
}

/// Records that wait for a later answer, or for room: what is left of a batch of one flow worker.
struct Held {
    batch: std::vec::IntoIter<FlowRecord>,
    producer: usize,
    since: Instant,
}

/// See the module's text.
pub(crate) struct EnrichmentLane {
    setup: Setup,
    held: VecDeque<Held>,
    held_records: usize,
    /// Released so far, by producer.
    released: Vec<Tally>,
    arrivals: Arrivals,
    /// Producers that have ended, and when the last one did.
    ended: usize,
    end: Option<Instant>,
    /// How long records may be held at all.
    full_patience: Duration,
    bell: Arc<Bell>,
    _end: End,
}

impl EnrichmentLane {
    /// Counts itself out of `left` when it has ended.
    pub(crate) fn new(setup: Setup, left: &Arc<AtomicUsize>) -> Self {
        Self {
            held: VecDeque::new(),
            held_records: 0,
            released: vec![Tally::ZERO; setup.producers],
            arrivals: Arrivals::default(),
            ended: 0,
            end: None,
            full_patience: setup.enricher.patience(),
            bell: Arc::default(),
            _end: End { fan_out: Arc::clone(&setup.fan_out), left: Arc::clone(left) },
            setup,
        }
    }

    /// From now on what comes rings this.
    pub(super) fn rings(&mut self, bell: &Arc<Bell>) {
        if !Arc::ptr_eq(&self.bell, bell) {
            self.setup.intake.0.rings(bell);
            self.bell = Arc::clone(bell);
        }
    }

    /// Takes what came next, and hands on what need not wait any longer.
    pub(super) fn step(&mut self) -> After {
        let item = self.setup.intake.next();
        let came = item.is_some();
        if came || !self.held.is_empty() {
            let (cells, started) = (Arc::clone(&self.setup.cells), self.setup.started);
            cells.at_work.during(started, || self.go_on(item));
        }
        match (came, self.held.is_empty()) {
            (true, _) if self.end.is_none() => After::Work,
            (_, true) if self.end.is_some() => After::End,
            (_, true) => After::Nothing,
            (_, false) => After::Waiting,
        }
    }

    fn go_on(&mut self, item: Option<Item>) {
        // Without names there is nothing to wait for.
        let mut patience = self.full_patience;
        if self.setup.shed.is_nameless() {
            patience = Duration::ZERO;
        }
        match item {
            Some(Item::Records(producer, batch)) => self.take(producer, batch, patience),
            Some(Item::Marker(producer, marker)) => self.mark(producer, &marker),
            Some(Item::End) => self.ended += 1,
            None => {}
        }
        if self.ended == self.setup.producers {
            let since = self.end.get_or_insert_with(Instant::now).elapsed();
            let last_patience = self.full_patience.min(self.setup.shutdown_timeout.get() / 4);
            if since >= last_patience {
                patience = Duration::ZERO;
            }
        }
        self.release_ripe(patience);
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
        let known_until = self.setup.enricher.known_until();
        let is_ripe = |record: &&FlowRecord| record.end_time <= known_until;
        while let Some(head) = self.held.front_mut() {
            let records = head.batch.as_slice();
            let (go, promised) =
                if head.since.elapsed() >= patience || self.held_records > self.setup.hold_max {
                    let early = records.iter().filter(|record| !is_ripe(record)).count();
                    self.setup.cells.early.fetch_add(early as u64, Ordering::Relaxed);
                    (records.len(), 0)
                } else {
                    let ripe = records.iter().take_while(is_ripe).count();
                    let promised = self.setup.fan_out.promise(ripe, patience);
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
            self.setup.fan_out.keep_promise(promised);
        }
        self.setup.cells.held.store(self.held_records as u64, Ordering::Relaxed);
    }

    fn release(&mut self, mut batch: Vec<FlowRecord>, producer: usize) {
        let setup = &mut self.setup;
        if setup.shed.is_nameless() {
            batch.iter_mut().for_each(|record| record.enrichment.omitted = true);
        } else {
            containing(|| enrich(&*setup.enricher, &mut batch, &mut setup.incidents));
        }
        self.released[producer] += batch.iter().map(|record| record.tally).sum();
        setup.cells.released.set(self.released.iter().copied().sum());
        setup.cells.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
        setup.fan_out.release(batch);
    }

    /// A marker has come from a producer. Records of other producers may be behind their marker or not: each producer
    /// is counted by itself.
    fn mark(&mut self, producer: usize, marker: &Marker) {
        let released = self.released[producer];
        let held = self.held.iter().filter(|held| held.producer == producer);
        let held: Tally = held.flat_map(|held| held.batch.as_slice()).map(|record| record.tally).sum();
        marker.add(|parts| {
            parts.released += released;
            parts.in_enrichment += held;
        });
        if self.arrivals.is_last(marker, self.setup.producers) {
            self.setup.fan_out.mark(marker);
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
