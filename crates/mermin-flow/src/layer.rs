//! Where links lie upon each other, and what follows from it for what several observation points see of one direction.
//!
//! A packet that crosses a host is seen several times: at the ingress of a link, of the bridge or VLAN on it, at the egress of
//! another one. Those are *hops* of one way, and their counts are of the same packets. Counts of points that no packet passes
//! both of (the members of a bond, two uplinks) are of different packets, and add up.

use crate::observation::Observation;
use crate::point::Hook;

/// Where a link lies among the others of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// 0: on no other link. Otherwise one more than the highest link below it.
    pub depth: u8,
    /// Indexes of all links below it: ports of a bridge, the link of a VLAN, and those below them.
    pub below: Box<[u32]>,
    /// The bond that it is a port of, if it is.
    pub bond: Option<u32>,
    /// The loopback device, where packets go out before they come in.
    pub is_loopback: bool,
}

/// The place of a point of which nothing is known: neither at the begin of a way nor at its end.
pub(crate) const SOMEWHERE: u8 = 1 << 7;

impl Layer {
    /// The place of its hook on a packet's way through the host: ingress upwards, then egress downwards.
    #[must_use]
    pub(crate) fn order(&self, hook: Hook) -> u8 {
        let depth = self.depth.min(SOMEWHERE - 1);
        if (hook == Hook::Ingress) == self.is_loopback { u8::MAX - depth } else { depth }
    }

    /// Whether no packet passes the same hook of this link, of index `own`, and of the other one, as far as the links tell. One
    /// that comes back does ([`First`]).
    pub(crate) fn is_apart_from(&self, own: u32, other: &Self, index: u32) -> bool {
        own != index && !self.below.contains(&index) && !other.below.contains(&own)
    }

    /// Whether both are ports of one bond: a packet takes either.
    pub(crate) fn is_bonded_with(&self, other: &Self) -> bool {
        self.bond.is_some() && self.bond == other.bond
    }
}

/// What was first seen of a direction, to tell its packets when they come again by another link: from a firewall in a pod, or
/// from a host beside this one. What was routed on the way has a lower TTL, what was bridged the same MAC addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    /// The least TTL that was counted.
    pub(crate) ttl: u8,
    /// Of the flow's first packet.
    pub(crate) macs: [u8; 12],
}

impl First {
    /// Whether `o` may be of packets that were counted before.
    pub(crate) fn comes_back(&self, o: &Observation) -> bool {
        let ends = |macs: &[u8; 12]| {
            let (to, from) = macs.split_at(6);
            if to < from { [to, from].concat() } else { [from, to].concat() }
        };
        o.ttl < self.ttl || o.macs != [0; 12] && ends(&o.macs) == ends(&self.macs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::udp;

    fn layer(depth: u8, below: &[u32]) -> Layer {
        Layer { depth, below: below.into(), ..Layer::default() }
    }

    /// The way of a packet from a pod through a bridge and out by a VLAN, as the kernel's hooks see it.
    #[test]
    fn ingress_goes_up_and_egress_down_and_loopback_the_other_way() {
        use Hook::{Egress, Ingress};
        let (port, upper) = (layer(0, &[]), layer(1, &[7]));
        let way = [(&port, Ingress), (&upper, Ingress), (&upper, Egress), (&port, Egress)];
        let way = way.map(|(layer, hook)| layer.order(hook));
        assert!(way.is_sorted_by(|a, b| a < b), "{way:?}");
        assert!(way[1] < SOMEWHERE && SOMEWHERE < way[2]);
        let loopback = Layer { is_loopback: true, ..Layer::default() };
        assert!(loopback.order(Egress) < loopback.order(Ingress));
        assert_eq!(layer(200, &[]).order(Ingress), SOMEWHERE - 1);
    }

    #[test]
    fn links_are_apart_unless_one_lies_on_the_other() {
        let (eth0, eth1, bond, vlan) =
            (layer(0, &[]), layer(0, &[]), layer(1, &[1, 2]), layer(2, &[9, 1, 2]));
        assert!(eth0.is_apart_from(1, &eth1, 2));
        assert!(!eth0.is_apart_from(1, &eth0, 1), "the same link");
        for (upper, index) in [(&bond, 9), (&vlan, 10)] {
            assert!(!eth1.is_apart_from(2, upper, index) && !upper.is_apart_from(index, &eth1, 2));
        }
        // Whatever lies below what: depths differ, and no packet passes both.
        assert!(layer(0, &[]).is_apart_from(3, &bond, 9));
    }

    #[test]
    fn packets_come_back_with_a_lower_ttl_or_in_the_same_frame() {
        let macs = |to: u8, from: u8| {
            let mut macs = [0; 12];
            (macs[5], macs[11]) = (to, from);
            macs
        };
        let seen = |ttl, macs| Observation { ttl, macs, ..udp("10.0.0.2:9", "10.0.0.1:53") };
        let first = First { ttl: 63, macs: macs(1, 2) };
        for (ttl, macs, comes_back) in [
            (63, macs(3, 4), false),
            (64, macs(3, 4), false),
            (62, macs(3, 4), true),
            (63, macs(1, 2), true),
            (63, macs(2, 1), true),
            (63, [0; 12], false),
        ] {
            assert_eq!(first.comes_back(&seen(ttl, macs)), comes_back, "{ttl} {macs:?}");
        }
        let without = First { ttl: 63, macs: [0; 12] };
        assert!(!without.comes_back(&seen(63, [0; 12])), "links without addresses");
    }
}
