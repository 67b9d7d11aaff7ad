//! What ctnetlink says of a connection (linux/netfilter/nfnetlink_conntrack.h), as far as its tuples go.
//!
//! A connection has two tuples, each from the side of who sends: ORIG of the packets that opened it, as they came, REPLY of
//! the packets that answer, as they come. Turned round, REPLY is what the first packets are when they leave. Where that is
//! not ORIG, something is translated: by netfilter's NAT, which says so in the status as well, or by IPVS, which doesn't.
//! So the tuples are compared and the status is not asked.

use std::net::IpAddr;

/// An address and a port.
pub(crate) type End = (IpAddr, u16);

/// A translated connection of a protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) protocol: u8,
    /// Where the same tuple may be another connection's at the same time.
    pub(crate) zone: u16,
    /// The kernel's. Of two connections with the same tuples, one after the other, it may be the same.
    pub(crate) id: u32,
    /// Who opened it and to whom, as the first packets came.
    pub(crate) before: [End; 2],
    /// The same ends, as these packets left.
    pub(crate) behind: [End; 2],
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// There is this connection: an event says that it is new, an answer that it is there.
    Is(Connection),
    /// It has ended.
    Ended(Connection),
}

/// What follows a netlink header of this kind in a request for all connections: of any address family.
pub(crate) const ALL: [u8; 4] = [0; 4];
/// `NFNL_SUBSYS_CTNETLINK`, in the upper half of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
/// The type of a request for connections.
pub(crate) const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// `struct nfgenmsg`.
const HEADER: usize = 4;

/// Attributes of a connection.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// Attributes of a tuple.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const TUPLE_ZONE: u16 = 3;
/// Attributes of its addresses: IPv4 source and destination, IPv6 source and destination.
const IP: [u16; 4] = [1, 2, 3, 4];
/// Attributes of its protocol: number, source and destination port.
const PROTO: [u16; 3] = [1, 2, 3];

/// `IPS_DYING`: an answer may have one that has ended, and has been said to have.
const DYING: u32 = 1 << 9;

/// TCP, UDP, DCCP, SCTP, UDP-Lite: whose ports are ports. ICMP's are an identifier.
pub(crate) const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// What a message of this type and content says of a translated connection; `None` where it is of something else.
pub(crate) fn read(kind: u16, body: &[u8]) -> Option<Told> {
    if kind != NEW && kind != DELETE {
        return None;
    }
    let (mut orig, mut reply) = (None, None);
    let (mut zone, mut id, mut status) = (None, 0, 0);
    for (attribute, value) in attributes(body.get(HEADER..)?) {
        match attribute {
            TUPLE_ORIG => orig = tuple(value),
            TUPLE_REPLY => reply = tuple(value),
            ID => id = u32::from_be_bytes(*value.first_chunk()?),
            ZONE => zone = Some(u16::from_be_bytes(*value.first_chunk()?)),
            STATUS => status = u32::from_be_bytes(*value.first_chunk()?),
            _ => {}
        }
    }
    let (orig, reply) = (orig?, reply?);
    let [from, to] = reply.ends;
    let (before, behind) = (orig.ends, [to, from]);
    // What the ends of one tuple are, those of the other one are too, or nothing could be said of either.
    let versions = before.iter().chain(&behind).filter(|(address, _)| address.is_ipv4()).count();
    if before == behind || orig.protocol != reply.protocol || !has_ports(orig.protocol) || versions % 4 != 0 {
        return None;
    }
    let zone = zone.or(orig.zone).or(reply.zone).unwrap_or_default();
    let connection = Connection { protocol: orig.protocol, zone, id, before, behind };
    match kind {
        DELETE => Some(Told::Ended(connection)),
        _ => (status & DYING == 0).then_some(Told::Is(connection)),
    }
}

struct Tuple {
    protocol: u8,
    zone: Option<u16>,
    ends: [End; 2],
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (mut addresses, mut ports, mut protocol, mut zone) = ([None; 2], [None; 2], None, None);
    for (attribute, value) in attributes(bytes) {
        match attribute {
            TUPLE_IP => {
                for (attribute, value) in attributes(value) {
                    let Some(place) = IP.iter().position(|known| *known == attribute) else { continue };
                    addresses[place % 2] = Some(match place {
                        0 | 1 => IpAddr::from(*value.first_chunk::<4>()?),
                        _ => IpAddr::from(*value.first_chunk::<16>()?),
                    });
                }
            }
            TUPLE_PROTO => {
                for (attribute, value) in attributes(value) {
                    match PROTO.iter().position(|known| *known == attribute) {
                        Some(0) => protocol = value.first().copied(),
                        Some(place) => {
                            ports[place - 1] = value.first_chunk().map(|port| u16::from_be_bytes(*port));
                        }
                        None => {}
                    }
                }
            }
            TUPLE_ZONE => zone = value.first_chunk().map(|zone| u16::from_be_bytes(*zone)),
            _ => {}
        }
    }
    let ends = [(addresses[0]?, ports[0]?), (addresses[1]?, ports[1]?)];
    Some(Tuple { protocol: protocol?, zone, ends })
}

/// The attributes in `bytes`, by number, as far as they are whole.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Marks of nesting and byte order.
    const NUMBER: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let value = bytes.get(4..length)?;
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & NUMBER;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn end(text: &str) -> End {
        let end: std::net::SocketAddr = text.parse().unwrap();
        (end.ip(), end.port())
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, protocol: u8, ends: [&str; 2]) -> Vec<u8> {
        let ends = ends.map(end);
        let address = |at: usize| match ends[at].0 {
            IpAddr::V4(v4) => attribute(IP[at], &v4.octets()),
            IpAddr::V6(v6) => attribute(IP[2 + at], &v6.octets()),
        };
        let port = |at: usize| attribute(PROTO[1 + at], &ends[at].1.to_be_bytes());
        let ip = attribute(TUPLE_IP | 0x8000, &[address(0), address(1)].concat());
        let proto = [attribute(PROTO[0], &[protocol]), port(0), port(1)].concat();
        attribute(kind | 0x8000, &[ip, attribute(TUPLE_PROTO | 0x8000, &proto)].concat())
    }

    fn body(protocol: u8, orig: [&str; 2], reply: [&str; 2], rest: &[Vec<u8>]) -> Vec<u8> {
        let tuples = [tuple(TUPLE_ORIG, protocol, orig), tuple(TUPLE_REPLY, protocol, reply)].concat();
        [&[2, 0, 0, 0], &tuples[..], &rest.concat()].concat()
    }

    const TO_A_SERVICE: [&str; 2] = ["10.0.0.2:40000", "10.96.0.1:80"];
    const FROM_ITS_BACKEND: [&str; 2] = ["10.1.0.9:8080", "10.0.0.2:40000"];

    #[test]
    fn both_tuples_are_in_the_order_of_the_opening() {
        let rest = [attribute(ID, &7_u32.to_be_bytes()), attribute(ZONE, &3_u16.to_be_bytes())];
        let body = body(6, TO_A_SERVICE, FROM_ITS_BACKEND, &rest);
        let connection = Connection {
            protocol: 6,
            zone: 3,
            id: 7,
            before: TO_A_SERVICE.map(end),
            behind: ["10.0.0.2:40000", "10.1.0.9:8080"].map(end),
        };
        assert_eq!(read(NEW, &body), Some(Told::Is(connection)));
        assert_eq!(read(DELETE, &body), Some(Told::Ended(connection)));
        assert_eq!(read(GET, &body), None);
    }

    #[test]
    fn ipv6_is_read_alike() {
        let body = body(17, ["[2001:db8::2]:9", "[fd00::1]:53"], ["[fd01::5]:5353", "[2001:db8::2]:9"], &[]);
        let Some(Told::Is(connection)) = read(NEW, &body) else { panic!() };
        assert_eq!(connection.behind, ["[2001:db8::2]:9", "[fd01::5]:5353"].map(end));
        assert_eq!((connection.protocol, connection.zone, connection.id), (17, 0, 0));
    }

    #[test]
    fn others_are_passed_over() {
        let status = |bits: u32| attribute(STATUS, &bits.to_be_bytes());
        let there = [TO_A_SERVICE[1], TO_A_SERVICE[0]];
        for (what, kind, body) in [
            ("untranslated", NEW, body(6, TO_A_SERVICE, there, &[])),
            ("without ports", NEW, body(1, TO_A_SERVICE, FROM_ITS_BACKEND, &[])),
            ("dying", NEW, body(6, TO_A_SERVICE, FROM_ITS_BACKEND, &[status(DYING | 1 << 5)])),
            ("of two versions", NEW, body(6, TO_A_SERVICE, ["[fd00::1]:80", "[fd00::2]:9"], &[])),
            ("without a reply", NEW, [&[2, 0, 0, 0], &tuple(TUPLE_ORIG, 6, TO_A_SERVICE)[..]].concat()),
            ("another subsystem", 0x200, body(6, TO_A_SERVICE, FROM_ITS_BACKEND, &[])),
        ] {
            assert_eq!(read(kind, &body), None, "{what}");
        }
        let told = read(NEW, &body(6, TO_A_SERVICE, FROM_ITS_BACKEND, &[status(1 << 5)]));
        assert!(matches!(told, Some(Told::Is(_))));
        let dying = read(DELETE, &body(6, TO_A_SERVICE, FROM_ITS_BACKEND, &[status(DYING)]));
        assert!(matches!(dying, Some(Told::Ended(_))));
    }

    #[test]
    fn what_is_cut_short_says_nothing() {
        let whole = body(6, TO_A_SERVICE, FROM_ITS_BACKEND, &[]);
        for length in 0..whole.len() - 1 {
            assert_eq!(read(NEW, &whole[..length]), None, "{length}");
        }
    }

    proptest! {
        /// Whatever comes, reading it ends, and what it says has two tuples that differ.
        #[test]
        fn any_bytes_can_be_read(
            kind in prop::sample::select(vec![NEW, DELETE]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0..200_usize,
            value in any::<u8>(),
        ) {
            prop_assert!(read(kind, &bytes).is_none_or(differs));
            let mut changed = body(6, TO_A_SERVICE, FROM_ITS_BACKEND, &[]);
            if let Some(byte) = changed.get_mut(at) {
                *byte = value;
            }
            prop_assert!(read(kind, &changed).is_none_or(differs));
        }
    }

    fn differs(told: Told) -> bool {
        let (Told::Is(connection) | Told::Ended(connection)) = told;
        connection.before != connection.behind
    }
}
