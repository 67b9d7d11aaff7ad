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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::HashSecret;
    use crate::record::{FlowEndReason, FlowEvent, FlowRecord};
    use crate::testing::{SECOND, T0, udp};

    #[derive(Default)]
    struct Records(Vec<FlowRecord>);

    impl RecordSink for Records {
        fn record(&mut self, record: FlowRecord) {
            self.0.push(record);
        }
    }

    fn packet(port: u16, seconds: u64) -> Observation {
        let mut o = udp(&format!("10.0.0.2:{port}"), "10.0.0.1:53");
        (o.start, o.end, o.watermark) = (T0, T0, T0 + seconds * SECOND);
        o.orient(&HashSecret::new(1));
        o
    }

    /// The last flow of a quiet link ends, whichever shard it lives on.
    #[test]
    fn time_alone_ends_flows_in_every_shard() {
        let mut meter = Meter::new(&FlowConfig::default(), "", |_| true);
        let mut records = Records::default();
        let batch: Vec<_> = (0..1_000).map(|port| packet(port, 0)).collect();
        meter.observe(&batch, &mut records);
        assert_eq!((meter.active(), meter.resident().packets), (1_000, 1_000));
        meter.advance(T0 + 29 * SECOND, &mut records);
        assert_eq!((meter.active(), records.0.len()), (1_000, 0));
        meter.advance(T0 + 31 * SECOND, &mut records);
        assert_eq!((meter.active(), meter.resident()), (0, Tally::ZERO));
        assert!(records.0.iter().all(|record| record.end_reason == Some(FlowEndReason::IdleTimeout)));
        assert_eq!((records.0.len(), meter.book().reported.packets), (1_000, 1_000));
    }

    #[test]
    fn postponed_updates_come_with_the_next_interval() {
        let mut meter = Meter::new(&FlowConfig::default(), "", |_| true);
        let mut records = Records::default();
        let mut updates = |postpone: bool, seconds: std::ops::Range<u64>| {
            meter.postpone_updates(postpone);
            for at in seconds.step_by(20) {
                meter.observe(&[packet(9, at)], &mut records);
            }
            let packets = |r: FlowRecord| {
                assert_eq!(r.event, FlowEvent::Update);
                r.forward.delta.packets
            };
            records.0.drain(..).map(packets).collect::<Vec<_>>()
        };
        assert_eq!(updates(false, 0..80), [3]);
        assert_eq!(updates(true, 80..200), [0; 0]);
        assert_eq!(updates(false, 200..260), [9]);
    }
}
