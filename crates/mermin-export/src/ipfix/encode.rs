//! A record as one IPFIX data record with both directions (RFC 5103), or as one for each direction.
//!
//! Fields are written in the table's order as they are found, and noted in the shape as they are written: one pass, no
//! attribute is turned into text that is none.

use super::elements::{of_kubernetes, place};
use super::shape::Shape;
use super::wire::{MILLISECOND, has_ntp, ntp, push_variable};
use crate::attributes::hops::{self, NamedHop};
use crate::attributes::nat::{self, Translated};
use crate::attributes::sampling;
use crate::form::{Dialect, FOREIGN_MAX, push_foreign, push_ip, push_number};
use crate::json::push_hop;
use mermin_flow::{
    Direction, End, FlowDirection, FlowEvent, FlowRecord, Hook, Initiator, KubernetesEnd, NatStage,
    ObservationPoints, Resolution,
};
use std::net::IpAddr;
use std::sync::Arc;

/// What of a record a data record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Both directions.
    Both,
    /// Source to destination.
    Forward,
    /// Destination to source; its source is the record's destination.
    Reverse,
}

/// One data record for each direction that has packets; of a record without any, one that tells of its event.
pub(crate) fn each(record: &FlowRecord) -> impl Iterator<Item = Part> {
    let [forward, reverse] = [&record.forward, &record.reverse].map(|direction| direction.delta.packets > 0);
    let forward = (forward || !reverse).then_some(Part::Forward);
    forward.into_iter().chain(reverse.then_some(Part::Reverse))
}

/// Encodes records.
#[derive(Debug)]
pub(crate) struct Encoder {
    points: Arc<ObservationPoints>,
    scratch: Vec<u8>,
}

/// A data record that is being written.
struct Row<'a> {
    shape: Shape,
    out: &'a mut Vec<u8>,
}

impl Row<'_> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, place: u8, value: [u8; N]) {
        self.shape.add(place);
        self.out.extend_from_slice(&value);
    }

    #[inline(always)]
    fn byte(&mut self, place: u8, value: u8) {
        self.shape.add(place);
        self.out.push(value);
    }

    /// A text from outside, cut as in every output.
    fn text(&mut self, place: u8, text: &str) {
        self.shape.add(place);
        push_variable(self.out, &text.as_bytes()[..text.floor_char_boundary(FOREIGN_MAX)]);
    }

    /// A count, in as many octets as the shape has for one.
    #[inline(always)]
    fn count(&mut self, place: u8, count: u64) {
        if self.shape.is_wide() {
            self.put(place, count.to_be_bytes());
        } else {
            self.put(place, (count as u32).to_be_bytes());
        }
    }
}

/// The directions and ends of a part, as its data record sees them.
struct Sight<'r> {
    source: &'r End,
    destination: &'r End,
    forward: &'r Direction,
    reverse: Option<&'r Direction>,
    turned: bool,
}

impl<'r> Sight<'r> {
    fn of(record: &'r FlowRecord, part: Part) -> Self {
        let FlowRecord { source, destination, forward, reverse, .. } = record;
        match part {
            // A direction that has had no packet has no reverse fields: it is a Uniflow (RFC 5103 section 3).
            Part::Both => {
                let reverse = (reverse.total.packets > 0).then_some(reverse);
                Self { source, destination, forward, reverse, turned: false }
            }
            Part::Forward => Self { source, destination, forward, reverse: None, turned: false },
            Part::Reverse => Self {
                source: destination,
                destination: source,
                forward: reverse,
                reverse: None,
                turned: true,
            },
        }
    }

    /// Whether a count needs more than four octets. A delta is never more than its total.
    fn is_wide(&self) -> bool {
        let large = |direction: &Direction| {
            let total = direction.total;
            (total.packets | total.bytes | total.frame_bytes) >> 32 != 0
        };
        large(self.forward) || self.reverse.is_some_and(large)
    }
}

impl Encoder {
    /// Of records whose points are among `points`.
    pub(crate) fn new(points: Arc<ObservationPoints>) -> Self {
        Self { points, scratch: Vec::new() }
    }

    /// Appends the data record of a part, and says what it consists of.
    pub(crate) fn push(&mut self, record: &FlowRecord, part: Part, out: &mut Vec<u8>) -> Shape {
        let sight = Sight::of(record, part);
        let mut row = Row { shape: Shape::default(), out };
        if sight.is_wide() {
            row.shape.widen();
        }
        key(&mut row, record, &sight);
        // Whether its source is the initiator, or the other end (RFC 5103 section 6.3).
        row.byte(const { place("biflowDirection") }, 1 + u8::from(sight.turned));
        direction(&mut row, sight.forward, &FORWARD);
        if let Some(reverse) = sight.reverse {
            direction(&mut row, reverse, &REVERSE);
        }
        self.link(&mut row, record, &sight);
        own(&mut row, record, sight.turned);
        if let Some(values) = sampling::values(record) {
            sampled(&mut row, &values, part, sight.reverse.is_some());
        }
        if record.hops.is_some() {
            self.hops(&mut row, record, part);
        }
        if let Some(translated) = nat::values(record) {
            self.nat(&mut row, &translated, sight.turned);
        }
        self.end(&mut row, sight.source, SOURCE);
        self.end(&mut row, sight.destination, DESTINATION);
        row.shape
    }

    fn link(&self, row: &mut Row<'_>, record: &FlowRecord, sight: &Sight<'_>) {
        if let Some(mac) = sight.source.mac {
            row.put(const { place("sourceMacAddress") }, mac);
        }
        if let Some(mac) = sight.destination.mac {
            row.put(const { place("destinationMacAddress") }, mac);
        }
        if let Some(vlan) = record.vlan {
            row.put(const { place("dot1qVlanId") }, vlan.to_be_bytes());
        }
        if let Some(vlan) = record.inner_vlan {
            row.put(const { place("dot1qCustomerVlanId") }, vlan.to_be_bytes());
        }
        // Where the first packet was seen; an answer comes the other way.
        let Some(point) = self.points.of(record).filter(|_| !sight.turned) else { return };
        if let Some(interface) = &point.interface {
            row.text(const { place("interfaceName") }, interface);
        }
        interface_index(row, point.index, point.hook);
    }

    #[cold]
    fn hops(&mut self, row: &mut Row<'_>, record: &FlowRecord, part: Part) {
        let [forward, reverse] = hops::values(record, &self.points);
        let (forward, reverse) = match part {
            Part::Both => (forward, reverse),
            Part::Forward => (forward, Vec::new()),
            Part::Reverse => (reverse, Vec::new()),
        };
        for (place, hops) in
            [(const { place("flow.hops") }, forward), (const { place("flow.reverse.hops") }, reverse)]
        {
            if !hops.is_empty() {
                self.scratch.clear();
                push_hops(&mut self.scratch, &hops);
                row.shape.add(place);
                push_variable(row.out, &self.scratch);
            }
        }
    }

    /// The connection's other tuple, its ends in the order of this data record's.
    #[cold]
    fn nat(&mut self, row: &mut Row<'_>, translated: &Translated<'_>, turned: bool) {
        let [mut source, mut destination] = translated.ends;
        if turned {
            std::mem::swap(&mut source, &mut destination);
        }
        let stage = translated.nat.stage;
        row.byte(const { place("flow.nat.stage") }, if stage == NatStage::Before { 1 } else { 2 });
        row.put(const { place("flow.nat.community_id") }, translated.nat.community_id.text());
        for (end, places) in [(source, SOURCE_BEHIND), (destination, DESTINATION_BEHIND)] {
            if let (Some((address, port)), NatStage::Before) = (end, stage) {
                match address {
                    IpAddr::V4(address) => row.put(places[0], address.octets()),
                    IpAddr::V6(address) => row.put(places[1], address.octets()),
                }
                row.put(places[2], port.to_be_bytes());
            }
        }
        for (end, place) in [
            (source, const { place("source.nat.before") }),
            (destination, const { place("destination.nat.before") }),
        ] {
            if let (Some((address, port)), NatStage::Behind) = (end, stage) {
                self.scratch.clear();
                push_ip(&mut self.scratch, address);
                self.scratch.push(b' ');
                push_number(&mut self.scratch, port.into());
                row.shape.add(place);
                push_variable(row.out, &self.scratch);
            }
        }
    }

    fn end(&mut self, row: &mut Row<'_>, end: &End, places: EndPlaces) {
        if let Some(name) = &end.identity.name {
            row.text(places.name, name);
        }
        if let Some(kubernetes) = &end.identity.kubernetes {
            self.kubernetes(row, kubernetes, places);
        }
    }

    fn kubernetes(&mut self, row: &mut Row<'_>, end: &KubernetesEnd, places: EndPlaces) {
        let resolution = match end.resolution {
            Resolution::Exact => 1,
            Resolution::Ambiguous => 2,
            Resolution::Unknown => 3,
        };
        row.byte(places.resolution, resolution);
        for (attribute, value) in end.attributes() {
            row.text(of_kubernetes(places.kubernetes, attribute), value);
        }
        self.scratch.clear();
        for (name, value) in end.labels() {
            if !self.scratch.is_empty() {
                self.scratch.push(b'\n');
            }
            push_foreign(&mut self.scratch, name, Dialect::Plain);
            self.scratch.push(b'=');
            push_foreign(&mut self.scratch, value, Dialect::Plain);
        }
        if !self.scratch.is_empty() {
            row.shape.add(places.labels);
            push_variable(row.out, &self.scratch);
        }
    }
}

/// As in a JSON line.
fn push_hops(out: &mut Vec<u8>, hops: &[NamedHop]) {
    let mut before = b'[';
    for hop in hops {
        out.push(before);
        before = b',';
        push_hop(out, hop);
    }
    out.push(b']');
}

/// Times, what ended it, and the flow key.
#[inline(always)]
fn key(row: &mut Row<'_>, record: &FlowRecord, sight: &Sight<'_>) {
    let (start, end) = (record.start_shown(), record.end_shown());
    // Collectors that know no nanoseconds (nfdump 1.7) would have flows without times. The finer ones come last: who knows
    // both keeps these.
    row.put(const { place("flowStartMilliseconds") }, (start / MILLISECOND).to_be_bytes());
    row.put(const { place("flowEndMilliseconds") }, (end / MILLISECOND).to_be_bytes());
    // Those that would be read as of the era before are left out.
    if has_ntp(start) && has_ntp(end) {
        row.put(const { place("flowStartNanoseconds") }, ntp(start).to_be_bytes());
        row.put(const { place("flowEndNanoseconds") }, ntp(end).to_be_bytes());
    }
    if let Some(reason) = record.end_reason {
        row.byte(const { place("flowEndReason") }, reason as u8);
    }
    let (source, destination) = (sight.source, sight.destination);
    let version = if source.address.is_ipv4() { 4 } else { 6 };
    row.byte(const { place("ipVersion") }, version);
    row.byte(const { place("protocolIdentifier") }, record.protocol);
    match (source.address, destination.address) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            row.put(const { place("sourceIPv4Address") }, from.octets());
            row.put(const { place("destinationIPv4Address") }, to.octets());
        }
        (from, to) => {
            row.put(const { place("sourceIPv6Address") }, as_v6(from));
            row.put(const { place("destinationIPv6Address") }, as_v6(to));
        }
    }
    if let Some(port) = source.port {
        row.put(const { place("sourceTransportPort") }, port.to_be_bytes());
    }
    if let Some(port) = destination.port {
        row.put(const { place("destinationTransportPort") }, port.to_be_bytes());
    }
    // The first packet's; an answer has another.
    if let Some((kind, code)) = record.icmp.filter(|_| !sight.turned) {
        let of_v4 = source.address.is_ipv4();
        let place =
            if of_v4 { const { place("icmpTypeCodeIPv4") } } else { const { place("icmpTypeCodeIPv6") } };
        row.put(place, [kind, code]);
    }
}

/// Both ends of a flow are of one family; an address of the other one would be written as it is mapped.
pub(super) const fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The kernel's number of the interface, as that by which packets came in or went out. RFC 7012's flowDirection is what we
/// call a hook.
fn interface_index(row: &mut Row<'_>, index: Option<u32>, hook: Option<Hook>) {
    if let Some(index) = index {
        let place = match hook {
            Some(Hook::Egress) => const { place("egressInterface") },
            _ => const { place("ingressInterface") },
        };
        row.put(place, index.to_be_bytes());
    }
    if let Some(hook) = hook {
        row.byte(const { place("flowDirection") }, u8::from(hook == Hook::Egress));
    }
}

/// The places of an end's address of either family, and of its port, behind translation.
const SOURCE_BEHIND: [u8; 3] = [
    place("postNATSourceIPv4Address"),
    place("postNATSourceIPv6Address"),
    place("postNAPTSourceTransportPort"),
];
const DESTINATION_BEHIND: [u8; 3] = [
    place("postNATDestinationIPv4Address"),
    place("postNATDestinationIPv6Address"),
    place("postNAPTDestinationTransportPort"),
];

/// The places of one direction.
struct DirectionPlaces {
    packets: [u8; 2],
    bytes: [u8; 2],
    frame_bytes: [u8; 2],
    class: u8,
    ttl: [u8; 2],
    tcp_flags: u8,
}

const FORWARD: DirectionPlaces = DirectionPlaces {
    packets: [place("packetDeltaCount"), place("packetTotalCount")],
    bytes: [place("octetDeltaCount"), place("octetTotalCount")],
    frame_bytes: [place("layer2OctetDeltaCount"), place("layer2OctetTotalCount")],
    class: place("ipClassOfService"),
    ttl: [place("minimumTTL"), place("maximumTTL")],
    tcp_flags: place("tcpControlBits"),
};

const REVERSE: DirectionPlaces = DirectionPlaces {
    packets: [place("reversePacketDeltaCount"), place("reversePacketTotalCount")],
    bytes: [place("reverseOctetDeltaCount"), place("reverseOctetTotalCount")],
    frame_bytes: [place("reverseLayer2OctetDeltaCount"), place("reverseLayer2OctetTotalCount")],
    class: place("reverseIpClassOfService"),
    ttl: [place("reverseMinimumTTL"), place("reverseMaximumTTL")],
    tcp_flags: place("reverseTcpControlBits"),
};

#[inline(always)]
fn direction(row: &mut Row<'_>, direction: &Direction, places: &DirectionPlaces) {
    let Direction { delta, total, .. } = direction;
    for (places, delta, total) in [
        (places.packets, delta.packets, total.packets),
        (places.bytes, delta.bytes, total.bytes),
        (places.frame_bytes, delta.frame_bytes, total.frame_bytes),
    ] {
        row.count(places[1], total);
        row.count(places[0], delta);
    }
    if let Some(class) = direction.traffic_class {
        row.byte(places.class, class);
    }
    if let Some((min, max)) = direction.ttl {
        row.byte(places.ttl[0], min);
        row.byte(places.ttl[1], max);
    }
    if let Some(flags) = direction.tcp_flags {
        row.byte(places.tcp_flags, flags);
    }
}

/// What no registry has an element for. Values of closed sets are numbered from 1 as the record reference lists them.
#[inline(always)]
fn own(row: &mut Row<'_>, record: &FlowRecord, turned: bool) {
    row.put(const { place("flow.id") }, record.id.0.to_be_bytes());
    row.put(const { place("flow.sequence") }, record.sequence.to_be_bytes());
    row.put(const { place("flow.community_id") }, record.community_id.text());
    let event = match record.event {
        FlowEvent::Start => 1,
        FlowEvent::Update => 2,
        FlowEvent::End => 3,
    };
    row.byte(const { place("flow.event") }, event);
    let initiator = match record.initiator {
        Initiator::Syn => 1,
        Initiator::SynAck => 2,
        Initiator::ServicePort => 3,
        Initiator::Multicast => 4,
        Initiator::IcmpRequest => 5,
        Initiator::FirstSeen => 6,
    };
    row.byte(const { place("flow.initiator") }, initiator);
    if let Some(direction) = record.enrichment.direction {
        let direction = match direction {
            FlowDirection::Inbound => 1 + u8::from(turned),
            FlowDirection::Outbound => 2 - u8::from(turned),
            FlowDirection::WithinNode => 3,
            FlowDirection::Transit => 4,
        };
        row.byte(const { place("flow.direction") }, direction);
    }
    if record.tcp_state.name().is_some() {
        row.byte(const { place("flow.tcp.state") }, record.tcp_state as u8);
    }
    if record.enrichment.note().is_some() {
        row.byte(const { place("enrichment") }, 1 + u8::from(record.enrichment.omitted));
    }
    if let Some(age) = record.enrichment.degraded {
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        row.put(const { place("enrichment_age") }, age.to_be_bytes());
    }
    if record.clock_step() != 0 {
        row.put(const { place("flow.clock_step") }, record.clock_step().to_be_bytes());
    }
}

/// The rates, then five estimates of a direction.
#[cold]
fn sampled(row: &mut Row<'_>, values: &[u64; 12], part: Part, reverse: bool) {
    let first = const { place("flow.sampling.rate.min") };
    for (place, rate) in (first..).zip(&values[..2]) {
        row.put(place, u32::try_from(*rate).unwrap_or(u32::MAX).to_be_bytes());
    }
    let estimates = if part == Part::Reverse { &values[7..] } else { &values[2..7] };
    for (place, estimate) in (first + 2..).zip(estimates) {
        row.put(place, estimate.to_be_bytes());
    }
    if reverse {
        for (place, estimate) in (first + 7..).zip(&values[7..]) {
            row.put(place, estimate.to_be_bytes());
        }
    }
}

/// The places of one end.
#[derive(Clone, Copy)]
struct EndPlaces {
    name: u8,
    resolution: u8,
    /// The first of Kubernetes' attributes.
    kubernetes: u8,
    labels: u8,
}

const SOURCE: EndPlaces = EndPlaces {
    name: place("source.name"),
    resolution: place("source.k8s.resolution"),
    kubernetes: place("source.k8s.namespace.name"),
    labels: place("source.k8s.labels"),
};

const DESTINATION: EndPlaces = EndPlaces {
    name: place("destination.name"),
    resolution: place("destination.k8s.resolution"),
    kubernetes: place("destination.k8s.namespace.name"),
    labels: place("destination.k8s.labels"),
};
