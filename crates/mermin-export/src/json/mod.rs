//! JSON lines: one compact flat object per record, keys in the order of the attribute table.
//!
//! Assembled by hand, because a record is written for every flow: literal keys with their punctuation (inlined, so that
//! their lengths are known where they are copied: a fifth of the time), fragments for everything that has few values
//! (protocols, flags, observation points) made once, no allocation per record.
//! Escaping is needed only for texts from outside. The numbers are in the benchmark `record`.

mod fragments;
#[cfg(test)]
mod tests;

use crate::attributes::hops::{self, NamedHop, Said};
use crate::attributes::nat::{self, Translated};
use crate::attributes::sampling;
use crate::form::{Clock, Dialect, push_foreign, push_hex_id, push_ip, push_mac, push_number};
use crate::format::Format;
use fragments::Fragments;

pub(crate) use fragments::FLAG_NAMES;
use mermin_flow::{Counts, Direction, End, FlowDirection, FlowRecord, KubernetesEnd, ObservationPoints};
use std::net::IpAddr;
use std::sync::Arc;

/// Writes records as JSON lines.
#[derive(Debug)]
pub struct JsonLines {
    fragments: Fragments,
    start: Clock,
    end: Clock,
}

impl JsonLines {
    /// A writer for records whose points are among `points`.
    #[must_use]
    pub fn new(points: Arc<ObservationPoints>) -> Self {
        Self { fragments: Fragments::new(points), start: Clock::FIRST, end: Clock::FIRST }
    }
}

impl Format for JsonLines {
    fn push(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
        self.push_identity(record, out);
        self.push_network(record, out);
        self.push_end(out, &record.source, &SOURCE);
        self.push_end(out, &record.destination, &DESTINATION);
        if let Some((kind, code)) = record.icmp {
            push_count(out, b",\"icmp.type\":", u64::from(kind));
            push_count(out, b",\"icmp.code\":", u64::from(code));
        }
        out.extend_from_slice(b",\"flow.initiator\":\"");
        out.extend_from_slice(record.initiator.name().as_bytes());
        if let Some(direction) = record.enrichment.direction {
            push_flow_direction(out, direction);
        }
        push_direction(out, &record.forward, &FORWARD);
        push_direction(out, &record.reverse, &REVERSE);
        self.push_tcp(record, out);
        if let Some(vlan) = record.vlan {
            push_count(out, b",\"network.vlan.id\":", u64::from(vlan));
        }
        if let Some(vlan) = record.inner_vlan {
            push_count(out, b",\"network.inner.vlan.id\":", u64::from(vlan));
        }
        out.extend_from_slice(self.fragments.point(record.point, record.start_time));
        if let Some(translated) = nat::values(record) {
            push_nat(out, &translated);
        }
        if record.hops.is_some() {
            self.push_hops(record, out);
        }
        if record.clock_step() != 0 {
            out.extend_from_slice(b",\"flow.clock_step\":");
            push_signed(out, record.clock_step());
        }
        if let Some(values) = sampling::values(record) {
            push_sampling(out, &values);
        }
        if let Some(note) = record.enrichment.note() {
            out.extend_from_slice(b",\"enrichment\":\"");
            out.extend_from_slice(note.as_bytes());
            out.push(b'"');
        }
        if let Some(age) = record.enrichment.degraded {
            push_count(out, b",\"enrichment_age\":", age.as_secs());
        }
        out.extend_from_slice(b"}\n");
    }
}

impl JsonLines {
    fn push_identity(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"flow.id\":\"");
        push_hex_id(out, record.id);
        push_count(out, b"\",\"flow.sequence\":", u64::from(record.sequence));
        out.extend_from_slice(b",\"flow.community_id\":\"");
        out.extend_from_slice(&record.community_id.text());
        out.extend_from_slice(b"\",\"flow.event\":\"");
        out.extend_from_slice(record.event.name().as_bytes());
        if let Some(reason) = record.end_reason {
            out.extend_from_slice(b"\",\"flow.end_reason\":\"");
            out.extend_from_slice(reason.name().as_bytes());
        }
        out.extend_from_slice(b"\",\"flow.start_time\":\"");
        out.extend_from_slice(&self.start.moment(record.start_shown()).rfc3339());
        out.extend_from_slice(b"\",\"flow.end_time\":\"");
        out.extend_from_slice(&self.end.moment(record.end_shown()).rfc3339());
    }

    fn push_network(&self, record: &FlowRecord, out: &mut Vec<u8>) {
        out.extend_from_slice(match record.source.address {
            IpAddr::V4(_) => b"\",\"network.type\":\"ipv4\"",
            IpAddr::V6(_) => b"\",\"network.type\":\"ipv6\"",
        });
        out.extend_from_slice(self.fragments.protocol(record.protocol));
    }

    #[cold]
    fn push_hops(&self, record: &FlowRecord, out: &mut Vec<u8>) {
        let lists = hops::values(record, self.fragments.points());
        for (name, hops) in hops::NAMES.iter().zip(lists).filter(|(_, hops)| !hops.is_empty()) {
            push_key(out, name);
            let mut before = b'[';
            for hop in &hops {
                out.push(before);
                before = b',';
                push_hop(out, hop);
            }
            out.push(b']');
        }
    }

    #[inline(always)]
    fn push_end(&self, out: &mut Vec<u8>, end: &End, keys: &EndKeys) {
        out.extend_from_slice(keys.address);
        push_ip(out, end.address);
        out.push(b'"');
        if let Some(port) = end.port {
            push_count(out, keys.port, u64::from(port));
        }
        if let Some(mac) = end.mac {
            out.extend_from_slice(keys.mac);
            push_mac(out, mac);
            out.push(b'"');
        }
        if let Some(name) = &end.identity.name {
            out.extend_from_slice(keys.name);
            push_foreign(out, name, Dialect::Json);
            out.push(b'"');
        }
        if let Some(kubernetes) = &end.identity.kubernetes {
            self.push_kubernetes(out, kubernetes, keys);
        }
    }

    fn push_kubernetes(&self, out: &mut Vec<u8>, end: &KubernetesEnd, keys: &EndKeys) {
        out.extend_from_slice(keys.resolution);
        out.extend_from_slice(end.resolution.name().as_bytes());
        out.push(b'"');
        for (attribute, value) in end.attributes() {
            out.extend_from_slice(self.fragments.kubernetes(keys.side, attribute));
            push_foreign(out, value, Dialect::Json);
            out.push(b'"');
        }
        for (name, value) in end.labels() {
            out.extend_from_slice(keys.label);
            push_foreign(out, name, Dialect::Json);
            out.extend_from_slice(b"\":\"");
            push_foreign(out, value, Dialect::Json);
            out.push(b'"');
        }
    }

    fn push_tcp(&self, record: &FlowRecord, out: &mut Vec<u8>) {
        if let Some(flags) = record.forward.tcp_flags {
            out.extend_from_slice(b",\"flow.tcp.flags\":");
            out.extend_from_slice(self.fragments.flags(flags));
        }
        if let Some(flags) = record.reverse.tcp_flags {
            out.extend_from_slice(b",\"flow.reverse.tcp.flags\":");
            out.extend_from_slice(self.fragments.flags(flags));
        }
        if let Some(state) = record.tcp_state.name() {
            out.extend_from_slice(b",\"flow.tcp.state\":\"");
            out.extend_from_slice(state.as_bytes());
            out.push(b'"');
        }
    }
}

#[cold]
fn push_nat(out: &mut Vec<u8>, translated: &Translated<'_>) {
    let text = |out: &mut Vec<u8>, name: &str, push: &dyn Fn(&mut Vec<u8>)| {
        push_key(out, name);
        out.push(b'"');
        push(out);
        out.push(b'"');
    };
    text(out, nat::NAMES[0], &|out| out.extend_from_slice(translated.nat.stage.name().as_bytes()));
    for (names, end) in nat::NAMES[1..5].chunks(2).zip(translated.ends) {
        let Some((address, port)) = end else { continue };
        text(out, names[0], &|out| push_ip(out, address));
        push_key(out, names[1]);
        push_number(out, port.into());
    }
    text(out, nat::NAMES[5], &|out| out.extend_from_slice(&translated.nat.community_id.text()));
}

#[cold]
fn push_key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

#[cold]
pub(crate) fn push_hop(out: &mut Vec<u8>, hop: &NamedHop) {
    let mut before = b'{';
    for (name, said) in hop.fields() {
        out.push(before);
        before = b',';
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        match said {
            Said::Text(text) => {
                out.push(b'"');
                push_foreign(out, text, Dialect::Json);
                out.push(b'"');
            }
            Said::Truth(truth) => out.extend_from_slice(if truth { b"true" } else { b"false" }),
            Said::Count(count) => push_number(out, count),
        }
    }
    out.push(b'}');
}

#[cold]
fn push_sampling(out: &mut Vec<u8>, values: &[u64]) {
    for (name, value) in sampling::NAMES.iter().zip(values) {
        push_key(out, name);
        push_number(out, *value);
    }
}

#[cold]
fn push_signed(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    push_number(out, number.unsigned_abs());
}

#[inline(always)]
fn push_count(out: &mut Vec<u8>, key: &[u8], count: u64) {
    out.extend_from_slice(key);
    push_number(out, count);
}

/// The keys of one end.
struct EndKeys {
    /// 0 of the source, 1 of the destination.
    side: usize,
    address: &'static [u8],
    port: &'static [u8],
    mac: &'static [u8],
    name: &'static [u8],
    resolution: &'static [u8],
    label: &'static [u8],
}

const SOURCE: EndKeys = EndKeys {
    side: 0,
    address: b",\"source.address\":\"",
    port: b",\"source.port\":",
    mac: b",\"source.mac\":\"",
    name: b",\"source.name\":\"",
    resolution: b",\"source.k8s.resolution\":\"",
    label: b",\"source.",
};

const DESTINATION: EndKeys = EndKeys {
    side: 1,
    address: b",\"destination.address\":\"",
    port: b",\"destination.port\":",
    mac: b",\"destination.mac\":\"",
    name: b",\"destination.name\":\"",
    resolution: b",\"destination.k8s.resolution\":\"",
    label: b",\"destination.",
};

/// Closes the string before it, and leaves its own open.
fn push_flow_direction(out: &mut Vec<u8>, direction: FlowDirection) {
    out.extend_from_slice(b"\",\"flow.direction\":\"");
    out.extend_from_slice(direction.name().as_bytes());
    if let Some(network_io) = direction.network_io() {
        out.extend_from_slice(b"\",\"network.io.direction\":\"");
        out.extend_from_slice(network_io.as_bytes());
    }
}

/// The keys of one direction.
struct DirectionKeys {
    packets: [&'static [u8]; 2],
    bytes: [&'static [u8]; 2],
    frame_bytes: [&'static [u8]; 2],
    dscp: &'static [u8],
    ecn: &'static [u8],
    ttl: [&'static [u8]; 2],
}

/// The first closes the string before it.
const FORWARD: DirectionKeys = DirectionKeys {
    packets: [b"\",\"flow.packets.delta\":", b",\"flow.packets.total\":"],
    bytes: [b",\"flow.bytes.delta\":", b",\"flow.bytes.total\":"],
    frame_bytes: [b",\"flow.frame_bytes.delta\":", b",\"flow.frame_bytes.total\":"],
    dscp: b",\"flow.dscp\":",
    ecn: b",\"flow.ecn\":",
    ttl: [b",\"flow.ttl.min\":", b",\"flow.ttl.max\":"],
};

const REVERSE: DirectionKeys = DirectionKeys {
    packets: [b",\"flow.reverse.packets.delta\":", b",\"flow.reverse.packets.total\":"],
    bytes: [b",\"flow.reverse.bytes.delta\":", b",\"flow.reverse.bytes.total\":"],
    frame_bytes: [b",\"flow.reverse.frame_bytes.delta\":", b",\"flow.reverse.frame_bytes.total\":"],
    dscp: b",\"flow.reverse.dscp\":",
    ecn: b",\"flow.reverse.ecn\":",
    ttl: [b",\"flow.reverse.ttl.min\":", b",\"flow.reverse.ttl.max\":"],
};

#[inline(always)]
fn push_direction(out: &mut Vec<u8>, direction: &Direction, keys: &DirectionKeys) {
    let Direction { delta, total, .. } = direction;
    let mut pair = |keys: [&[u8]; 2], of: fn(&Counts) -> u64| {
        push_count(out, keys[0], of(delta));
        push_count(out, keys[1], of(total));
    };
    pair(keys.packets, |counts| counts.packets);
    pair(keys.bytes, |counts| counts.bytes);
    pair(keys.frame_bytes, |counts| counts.frame_bytes);
    if let Some(class) = direction.traffic_class {
        push_count(out, keys.dscp, u64::from(class >> 2));
        push_count(out, keys.ecn, u64::from(class & 3));
    }
    if let Some((min, max)) = direction.ttl {
        push_count(out, keys.ttl[0], u64::from(min));
        push_count(out, keys.ttl[1], u64::from(max));
    }
}
