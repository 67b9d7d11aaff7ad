//! The shards of one worker, fed by batches.
//!
//! A batch is gone through in groups of 64: first all index slots are asked for, then all entries, then the flows
//! are updated, so that the cache misses of a group overlap (figures in `docs/benchmarks.md`).

use crate::config::FlowConfig;
use crate::key::SHARDS;
use crate::observation::Observation;
use crate::shard::{MeterBook, RecordSink, Settings, Shard};
use crate::tally::Tally;

const GROUP: usize = 64;

/// A Metering Process (RFC 5470): flow tables of the shards that one worker owns.
#[derive(Debug)]
pub struct Meter {
    shards: Vec<Option<Box<Shard>>>,
    settings: Settings,
}

impl Meter {
    /// A meter for the shards that `owned` accepts. `agent_id` goes into flow ids; empty in a replay.
    #[must_use]
    pub fn new(config: &FlowConfig, agent_id: &str, owned: impl Fn(usize) -> bool) -> Self {
        let shard = |number| owned(number).then(|| Box::new(Shard::new(number as u8)));
        Self { shards: (0..SHARDS).map(shard).collect(), settings: Settings::new(config, agent_id) }
    }

    /// Meters oriented observations in their order.
    pub fn observe(&mut self, batch: &[Observation], sink: &mut impl RecordSink) {
        for group in batch.chunks(GROUP) {
            for o in group {
                if let Some(shard) = &self.shards[usize::from(o.shard)] {
                    shard.prefetch_index(o.hash);
                }
            }
            for o in group {
                if let Some(shard) = &self.shards[usize::from(o.shard)] {
                    shard.prefetch_entry(o.hash);
                }
            }
            for o in group {
                match &mut self.shards[usize::from(o.shard)] {
                    Some(shard) => shard.observe(o, &self.settings, sink),
                    None => debug_assert!(false, "an observation for a shard of another worker"),
                }
            }
        }
    }

    fn owned(&mut self) -> impl Iterator<Item = (&mut Box<Shard>, &Settings)> {
        let settings = &self.settings;
        self.shards.iter_mut().flatten().map(move |shard| (shard, settings))
    }

    /// Time has come to `watermark`: ends and reports what is due.
    pub fn advance(&mut self, watermark: u64, sink: &mut impl RecordSink) {
        for (shard, settings) in self.owned() {
            shard.advance(watermark, settings, sink);
        }
    }

    /// Reports what is due at `watermark`, then ends every flow.
    pub fn finish(&mut self, watermark: u64, sink: &mut impl RecordSink) {
        for (shard, settings) in self.owned() {
            shard.finish(watermark, settings, sink);
        }
    }

    /// While true, long flows give no periodic records; their counts go into the next one.
    pub fn postpone_updates(&mut self, postpone: bool) {
        for (shard, _) in self.owned() {
            shard.postpone_updates = postpone;
        }
    }

    /// What the meter has done so far.
    #[must_use]
    pub fn book(&self) -> MeterBook {
        let mut book = MeterBook::default();
        for shard in self.shards.iter().flatten() {
            book += shard.book;
        }
        book
    }

    /// What is in the flow tables and in no record yet, by looking at every flow: independent of [`Meter::book`].
    #[must_use]
    pub fn resident(&self) -> Tally {
        self.shards.iter().flatten().map(|shard| shard.resident()).sum()
    }

    /// Flows in the tables.
    #[must_use]
    pub fn active(&self) -> usize {
        self.shards.iter().flatten().map(|shard| shard.active()).sum()
    }
}
