//! An enrichment worker: adds to each record what is known about its ends, then hands it to the outputs.

use crate::cells::TallyCell;
use crate::output::FanOut;
use crate::record_queue::{Consumer, Item};
use crate::snapshot::Arrivals;
use mermin_flow::{Enricher, FlowRecord, Tally};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An enrichment worker's thread.
pub(crate) struct EnrichmentWorker {
    pub(crate) number: usize,
    pub(crate) intake: Consumer<Vec<FlowRecord>>,
    pub(crate) enricher: Arc<dyn Enricher>,
    pub(crate) fan_out: Arc<FanOut>,
    /// Flow workers that send records here.
    pub(crate) producers: usize,
    pub(crate) cells: Arc<EnrichmentCells>,
}

/// What an enrichment worker publishes.
#[derive(Debug, Default)]
pub(crate) struct EnrichmentCells {
    pub(crate) released: TallyCell,
    pub(crate) records: AtomicU64,
}

/// Tells the outputs that this producer has ended, also by a panic: they must not wait for it.
struct End(Arc<FanOut>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl EnrichmentWorker {
    pub(crate) fn run(self) {
        let (mut released, mut ended) = (vec![Tally::ZERO; self.producers], 0);
        let mut arrivals = Arrivals::default();
        let _end = End(Arc::clone(&self.fan_out));
        while ended < self.producers {
            match self.intake.next(Duration::from_secs(1)) {
                Some(Item::Records(batch)) => self.release(batch, &mut released),
                Some(Item::Marker(producer, marker)) => {
                    // Records of other producers may be behind their marker or not: each producer is counted by itself.
                    let part = released[producer];
                    marker.add(|parts| parts.released += part);
                    if arrivals.is_last(&marker, self.producers) {
                        self.fan_out.mark(self.number, &marker);
                    }
                }
                Some(Item::End) => ended += 1,
                None => {}
            }
        }
    }

    fn release(&self, mut batch: Vec<FlowRecord>, released: &mut [Tally]) {
        for record in &mut batch {
            self.enricher.enrich(record);
        }
        // A batch comes from one flow worker, which owns the shards of all its records.
        if let Some(first) = batch.first() {
            let producer = crate::packet_channel::worker_of(usize::from(first.shard), self.producers);
            released[producer] += batch.iter().map(|record| record.tally).sum();
        }
        self.cells.released.set(released.iter().copied().sum());
        self.cells.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.fan_out.release(batch);
    }
}
