//! Metering in the reader's thread: no hand-off, no wake-ups, no second core's caches (figures in
//! `docs/benchmarks.md`). For sources that can wait.

use crate::cut::Cut;
use crate::flow_worker::FlowWorker;
use crate::handover::Handover;
use crate::look::Look;
use crate::snapshot::Marker;
use crate::tuning::Change;
use mermin_flow::{Observation, Tally};
use std::sync::Arc;

/// Observations metered at once: enough that cache misses overlap, few enough to stay in the second-level cache.
const BATCH: usize = 256;

/// The one flow worker, which owns all shards.
pub(crate) struct InPlace {
    open: Vec<Observation>,
    worker: FlowWorker,
}

impl InPlace {
    pub(crate) fn new(worker: FlowWorker) -> Self {
        Self { open: Vec::with_capacity(BATCH), worker }
    }

    fn meter(&mut self) {
        if !self.open.is_empty() {
            // Taken out: what panics in there is not metered again.
            let mut batch = std::mem::take(&mut self.open);
            self.worker.observe(&batch);
            batch.clear();
            self.open = batch;
        }
    }
}

impl Handover for InPlace {
    #[inline(always)]
    fn push(&mut self, o: &Observation) {
        self.open.push(*o);
        if self.open.len() == BATCH {
            self.meter();
        }
    }

    fn flush(&mut self) {
        self.meter();
        self.worker.flush();
    }

    fn tick(&mut self, watermark: u64) {
        self.meter();
        self.worker.advance(watermark);
    }

    /// What is open stays so: the reader has counted it as waiting.
    fn mark(&mut self, marker: &Marker) {
        self.worker.mark(marker);
    }

    fn cut(&mut self, cut: &Arc<Cut>) {
        self.meter();
        self.worker.cut(cut);
    }

    fn look(&mut self, look: &Arc<Look>) {
        self.worker.look(Arc::clone(look));
    }

    fn change(&mut self, change: &Change, watermark: u64) {
        self.meter();
        self.worker.change(&change.flow, watermark);
    }

    fn go_on_looking(&mut self) {
        self.worker.go_on_looking();
    }

    fn has_room(&mut self) -> bool {
        true
    }

    fn is_blocked(&self) -> bool {
        false
    }

    fn waits(&self) -> bool {
        false
    }

    fn merges(&self) -> u64 {
        0
    }

    fn worker_gone(&self) -> bool {
        false
    }

    fn open(&self) -> Tally {
        self.open.iter().map(Observation::tally).sum()
    }

    fn lost(&self) -> Tally {
        Tally::ZERO
    }

    fn wait_from_now(&mut self) {}

    fn finish(mut self, watermark: u64, cut: Option<&Arc<Cut>>) -> Tally {
        self.meter();
        self.worker.end(watermark, cut);
        self.worker.leave();
        Tally::ZERO
    }
}
