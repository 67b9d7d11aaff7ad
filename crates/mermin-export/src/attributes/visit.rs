//! Every attribute of a record, one after the other, with its place in the table: what all encoders but the JSON writer
//! are made of. JSON has its keys inlined, which is faster there; a test holds both together.

use super::hops::{self, NamedHop};
use super::nat::{self, Translated};
use super::{ATTRIBUTES, sampling};
use crate::form::{Clock, FOREIGN_MAX, hex_id, push_ip, push_mac};
use crate::protocols::keyword;
use mermin_flow::{Direction, End, FlowRecord, KubernetesEnd, ObservationPoints};
use std::net::IpAddr;
use std::sync::Arc;

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(u16);

impl Key {
    /// The place in [`ATTRIBUTES`].
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The line `by` lines below.
    const fn below(self, by: u16) -> Self {
        Self(self.0 + by)
    }
}

/// The line of a name; where there is none, the program doesn't compile.
pub(crate) const fn key(name: &str) -> Key {
    let mut index = 0;
    while index < ATTRIBUTES.len() {
        if same(ATTRIBUTES[index].name.as_bytes(), name.as_bytes()) {
            return Key(index as u16);
        }
        index += 1;
    }
    panic!("no such attribute")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Takes the attributes of a record, in the table's order.
pub(crate) trait Visitor {
    /// A text, in UTF-8.
    fn text(&mut self, key: Key, value: &[u8]);
    /// A point in time, in nanoseconds since 1970, and what writes it as text.
    fn time(&mut self, key: Key, time: u64, clock: &mut Clock) {
        self.text(key, &clock.moment(time).rfc3339());
    }
    /// A number.
    fn count(&mut self, key: Key, value: u64);
    /// A number that may be negative.
    fn signed(&mut self, key: Key, value: i64);
    /// A list of TCP flags, as the header has them.
    fn flags(&mut self, key: Key, flags: u8);
    /// A list of hops.
    fn hops(&mut self, key: Key, hops: &[NamedHop]);
    /// One of a family: the end (`source.`), the rest of its name (`k8s.pod.label.app`) and its text.
    fn member(&mut self, end: &'static str, name: &str, value: &str);
}

/// Walks over records.
#[derive(Debug)]
pub(crate) struct Walk {
    points: Arc<ObservationPoints>,
    start: Clock,
    end: Clock,
    text: Vec<u8>,
}

/// A text from outside, cut as in every output.
#[inline]
fn foreign(text: &str) -> &str {
    &text[..text.floor_char_boundary(FOREIGN_MAX)]
}

impl Walk {
    /// Over records whose points are among `points`.
    pub(crate) fn new(points: Arc<ObservationPoints>) -> Self {
        Self { points, start: Clock::FIRST, end: Clock::FIRST, text: Vec::new() }
    }

    /// Shows `visitor` all attributes that `record` has.
    pub(crate) fn over(&mut self, record: &FlowRecord, visitor: &mut impl Visitor) {
        self.identity(record, visitor);
        network(record, visitor);
        self.end(&record.source, &SOURCE, visitor);
        self.end(&record.destination, &DESTINATION, visitor);
        if let Some((kind, code)) = record.icmp {
            visitor.count(const { key("icmp.type") }, kind.into());
            visitor.count(const { key("icmp.code") }, code.into());
        }
        visitor.text(const { key("flow.initiator") }, record.initiator.name().as_bytes());
        if let Some(direction) = record.enrichment.direction {
            visitor.text(const { key("flow.direction") }, direction.name().as_bytes());
            if let Some(network_io) = direction.network_io() {
                visitor.text(const { key("network.io.direction") }, network_io.as_bytes());
            }
        }
        direction(&record.forward, &FORWARD, visitor);
        direction(&record.reverse, &REVERSE, visitor);
        tcp(record, visitor);
        self.place(record, visitor);
        if let Some(translated) = nat::values(record) {
            self.nat(&translated, visitor);
        }
        if record.hops.is_some() {
            self.hops(record, visitor);
        }
        if record.clock_step() != 0 {
            visitor.signed(const { key("flow.clock_step") }, record.clock_step());
        }
        if let Some(values) = sampling::values(record) {
            let first = const { key(sampling::NAMES[0]) };
            (0..).zip(values).for_each(|(line, value)| visitor.count(first.below(line), value));
        }
        if let Some(note) = record.enrichment.note() {
            visitor.text(const { key("enrichment") }, note.as_bytes());
        }
        if let Some(age) = record.enrichment.degraded {
            visitor.count(const { key("enrichment_age") }, age.as_secs());
        }
    }

    #[inline(always)]
    fn identity(&mut self, record: &FlowRecord, visitor: &mut impl Visitor) {
        visitor.text(const { key("flow.id") }, &hex_id(record.id));
        visitor.count(const { key("flow.sequence") }, record.sequence.into());
        visitor.text(const { key("flow.community_id") }, &record.community_id.text());
        visitor.text(const { key("flow.event") }, record.event.name().as_bytes());
        if let Some(reason) = record.end_reason {
            visitor.text(const { key("flow.end_reason") }, reason.name().as_bytes());
        }
        visitor.time(const { key("flow.start_time") }, record.start_shown(), &mut self.start);
        visitor.time(const { key("flow.end_time") }, record.end_shown(), &mut self.end);
    }

    #[inline(always)]
    fn end(&mut self, end: &End, keys: &EndKeys, visitor: &mut impl Visitor) {
        self.text.clear();
        push_ip(&mut self.text, end.address);
        visitor.text(keys.address, &self.text);
        if let Some(port) = end.port {
            visitor.count(keys.port, port.into());
        }
        if let Some(mac) = end.mac {
            self.text.clear();
            push_mac(&mut self.text, mac);
            visitor.text(keys.mac, &self.text);
        }
        if let Some(name) = &end.identity.name {
            visitor.text(keys.name, foreign(name).as_bytes());
        }
        if let Some(kubernetes) = &end.identity.kubernetes {
            kubernetes_end(kubernetes, keys, visitor);
        }
    }

    #[cold]
    fn nat(&mut self, translated: &Translated<'_>, visitor: &mut impl Visitor) {
        visitor.text(const { key(nat::NAMES[0]) }, translated.nat.stage.name().as_bytes());
        let keys =
            const { [[key(nat::NAMES[1]), key(nat::NAMES[2])], [key(nat::NAMES[3]), key(nat::NAMES[4])]] };
        for (keys, end) in keys.into_iter().zip(translated.ends) {
            let Some((address, port)) = end else { continue };
            self.text.clear();
            push_ip(&mut self.text, address);
            visitor.text(keys[0], &self.text);
            visitor.count(keys[1], port.into());
        }
        visitor.text(const { key(nat::NAMES[5]) }, &translated.nat.community_id.text());
    }

    #[cold]
    fn hops(&self, record: &FlowRecord, visitor: &mut impl Visitor) {
        let [forward, reverse] = hops::values(record, &self.points);
        for (key, hops) in
            [(const { key(hops::NAMES[0]) }, forward), (const { key(hops::NAMES[1]) }, reverse)]
        {
            if !hops.is_empty() {
                visitor.hops(key, &hops);
            }
        }
    }

    #[inline(always)]
    fn place(&self, record: &FlowRecord, visitor: &mut impl Visitor) {
        if let Some(vlan) = record.vlan {
            visitor.count(const { key("network.vlan.id") }, vlan.into());
        }
        if let Some(vlan) = record.inner_vlan {
            visitor.count(const { key("network.inner.vlan.id") }, vlan.into());
        }
        let Some(point) = self.points.of(record) else { return };
        if let Some(interface) = &point.interface {
            visitor.text(const { key("network.interface.name") }, foreign(interface).as_bytes());
        }
        if let Some(index) = point.index {
            visitor.count(const { key("network.interface.index") }, index.into());
        }
        if let Some(hook) = point.hook {
            visitor.text(const { key("network.interface.hook") }, hook.name().as_bytes());
        }
    }
}

#[inline(always)]
fn network(record: &FlowRecord, visitor: &mut impl Visitor) {
    let kind: &[u8] = match record.source.address {
        IpAddr::V4(_) => b"ipv4",
        IpAddr::V6(_) => b"ipv6",
    };
    visitor.text(const { key("network.type") }, kind);
    if let Some(keyword) = keyword(record.protocol) {
        visitor.text(const { key("network.transport") }, keyword.as_bytes());
    }
    visitor.count(const { key("network.transport.number") }, record.protocol.into());
}

#[inline(always)]
fn tcp(record: &FlowRecord, visitor: &mut impl Visitor) {
    if let Some(flags) = record.forward.tcp_flags {
        visitor.flags(const { key("flow.tcp.flags") }, flags);
    }
    if let Some(flags) = record.reverse.tcp_flags {
        visitor.flags(const { key("flow.reverse.tcp.flags") }, flags);
    }
    if let Some(state) = record.tcp_state.name() {
        visitor.text(const { key("flow.tcp.state") }, state.as_bytes());
    }
}

/// The lines of one end.
struct EndKeys {
    side: &'static str,
    address: Key,
    port: Key,
    mac: Key,
    name: Key,
    resolution: Key,
    /// The first of Kubernetes' attributes; the others follow in their order, as a test of the table says.
    kubernetes: Key,
}

const SOURCE: EndKeys = EndKeys {
    side: "source.",
    address: key("source.address"),
    port: key("source.port"),
    mac: key("source.mac"),
    name: key("source.name"),
    resolution: key("source.k8s.resolution"),
    kubernetes: key("source.k8s.namespace.name"),
};

const DESTINATION: EndKeys = EndKeys {
    side: "destination.",
    address: key("destination.address"),
    port: key("destination.port"),
    mac: key("destination.mac"),
    name: key("destination.name"),
    resolution: key("destination.k8s.resolution"),
    kubernetes: key("destination.k8s.namespace.name"),
};

fn kubernetes_end(end: &KubernetesEnd, keys: &EndKeys, visitor: &mut impl Visitor) {
    visitor.text(keys.resolution, end.resolution.name().as_bytes());
    for (attribute, value) in end.attributes() {
        visitor.text(keys.kubernetes.below(attribute as u16), foreign(value).as_bytes());
    }
    for (name, value) in end.labels() {
        visitor.member(keys.side, foreign(name), foreign(value));
    }
}

/// The lines of one direction.
struct DirectionKeys {
    packets: [Key; 2],
    bytes: [Key; 2],
    frame_bytes: [Key; 2],
    dscp: Key,
    ecn: Key,
    ttl: [Key; 2],
}

const FORWARD: DirectionKeys = DirectionKeys {
    packets: [key("flow.packets.delta"), key("flow.packets.total")],
    bytes: [key("flow.bytes.delta"), key("flow.bytes.total")],
    frame_bytes: [key("flow.frame_bytes.delta"), key("flow.frame_bytes.total")],
    dscp: key("flow.dscp"),
    ecn: key("flow.ecn"),
    ttl: [key("flow.ttl.min"), key("flow.ttl.max")],
};

const REVERSE: DirectionKeys = DirectionKeys {
    packets: [key("flow.reverse.packets.delta"), key("flow.reverse.packets.total")],
    bytes: [key("flow.reverse.bytes.delta"), key("flow.reverse.bytes.total")],
    frame_bytes: [key("flow.reverse.frame_bytes.delta"), key("flow.reverse.frame_bytes.total")],
    dscp: key("flow.reverse.dscp"),
    ecn: key("flow.reverse.ecn"),
    ttl: [key("flow.reverse.ttl.min"), key("flow.reverse.ttl.max")],
};

#[inline(always)]
fn direction(direction: &Direction, keys: &DirectionKeys, visitor: &mut impl Visitor) {
    let Direction { delta, total, .. } = direction;
    for (keys, delta, total) in [
        (keys.packets, delta.packets, total.packets),
        (keys.bytes, delta.bytes, total.bytes),
        (keys.frame_bytes, delta.frame_bytes, total.frame_bytes),
    ] {
        visitor.count(keys[0], delta);
        visitor.count(keys[1], total);
    }
    if let Some(class) = direction.traffic_class {
        visitor.count(keys.dscp, u64::from(class >> 2));
        visitor.count(keys.ecn, u64::from(class & 3));
    }
    if let Some((min, max)) = direction.ttl {
        visitor.count(keys.ttl[0], min.into());
        visitor.count(keys.ttl[1], max.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::hops::Said;
    use crate::format::Format;
    use crate::json::{FLAG_NAMES, JsonLines};
    use crate::sample;
    use serde_json::{Map, Value};

    /// What a JSON line would hold.
    #[derive(Default)]
    struct Object(Map<String, Value>);

    impl Object {
        fn add(&mut self, name: String, value: Value) {
            assert!(self.0.insert(name.clone(), value).is_none(), "{name} twice");
        }
    }

    fn name(key: Key) -> String {
        ATTRIBUTES[key.index()].name.to_owned()
    }

    impl Visitor for Object {
        fn text(&mut self, key: Key, value: &[u8]) {
            self.add(name(key), std::str::from_utf8(value).unwrap().into());
        }
        fn count(&mut self, key: Key, value: u64) {
            self.add(name(key), value.into());
        }
        fn signed(&mut self, key: Key, value: i64) {
            self.add(name(key), value.into());
        }
        fn flags(&mut self, key: Key, flags: u8) {
            let set = (0..8).filter(|bit| flags >> bit & 1 == 1).map(|bit| FLAG_NAMES[bit]);
            self.add(name(key), set.collect::<Vec<_>>().into());
        }
        fn hops(&mut self, key: Key, hops: &[NamedHop]) {
            let object = |hop: &NamedHop| {
                let value = |said| match said {
                    Said::Text(text) => Value::from(text),
                    Said::Truth(truth) => truth.into(),
                    Said::Count(count) => count.into(),
                };
                Value::Object(hop.fields().map(|(name, said)| (name.to_owned(), value(said))).collect())
            };
            self.add(name(key), hops.iter().map(object).collect::<Vec<_>>().into());
        }
        fn member(&mut self, end: &'static str, name: &str, value: &str) {
            self.add(format!("{end}{name}"), value.into());
        }
    }

    /// Keys, values and their order.
    #[test]
    fn a_walk_shows_what_the_json_line_holds() {
        let (mut walk, mut json) = (Walk::new(sample::points()), JsonLines::new(sample::points()));
        let mut long = sample::kubernetes();
        long.source.identity.name = Some("ü".repeat(500).into());
        long.enrichment.direction = Some(mermin_flow::FlowDirection::Transit);
        for record in sample::all().into_iter().chain([long]) {
            let (mut object, mut line) = (Object::default(), Vec::new());
            walk.over(&record, &mut object);
            json.push(&record, &mut line);
            let expected: Map<String, Value> = serde_json::from_slice(&line).unwrap();
            assert_eq!(object.0, expected);
            assert!(object.0.keys().eq(expected.keys()), "in one order");
        }
    }
}
