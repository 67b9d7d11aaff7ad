//! Packets and bytes per directed 5-tuple: the form in which a witness and the program's records are compared.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::AddAssign;

/// One direction of a flow, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// IANA number.
    pub protocol: u8,
    /// Ports, or for ICMP what the Community ID has in their place; none where the protocol or fragment has none.
    pub ports: Option<(u16, u16)>,
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            Some((from, to)) => {
                write!(f, "{}:{from} > {}:{to} protocol {}", self.source, self.destination, self.protocol)
            }
            None => write!(f, "{} > {} protocol {}", self.source, self.destination, self.protocol),
        }
    }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets on the wire.
    pub packets: u64,
    /// IP bytes.
    pub bytes: u64,
    /// Bytes on the link.
    pub frame_bytes: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.frame_bytes += other.frame_bytes;
    }
}

/// Counts by tuple.
pub type Table = BTreeMap<Tuple, Counts>;

/// A tuple's counts on both sides, where they differ: what was expected, what came.
pub type Difference = (Tuple, Counts, Counts);

/// The tuples whose counts differ.
#[must_use]
pub fn differences(expected: &Table, got: &Table) -> Vec<Difference> {
    let mut tuples: Vec<&Tuple> = expected.keys().chain(got.keys()).collect();
    tuples.sort_unstable();
    tuples.dedup();
    let of = |table: &Table, tuple: &Tuple| table.get(tuple).copied().unwrap_or_default();
    tuples
        .into_iter()
        .map(|&tuple| (tuple, of(expected, &tuple), of(got, &tuple)))
        .filter(|(_, a, b)| a != b)
        .collect()
}

/// The type that answers an ICMP type, or that it answers, after the Community ID specification; none for types that
/// make one-directional flows.
#[must_use]
pub fn icmp_counterpart(protocol: u8, kind: u16) -> Option<u16> {
    let pairs: &[(u16, u16)] = match protocol {
        1 => &[(8, 0), (13, 14), (15, 16), (10, 9), (17, 18)],
        58 => &[(128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145)],
        _ => &[],
    };
    pairs.iter().find_map(|&(request, reply)| match kind {
        kind if kind == request => Some(reply),
        kind if kind == reply => Some(request),
        _ => None,
    })
}

/// Whether an ICMP type asks for its counterpart.
#[must_use]
pub fn is_icmp_request(protocol: u8, kind: u16) -> bool {
    matches!((protocol, kind), (1, 8 | 10 | 13 | 15 | 17) | (58, 128 | 130 | 133 | 135 | 139 | 144))
}

/// What stands in the place of ports for an ICMP message.
#[must_use]
pub fn icmp_ports(protocol: u8, kind: u16, code: u16) -> (u16, u16) {
    (kind, icmp_counterpart(protocol, kind).unwrap_or(code))
}
