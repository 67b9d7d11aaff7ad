//! Shards on their way from one meter to another, and flows that are put in order anew.
//!
//! What a shard is goes along: flows, creation ordinals, how far its wheel has come. Records are the same as if it had
//! stayed: deadlines are handled in order of time, whichever wheel they lie in, and the least recently seen flow is found
//! by time and ordinal.

use crate::flow_table::FlowTable;
use crate::hop_table::ShardHops;
use crate::key::SHARDS;
use crate::meter::Meter;
use crate::sampled::ShardSamples;
use crate::shard::Shard;
use crate::slab::Flow;
use crate::tally::Tally;
use crate::wheel::Links;

/// A shard that has left its meter. Its flows wait in it; dropping it loses them.
#[derive(Debug)]
pub struct MovingShard {
    number: usize,
    shard: Shard,
    flows: Vec<Flow>,
    samples: ShardSamples,
    hops: ShardHops,
}

impl MovingShard {
    /// Flows that go along.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// What no record has carried yet of them.
    #[must_use]
    pub fn resident(&self) -> Tally {
        self.flows.iter().map(|(entry, facts)| entry.tally(facts)).sum()
    }
}

impl Meter {
    /// Takes a shard out, with all its flows. The meter is left with an empty one of this number.
    pub fn give_shard(&mut self, number: usize) -> MovingShard {
        let places: Vec<_> = self.shards[number].wheel.places(&self.links).collect();
        let mut flows = Vec::with_capacity(places.len());
        for place in places {
            self.shards[number].wheel.cancel(&mut self.links, place);
            flows.extend(self.table.take(place));
        }
        let shard = std::mem::replace(&mut self.shards[number], Shard::new(number as u8));
        let moving = MovingShard {
            number,
            shard,
            flows,
            samples: self.samples.give(number),
            hops: self.hops.give(number),
        };
        self.touch.went.0 += moving.flows() as u64;
        self.touch.went.1 += moving.resident();
        if self.table.held() == 0 {
            // Nothing else of it is in use: its memory goes along.
            (self.table, self.links) = (FlowTable::new(), Links::default());
        }
        moving
    }

    /// Takes a shard in that another meter, with the same settings, has given. It must not have flows of it itself.
    pub fn take_shard(&mut self, moving: MovingShard) {
        self.touch.came.0 += moving.flows() as u64;
        self.touch.came.1 += moving.resident();
        let MovingShard { number, shard, flows, samples, hops } = moving;
        debug_assert_eq!(self.shards[number].held, 0, "a shard is in one meter");
        self.begin_shard(number, &shard);
        flows.into_iter().for_each(|flow| self.put(flow));
        self.samples.take(number, samples);
        self.hops.take(number, hops);
    }

    /// Makes all but the flows themselves anew. After a panic only these are trusted: they are whole, while index, lists and
    /// counts may have been left in the middle of something.
    pub(crate) fn rebuild(&mut self) {
        self.table.put_in_order();
        self.links = Links::default();
        for number in 0..SHARDS {
            let shard = std::mem::replace(&mut self.shards[number], Shard::new(number as u8));
            self.begin_shard(number, &shard);
        }
        for (place, entry, facts) in self.table.iter() {
            let shard = &mut self.shards[usize::from(facts.shard)];
            shard.hold(facts.ordinal);
            shard.wheel.schedule(&mut self.links, place, self.settings.deadline(entry));
        }
    }

    /// Goes on with a shard where `before` has come to, without flows.
    pub(crate) fn begin_shard(&mut self, number: usize, before: &Shard) {
        let wheel = before.wheel.without_places();
        self.due[number] = wheel.next();
        self.shards[number] = Shard { ordinal: before.ordinal, wheel, ..Shard::new(number as u8) };
    }

    pub(crate) fn put(&mut self, (entry, facts): Flow) {
        let (shard, deadline) = (&mut self.shards[usize::from(facts.shard)], self.settings.deadline(&entry));
        shard.hold(facts.ordinal);
        let place = self.table.insert(entry, facts);
        if let Some(changes) = &mut self.changes {
            changes.mark(place);
        }
        shard.wheel.schedule(&mut self.links, place, deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowConfig;
    use crate::key::HashSecret;
    use crate::record::FlowRecord;
    use crate::sampling::Sampling;
    use crate::tcp::{ACK, FIN, SYN};
    use crate::testing::{Records, SECOND, T0, tcp};
    use proptest::prelude::*;
    use std::num::NonZeroUsize;

    /// Three meters, and which of them has each of four shards.
    struct Meters {
        meters: [Meter; 3],
        owner: [usize; 4],
        records: Records,
    }

    impl Meters {
        fn new() -> Self {
            let table_capacity = NonZeroUsize::new(SHARDS * 3).unwrap();
            let config = FlowConfig { table_capacity, ..FlowConfig::default() };
            let meters = [(); 3].map(|()| Meter::new(&config, ""));
            Self { meters, owner: [0; 4], records: Records::default() }
        }

        fn observe(&mut self, (flow, flags, exponent): (u8, u8, u8), at: u64) {
            let mut o = tcp(&format!("10.0.0.2:{}", 40_000 + u16::from(flow)), "10.0.0.1:443");
            (o.start, o.end, o.watermark) = (T0 + at, T0 + at, T0 + at);
            (o.tcp_flags, o.has_tcp_flags) = (flags, true);
            if exponent > 0 {
                o.sampling = Sampling::kept(exponent, o.bytes);
            }
            o.orient(&HashSecret::new(1));
            o.shard = flow % 4;
            self.meters[self.owner[usize::from(o.shard)]].observe(&[o], &mut self.records);
        }

        fn advance(&mut self, at: u64) {
            self.meters.iter_mut().for_each(|meter| meter.advance(T0 + at, &mut self.records));
        }

        fn hand_over(&mut self, shard: usize, to: usize) {
            let from = std::mem::replace(&mut self.owner[shard], to);
            if from == to {
                return;
            }
            let before = self.meters[from].active();
            let moving = self.meters[from].give_shard(shard);
            assert_eq!(self.meters[from].active(), before - moving.flows());
            self.meters[to].take_shard(moving);
        }

        /// All meters' books together.
        fn balances(&self) {
            let mut book = crate::MeterBook::default();
            self.meters.iter().for_each(|meter| book += meter.book());
            let resident: Tally = self.meters.iter().map(Meter::resident).sum();
            assert_eq!(book.metered, book.reported + resident);
            let active: usize = self.meters.iter().map(Meter::active).sum();
            assert_eq!(book.created - book.released, active as u64);
        }

        fn finish(mut self, at: u64) -> Vec<FlowRecord> {
            self.meters.iter_mut().for_each(|meter| meter.finish(T0 + at, &mut self.records));
            self.balances();
            self.records.0.sort_by_key(|record| (record.id.0, record.sequence));
            self.records.0
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Packet((u8, u8, u8), u64),
        Tick(u64),
        HandOver(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let flags = prop::sample::select(vec![ACK, ACK, SYN, FIN | ACK]);
        prop_oneof![
            6 => ((0_u8..24, flags, prop_oneof![Just(0), 1_u8..7]), prop_oneof![4 => 0..SECOND, 1 => 0..100 * SECOND]).prop_map(|(p, t)| Step::Packet(p, t)),
            1 => (0..40 * SECOND).prop_map(Step::Tick),
            2 => (0_usize..4, 0_usize..3).prop_map(|(shard, to)| Step::HandOver(shard, to)),
        ]
    }

    proptest! {
        /// Wherever shards wander, records are those of shards that stay, and the books balance.
        #[test]
        fn shards_that_move_give_the_same_records(steps in prop::collection::vec(step(), 1..200)) {
            let (mut moving, mut staying, mut at) = (Meters::new(), Meters::new(), 0);
            for step in steps {
                match step {
                    Step::Packet(packet, later) => {
                        at += later;
                        moving.observe(packet, at);
                        staying.observe(packet, at);
                    }
                    Step::Tick(later) => {
                        at += later;
                        moving.advance(at);
                        staying.advance(at);
                    }
                    Step::HandOver(shard, to) => moving.hand_over(shard, to),
                }
                moving.balances();
            }
            let (moved, stayed) = (moving.finish(at), staying.finish(at));
            for (moved, stayed) in moved.iter().zip(&stayed) {
                prop_assert_eq!(moved, stayed);
            }
            prop_assert_eq!(moved.len(), stayed.len());
        }
    }

    #[test]
    fn a_meter_whose_last_shard_has_gone_gives_its_memory_back() {
        let mut meters = Meters::new();
        for flow in 0..12 {
            meters.observe((flow, ACK, 1), 0);
        }
        assert_eq!(meters.meters[0].active(), 12);
        (0..4).for_each(|shard| meters.hand_over(shard, 1));
        let from = &meters.meters[0];
        assert_eq!((from.table.places(), from.samples.capacity(), from.active()), (0, 0, 0));
        assert_eq!(meters.meters[1].active(), 12);
    }
}
