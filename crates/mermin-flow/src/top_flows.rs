//! The first of the flows in a table, by size or by time, for whoever looks at a running agent.
//!
//! The table is gone through in parts, so that looking never keeps the worker from its packets for long. It changes
//! meanwhile: each flow that is told was there at some moment, one that came or went may be missing.

use crate::entry::{Entry, Facts};
use crate::index::Place;
use crate::meter::Meter;
use crate::record::FlowRecord;
use crate::report::{Beside, glance};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowOrder {
    /// The most IP bytes, both ways.
    #[default]
    Bytes,
    /// The most packets, both ways.
    Packets,
    /// The latest packet.
    Recent,
}

impl FlowOrder {
    fn rank(self, entry: &Entry, facts: &Facts) -> u64 {
        let sum = |of: fn(&crate::Counts) -> u64| entry.delta.iter().chain(&facts.total).map(of).sum();
        match self {
            Self::Bytes => sum(|counts| counts.bytes),
            Self::Packets => sum(|counts| counts.packets),
            Self::Recent => entry.end_time,
        }
    }

    /// Where a record stands in this order: higher comes first.
    #[must_use]
    pub const fn rank_of(self, record: &FlowRecord) -> u64 {
        let (forward, reverse) = (&record.forward.total, &record.reverse.total);
        match self {
            Self::Bytes => forward.bytes + reverse.bytes,
            Self::Packets => forward.packets + reverse.packets,
            Self::Recent => record.end_time,
        }
    }
}

/// A flow that is among the first so far: its rank, where it lies, and its shard and ordinal, which say that it still
/// does.
type Found = (u64, Place, u8, u64);

/// A look at a table that is under way.
#[derive(Debug)]
pub struct TopFlows {
    order: FlowOrder,
    limit: usize,
    next: Place,
    found: BinaryHeap<Reverse<Found>>,
}

impl TopFlows {
    /// For the first `limit` flows.
    #[must_use]
    pub fn new(order: FlowOrder, limit: usize) -> Self {
        Self { order, limit, next: 0, found: BinaryHeap::with_capacity(limit + 1) }
    }
}

impl Meter {
    /// Looks at the next `places` places of the table; whether there are more.
    pub fn look(&self, top: &mut TopFlows, places: usize) -> bool {
        let end = self.table.places().min(top.next as usize + places) as Place;
        for place in top.next..end {
            let Some((entry, facts)) = self.table.get(place) else { continue };
            let rank = top.order.rank(entry, facts);
            if top.found.len() < top.limit {
                top.found.push(Reverse((rank, place, facts.shard, facts.ordinal)));
            } else if top.found.peek().is_some_and(|least| rank > least.0.0) {
                top.found.pop();
                top.found.push(Reverse((rank, place, facts.shard, facts.ordinal)));
            }
        }
        top.next = end;
        (end as usize) < self.table.places()
    }

    /// The flows that were found and are still there, first ones first: each as the update that it would give now.
    #[must_use]
    pub fn found(&self, top: TopFlows) -> Vec<FlowRecord> {
        let found = top.found.into_sorted_vec();
        let flows = found.into_iter().filter_map(|Reverse((_, place, shard, ordinal))| {
            self.table.get(place).filter(|(_, facts)| facts.is(shard, ordinal))
        });
        let beside = Beside { samples: &self.samples, hops: &self.hops, points: &self.points };
        flows.map(|(entry, facts)| glance(entry, facts, beside, &self.settings)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowConfig;
    use crate::key::HashSecret;
    use crate::observation::Observation;
    use crate::record::{FlowEndReason, FlowEvent};
    use crate::testing::{Records, SECOND, T0, udp};

    /// A packet of `bytes` bytes of flow `port`, at so many seconds.
    fn packet(port: u16, bytes: u64, seconds: u64) -> Observation {
        let mut o = udp(&format!("10.0.0.2:{port}"), "10.0.0.1:53");
        let at = T0 + seconds * SECOND;
        (o.start, o.end, o.watermark, o.bytes) = (at, at, at, bytes);
        o.orient(&HashSecret::new(1));
        o
    }

    fn ports(records: &[FlowRecord]) -> Vec<u16> {
        records.iter().map(|record| record.source.port.unwrap()).collect()
    }

    fn first(meter: &Meter, order: FlowOrder, limit: usize, step: usize) -> Vec<FlowRecord> {
        let mut top = TopFlows::new(order, limit);
        while meter.look(&mut top, step) {}
        meter.found(top)
    }

    #[test]
    fn the_first_flows_are_found_in_any_steps() {
        let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
        // Flow 1: two small packets, early. Flow 2: one large. Flows 3 to 25: one small each, later.
        let mut batch = vec![packet(1, 100, 0), packet(1, 100, 1), packet(2, 9_000, 2)];
        batch.extend((3..=25).map(|port| packet(port, 60, u64::from(port))));
        meter.observe(&batch[..20], &mut records);
        meter.observe(&batch[20..], &mut records);
        for step in [1, 7, 1_000] {
            assert_eq!(ports(&first(&meter, FlowOrder::Bytes, 2, step)), [2, 1]);
            assert_eq!(ports(&first(&meter, FlowOrder::Packets, 1, step)), [1]);
            assert_eq!(ports(&first(&meter, FlowOrder::Recent, 3, step)), [25, 24, 23]);
        }
        assert!(first(&meter, FlowOrder::Bytes, 0, 10).is_empty());
    }

    #[test]
    fn a_look_takes_nothing_out_of_the_flow() {
        let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
        meter.observe(&[packet(9, 500, 0), packet(9, 500, 20), packet(9, 500, 40)], &mut records);
        meter.observe(&[packet(9, 500, 61)], &mut records);
        assert_eq!(records.0.len(), 1, "the first interval is reported");
        let glanced = first(&meter, FlowOrder::Bytes, 5, 10).remove(0);
        assert_eq!((glanced.event, glanced.end_reason, glanced.sequence), (FlowEvent::Update, None, 1));
        assert_eq!((glanced.forward.delta.packets, glanced.forward.total.packets), (1, 4));
        meter.finish(0, &mut records);
        let last = FlowRecord { event: FlowEvent::Update, end_reason: None, ..records.0.pop().unwrap() };
        assert_eq!(glanced, last);
        assert_eq!(records.0[0].end_reason, Some(FlowEndReason::ActiveTimeout));
    }

    #[test]
    fn a_flow_that_went_between_looking_and_telling_is_left_out() {
        let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
        meter.observe(&[packet(1, 500, 0), packet(2, 600, 20)], &mut records);
        let mut top = TopFlows::new(FlowOrder::Bytes, 5);
        assert!(!meter.look(&mut top, 10));
        meter.advance(T0 + 31 * SECOND, &mut records);
        assert_eq!(meter.active(), 1);
        // Another flow takes the place.
        meter.observe(&[packet(3, 100, 31)], &mut records);
        assert_eq!(ports(&meter.found(top)), [2]);
    }
}
