//! Two records of one flow become one: what a full queue does before it drops anything.
//!
//! A record says what came since the one before it, and how much there was in all. So the sum of two neighbours is a
//! record of the same kind, of a longer interval: its deltas are both deltas, everything else is what the later one says.

use crate::record::{FlowEvent, FlowRecord};

impl FlowRecord {
    /// Whether `later`, the next record of the same flow on its way to the same place, may take this one in. Only a
    /// periodic report may go: a start and an end are said. Only into a record that names the same ends, and the same
    /// translation of them: who they are is said for the time of a record's packets.
    #[must_use]
    pub fn may_go_into(&self, later: &Self) -> bool {
        self.event == FlowEvent::Update
            && later.event != FlowEvent::Start
            && self.id == later.id
            && self.source.identity == later.source.identity
            && self.destination.identity == later.destination.identity
            && self.nat == later.nat
    }

    /// Takes in the flow's record before this one.
    pub fn take_in(&mut self, earlier: &Self) {
        self.forward.delta += earlier.forward.delta;
        self.reverse.delta += earlier.reverse.delta;
        self.tally += earlier.tally;
        // What is known of lateness may have grown in between.
        self.counts_from = self.counts_from.min(earlier.counts_from);
        match (&mut self.sampled, &earlier.sampled) {
            (Some(own), Some(earlier)) => own.take_in(earlier),
            (own @ None, Some(earlier)) => *own = Some(earlier.clone()),
            (_, None) => {}
        }
        match (&mut self.hops, &earlier.hops) {
            (Some(own), Some(earlier)) => own.take_in(earlier),
            (Some(own), None) => own.take_in_counts([earlier.forward.delta, earlier.reverse.delta]),
            (None, _) => {}
        }
        self.lease.take_in(&earlier.lease);
        self.enrichment.omitted |= earlier.enrichment.omitted;
        self.enrichment.degraded = self.enrichment.degraded.max(earlier.enrichment.degraded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Enrichment, Identity};
    use crate::lease::Lease;
    use crate::nat::{Nat, NatStage};
    use crate::record::{Counts, Direction, End, FlowEndReason, FlowId, Initiator, TcpState};
    use crate::sampled::{Estimate, Sampled};
    use crate::{CommunityId, Tally};

    fn counts(n: u64) -> Counts {
        Counts { packets: n, bytes: 40 * n, frame_bytes: 54 * n }
    }

    /// The record after which a flow has sent and received so many packets.
    fn record(event: FlowEvent, sequence: u32, deltas: [u64; 2], totals: [u64; 2]) -> FlowRecord {
        let direction = |at: usize| Direction {
            delta: counts(deltas[at]),
            total: counts(totals[at]),
            tcp_flags: Some(1 << sequence),
            ttl: Some((60 - sequence as u8, 60 + sequence as u8)),
            traffic_class: None,
        };
        let end = |last| End {
            address: [192, 0, 2, last].into(),
            port: Some(443),
            mac: None,
            identity: Identity::default(),
        };
        let packets = deltas[0] + deltas[1];
        FlowRecord {
            id: FlowId(7),
            sequence,
            community_id: CommunityId([0; 20]),
            event,
            end_reason: (event == FlowEvent::End).then_some(FlowEndReason::IdleTimeout),
            start_time: 1_000,
            end_time: 1_000 + u64::from(sequence) * 60,
            counts_from: 900 + u64::from(sequence) * 60,
            clock_ahead: [0; 2],
            protocol: 6,
            source: end(1),
            destination: end(2),
            initiator: Initiator::Syn,
            enrichment: Enrichment::default(),
            icmp: None,
            forward: direction(0),
            reverse: direction(1),
            tcp_state: TcpState::Established,
            vlan: None,
            inner_vlan: None,
            point: 0,
            shard: 0,
            tally: Tally {
                packets,
                bytes: 54 * packets,
                buffers: packets - 1,
                buffer_bytes: 54 * packets - 20,
            },
            sampled: None,
            hops: None,
            nat: None,
            lease: Lease::default(),
        }
    }

    #[test]
    fn deltas_add_up_and_all_else_is_the_later_ones() {
        let first = record(FlowEvent::Update, 3, [5, 2], [50, 20]);
        let last = record(FlowEvent::End, 4, [7, 1], [57, 21]);
        let mut merged = last.clone();
        merged.take_in(&first);
        let mut expected = last;
        (expected.forward.delta, expected.reverse.delta) = (counts(12), counts(3));
        expected.counts_from = first.counts_from;
        expected.tally = Tally { packets: 15, bytes: 810, buffers: 13, buffer_bytes: 770 };
        assert_eq!(merged, expected);
        // The deltas since the record before the first are the totals since then.
        let before = [45, 18];
        assert_eq!(merged.forward.total.packets - before[0], merged.forward.delta.packets);
        assert_eq!(merged.reverse.total.packets - before[1], merged.reverse.delta.packets);
    }

    #[test]
    fn what_was_sampled_adds_up() {
        let estimate = |n: u64| Estimate {
            excess: counts(n),
            packets_variance: u128::from(n) * 100,
            bytes_variance: u128::from(n) * 1_000,
        };
        let sampled =
            |one_in, n| Some(Box::new(Sampled { one_in, directions: [estimate(n), estimate(2 * n)] }));
        let (first, last) = (sampled([2, 4], 5), sampled([8, 8], 30));
        for (earlier, later, both) in [
            (first.clone(), last.clone(), sampled([2, 8], 35)),
            (first.clone(), None, first),
            (None, last.clone(), last),
            (None, None, None),
        ] {
            let mut merged = record(FlowEvent::Update, 4, [7, 1], [57, 21]);
            merged.sampled = later;
            let mut before = record(FlowEvent::Update, 3, [5, 2], [50, 20]);
            before.sampled = earlier;
            let [one, other] = [before.estimates(), merged.estimates()];
            merged.take_in(&before);
            assert_eq!(merged.sampled, both);
            let sum = |at: usize| one[at].packets + other[at].packets;
            assert_eq!(merged.estimates().map(|counts| counts.packets), [sum(0), sum(1)]);
        }
    }

    #[test]
    fn only_an_update_goes_into_an_update_or_an_end_of_its_flow() {
        use FlowEvent::{End, Start, Update};
        for (earlier, later, may) in [
            (Update, Update, true),
            (Update, End, true),
            (Start, Update, false),
            (Start, End, false),
            (End, Update, false),
            (Update, Start, false),
        ] {
            let [first, last] = [(earlier, 1), (later, 2)].map(|(event, n)| record(event, n, [1, 1], [9, 9]));
            assert_eq!(first.may_go_into(&last), may, "{earlier:?} into {later:?}");
        }
    }

    #[test]
    fn records_that_name_other_ends_stay_apart() {
        let first = record(FlowEvent::Update, 1, [1, 1], [9, 9]);
        let mut other = record(FlowEvent::Update, 2, [1, 1], [9, 9]);
        other.id = FlowId(8);
        assert!(!first.may_go_into(&other));
        for at_source in [true, false] {
            let mut renamed = record(FlowEvent::Update, 2, [1, 1], [9, 9]);
            let end = if at_source { &mut renamed.source } else { &mut renamed.destination };
            end.identity.name = Some("office".into());
            assert!(!first.may_go_into(&renamed));
        }
        let nat = |last| {
            let ends = [(first.source.address, 40_000), ([198, 51, 100, last].into(), 443)];
            let community_id = CommunityId([last; 20]);
            Some(Box::new(Nat {
                stage: NatStage::Before,
                source: ends[0],
                destination: ends[1],
                community_id,
            }))
        };
        let [mut translated, mut other] =
            [1, 2].map(|n| FlowRecord { nat: nat(n), ..record(FlowEvent::Update, n.into(), [1, 1], [9, 9]) });
        assert!(!first.may_go_into(&translated) && !translated.may_go_into(&other));
        translated.nat.clone_from(&other.nat);
        assert!(translated.may_go_into(&other));
        other.nat = None;
        assert!(!translated.may_go_into(&other));
    }
}
