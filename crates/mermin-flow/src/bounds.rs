//! Fewer flows than configured, while memory is short: those seen least recently end for lack of resources, and what the
//! tables have taken is given back.

use crate::eviction::Eviction;
use crate::key::SHARDS;
use crate::meter::{Meter, RecordSink};
use crate::record::FlowEndReason;
use crate::recovery::{CountingSink, Incident};

impl Meter {
    /// Holds at most as many flows as are configured, halved `halvings` times, from the moment `watermark` on; at least one
    /// a shard. Contains panics; each is told.
    pub fn bound_contained(
        &mut self,
        halvings: u8,
        watermark: u64,
        sink: &mut impl CountingSink,
        tell: impl FnMut(Incident),
    ) {
        self.contained(sink, |meter, sink| meter.bound(halvings, watermark, sink), tell);
    }

    fn bound(&mut self, halvings: u8, watermark: u64, sink: &mut impl RecordSink) {
        self.settings.steps.refresh();
        let before = self.settings.capacity;
        self.settings.bound(halvings);
        let capacity = self.settings.capacity;
        for number in 0..SHARDS {
            self.advance_shard(number, watermark, sink);
            while self.shards[number].held > capacity {
                let shard = &mut self.shards[number];
                let places = shard.wheel.places(&self.links);
                let oldest = shard.eviction.least_recent(places, capacity, &self.table);
                self.end(oldest.expect("it holds flows"), FlowEndReason::LackOfResources, sink);
                self.book.evicted += 1;
            }
        }
        if capacity < before {
            self.compact();
        }
    }

    /// Moves flows together, so that the memory behind them can be given back.
    fn compact(&mut self) {
        let mut moved = Vec::new();
        self.table.compact(|from, to| moved.push((from, to)));
        for (from, to) in moved {
            self.changed(to);
            let Some((entry, facts)) = self.table.get(to) else { continue };
            let (wheel, deadline) =
                (&mut self.shards[usize::from(facts.shard)].wheel, self.settings.deadline(entry));
            wheel.cancel(&mut self.links, from);
            wheel.schedule(&mut self.links, to, deadline);
        }
        self.links.shrink_to(self.table.places());
        for (number, shard) in self.shards.iter_mut().enumerate() {
            // It knows flows by their places.
            shard.eviction = Eviction::new(number as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowConfig;
    use crate::key::{FlowKey, HashSecret};
    use crate::observation::Observation;
    use crate::record::FlowEvent;
    use crate::tally::Tally;
    use crate::testing::{Records, SECOND, T0, udp};
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};
    use std::num::NonZeroUsize;

    fn meter(capacity: usize) -> Meter {
        let table_capacity = NonZeroUsize::new(SHARDS * capacity).unwrap();
        Meter::new(&FlowConfig { table_capacity, ..FlowConfig::default() }, "")
    }

    /// A packet of flow `flow`, of one of two shards.
    fn packet(flow: u16, at: u64) -> Observation {
        let mut o = udp(&format!("10.0.0.2:{}", 1_000 + flow), "10.0.0.1:53");
        (o.start, o.end, o.watermark) = (T0 + at, T0 + at, T0 + at);
        o.orient(&HashSecret::new(1));
        o.shard = (flow % 2) as u8;
        o
    }

    proptest! {
        /// Against a map of who was seen when: those that go are those seen least recently, for lack of resources; nothing
        /// else changes, nothing is lost, and the flows that stay are found, time out and end as ever.
        #[test]
        fn the_least_recently_seen_flows_go_and_the_rest_go_on(
            steps in prop::collection::vec((0_u16..60, any::<bool>(), 0_u8..6), 1..120),
        ) {
            let (mut meter, mut records) = (meter(16), Records::default());
            // By flow, when it was seen last.
            let mut seen: HashMap<u16, u64> = HashMap::new();
            let (mut capacity, mut at, mut fed) = (16, 0, Tally::ZERO);
            for (flow, bounds, halvings) in steps {
                at += SECOND / 100;
                let shard = |flow: u16, seen: &HashMap<u16, u64>| {
                    let mut flows: Vec<_> = seen.iter().filter(|(one, _)| *one % 2 == flow % 2).map(|(one, at)| (*at, *one)).collect();
                    flows.sort_unstable();
                    flows
                };
                let told = records.0.len();
                let mut gone = HashSet::new();
                if bounds {
                    capacity = (16_usize >> halvings).max(1);
                    meter.bound_contained(halvings, T0 + at, &mut records, |_| ());
                    for which in [0, 1] {
                        let flows = shard(which, &seen);
                        gone.extend(flows[..flows.len().saturating_sub(capacity)].iter().map(|(_, flow)| *flow));
                    }
                } else {
                    let o = packet(flow, at);
                    if !seen.contains_key(&flow) {
                        let flows = shard(flow, &seen);
                        let surplus = (flows.len() + 1).saturating_sub(capacity);
                        gone.extend(flows[..surplus].iter().map(|(_, flow)| *flow));
                    }
                    meter.observe(&[o], &mut records);
                    fed += o.tally();
                }
                let ended = records.0[told..].iter().map(|record| {
                    assert_eq!((record.event, record.end_reason), (FlowEvent::End, Some(FlowEndReason::LackOfResources)));
                    record.source.port.unwrap_or_default() - 1_000
                });
                let ended: HashSet<u16> = ended.collect();
                prop_assert_eq!(&ended, &gone);
                seen.retain(|flow, _| !gone.contains(flow));
                if !bounds {
                    seen.insert(flow, at);
                }
                let book = meter.book();
                prop_assert_eq!(meter.active(), seen.len());
                prop_assert_eq!((book.metered, book.reported + meter.resident()), (fed, fed));
                prop_assert_eq!(book.evicted, records.0.len() as u64);
                for flow in seen.keys() {
                    let o = packet(*flow, at);
                    prop_assert!(meter.table.find(o.hash, &FlowKey::of(&o)).is_some(), "flow {}", flow);
                }
            }
            let (left, evicted) = (seen.len(), records.0.len());
            meter.advance(T0 + at + 40 * SECOND, &mut records);
            prop_assert_eq!((meter.active(), records.0.len() - evicted), (0, left));
            prop_assert!(records.0[evicted..].iter().all(|record| record.end_reason == Some(FlowEndReason::IdleTimeout)));
            prop_assert_eq!(records.0.iter().map(|record| record.tally).sum::<Tally>(), fed);
        }
    }

    #[test]
    fn another_capacity_is_halved_as_often() {
        let (mut meter, mut records) = (meter(16), Records::default());
        meter.bound_contained(2, T0, &mut records, |_| ());
        let table_capacity = NonZeroUsize::new(SHARDS * 40).unwrap();
        let config = FlowConfig { table_capacity, ..FlowConfig::default() };
        meter.change(&config, T0, &mut records, |_| ());
        let mut feed = |meter: &mut Meter| {
            (0..200).for_each(|flow| meter.observe(&[packet(flow, SECOND)], &mut records));
            meter.active()
        };
        // Of two shards.
        assert_eq!(feed(&mut meter), 2 * 10);
        meter.bound_contained(0, T0, &mut Records::default(), |_| ());
        assert_eq!(feed(&mut meter), 2 * 40);
    }

    #[test]
    fn what_the_tables_took_is_given_back() {
        let (mut meter, mut records) = (meter(2_000), Records::default());
        for flow in 0..4_000 {
            meter.observe(&[packet(flow, u64::from(flow))], &mut records);
        }
        assert_eq!((meter.active(), meter.table.places()), (4_000, 4_000));
        meter.bound_contained(2, T0 + SECOND, &mut records, |_| ());
        assert_eq!((meter.active(), meter.table.places(), records.0.len()), (1_000, 1_000, 3_000));
        meter.bound_contained(0, T0 + SECOND, &mut records, |_| ());
        for flow in 0..4_000 {
            meter.observe(&[packet(flow, SECOND)], &mut records);
        }
        assert_eq!((meter.active(), records.0.len()), (4_000, 3_000), "there is room again");
    }
}
