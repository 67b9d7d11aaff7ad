//! A record as NetFlow version 9 has it (RFC 3954): one data record for each direction, elements of IANA's registry with a
//! fixed length, times in milliseconds.
//!
//! Times stand twice: as old collectors read them, in milliseconds since the exporter's system started, and in milliseconds
//! since 1970. Of a flow that began before the system (in an old capture), or that ends in the future (of a clock that is
//! ahead), the first can't be said and are left out: 32 bits would go round and say another time.

use super::elements::place;
use super::encode::{Part, as_v6};
use super::shape::Shape;
use super::wire::MILLISECOND;
use mermin_flow::{FlowRecord, Hook, ObservationPoints};
use std::net::IpAddr;

/// Appends the data record of a part, [`Part::Forward`] or [`Part::Reverse`]. `booted`: when the system was started,
/// milliseconds since 1970;
/// `now`: what the wall clock shows, alike.
pub(crate) fn push(
    record: &FlowRecord,
    part: Part,
    points: &ObservationPoints,
    [booted, now]: [u64; 2],
    out: &mut Vec<u8>,
) -> Shape {
    let mut shape = Shape::default();
    let mut put = |place: u8, value: &[u8]| {
        shape.add(place);
        out.extend_from_slice(value);
    };
    let turned = part == Part::Reverse;
    let (source, destination, direction) = if turned {
        (&record.destination, &record.source, &record.reverse)
    } else {
        (&record.source, &record.destination, &record.forward)
    };
    let [start, end] = [record.start_shown(), record.end_shown()].map(|nanos| nanos / MILLISECOND);
    put(const { place("flowStartMilliseconds") }, &start.to_be_bytes());
    put(const { place("flowEndMilliseconds") }, &end.to_be_bytes());
    if start >= booted && end >= booted && end <= now {
        put(const { place("flowStartSysUpTime") }, &((start - booted) as u32).to_be_bytes());
        put(const { place("flowEndSysUpTime") }, &((end - booted) as u32).to_be_bytes());
    }
    if let Some(reason) = record.end_reason {
        put(const { place("flowEndReason") }, &[reason as u8]);
    }
    put(const { place("ipVersion") }, &[if source.address.is_ipv4() { 4 } else { 6 }]);
    put(const { place("protocolIdentifier") }, &[record.protocol]);
    match (source.address, destination.address) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            put(const { place("sourceIPv4Address") }, &from.octets());
            put(const { place("destinationIPv4Address") }, &to.octets());
        }
        (from, to) => {
            put(const { place("sourceIPv6Address") }, &as_v6(from));
            put(const { place("destinationIPv6Address") }, &as_v6(to));
        }
    }
    if let (Some(from), Some(to)) = (source.port, destination.port) {
        put(const { place("sourceTransportPort") }, &from.to_be_bytes());
        put(const { place("destinationTransportPort") }, &to.to_be_bytes());
    }
    // The first packet's, as the point where it was seen; an answer has others.
    if let Some((kind, code)) = record.icmp.filter(|_| !turned) {
        // Version 9 has one field for both families.
        put(const { place("icmpTypeCodeIPv4") }, &[kind, code]);
    }
    // Old collectors expect counts of one length.
    put(const { place("packetDeltaCount") }, &direction.delta.packets.to_be_bytes());
    put(const { place("octetDeltaCount") }, &direction.delta.bytes.to_be_bytes());
    if let Some(class) = direction.traffic_class {
        put(const { place("ipClassOfService") }, &[class]);
    }
    if let Some((min, max)) = direction.ttl {
        put(const { place("minimumTTL") }, &[min]);
        put(const { place("maximumTTL") }, &[max]);
    }
    if let Some(flags) = direction.tcp_flags {
        put(const { place("tcpControlBits") }, &[flags]);
    }
    if let (Some(from), Some(to)) = (source.mac, destination.mac) {
        put(const { place("sourceMacAddress") }, &from);
        put(const { place("destinationMacAddress") }, &to);
    }
    if let Some(vlan) = record.vlan {
        put(const { place("vlanId") }, &vlan.to_be_bytes());
    }
    if let Some(point) = points.of(record).filter(|_| !turned) {
        if let Some(index) = point.index {
            let place = match point.hook {
                Some(Hook::Egress) => const { place("egressInterface") },
                _ => const { place("ingressInterface") },
            };
            put(place, &index.to_be_bytes());
        }
        if let Some(hook) = point.hook {
            put(const { place("flowDirection") }, &[u8::from(hook == Hook::Egress)]);
        }
    }
    shape.widen();
    shape
}
