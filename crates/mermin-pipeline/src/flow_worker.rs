//! A flow worker: meters the observations of its shards and sends flow records on.

use crate::cells::MeterCells;
use crate::counts::TallyCell;
use crate::created_log::CreatedLog;
use crate::crew::Rested;
use crate::cut::{Cut, Held};
use crate::incidents::{Incidents, containing, cost};
use crate::look::{Look, Looks};
use crate::output::FanOut;
use crate::packet_channel::{Intake, Message};
use crate::record_queue::RecordQueue;
use crate::shed::Shed;
use crate::snapshot::Marker;
use crossbeam_channel::{Receiver, Sender};
use mermin_flow::{
    CommunityId, CountingSink, FlowConfig, FlowRecord, Incident, Meter, MovingShard, Observation, RecordSink,
    Tally,
};
use std::sync::Arc;
use std::time::Instant;

/// Where a flow worker sends records.
pub(crate) enum Downstream {
    /// To the enrichment workers, each flow to its own.
    Enrichment(Vec<Arc<RecordQueue>>),
    /// Past them.
    FanOut { fan_out: Arc<FanOut>, released: Arc<TallyCell> },
}

/// Records on their way out of one worker.
pub(crate) struct Outlet {
    worker: usize,
    downstream: Downstream,
    open: Vec<Vec<FlowRecord>>,
    batch: usize,
    released: Tally,
    taken: u64,
    created: Arc<CreatedLog>,
    hold: crate::Hold,
    /// Where a journal is kept, records that wait for their cut.
    held: Option<Held>,
}

impl Outlet {
    pub(crate) fn new(
        worker: usize,
        downstream: Downstream,
        batch: usize,
        (created, hold): (Arc<CreatedLog>, crate::Hold),
    ) -> Self {
        let lanes = match &downstream {
            Downstream::Enrichment(queues) => queues.len(),
            Downstream::FanOut { .. } => 1,
        };
        let open = (0..lanes).map(|_| Vec::with_capacity(batch)).collect();
        Self { worker, downstream, open, batch, released: Tally::ZERO, taken: 0, created, hold, held: None }
    }

    /// From now on records wait for their cut.
    pub(crate) fn hold_for_cuts(&mut self, held: Held) {
        self.held = Some(held);
    }

    /// Hands on the records whose cut is committed; at an orderly end all.
    fn let_go(&mut self, all: bool) {
        let Some(held) = &mut self.held else { return };
        let free = if all { held.let_all_go() } else { held.let_go() };
        free.into_iter().for_each(|record| self.pass(record));
    }

    fn pass(&mut self, record: FlowRecord) {
        let lane = usize::from(record.shard) % self.open.len();
        self.open[lane].push(record);
        if self.open[lane].len() >= self.batch {
            self.send(lane);
        }
    }

    fn send(&mut self, lane: usize) {
        if self.open[lane].is_empty() {
            return;
        }
        let open = &mut self.open[lane];
        let records = if open.len() * 2 > self.batch {
            std::mem::replace(open, Vec::with_capacity(self.batch))
        } else {
            // Queues count records: a few must not bring the memory of a whole batch along.
            let mut few = Vec::with_capacity(open.len());
            few.append(open);
            few
        };
        match &self.downstream {
            // Refused only when the enrichment worker has died; the end of the run says so.
            Downstream::Enrichment(queues) => drop(queues[lane].push(self.worker, records)),
            Downstream::FanOut { fan_out, released } => {
                self.released += records.iter().map(|record| record.tally).sum();
                released.set(self.released);
                fan_out.release(records);
            }
        }
    }

    fn flush(&mut self) {
        self.let_go(false);
        for lane in 0..self.open.len() {
            self.send(lane);
        }
    }

    /// Whether an enrichment worker lags behind, or the journal does.
    fn is_full(&self) -> bool {
        if self.held.as_ref().is_some_and(Held::are_many) {
            return true;
        }
        match &self.downstream {
            Downstream::Enrichment(queues) => queues.iter().any(|queue| queue.is_full()),
            Downstream::FanOut { .. } => false,
        }
    }

    fn mark(&mut self, marker: &Marker) {
        self.flush();
        if let Some(held) = &self.held {
            marker.holds(held.tally());
        }
        match &self.downstream {
            Downstream::Enrichment(queues) => {
                for queue in queues {
                    queue.mark(self.worker, Arc::clone(marker));
                }
            }
            Downstream::FanOut { fan_out, .. } => {
                marker.add(|parts| parts.released += self.released);
                fan_out.mark(marker);
            }
        }
    }
}

/// Tells the next stage that this producer has ended, also by a panic: it must not wait for it.
impl Drop for Outlet {
    fn drop(&mut self) {
        match &self.downstream {
            Downstream::Enrichment(queues) => queues.iter().for_each(|queue| queue.end()),
            Downstream::FanOut { fan_out, .. } => fan_out.end(),
        }
    }
}

impl RecordSink for Outlet {
    fn record(&mut self, record: FlowRecord) {
        self.hold.panic_if_told();
        self.taken += 1;
        match &mut self.held {
            Some(held) => held.push(record),
            None => self.pass(record),
        }
        self.hold.panic_if_told();
    }

    fn created(&mut self, community_id: impl FnOnce() -> CommunityId) {
        self.hold.panic_if_told();
        self.created.note(community_id);
    }
}

impl CountingSink for Outlet {
    fn taken(&self) -> u64 {
        self.taken
    }
}

/// Meters the observations of its shards: on a thread of its own, or within the reader's.
pub(crate) struct FlowWorker {
    pub(crate) meter: Meter,
    pub(crate) outlet: Outlet,
    pub(crate) cells: Arc<MeterCells>,
    /// Live, periodic records are put off while enrichment lags; a replay waits instead.
    pub(crate) may_postpone: bool,
    pub(crate) postponing: bool,
    /// What the agent does without.
    pub(crate) shed: Arc<Shed>,
    /// How often the flow table's bound is halved.
    pub(crate) halvings: u8,
    pub(crate) hold: crate::Hold,
    pub(crate) looks: Looks,
    pub(crate) incidents: Incidents,
    /// The pipeline's clock.
    pub(crate) started: Instant,
}

impl FlowWorker {
    /// The work of the worker's thread, until all is metered, or until it is to rest.
    pub(crate) fn run(mut self, intake: Intake) -> Option<Rested> {
        loop {
            if !self.looks.is_empty() {
                self.go_on_looking();
                if intake.is_empty() {
                    continue;
                }
            }
            // Without a reader (it has panicked) time stands still, and what it has handed over is reported.
            let message = if intake.is_empty() {
                self.cells.idle.during(self.started, || intake.next())
            } else {
                intake.next()
            };
            match message.unwrap_or(Message::Finish(0, None)) {
                Message::Finish(watermark, cut) => {
                    self.end(watermark, cut.as_ref());
                    drop(cut);
                    self.leave();
                    return None;
                }
                Message::Rest => {
                    self.flush();
                    return Some(Rested { worker: self, intake });
                }
                message => {
                    let cells = Arc::clone(&self.cells);
                    cells.at_work.during(self.started, || self.handle(message, &intake));
                }
            }
            if intake.is_empty() {
                self.flush();
            }
        }
    }

    /// What may come at any time.
    pub(crate) fn handle(&mut self, message: Message, intake: &Intake) {
        match message {
            Message::Batch(batch, _) => {
                self.observe(&batch);
                intake.give_back(batch);
            }
            Message::Watermark(watermark) => self.advance(watermark),
            Message::Marker(marker) => self.mark(&marker),
            Message::Cut(cut) => self.cut(&cut),
            Message::Look(look) => self.look(look),
            Message::Change(flow, watermark) => self.change(&flow, watermark),
            Message::Give(shards, to) => self.give(shards, &to),
            Message::Take(from) => self.take(&from),
            Message::Rest | Message::Finish(..) => {}
        }
    }

    /// Records of these shards go on ahead of the shards.
    fn give(&mut self, shards: Vec<usize>, to: &Sender<Vec<MovingShard>>) {
        self.flush();
        let moving = shards.into_iter().map(|shard| self.meter.give_shard(shard)).collect();
        // Nobody takes them only where the other worker has died; the end of the run says so.
        let _ = to.send(moving);
    }

    /// Waits for the worker that gives: it has heard of it before.
    fn take(&mut self, from: &Receiver<Vec<MovingShard>>) {
        for shard in from.recv().into_iter().flatten() {
            self.meter.take_shard(shard);
        }
    }

    pub(crate) fn observe(&mut self, batch: &[Observation]) {
        self.hold.lag();
        self.begin();
        if let Some(first) = batch.first() {
            self.bound(first.watermark);
        }
        containing(|| {
            let tell = |incident| note(&mut self.incidents, &incident);
            self.meter.observe_contained(batch, &mut self.outlet, tell);
        });
        self.outlet.let_go(false);
        self.cells.set(&self.meter.book());
    }

    pub(crate) fn advance(&mut self, watermark: u64) {
        self.begin();
        self.bound(watermark);
        containing(|| {
            let tell = |incident| note(&mut self.incidents, &incident);
            self.meter.advance_contained(watermark, &mut self.outlet, tell);
        });
        self.cells.set(&self.meter.book());
    }

    /// Other settings of the `flow` section from here on. Time has come to `watermark`.
    pub(crate) fn change(&mut self, flow: &FlowConfig, watermark: u64) {
        self.begin();
        containing(|| {
            let tell = |incident| note(&mut self.incidents, &incident);
            self.meter.change(flow, watermark, &mut self.outlet, tell);
        });
        self.cells.set(&self.meter.book());
    }

    pub(crate) fn mark(&mut self, marker: &Marker) {
        self.begin();
        let (book, resident, active) = (self.meter.book(), self.meter.resident(), self.meter.active() as u64);
        marker.add(|parts| {
            parts.meter += book;
            parts.resident += resident;
            parts.active += active;
        });
        self.outlet.mark(marker);
    }

    pub(crate) fn cut(&mut self, cut: &Arc<Cut>) {
        self.begin();
        cut.passes(&mut self.meter, self.outlet.held.as_mut());
        self.cells.set(&self.meter.book());
    }

    pub(crate) fn look(&mut self, look: Arc<Look>) {
        self.looks.begin(look);
    }

    /// Goes on with the looks that are under way, for about as long as a batch takes.
    pub(crate) fn go_on_looking(&mut self) {
        let (looks, meter, hold) = (&mut self.looks, &self.meter, &self.hold);
        self.incidents.contain(|| looks.go_on(meter, hold), "a look at flows is given up");
    }

    /// Hands on the records made so far: nothing should wait for more to come.
    pub(crate) fn flush(&mut self) {
        self.outlet.flush();
    }

    /// Ends all flows. Time has come to `watermark`. The last cut passes behind that.
    pub(crate) fn end(&mut self, watermark: u64, cut: Option<&Arc<Cut>>) {
        self.hold.wait();
        self.meter.postpone_updates(false);
        containing(|| {
            let tell = |incident| note(&mut self.incidents, &incident);
            self.meter.finish_contained(watermark, &mut self.outlet, tell);
        });
        if let Some(cut) = cut {
            cut.passes(&mut self.meter, self.outlet.held.as_mut());
        }
        self.cells.set(&self.meter.book());
    }

    /// After the end: hands on all records.
    pub(crate) fn leave(mut self) {
        self.outlet.let_go(true);
        self.outlet.flush();
    }

    fn begin(&mut self) {
        self.hold.wait();
        let postpone = self.may_postpone && self.outlet.is_full() || self.shed.postpones();
        if postpone != self.postponing {
            self.postponing = postpone;
            self.meter.postpone_updates(postpone);
        }
    }

    /// Follows the bound on flows while memory is short. Time has come to `watermark`.
    fn bound(&mut self, watermark: u64) {
        let halvings = self.shed.halvings();
        if halvings != self.halvings {
            self.halvings = halvings;
            containing(|| {
                let tell = |incident| note(&mut self.incidents, &incident);
                self.meter.bound_contained(halvings, watermark, &mut self.outlet, tell);
            });
        }
    }
}

fn note(incidents: &mut Incidents, incident: &Incident) {
    incidents.note_and_pause(&incident.message, || cost(incident.given_up));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_queue::{Consumer, Item};
    use mermin_flow::{HashSecret, PortForm};

    /// Puts a record of each of `flows` flows through an outlet with batches of 256, and takes the batches.
    fn batches(flows: u16) -> Vec<Vec<FlowRecord>> {
        let queue = RecordQueue::new(10_000, false);
        let downstream = Downstream::Enrichment(vec![Arc::clone(&queue)]);
        let mut outlet =
            Outlet::new(0, downstream, 256, (Arc::new(CreatedLog::new()), crate::Hold::default()));
        let mut meter = Meter::new(&FlowConfig::default(), "");
        for port in 0..flows {
            let mut o = Observation {
                ports: [port.to_be(), 53_u16.to_be()],
                port_form: PortForm::Ports,
                packets: 1,
                ..Observation::EMPTY
            };
            o.orient(&HashSecret::new(1));
            meter.observe(&[o], &mut outlet);
        }
        meter.finish(0, &mut outlet);
        outlet.flush();
        drop(outlet);
        let (consumer, mut batches) = (Consumer(queue), Vec::new());
        while let Some(Item::Records(_, batch)) = consumer.next() {
            batches.push(batch);
        }
        batches
    }

    #[test]
    fn a_small_batch_takes_little_memory() {
        for flows in [1, 3, 128, 129, 255, 256, 300] {
            let batches = batches(flows);
            assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), usize::from(flows));
            for batch in batches {
                assert!(batch.capacity() <= 2 * batch.len(), "{} in {}", batch.len(), batch.capacity());
            }
        }
    }
}
