//! The way of a direction's packets through the host: every observation point that saw them, with its own counts.
//!
//! The point that saw a direction's first packet counts it for the flow's life. Another one is looked at when it first sees the
//! direction: where no packet can pass both (the members of a bond, two uplinks), its counts are the flow's, too; else they are of
//! packets that have been counted, and stand in the ledger as `secondary`. Either way they are known by point, so a packet that
//! was lost inside the host shows as a difference between hops.
//!
//! Most flows have one point, and nothing here. What others have stands in a table of its own, by what a flow is called for as
//! long as it lives; the first point's counts are what is left of the flow's.

use crate::entry::{Entry, Facts};
use crate::key::SHARDS;
use crate::layer::First;
use crate::observation::Observation;
use crate::point::ObservationPoints;
use crate::record::Counts;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What one observation point saw of a direction since the flow's previous record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The point's number.
    pub point: u16,
    /// Whether it saw the direction's first packet.
    pub first: bool,
    /// Whether the flow's counts have these in them. Otherwise they are of packets that another point has counted.
    pub counted: bool,
    /// What it saw.
    pub counts: Counts,
}

/// The hops of a flow in the order of packets' way: source to destination, then the other way. A direction without packets has
/// none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    /// By direction.
    pub directions: [Vec<Hop>; 2],
}

impl Hops {
    /// Takes in what was counted before more than one point had seen a direction.
    pub(crate) fn take_in_counts(&mut self, earlier: [Counts; 2]) {
        for (own, earlier) in self.directions.iter_mut().zip(earlier) {
            own.iter_mut().filter(|hop| hop.first).for_each(|hop| hop.counts += earlier);
        }
    }

    /// Takes in what the same points saw before.
    pub(crate) fn take_in(&mut self, earlier: &Self) {
        for (own, earlier) in self.directions.iter_mut().zip(&earlier.directions) {
            for before in earlier {
                match own.iter_mut().find(|hop| hop.point == before.point) {
                    Some(hop) => hop.counts += before.counts,
                    None => own.push(*before),
                }
            }
        }
    }
}

/// Points of a direction that have a hop. What more see of it is `secondary`, and no more is known of it.
const HOPS_MAX: usize = 8;

/// A point besides the one that a side is counted at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    counts: Counts,
    point: u16,
    side: u8,
    counted: bool,
}

/// Ordinals are no secret, and all different.
#[derive(Debug, Default)]
pub(crate) struct ByOrdinal(u64);

impl Hasher for ByOrdinal {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    /// Odd, so that no two are alike, and spread over the upper bits, by which the table tells entries apart.
    fn write_u64(&mut self, ordinal: u64) {
        self.0 = (self.0 ^ ordinal).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Of a shard's flows that were seen at several points, by ordinal.
pub(crate) type ShardHops = HashMap<u64, Vec<Sighting>, BuildHasherDefault<ByOrdinal>>;

/// A map with room for more than so many times what it holds is made smaller.
const SLACK: usize = 8;

/// Of all flows in a table, by shard.
#[derive(Debug)]
pub(crate) struct HopTable(Vec<ShardHops>);

impl HopTable {
    /// Of a table without flows.
    pub(crate) fn new() -> Self {
        Self((0..SHARDS).map(|_| ShardHops::default()).collect())
    }

    /// Notes an observation of a side that is counted at another point; whether it adds to the flow's counts.
    pub(crate) fn note(
        &mut self,
        (entry, facts): (&Entry, &Facts),
        o: &Observation,
        points: &ObservationPoints,
    ) -> bool {
        let sightings = self.0[usize::from(facts.shard)].entry(facts.ordinal).or_default();
        let side = u8::from(o.reversed);
        let known = sightings.iter_mut().find(|known| known.point == o.point && known.side == side);
        if let Some(known) = known {
            known.counts += o.counts();
            return known.counted;
        }
        let of_side = || sightings.iter().filter(|known| known.side == side);
        if of_side().count() + 1 >= HOPS_MAX {
            return false;
        }
        let first = First { ttl: entry.ttl(side.into()).map_or(0, |(least, _)| least), macs: facts.macs };
        let comes_back = first.comes_back(o);
        let counted = of_side()
            .filter(|known| known.counted)
            .map(|known| known.point)
            .chain([entry.point_of(side.into())])
            .all(|point| points.are_apart(point, o.point, comes_back));
        sightings.push(Sighting { counts: o.counts(), point: o.point, side, counted });
        counted
    }

    /// What the points of a flow have seen since its last record; `None` where each direction has one at most. `source`: which side
    /// is the source.
    #[inline]
    pub(crate) fn of(
        &self,
        entry: &Entry,
        facts: &Facts,
        source: usize,
        points: &ObservationPoints,
    ) -> Option<Hops> {
        let shard = &self.0[usize::from(facts.shard)];
        if shard.is_empty() { None } else { Some(hops(shard.get(&facts.ordinal)?, entry, source, points)) }
    }

    /// A record has told it.
    #[inline]
    pub(crate) fn told(&mut self, facts: &Facts) {
        let shard = &mut self.0[usize::from(facts.shard)];
        if !shard.is_empty()
            && let Some(sightings) = shard.get_mut(&facts.ordinal)
        {
            sightings.iter_mut().for_each(|known| known.counts = Counts::default());
        }
    }

    /// The flow is no more.
    #[inline]
    pub(crate) fn forget(&mut self, facts: &Facts) {
        let shard = &mut self.0[usize::from(facts.shard)];
        if !shard.is_empty() && shard.remove(&facts.ordinal).is_some() {
            // Memory that flows of the past took is given back.
            if shard.is_empty() {
                *shard = ShardHops::default();
            } else if shard.len() < shard.capacity() / SLACK {
                shard.shrink_to(2 * shard.len());
            }
        }
    }

    /// Takes out what is known of a shard's flows.
    pub(crate) fn give(&mut self, shard: usize) -> ShardHops {
        std::mem::take(&mut self.0[shard])
    }

    /// Takes in what another has given of a shard that has nothing here.
    pub(crate) fn take(&mut self, shard: usize, given: ShardHops) {
        self.0[shard] = given;
    }

    /// Flows that there is room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.iter().map(ShardHops::capacity).sum()
    }
}

#[cold]
fn hops(sightings: &[Sighting], entry: &Entry, source: usize, points: &ObservationPoints) -> Hops {
    let directions = [source, 1 - source].map(|side| {
        if entry.ttl(side).is_none() {
            return Vec::new();
        }
        let others = || sightings.iter().filter(|known| usize::from(known.side) == side);
        let mut own = entry.delta[side];
        others().filter(|known| known.counted).for_each(|known| own -= known.counts);
        let mut hops = vec![Hop { point: entry.point_of(side), first: true, counted: true, counts: own }];
        let other =
            |&Sighting { point, counted, counts, .. }: &_| Hop { point, first: false, counted, counts };
        hops.extend(others().map(other));
        hops.sort_by_key(|hop| points.order(hop.point));
        hops
    });
    Hops { directions }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowConfig;
    use crate::key::HashSecret;
    use crate::layer::Layer;
    use crate::meter::Meter;
    use crate::point::{Hook, ObservationPoint};
    use crate::record::{FlowEvent, FlowRecord};
    use crate::tally::Tally;
    use crate::testing::{Records, SECOND, T0, udp};
    use std::sync::Arc;

    /// A meter that knows these links, and the number of each hook of theirs.
    struct Host {
        meter: Meter,
        records: Records,
        points: Arc<ObservationPoints>,
    }

    /// Index, those below, depth and bond of each link.
    type Links = [(u32, &'static [u32], u8, Option<u32>)];

    /// A bridge over two veths.
    const BRIDGE: &Links = &[(1, &[], 0, None), (2, &[], 0, None), (3, &[1, 2], 1, None)];
    /// Two uplinks, and two links of a bond.
    const UPLINKS: &Links = &[
        (1, &[], 0, None),
        (2, &[], 0, None),
        (3, &[], 0, Some(5)),
        (4, &[], 0, Some(5)),
        (5, &[3, 4], 1, None),
    ];

    impl Host {
        fn new(links: &Links) -> Self {
            let points = Arc::new(ObservationPoints::default());
            for (index, below, depth, bond) in links {
                let layer = Layer { depth: *depth, below: (*below).into(), bond: *bond, is_loopback: false };
                for hook in [Ingress, Egress] {
                    let interface = Some(format!("link{index}").into());
                    let number = points
                        .register(ObservationPoint { interface, index: Some(*index), hook: Some(hook) }, 0);
                    points.lies(number.unwrap(), &Arc::new(layer.clone()));
                }
            }
            let mut meter = Meter::new(&FlowConfig::default(), "");
            meter.observe_at(Arc::clone(&points));
            Self { meter, records: Records::default(), points }
        }

        /// Packets of a flow, in either direction, at a link's hook; seconds after the start; TTL; last byte of the MAC addresses.
        fn see(
            &mut self,
            (link, hook): (u16, Hook),
            packets: u32,
            back: bool,
            at: u64,
            (ttl, mac): (u8, u8),
        ) {
            let mut o =
                if back { udp("10.0.0.1:53", "10.0.0.2:9") } else { udp("10.0.0.2:9", "10.0.0.1:53") };
            (o.start, o.end, o.watermark) = (T0 + at * SECOND, T0 + at * SECOND, T0 + at * SECOND);
            (o.packets, o.bytes, o.frame_bytes) = (packets, 60 * u64::from(packets), 74 * u64::from(packets));
            (o.buffers, o.buffer_bytes) = (packets, 74 * packets);
            (o.point, o.ttl) = (2 * (link - 1) + u16::from(hook == Egress), ttl);
            (o.macs[5], o.macs[11]) = (mac, mac + 1);
            o.orient(&HashSecret::new(1));
            self.meter.observe(&[o], &mut self.records);
            let book = self.meter.book();
            assert_eq!(book.metered, book.reported + self.meter.resident());
        }

        fn end(mut self) -> (Vec<FlowRecord>, Tally) {
            self.meter.finish(T0 + 1_000 * SECOND, &mut self.records);
            assert_eq!(self.meter.hops.capacity(), 0, "what has ended is forgotten");
            for record in &self.records.0 {
                let Some(hops) = &record.hops else { continue };
                for (direction, hops) in [&record.forward, &record.reverse].into_iter().zip(&hops.directions)
                {
                    let mut counted = Counts::default();
                    hops.iter().filter(|hop| hop.counted).for_each(|hop| counted += hop.counts);
                    assert_eq!(counted, direction.delta, "what is counted adds up");
                    assert!(hops.is_sorted_by_key(|hop| self.points.order(hop.point)));
                }
            }
            (self.records.0, self.meter.book().secondary)
        }
    }

    /// Link, hook, counted, packets.
    fn told(record: &FlowRecord) -> [Vec<(u16, Hook, bool, u64)>; 2] {
        let hops = record.hops.as_deref().cloned().unwrap_or_default();
        hops.directions.map(|hops| {
            let told = |hop: &Hop| {
                let hook = if hop.point.is_multiple_of(2) { Ingress } else { Egress };
                (hop.point / 2 + 1, hook, hop.counted, hop.counts.packets)
            };
            hops.iter().map(told).collect()
        })
    }

    use crate::point::Hook::{Egress, Ingress};
    const SAME: (u8, u8) = (64, 10);

    #[test]
    fn a_packet_that_is_lost_in_the_host_is_missing_from_a_hop() {
        let mut host = Host::new(BRIDGE);
        for at in 0..10 {
            host.see((1, Ingress), 1, false, at, SAME);
            if at != 3 {
                host.see((2, Egress), 1, false, at, SAME);
            }
        }
        host.see((2, Ingress), 5, true, 10, SAME);
        host.see((3, Ingress), 5, true, 10, SAME);
        let (records, secondary) = host.end();
        assert_eq!((records[0].forward.total.packets, records[0].reverse.total.packets), (10, 5));
        let forward = vec![(1, Ingress, true, 10), (2, Egress, false, 9)];
        assert_eq!(told(&records[0]), [forward, vec![(2, Ingress, true, 5), (3, Ingress, false, 5)]]);
        assert_eq!((secondary.packets, secondary.bytes), (14, 14 * 74));
    }

    #[test]
    fn points_that_no_packet_passes_both_of_add_up() {
        for hook in [Ingress, Egress] {
            let mut host = Host::new(UPLINKS);
            host.see((1, hook), 3, false, 0, (60, 10));
            host.see((2, hook), 4, false, 1, (60, 20));
            host.see((2, hook), 5, false, 2, (60, 20));
            host.see((1, hook), 1, false, 3, (60, 10));
            let (records, secondary) = host.end();
            assert_eq!((records[0].forward.total.packets, secondary), (13, Tally::ZERO), "{hook:?}");
            assert_eq!(told(&records[0])[0], [(1, hook, true, 4), (2, hook, true, 9)]);
        }
    }

    /// In a bond's ports frames have the same addresses; the bond itself sees them once more.
    #[test]
    fn ports_of_a_bond_add_up_and_the_bond_does_not() {
        let mut host = Host::new(UPLINKS);
        for port in [3, 4] {
            host.see((port, Ingress), 10, false, 0, SAME);
            host.see((5, Ingress), 10, false, 0, SAME);
        }
        let (records, secondary) = host.end();
        assert_eq!((records[0].forward.total.packets, secondary.packets), (20, 20));
        let expected = [(3, Ingress, true, 10), (4, Ingress, true, 10), (5, Ingress, false, 20)];
        assert_eq!(told(&records[0])[0], expected);
    }

    #[test]
    fn what_comes_back_counts_once() {
        for (ttl, mac) in [(63, 20), (64, 10)] {
            let mut host = Host::new(UPLINKS);
            host.see((1, Ingress), 7, false, 0, SAME);
            host.see((2, Ingress), 7, false, 0, (ttl, mac));
            let (records, secondary) = host.end();
            assert_eq!((records[0].forward.total.packets, secondary.packets), (7, 7), "{ttl} {mac}");
        }
    }

    /// The one that comes third lies on the second, which adds to the first.
    #[test]
    fn a_point_adds_only_where_it_is_apart_from_all_that_count() {
        let mut host = Host::new(UPLINKS);
        host.see((1, Ingress), 1, false, 0, (64, 10));
        host.see((3, Ingress), 2, false, 0, (64, 20));
        host.see((5, Ingress), 2, false, 0, (64, 20));
        let (records, _) = host.end();
        assert_eq!(records[0].forward.total.packets, 3);
        assert_eq!(told(&records[0])[0].iter().filter(|hop| hop.2).count(), 2);
    }

    #[test]
    fn points_of_which_nothing_is_known_add_nothing() {
        let mut host = Host::new(&[]);
        host.see((1, Ingress), 1, false, 0, (64, 10));
        host.see((2, Ingress), 1, false, 0, (64, 20));
        let (records, secondary) = host.end();
        assert_eq!((records[0].forward.total.packets, secondary.packets), (1, 1));
    }

    #[test]
    fn a_direction_has_eight_hops_and_the_rest_is_secondary() {
        let mut host = Host::new(&[]);
        for link in 1..=12 {
            host.see((link, Ingress), 1, false, 0, SAME);
        }
        let (records, secondary) = host.end();
        assert_eq!((told(&records[0])[0].len(), secondary.packets), (8, 11));
    }

    /// Each record tells of its own packets; a flow at one point has no hops.
    #[test]
    fn each_record_has_the_hops_of_its_time() {
        let mut host = Host::new(BRIDGE);
        for at in 0..10 {
            host.see((1, Ingress), 1, false, 20 * at, SAME);
            if (1..4).contains(&at) {
                host.see((2, Egress), 1, false, 20 * at, SAME);
            }
        }
        let (records, _) = host.end();
        let packets = |record: &FlowRecord| told(record)[0].iter().map(|hop| hop.3).collect::<Vec<_>>();
        assert_eq!(records.iter().map(packets).collect::<Vec<_>>(), [[3, 2], [3, 1], [3, 0], [1, 0]]);
        let mut one = Host::new(BRIDGE);
        one.see((1, Ingress), 1, false, 0, SAME);
        assert_eq!(one.end().0[0].hops, None);
        let mut merged = records[1].clone();
        merged.take_in(&records[0]);
        assert_eq!(packets(&merged), [6, 3]);
        let mut later = records[1].clone();
        later.take_in(&FlowRecord { hops: None, event: FlowEvent::Update, ..records[0].clone() });
        assert_eq!(packets(&later), [6, 1]);
    }

    #[test]
    fn hops_go_along_with_their_shard() {
        let mut host = Host::new(BRIDGE);
        host.see((1, Ingress), 4, false, 0, SAME);
        host.see((2, Egress), 3, false, 0, SAME);
        let mut other = Meter::new(&FlowConfig::default(), "");
        other.observe_at(Arc::clone(&host.points));
        (0..SHARDS).for_each(|shard| other.take_shard(host.meter.give_shard(shard)));
        assert_eq!(host.meter.hops.capacity(), 0, "its memory goes along");
        other.finish(T0, &mut host.records);
        assert_eq!(told(&host.records.0[0])[0], [(1, Ingress, true, 4), (2, Egress, false, 3)]);
    }
}
