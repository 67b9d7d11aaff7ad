//! The other tuple of a connection whose addresses or ports the host translated.
//!
//! A router that translates sees each connection under two tuples: the one that packets have before translation, and the
//! one behind it. They are two flow keys, so two flows with records of their own. What enrichment found out of the other
//! tuple stands in the record, so that who has both, or one of another host, can put them together.

use crate::community_id::CommunityId;
use std::net::IpAddr;

/// On which side of the translation a record's own tuple is, seen the way that the connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatStage {
    /// The packets that the connection began with had it when they came; the other tuple is what became of it.
    Before,
    /// They had it when they left; the other tuple is what they came with.
    Behind,
}

impl NatStage {
    /// All of them, in order.
    pub const ALL: [Self; 2] = [Self::Before, Self::Behind];

    /// The value of `flow.nat.stage`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Behind => "behind",
        }
    }
}

/// A record's other tuple. It has the same protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Where the record's own tuple is.
    pub stage: NatStage,
    /// What the record's source is called in the other tuple; its own address and port, where the translation leaves it alone.
    pub source: (IpAddr, u16),
    /// The same of the destination.
    pub destination: (IpAddr, u16),
    /// Of the other tuple: what other observation points know the conversation by.
    pub community_id: CommunityId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_reference() {
        assert_eq!(NatStage::ALL.map(NatStage::name), ["before", "behind"]);
    }
}
