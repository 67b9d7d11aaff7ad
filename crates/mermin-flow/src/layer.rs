//! Where links lie upon each other, and what follows from it for what several observation points see of one direction.
//!
//! A packet that crosses a host is seen several times: at the ingress of a link, of the bridge or VLAN on it, at the egress of
//! another one. Those are *hops* of one way, and their counts are of the same packets. Counts of points that no packet passes
//! both of (the members of a bond, two uplinks) are of different packets, and add up.

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
    /// that comes back does.
    pub(crate) fn is_apart_from(&self, own: u32, other: &Self, index: u32) -> bool {
        own != index && !self.below.contains(&index) && !other.below.contains(&own)
    }

    /// Whether both are ports of one bond: a packet takes either.
    pub(crate) fn is_bonded_with(&self, other: &Self) -> bool {
        self.bond.is_some() && self.bond == other.bond
    }
}

/// How two points of one direction are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// A packet may pass both, or nothing is known.
    No,
    /// No packet passes both, as far as the links tell.
    Links,
    /// They are ports of one bond, in which all frames have the same addresses.
    Ports,
}

/// The addresses of a frame, in either order; 0: it has none. By them packets are told that come again by another link, bridged on
/// the way. Two pairs are taken for one in one of 2^31 cases.
pub(crate) fn frame_ends(macs: &[u8; 12]) -> u32 {
    let end = |at: usize| {
        let word = macs[at..at + 6].iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        let word = (word ^ word >> 24).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
    };
    if *macs == [0; 12] { 0 } else { (end(0).wrapping_add(end(6)) >> 32) as u32 | 1 }
}

/// Whether a frame goes to a group: it may reach a host by several links.
pub(crate) const fn is_to_group(macs: &[u8; 12]) -> bool {
    macs[0] & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn frames_are_told_by_their_ends_in_either_order() {
        let macs = |to: u8, from: u8| {
            let mut macs = [0; 12];
            (macs[5], macs[11]) = (to, from);
            macs
        };
        assert_eq!(frame_ends(&macs(1, 2)), frame_ends(&macs(2, 1)));
        assert_eq!(frame_ends(&[0; 12]), 0);
        let ends: std::collections::HashSet<_> =
            (0..=u8::MAX).flat_map(|to| (0..to).map(move |from| frame_ends(&macs(to, from)))).collect();
        assert!(ends.len() > 255 * 256 / 2 - 5, "{} of 32 640", ends.len());
        assert!(is_to_group(&[0xff; 12]) && !is_to_group(&macs(1, 2)));
    }
}
