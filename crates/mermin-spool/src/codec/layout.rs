//! The order of things in a message, which is for ever.
//!
//! ```text
//! run            8 bytes     of the program that wrote it: only there do the points' numbers mean anything
//! time           8 bytes     what starts are relative to, ns since 1970
//! texts          count, then each: length, UTF-8
//! objects        count, then each: attributes (count, then number and text of each), labels (count, then two texts of each)
//! points         count, then each: interface (text), index + 1 or 0, hook (1 ingress, 2 egress, 0 none)
//! records        count
//! flow ids       16 bytes each, big endian
//! community ids  20 bytes each
//! records        each: length (2 bytes), then what `encode.rs` writes
//! ```
//!
//! Numbers are LEB128 unless a width is said. What many records share (texts, objects, points) stands in a table once an
//! entry, and is named by its place in it, counted from 1; 0 is none.
//!
//! A later version may add to the end of a record, of an object and of the message, and numbers to enumerations: an
//! earlier one passes over what it doesn't know of the first kind, and says that it doesn't know the second. What can't be
//! said that way is another format.

/// What of the other tuple is so.
pub(super) mod nat {
    /// Its addresses are IPv6.
    pub(in super::super) const V6: u8 = 1;
    /// The record's own tuple is behind the translation.
    pub(in super::super) const BEHIND: u8 = 1 << 1;
}

/// What of a hop is so.
pub(super) mod hop {
    pub(in super::super) const FIRST: u8 = 1;
    pub(in super::super) const COUNTED: u8 = 1 << 1;
}

/// What of a record is there.
pub(super) mod has {
    pub(in super::super) const PORT: u32 = 1;
    pub(in super::super) const MAC: u32 = 1 << 1;
    pub(in super::super) const NAME: u32 = 1 << 2;
    pub(in super::super) const KUBERNETES: u32 = 1 << 3;
    pub(in super::super) const V6: u32 = 1 << 4;
    /// The destination has the same five, this much further up.
    pub(in super::super) const DESTINATION: u32 = 5;

    pub(in super::super) const TCP_FLAGS: u32 = 1 << 10;
    pub(in super::super) const TTL: u32 = 1 << 11;
    pub(in super::super) const TRAFFIC_CLASS: u32 = 1 << 12;
    /// Totals that are not the deltas.
    pub(in super::super) const EARLIER: u32 = 1 << 13;
    /// The reverse direction has the same four, this much further up.
    pub(in super::super) const REVERSE: u32 = 4;

    pub(in super::super) const ICMP: u32 = 1 << 18;
    pub(in super::super) const VLAN: u32 = 1 << 19;
    pub(in super::super) const INNER_VLAN: u32 = 1 << 20;
    pub(in super::super) const DEGRADED: u32 = 1 << 21;
    /// A tally that is not what the deltas make expect.
    pub(in super::super) const TALLY: u32 = 1 << 22;
    /// A start of counting that is not the flow's start.
    pub(in super::super) const COUNTS_FROM: u32 = 1 << 23;
    /// A wall clock that was set since the program began.
    pub(in super::super) const CLOCK_AHEAD: u32 = 1 << 24;
    /// A record whose ends nobody was asked about.
    pub(in super::super) const OMITTED: u32 = 1 << 25;
    /// Packets that were sampled.
    pub(in super::super) const SAMPLED: u32 = 1 << 26;
    /// What several observation points saw.
    pub(in super::super) const HOPS: u32 = 1 << 27;
    /// The other tuple of a connection whose addresses or ports were translated.
    pub(in super::super) const NAT: u32 = 1 << 28;
}
