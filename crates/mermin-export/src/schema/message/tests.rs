//! Against JSON lines: `protoc` reads the messages by the committed definition.

use super::*;
use crate::format::Format as _;
use crate::json::JsonLines;
use crate::sample;
use mermin_flow::{CommunityId, Counts, FlowId, ObservationPoint};
use mermin_tests::{need, protoc};
use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn written(messages: &mut Messages, record: &FlowRecord) -> Vec<u8> {
    messages.write(record);
    messages.written().to_vec()
}

fn same(records: &[FlowRecord], points: &Arc<ObservationPoints>) {
    let (mut messages, mut json) = (Messages::new(Arc::clone(points)), JsonLines::new(Arc::clone(points)));
    let all: Vec<_> = records.iter().map(|record| written(&mut messages, record)).collect();
    let read = protoc::lines(&all).unwrap();
    assert_eq!(read.len(), records.len());
    for (record, read) in records.iter().zip(read) {
        let mut line = Vec::new();
        json.push(record, &mut line);
        let mut expected: Map<String, Value> = serde_json::from_slice(&line).unwrap();
        // An empty list is no field, and no flag at all is the same as not knowing them.
        expected.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
        assert_eq!(read, expected);
    }
}

#[test]
fn a_message_has_what_the_json_line_has() {
    need!(need::tool("protoc"));
    let mut long = sample::kubernetes();
    long.source.identity.name = Some("ü\n\u{1}\"\\".repeat(100).into());
    long.enrichment.direction = Some(mermin_flow::FlowDirection::Transit);
    let mut empty = sample::tcp();
    (empty.forward.tcp_flags, empty.reverse.tcp_flags) = (Some(0), Some(0xff));
    let records: Vec<_> = sample::all().into_iter().chain([long, empty]).collect();
    same(&records, &sample::points());
}

/// Values of every length, by a generator that always gives the same (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// As likely short as long.
    fn number(&mut self) -> u64 {
        let shift = self.next() % 64;
        self.next() >> shift
    }

    fn counts(&mut self) -> Counts {
        Counts { packets: self.number(), bytes: self.number(), frame_bytes: self.number() }
    }

    fn address(&mut self) -> IpAddr {
        match self.next() % 3 {
            0 => Ipv6Addr::from(u128::from(self.number()) << 64 | u128::from(self.number())).into(),
            _ => Ipv4Addr::from(self.next() as u32).into(),
        }
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.next().is_multiple_of(2)).then(|| value(self))
    }

    fn record(&mut self) -> FlowRecord {
        let mut record = sample::all()[self.next() as usize % sample::all().len()].clone();
        record.id = FlowId(u128::from(self.next()) << 64 | u128::from(self.next()));
        record.community_id = CommunityId(std::array::from_fn(|_| self.next() as u8));
        record.sequence = self.number() as u32;
        record.start_time = self.number();
        record.end_time = self.number();
        record.clock_ahead = [self.number() as i64 >> 2, -(self.number() as i64 >> 2)];
        record.protocol = self.next() as u8;
        for end in [&mut record.source, &mut record.destination] {
            end.address = self.address();
            end.port = self.maybe(|random| random.number() as u16);
            end.mac = self.maybe(|random| std::array::from_fn(|_| random.next() as u8));
            end.identity.name = self.maybe(|random| "name ".repeat(random.next() as usize % 60).into());
        }
        record.icmp = self.maybe(|random| (random.next() as u8, random.next() as u8));
        for direction in [&mut record.forward, &mut record.reverse] {
            (direction.delta, direction.total) = (self.counts(), self.counts());
            direction.tcp_flags = self.maybe(|random| random.next() as u8);
            direction.ttl = self.maybe(|random| (random.next() as u8, random.next() as u8));
            direction.traffic_class = self.maybe(|random| random.next() as u8);
        }
        record.vlan = self.maybe(|random| random.number() as u16 & 0xfff);
        record.inner_vlan = self.maybe(|random| random.number() as u16 & 0xfff);
        record.point = (self.next() % 3) as u16;
        record
    }
}

#[test]
fn so_it_is_with_records_at_random() {
    need!(need::tool("protoc"));
    let points = ObservationPoints::default();
    for (name, index) in [("eth0", 2), ("veth\"\\é\u{7f}", u32::MAX)] {
        let hook = Some(mermin_flow::Hook::Egress);
        points.number(ObservationPoint { interface: Some(name.into()), index: Some(index), hook });
    }
    points.number(ObservationPoint::default());
    let mut random = Random(7);
    let records: Vec<_> = (0..2_000).map(|_| random.record()).collect();
    same(&records, &Arc::new(points));
}

#[test]
fn members_of_families_go_to_the_map_of_their_family() {
    let mut messages = Messages::new(sample::points());
    let bytes = written(&mut messages, &sample::kubernetes());
    // k8s.pod.label.app of the source: `app` and `c` in an entry of eight bytes.
    let entry = b"\x08\x0a\x03app\x12\x01c";
    assert!(bytes.windows(entry.len()).any(|window| window == entry));
}

#[test]
fn every_name_of_a_hop_is_a_field() {
    let passed = sample::passed();
    let [forward, reverse] = crate::attributes::hops::values(&passed, &sample::points());
    let names: Vec<_> =
        forward.iter().chain(&reverse).flat_map(NamedHop::fields).map(|(name, _)| name).collect();
    for hop in HOP {
        assert!(names.contains(&hop.name), "{}", hop.name);
    }
    assert!(names.iter().all(|name| HOP.iter().any(|hop| hop.name == *name)));
}
