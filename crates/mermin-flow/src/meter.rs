//! The Metering Process (RFC 5470) of one worker, fed by batches.
//!
//! A batch is gone through in groups of 64: first all index slots are asked for, then all entries, then the flows
//! are updated, so that the cache misses of a group overlap (figures in `docs/benchmarks.md`). What happens in a flow's
//! life besides being counted is in `lifecycle.rs`.

use crate::book::MeterBook;
use crate::clock::Lateness;
use crate::config::FlowConfig;
use crate::cut::Changes;
use crate::entry::Counted;
use crate::flow_table::FlowTable;
use crate::hop_table::HopTable;
use crate::index::Place;
use crate::key::{FlowKey, SHARDS};
use crate::observation::Observation;
use crate::point::ObservationPoints;
use crate::record::FlowRecord;
use crate::sampled::Samples;
use crate::sampling::Sampling;
use crate::settings::Settings;
use crate::shard::Shard;
use crate::tally::Tally;
use crate::touch::Touch;
use crate::wall::{Steps, WallClock};
use crate::wheel::Links;
use std::sync::Arc;

const GROUP: usize = 64;

/// Takes flow records as flows start, go on and end.
pub trait RecordSink {
    /// One record. Records of one flow come in order.
    fn record(&mut self, record: FlowRecord);

    /// A flow was created; `community_id` computes its id.
    fn created(&mut self, community_id: impl FnOnce() -> crate::CommunityId) {
        let _ = community_id;
    }
}

/// The flow table of one worker, with its timers.
#[derive(Debug)]
pub struct Meter {
    pub(crate) table: FlowTable,
    pub(crate) links: Links,
    pub(crate) shards: Vec<Shard>,
    /// By shard, the watermark from which on its wheel has something to do.
    pub(crate) due: [u64; SHARDS],
    pub(crate) settings: Settings,
    pub(crate) book: MeterBook,
    pub(crate) postpone_updates: bool,
    /// What flows in the table were sampled.
    pub(crate) samples: Samples,
    /// What several observation points saw of flows in the table.
    pub(crate) hops: HopTable,
    /// Where these lie.
    pub(crate) points: Arc<ObservationPoints>,
    /// Which flows have changed, where somebody will ask.
    pub(crate) changes: Option<Changes>,
    /// What is being done, for whoever comes after a panic.
    pub(crate) touch: Touch,
}

impl Meter {
    /// A meter without flows. `agent_id` goes into flow ids; empty in a replay.
    #[must_use]
    pub fn new(config: &FlowConfig, agent_id: &str) -> Self {
        Self {
            table: FlowTable::new(),
            links: Links::default(),
            shards: (0..SHARDS).map(|number| Shard::new(number as u8)).collect(),
            due: [0; SHARDS],
            settings: Settings::new(config, agent_id),
            book: MeterBook::default(),
            postpone_updates: false,
            samples: Samples::new(),
            hops: HopTable::new(),
            points: Arc::default(),
            changes: None,
            touch: Touch::default(),
        }
    }

    /// From where the packets come tells how late they are: records allow for it in the time from when on they count.
    pub fn allow_for(&mut self, lateness: Lateness) {
        self.settings.lateness = lateness;
    }

    /// Records tell times as this clock showed them.
    pub fn tell_times_of(&mut self, clock: WallClock) {
        self.settings.steps = Steps::of(clock);
    }

    /// Observations were made at these points. Of others nothing is known, so none adds to what another one counts.
    pub fn observe_at(&mut self, points: Arc<ObservationPoints>) {
        self.points = points;
    }

    /// Meters oriented observations in their order.
    pub fn observe(&mut self, batch: &[Observation], sink: &mut impl RecordSink) {
        self.settings.steps.refresh();
        for (number, group) in batch.chunks(GROUP).enumerate() {
            for o in group {
                self.table.prefetch_index(o.hash);
            }
            let mut likely = [None; GROUP];
            for (likely, o) in likely.iter_mut().zip(group) {
                *likely = self.table.prefetch_entry(o.hash);
            }
            for (within, (likely, o)) in likely.iter().zip(group).enumerate() {
                self.touch.observation = number * GROUP + within;
                self.observe_one(o, *likely, sink);
            }
        }
    }

    /// Meters one observation of a flow that probably lies at `likely`.
    #[inline(always)]
    fn observe_one(&mut self, o: &Observation, likely: Option<Place>, sink: &mut impl RecordSink) {
        if o.start != o.end || o.watermark < o.end {
            return self.observe_later(o, sink);
        }
        if o.watermark >= self.due[usize::from(o.shard) % SHARDS] {
            self.advance_shard(usize::from(o.shard) % SHARDS, o.watermark, sink);
        }
        let key = FlowKey::of(o);
        if let Some(entry) = likely.and_then(|place| self.table.entry_mut(place))
            && entry.key.same(&key)
            && o.watermark < self.settings.deadline(entry)
            && entry.count_plain(o)
        {
            self.book.metered += o.tally();
            if let (Some(changes), Some(place)) = (&mut self.changes, likely) {
                changes.mark(place);
            }
        } else {
            self.observe_with_care(o, sink);
        }
    }

    /// Meters packets of several times, from when the first came, or some that others may come after that were seen before.
    #[cold]
    #[inline(never)]
    fn observe_later(&mut self, o: &Observation, sink: &mut impl RecordSink) {
        if o.began() >= self.due[usize::from(o.shard) % SHARDS] {
            self.advance_shard(usize::from(o.shard) % SHARDS, o.began(), sink);
        }
        self.observe_with_care(o, sink);
    }

    /// Meters an observation of whatever flow, with whatever it says.
    ///
    /// Makes the key again: handed over, it would be put into memory for each packet.
    #[inline(never)]
    fn observe_with_care(&mut self, o: &Observation, sink: &mut impl RecordSink) {
        let key = FlowKey::of(o);
        match self.table.find(o.hash, &key) {
            Some(place) => self.add(place, key, o, sink),
            None => self.create(key, o, sink),
        }
    }

    /// Adds an observation to its flow.
    pub(crate) fn add(&mut self, place: Place, key: FlowKey, o: &Observation, sink: &mut impl RecordSink) {
        let Some((_, facts)) = self.table.get(place) else { return };
        if o.start < facts.start_time && self.add_to_predecessor(&key, o) {
            return;
        }
        let Some(entry) = self.table.entry(place) else { return };
        if o.began() >= self.settings.deadline(entry) || entry.is_reopened_by(o) {
            return self.add_after_deadline(place, key, o, sink);
        }
        if self.count(place, o) == Counted::Sooner
            && let Some(entry) = self.table.entry(place)
        {
            let deadline = self.settings.deadline(entry);
            self.shards[usize::from(o.shard)].wheel.schedule(&mut self.links, place, deadline);
        }
    }

    /// Counts an observation of the flow at `place`.
    pub(crate) fn count(&mut self, place: Place, o: &Observation) -> Counted {
        self.changed(place);
        let Some((entry, facts)) = self.table.get_mut(place) else { return Counted::Secondary };
        facts.spread.spans(o.span(), self.settings.active);
        // Others may come that were seen before.
        let is_held_back = o.watermark < o.end;
        if is_held_back && o.start < facts.start_time && facts.sequence == 0 && !entry.is_tcp() {
            facts.start_time = o.start;
            entry.began_with(o);
        }
        if entry.begins_with(o) {
            self.hops.begin_side(facts, o);
        } else if entry.is_counted_elsewhere(o) {
            let taken_over =
                match is_held_back && o.sampling == Sampling::NONE && self.samples.of(facts).is_none() {
                    true => self.hops.take_over((entry, facts), o, &self.points),
                    false => None,
                };
            if let Some(before) = taken_over {
                // Nothing of it was in segments.
                let before = Tally {
                    packets: before.packets,
                    bytes: before.frame_bytes,
                    buffers: before.packets,
                    buffer_bytes: before.frame_bytes,
                };
                self.book.metered = self.book.metered - before;
                self.book.secondary += before;
            } else if !self.hops.note((entry, facts), o, &self.points) {
                self.book.secondary += o.tally();
                return Counted::Secondary;
            }
        }
        let counted = entry.count(o, facts);
        self.book.metered += o.tally();
        self.samples.add(facts, o);
        counted
    }

    /// The flow at `place` is another one than it was.
    #[inline(always)]
    pub(crate) fn changed(&mut self, place: Place) {
        if let Some(changes) = &mut self.changes {
            changes.mark(place);
        }
    }

    /// Time has come to `watermark`: ends and reports what is due.
    pub fn advance(&mut self, watermark: u64, sink: &mut impl RecordSink) {
        self.settings.steps.refresh();
        for shard in 0..SHARDS {
            self.advance_shard(shard, watermark, sink);
        }
    }

    /// While true, long flows give no periodic records; their counts go into the next one.
    pub fn postpone_updates(&mut self, postpone: bool) {
        self.postpone_updates = postpone;
    }

    /// What the meter has done so far.
    #[must_use]
    pub fn book(&self) -> MeterBook {
        self.book
    }

    /// What is in the flow table and in no record yet, by looking at every flow: independent of [`Meter::book`].
    #[must_use]
    pub fn resident(&self) -> Tally {
        self.table.iter().map(|(_, entry, facts)| entry.tally(facts)).sum()
    }

    /// Flows in the table.
    #[must_use]
    pub const fn active(&self) -> usize {
        self.table.held()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::HashSecret;
    use crate::record::{FlowEndReason, FlowEvent, FlowRecord};
    use crate::testing::{Records, SECOND, T0, udp};

    fn packet(port: u16, seconds: u64) -> Observation {
        let mut o = udp(&format!("10.0.0.2:{port}"), "10.0.0.1:53");
        (o.start, o.end, o.watermark) = (T0, T0, T0 + seconds * SECOND);
        o.orient(&HashSecret::new(1));
        o
    }

    /// The last flow of a quiet link ends, whichever shard it lives on.
    #[test]
    fn time_alone_ends_flows_in_every_shard() {
        let mut meter = Meter::new(&FlowConfig::default(), "");
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
        let mut meter = Meter::new(&FlowConfig::default(), "");
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
