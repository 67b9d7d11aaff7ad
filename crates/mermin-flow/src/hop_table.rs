//! The way of a direction's packets through the host: every observation point that saw them, with its own counts.
//!
//! The point that saw a direction's first packet counts it for the flow's life. Another one is looked at when it first sees the
//! direction: where no packet can pass both (the members of a bond, two uplinks), its counts are the flow's, too; else they are of
//! packets that have been counted, and stand in the ledger as `secondary`. Either way they are known by point, so a packet that
//! was lost inside the host shows as a difference between hops.
//!
//! Most flows have one point, and nothing here ([`crate::per_flow`]). The first point's counts are what is left of the flow's.

use crate::bytes::{Bytes, Put as _};
use crate::entry::{Entry, Facts};
use crate::hops::{Hop, Hops};
use crate::layer::{Apart, frame_ends, is_to_group};
use crate::observation::Observation;
use crate::per_flow::{OfShard, PerFlow};
use crate::point::ObservationPoints;
use crate::record::Counts;

/// Points of a direction that have a hop. What more see of it is `secondary`, and no more is known of it.
const HOPS_MAX: usize = 8;

/// A point besides the one that a side is counted at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    counts: Counts,
    /// Of the first frame.
    ends: u32,
    point: u16,
    side: u8,
    is: Is,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Is {
    /// Where the side is counted: here only to say its frames' ends, where they aren't those of the flow's first packet.
    First,
    /// It adds.
    Counted,
    /// Its packets were counted.
    Passed,
}

/// Of a shard's flows that were seen at several points.
pub(crate) type ShardHops = OfShard<Vec<Sighting>>;

/// Of all flows in a table.
#[derive(Debug)]
pub(crate) struct HopTable(PerFlow<Vec<Sighting>>);

impl HopTable {
    /// Of a table without flows.
    pub(crate) fn new() -> Self {
        Self(PerFlow::new())
    }

    /// The second side of a flow begins.
    #[cold]
    pub(crate) fn begin_side(&mut self, facts: &Facts, o: &Observation) {
        let ends = frame_ends(&o.macs);
        if ends != frame_ends(&facts.macs) {
            let side = u8::from(o.reversed);
            self.push(
                facts,
                Sighting { counts: Counts::default(), ends, point: o.point, side, is: Is::First },
            );
        }
    }

    /// Notes an observation of a side that is counted at another point; whether it adds to the flow's counts.
    pub(crate) fn note(
        &mut self,
        (entry, facts): (&Entry, &Facts),
        o: &Observation,
        points: &ObservationPoints,
    ) -> bool {
        let sightings = self.0.get_or(facts, Vec::new);
        let side = u8::from(o.reversed);
        let known = sightings.iter_mut().find(|known| known.is_of(side) && known.point == o.point);
        if let Some(known) = known {
            known.counts += o.counts();
            return known.is == Is::Counted;
        }
        if sightings.iter().filter(|known| known.is_of(side)).count() + 1 >= HOPS_MAX {
            return false;
        }
        let ends = frame_ends(&o.macs);
        let is = if adds(sightings, (entry, facts), o, points) { Is::Counted } else { Is::Passed };
        let sighting = Sighting { counts: o.counts(), ends, point: o.point, side, is };
        // Most have no more.
        sightings.reserve_exact(1);
        sightings.push(sighting);
        is == Is::Counted
    }

    /// Lets the point of `o` count its side from the start, instead of the one that was handed on first, where it lies before that one
    /// on packets' way, nothing was told yet, and what it saw is not less. What the other one had counted; it has passed by now.
    #[cold]
    pub(crate) fn take_over(
        &mut self,
        (entry, facts): (&mut Entry, &mut Facts),
        o: &Observation,
        points: &ObservationPoints,
    ) -> Option<Counts> {
        let side = usize::from(o.reversed);
        let (before, point) = (entry.delta[side], entry.point_of(side));
        let is_untold = facts.sequence == 0 && !facts.is_segmented() && !o.is_segmented();
        let is_more = u64::from(o.packets) >= before.packets
            && o.bytes >= before.bytes
            && o.frame_bytes >= before.frame_bytes;
        let sightings = self.0.get(facts).map_or(&[][..], Vec::as_slice);
        let of_side = || sightings.iter().filter(|known| known.is_of(side as u8));
        let is_alone = of_side().all(|known| known.is == Is::Passed && known.point != o.point)
            && of_side().count() + 1 < HOPS_MAX;
        if !is_untold || !is_more || !is_alone || points.order(o.point) >= points.order(point) {
            return None;
        }
        let all = self.0.get_or(facts, Vec::new);
        let first_of =
            |side: usize| move |known: &Sighting| known.is == Is::First && usize::from(known.side) == side;
        let first = |point, side: usize, ends| Sighting {
            counts: Counts::default(),
            ends,
            point,
            side: side as u8,
            is: Is::First,
        };
        let mut ends = frame_ends(&facts.macs);
        if side == entry.first_side() {
            // The other side's were the same, unless it says others.
            let other = 1 - side;
            if entry.ttl(other).is_some() && !all.iter().any(first_of(other)) {
                all.push(first(entry.point_of(other), other, ends));
            }
            (facts.macs, facts.vlan, facts.inner_vlan) = (o.macs, o.vlan, o.inner_vlan);
        } else {
            if let Some(at) = all.iter().position(first_of(side)) {
                ends = all.swap_remove(at).ends;
            }
            all.push(first(o.point, side, frame_ends(&o.macs)));
        }
        all.push(Sighting { counts: before, ends, point, side: side as u8, is: Is::Passed });
        entry.begin_again(side, o);
        Some(before)
    }

    fn push(&mut self, facts: &Facts, sighting: Sighting) {
        self.0.get_or(facts, Vec::new).push(sighting);
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
        hops(self.0.get(facts)?, entry, source, points)
    }

    /// A record has told it.
    #[inline]
    pub(crate) fn told(&mut self, facts: &Facts) {
        if let Some(sightings) = self.0.get_mut(facts) {
            sightings.iter_mut().for_each(|known| known.counts = Counts::default());
        }
    }

    /// The flow is no more.
    #[inline]
    pub(crate) fn forget(&mut self, facts: &Facts) {
        self.0.forget(facts);
    }

    /// Takes out what is known of a shard's flows.
    pub(crate) fn give(&mut self, shard: usize) -> ShardHops {
        self.0.give(shard)
    }

    /// Takes in what another has given of a shard that has nothing here.
    pub(crate) fn take(&mut self, shard: usize, given: ShardHops) {
        self.0.take(shard, given);
    }

    /// Appends what is known of a flow.
    pub(crate) fn write(&self, facts: &Facts, out: &mut Vec<u8>) {
        let sightings = self.0.get(facts).map_or(&[][..], Vec::as_slice);
        out.put([sightings.len() as u8]);
        sightings.iter().for_each(|sighting| sighting.write(out));
    }

    /// Takes in what was written down of a flow.
    pub(crate) fn restore(&mut self, facts: &Facts, sightings: Vec<Sighting>) {
        if !sightings.is_empty() {
            self.0.insert(facts, sightings);
        }
    }

    /// Flows that there is room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl Sighting {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { counts, ends, point, side, is } = self;
        counts.write(out);
        out.put(ends.to_le_bytes());
        out.put(point.to_le_bytes());
        out.put([*side, *is as u8]);
    }

    /// Reads what [`HopTable::write`] has appended; `None`: it is cut short or says what can't be.
    pub(crate) fn read_all(bytes: &mut Bytes<'_>) -> Option<Vec<Self>> {
        let mut all = Vec::new();
        for _ in 0..bytes.byte()? {
            let (counts, ends, point) = (Counts::read(bytes)?, bytes.word()?, bytes.half()?);
            let [side, is] = bytes.array()?;
            let is = *[Is::First, Is::Counted, Is::Passed].get(usize::from(is))?;
            all.push(Self { counts, ends, point, side, is });
        }
        Some(all)
    }

    /// Where it was made.
    pub(crate) const fn point_mut(&mut self) -> &mut u16 {
        &mut self.point
    }

    /// Whether it is one of a side's further points.
    const fn is_of(&self, side: u8) -> bool {
        self.side == side && !matches!(self.is, Is::First)
    }
}

/// Whether what a point sees of a side for the first time are packets that no point has counted. It is apart from all that count
/// the side; and its packets don't come back by another link, from a firewall in a pod, or from a host beside this one: what was
/// routed on the way has another TTL, what was bridged is in the same frame.
fn adds(
    sightings: &[Sighting],
    (entry, facts): (&Entry, &Facts),
    o: &Observation,
    points: &ObservationPoints,
) -> bool {
    let side = u8::from(o.reversed);
    let ends = frame_ends(&o.macs);
    let first = sightings.iter().find(|known| known.side == side && known.is == Is::First);
    let first_ends = first.map_or_else(|| frame_ends(&facts.macs), |first| first.ends);
    let counted = sightings.iter().filter(|known| known.side == side && known.is == Is::Counted);
    let mut counting =
        counted.map(|known| (known.point, known.ends)).chain([(entry.point_of(side.into()), first_ends)]);
    entry.ttl(side.into()) == Some((o.ttl, o.ttl))
        && !is_to_group(&o.macs)
        && counting.all(|(point, known)| match points.are_apart(point, o.point) {
            Apart::No => false,
            Apart::Links => ends == 0 || known != ends,
            Apart::Ports => true,
        })
}

#[cold]
fn hops(sightings: &[Sighting], entry: &Entry, source: usize, points: &ObservationPoints) -> Option<Hops> {
    if sightings.iter().all(|known| known.is == Is::First) {
        return None;
    }
    let directions = [source, 1 - source].map(|side| {
        if entry.ttl(side).is_none() {
            return Vec::new();
        }
        let others = || sightings.iter().filter(|known| known.is_of(side as u8));
        let mut own = entry.delta[side];
        others().filter(|known| known.is == Is::Counted).for_each(|known| own -= known.counts);
        let mut hops = vec![Hop { point: entry.point_of(side), first: true, counted: true, counts: own }];
        hops.extend(others().map(|&Sighting { point, is, counts, .. }| Hop {
            point,
            first: false,
            counted: is == Is::Counted,
            counts,
        }));
        hops.sort_by_cached_key(|hop| points.order(hop.point));
        hops
    });
    Some(Hops { directions })
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowConfig;
    use crate::key::HashSecret;
    use crate::key::SHARDS;
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
        /// Frames go to a group.
        group: bool,
        /// Others may come that were seen before.
        held_back: bool,
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
            Self { meter, records: Records::default(), points, group: false, held_back: false }
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
            let mut o = if back {
                udp("10.0.0.1:41000", "10.0.0.2:40000")
            } else {
                udp("10.0.0.2:40000", "10.0.0.1:41000")
            };
            (o.start, o.end, o.watermark) = (T0 + at * SECOND, T0 + at * SECOND, T0 + at * SECOND);
            (o.packets, o.bytes, o.frame_bytes) = (packets, 60 * u64::from(packets), 74 * u64::from(packets));
            (o.buffers, o.buffer_bytes) = (packets, 74 * packets);
            (o.point, o.ttl) = (2 * (link - 1) + u16::from(hook == Egress), ttl);
            (o.macs[0], o.macs[5], o.macs[11]) = (u8::from(self.group), mac, mac + 1);
            o.orient(&HashSecret::new(1));
            if self.held_back {
                o.watermark = T0 - 1;
            }
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
        for (ttl, mac) in [(63, 20), (64, 10), (65, 20)] {
            let mut host = Host::new(UPLINKS);
            host.see((1, Ingress), 7, false, 0, SAME);
            host.see((2, Ingress), 7, false, 0, (ttl, mac));
            let (records, secondary) = host.end();
            assert_eq!((records[0].forward.total.packets, secondary.packets), (7, 7), "{ttl} {mac}");
        }
    }

    /// A client's requests are routed to a bridged firewall; the answers' frames are others than the requests'.
    #[test]
    fn answers_that_come_back_count_once_by_their_own_addresses() {
        let mut host = Host::new(UPLINKS);
        host.see((1, Ingress), 3, false, 0, (64, 10));
        host.see((2, Ingress), 5, true, 0, (60, 20));
        host.see((3, Ingress), 5, true, 0, (60, 20));
        let (records, secondary) = host.end();
        assert_eq!((records[0].reverse.total.packets, secondary.packets), (5, 5));
        assert_eq!(told(&records[0])[0].len(), 1, "of the first side's one point there is no other");
        // Of a second uplink that counts, too.
        let mut host = Host::new(UPLINKS);
        host.see((1, Ingress), 5, false, 0, (60, 20));
        host.see((2, Ingress), 5, false, 0, (60, 30));
        host.see((3, Ingress), 5, false, 0, (60, 30));
        assert_eq!(host.end().0[0].forward.total.packets, 10);
    }

    #[test]
    fn frames_to_groups_and_directions_of_several_ttls_add_nothing() {
        let mut host = Host::new(UPLINKS);
        host.see((3, Ingress), 5, false, 0, (64, 20));
        host.group = true;
        host.see((4, Ingress), 5, false, 0, (64, 20));
        assert_eq!(host.end().0[0].forward.total.packets, 5);
        let mut host = Host::new(UPLINKS);
        for (link, ttl, mac) in [(1, 60, 20), (1, 58, 20), (2, 58, 30), (3, 60, 40)] {
            host.see((link, Ingress), 5, false, 0, (ttl, mac));
        }
        assert_eq!(host.end().0[0].forward.total.packets, 10);
    }

    /// Sums come in any order within an epoch.
    #[test]
    fn a_point_that_lies_ahead_counts_from_the_start_where_nothing_was_told() {
        for (seen, counted) in [(30, 30), (20, 20), (10, 20)] {
            let mut host = Host::new(BRIDGE);
            host.held_back = true;
            host.see((2, Egress), 20, false, 0, (63, 20));
            host.see((1, Ingress), seen, false, 0, (64, 10));
            host.see((2, Egress), 1, false, 1, (63, 20));
            let (records, secondary) = host.end();
            let is_ahead = seen >= 20;
            let expected = [(1, Ingress, is_ahead, u64::from(seen)), (2, Egress, !is_ahead, 21)];
            assert_eq!(told(&records[0])[0], expected);
            let total = if is_ahead { counted } else { 21 };
            assert_eq!(records[0].forward.total.packets, total);
            assert_eq!(secondary.packets, u64::from(seen) + 21 - total);
            let ttl = if is_ahead { 64 } else { 63 };
            assert_eq!(records[0].forward.ttl, Some((ttl, ttl)));
            let mac = if is_ahead { 11 } else { 21 };
            assert_eq!(records[0].source.mac.unwrap()[5], mac, "the frame is the first point's");
        }
        // What was told stays.
        let mut host = Host::new(BRIDGE);
        for at in [0, 20, 40, 61] {
            host.see((2, Egress), 1, false, at, (63, 20));
        }
        host.held_back = true;
        host.see((1, Ingress), 30, false, 62, (64, 10));
        assert_eq!(host.end().1.packets, 30);
    }

    /// The frames of the other side are known by the first frame of all, which is another one from then on.
    #[test]
    fn a_point_that_lies_ahead_leaves_the_other_sides_frames_known() {
        let mut host = Host::new(BRIDGE);
        host.held_back = true;
        host.see((2, Egress), 20, false, 0, (63, 20));
        host.see((2, Ingress), 5, true, 0, (64, 20));
        host.see((1, Ingress), 20, false, 0, (64, 10));
        host.see((1, Ingress), 5, true, 0, (64, 20));
        let (records, _) = host.end();
        assert_eq!((records[0].forward.total.packets, records[0].reverse.total.packets), (20, 5));
    }

    /// The answer's sums come first.
    #[test]
    fn who_was_seen_first_began_the_flow_though_sums_come_in_another_order() {
        let mut host = Host::new(BRIDGE);
        host.held_back = true;
        host.see((2, Ingress), 1, true, 1, (63, 20));
        host.see((1, Ingress), 1, false, 0, (64, 10));
        let (records, _) = host.end();
        assert_eq!((records[0].source.port, records[0].start_time), (Some(40_000), T0));
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
