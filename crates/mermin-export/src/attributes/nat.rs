//! What a record of a translated connection has beside others.

use mermin_flow::{End, FlowRecord, Nat};
use std::net::IpAddr;

/// Names, in the table's order: the stage, address and port of each end, the other tuple's Community ID.
pub(crate) const NAMES: [&str; 6] = [
    "flow.nat.stage",
    "source.nat.ip",
    "source.nat.port",
    "destination.nat.ip",
    "destination.nat.port",
    "flow.nat.community_id",
];

/// The other tuple, as a record tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translated<'a> {
    pub(crate) nat: &'a Nat,
    /// Source and destination, where the other tuple calls them something else.
    pub(crate) ends: [Option<(IpAddr, u16)>; 2],
}

/// `None` of a record of a connection that isn't known to be translated.
#[inline]
pub(crate) fn values(record: &FlowRecord) -> Option<Translated<'_>> {
    let nat = record.nat.as_deref()?;
    let other = |end: &End, other: (IpAddr, u16)| {
        (other != (end.address, end.port.unwrap_or_default())).then_some(other)
    };
    let ends = [other(&record.source, nat.source), other(&record.destination, nat.destination)];
    Some(Translated { nat, ends })
}
