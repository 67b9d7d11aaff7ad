//! Records → message.

use super::bytes::Write as _;
use super::layout::{has, hop, nat as tuple};
use super::names::{self, Numbered as _};
use mermin_flow::{
    Direction, End, Enrichment, Estimate, FlowDirection, FlowEndReason, FlowRecord, Hook, Hop, Hops,
    Identity, KubernetesEnd, KubernetesObject, Nat, NatStage, ObservationPoint, ObservationPoints, Sampled,
    Tally,
};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Hashes short texts and pointers, at once.
#[derive(Default)]
struct Xxh3(u64);

impl Hasher for Xxh3 {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u8(&mut self, byte: u8) {
        self.0 = self.0.rotate_left(8) ^ u64::from(byte);
    }
}

type Places<K> = HashMap<K, u32, BuildHasherDefault<Xxh3>>;

/// What becomes of a batch, part by part; kept from batch to batch for its memory.
#[derive(Default)]
pub(super) struct Parts {
    texts: Vec<u8>,
    objects: Vec<u8>,
    object: Vec<u8>,
    points: Vec<u8>,
    flow_ids: Vec<u8>,
    community_ids: Vec<u8>,
    records: Vec<u8>,
}

/// The tables of one batch, while they grow.
struct Tables<'a> {
    known: &'a ObservationPoints,
    parts: &'a mut Parts,
    time: u64,
    texts: Places<&'a str>,
    text_count: u32,
    /// By where they are in memory: records share what they name.
    objects: Places<*const KubernetesObject>,
    /// By number.
    points: HashMap<u16, u32>,
    /// Of each point: the start of its first flow.
    since: Vec<u64>,
}

/// Appends all of `records` to `message`.
pub(super) fn batch(
    records: &[FlowRecord],
    known: &ObservationPoints,
    run: u64,
    parts: &mut Parts,
    message: &mut Vec<u8>,
) {
    for part in parts.all() {
        part.clear();
    }
    let mut tables = Tables {
        known,
        parts,
        time: records.first().map_or(0, |record| record.start_time),
        texts: Places::default(),
        text_count: 0,
        objects: Places::default(),
        points: HashMap::default(),
        since: Vec::new(),
    };
    for record in records {
        tables.record(record);
    }
    message.extend_from_slice(&run.to_le_bytes());
    message.extend_from_slice(&tables.time.to_le_bytes());
    message.place(tables.text_count);
    message.extend_from_slice(&tables.parts.texts);
    message.number(tables.objects.len() as u64);
    message.extend_from_slice(&tables.parts.objects);
    message.number(tables.since.len() as u64);
    message.extend_from_slice(&tables.parts.points);
    message.number(records.len() as u64);
    message.extend_from_slice(&tables.parts.flow_ids);
    message.extend_from_slice(&tables.parts.community_ids);
    message.extend_from_slice(&tables.parts.records);
}

impl Parts {
    fn all(&mut self) -> [&mut Vec<u8>; 7] {
        let Self { texts, objects, object, points, flow_ids, community_ids, records } = self;
        [texts, objects, object, points, flow_ids, community_ids, records]
    }
}

impl<'a> Tables<'a> {
    fn record(&mut self, record: &'a FlowRecord) {
        // Every field by its name: a new one must be thought of here.
        let FlowRecord {
            id,
            sequence,
            community_id,
            event,
            end_reason,
            start_time,
            end_time,
            counts_from,
            clock_ahead,
            protocol,
            source,
            destination,
            initiator,
            enrichment: Enrichment { direction, degraded, omitted },
            icmp,
            forward,
            reverse,
            tcp_state,
            vlan,
            inner_vlan,
            point,
            shard,
            tally,
            sampled,
            hops,
            nat,
            // Of this process.
            lease: _,
        } = record;
        self.parts.flow_ids.extend_from_slice(&id.0.to_be_bytes());
        self.parts.community_ids.extend_from_slice(&community_id.0);
        let expected = super::expected_tally(&forward.delta, &reverse.delta);
        let flags = end_flags(source)
            | end_flags(destination) << has::DESTINATION
            | direction_flags(forward)
            | direction_flags(reverse) << has::REVERSE
            | flag(icmp.is_some(), has::ICMP)
            | flag(vlan.is_some(), has::VLAN)
            | flag(inner_vlan.is_some(), has::INNER_VLAN)
            | flag(degraded.is_some(), has::DEGRADED)
            | flag(*omitted, has::OMITTED)
            | flag(*tally != expected, has::TALLY)
            | flag(counts_from != start_time, has::COUNTS_FROM)
            | flag(*clock_ahead != [0; 2], has::CLOCK_AHEAD)
            | flag(sampled.is_some(), has::SAMPLED)
            | flag(hops.is_some(), has::HOPS)
            | flag(nat.is_some(), has::NAT);
        let place = self.parts.records.len();
        let r = &mut self.parts.records;
        // Its length, when that is known.
        r.extend_from_slice(&[0; 2]);
        r.extend_from_slice(&flags.to_le_bytes());
        r.extend_from_slice(&[
            event.number(),
            FlowEndReason::number_or_none(*end_reason),
            *protocol,
            initiator.number(),
            FlowDirection::number_or_none(*direction),
            tcp_state.number(),
            *shard,
        ]);
        r.number(u64::from(*sequence));
        r.signed(difference(*start_time, self.time));
        r.signed(difference(*end_time, *start_time));
        if counts_from != start_time {
            r.signed(difference(*counts_from, *start_time));
        }
        if *clock_ahead != [0; 2] {
            clock_ahead.iter().for_each(|ahead| r.signed(*ahead));
        }
        self.end(source);
        self.end(destination);
        let place_of_point = self.point(*point, *start_time);
        let r = &mut self.parts.records;
        r.place(place_of_point);
        r.extend_from_slice(&point.to_le_bytes());
        write_direction(forward, r);
        write_direction(reverse, r);
        if let Some((icmp_type, code)) = icmp {
            r.extend_from_slice(&[*icmp_type, *code]);
        }
        for tag in [vlan, inner_vlan].into_iter().flatten() {
            r.extend_from_slice(&tag.to_le_bytes());
        }
        if let Some(age) = degraded {
            // 584 years are old enough.
            r.number(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        }
        if *tally != expected {
            let Tally { packets, bytes, buffers, buffer_bytes } = *tally;
            for count in [packets, bytes, buffers, buffer_bytes] {
                r.number(count);
            }
        }
        if let Some(sampled) = sampled {
            write_sampled(sampled, r);
        }
        if let Some(hops) = hops {
            self.hops(hops, *start_time);
        }
        let r = &mut self.parts.records;
        if let Some(nat) = nat {
            write_nat(nat, r);
        }
        let length = r.len() - place - 2;
        let length = u16::try_from(length).expect("a record's numbers take some hundred bytes at most");
        r[place..place + 2].copy_from_slice(&length.to_le_bytes());
    }

    fn hops(&mut self, hops: &Hops, start: u64) {
        for direction in &hops.directions {
            self.parts.records.number(direction.len() as u64);
            for Hop { point, first, counted, counts } in direction {
                let place = self.point(*point, start);
                let r = &mut self.parts.records;
                r.place(place);
                r.extend_from_slice(&point.to_le_bytes());
                r.push(if *first { hop::FIRST } else { 0 } | if *counted { hop::COUNTED } else { 0 });
                for count in [counts.packets, counts.bytes, counts.frame_bytes] {
                    r.number(count);
                }
            }
        }
    }

    fn end(&mut self, end: &'a End) {
        let End { address, port, mac, identity: Identity { name, kubernetes } } = end;
        let name = self.optional_text(name.as_ref());
        let kubernetes =
            kubernetes.as_ref().map(|KubernetesEnd { resolution, object, container, service }| {
                let object = object.as_ref().map_or(0, |object| self.object(object));
                let container = self.optional_text(container.as_ref());
                let service = service.as_ref().map_or(0, |service| self.object(service));
                (resolution.number(), [object, container, service])
            });
        let r = &mut self.parts.records;
        match address {
            IpAddr::V4(v4) => r.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => r.extend_from_slice(&v6.octets()),
        }
        if let Some(port) = port {
            r.extend_from_slice(&port.to_le_bytes());
        }
        if let Some(mac) = mac {
            r.extend_from_slice(mac);
        }
        if name > 0 {
            r.place(name);
        }
        if let Some((resolution, places)) = kubernetes {
            r.push(resolution);
            for place in places {
                r.place(place);
            }
        }
    }

    fn optional_text(&mut self, text: Option<&'a Arc<str>>) -> u32 {
        text.map_or(0, |text| self.text(text))
    }

    fn text(&mut self, text: &'a str) -> u32 {
        let next = self.text_count + 1;
        let place = *self.texts.entry(text).or_insert(next);
        if place == next {
            self.push_text(text);
        }
        place
    }

    fn push_text(&mut self, text: &str) -> u32 {
        self.parts.texts.number(text.len() as u64);
        self.parts.texts.extend_from_slice(text.as_bytes());
        self.text_count += 1;
        self.text_count
    }

    fn object(&mut self, object: &'a Arc<KubernetesObject>) -> u32 {
        if let Some(place) = self.objects.get(&Arc::as_ptr(object)) {
            return *place;
        }
        let KubernetesObject { attributes, labels } = &**object;
        let mut bytes = std::mem::take(&mut self.parts.object);
        bytes.clear();
        bytes.number(attributes.len() as u64);
        for (attribute, value) in attributes {
            bytes.push(names::attribute_number(*attribute));
            bytes.place(self.text(value));
        }
        bytes.number(labels.len() as u64);
        for (name, value) in labels {
            bytes.place(self.text(name));
            bytes.place(self.text(value));
        }
        self.parts.objects.number(bytes.len() as u64);
        self.parts.objects.extend_from_slice(&bytes);
        self.parts.object = bytes;
        let place = self.objects.len() as u32 + 1;
        self.objects.insert(Arc::as_ptr(object), place);
        place
    }

    /// The place of a flow's observation point; 0 where it isn't known any more.
    fn point(&mut self, number: u16, start: u64) -> u32 {
        let place = match self.points.get(&number) {
            Some(place) => *place,
            None => {
                let known = self.known.with_since(number);
                let place = known.map_or(0, |(point, since)| self.new_point(&point, since));
                self.points.insert(number, place);
                place
            }
        };
        // The number may have been given again since: older flows are of another point.
        if place > 0 && self.since[place as usize - 1] <= start { place } else { 0 }
    }

    fn new_point(&mut self, point: &ObservationPoint, since: u64) -> u32 {
        let ObservationPoint { interface, index, hook } = point;
        // Not among the shared texts: those live as long as the records, this one doesn't.
        let interface = interface.as_ref().map_or(0, |interface| self.push_text(interface));
        self.parts.points.place(interface);
        self.parts.points.number(index.map_or(0, |index| u64::from(index) + 1));
        self.parts.points.push(Hook::number_or_none(*hook));
        self.since.push(since);
        self.since.len() as u32
    }
}

const fn flag(is: bool, flag: u32) -> u32 {
    if is { flag } else { 0 }
}

const fn difference(value: u64, from: u64) -> i64 {
    value.wrapping_sub(from).cast_signed()
}

const fn end_flags(end: &End) -> u32 {
    flag(end.port.is_some(), has::PORT)
        | flag(end.mac.is_some(), has::MAC)
        | flag(end.identity.name.is_some(), has::NAME)
        | flag(end.identity.kubernetes.is_some(), has::KUBERNETES)
        | flag(end.address.is_ipv6(), has::V6)
}

fn direction_flags(direction: &Direction) -> u32 {
    flag(direction.tcp_flags.is_some(), has::TCP_FLAGS)
        | flag(direction.ttl.is_some(), has::TTL)
        | flag(direction.traffic_class.is_some(), has::TRAFFIC_CLASS)
        | flag(direction.total != direction.delta, has::EARLIER)
}

/// Both ends have addresses of one version, as those of a connection have.
fn write_nat(Nat { stage, source, destination, community_id }: &Nat, r: &mut Vec<u8>) {
    let ends = [source, destination];
    let is_v6 = ends.iter().any(|(address, _)| address.is_ipv6());
    r.push(if is_v6 { tuple::V6 } else { 0 } | if *stage == NatStage::Behind { tuple::BEHIND } else { 0 });
    for (address, port) in ends {
        match address {
            IpAddr::V4(v4) if is_v6 => r.extend_from_slice(&v4.to_ipv6_mapped().octets()),
            IpAddr::V4(v4) => r.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => r.extend_from_slice(&v6.octets()),
        }
        r.extend_from_slice(&port.to_le_bytes());
    }
    r.extend_from_slice(&community_id.0);
}

fn write_sampled(sampled: &Sampled, r: &mut Vec<u8>) {
    let Sampled { one_in, directions } = sampled;
    one_in.iter().for_each(|one_in| r.number(u64::from(*one_in)));
    for Estimate { excess, packets_variance, bytes_variance } in directions {
        for count in [excess.packets, excess.bytes, excess.frame_bytes] {
            r.number(count);
        }
        for variance in [packets_variance, bytes_variance] {
            r.number(*variance as u64);
            r.number((variance >> 64) as u64);
        }
    }
}

fn write_direction(direction: &Direction, r: &mut Vec<u8>) {
    let Direction { delta, total, tcp_flags, ttl, traffic_class } = direction;
    for count in [delta.packets, delta.bytes, delta.frame_bytes] {
        r.number(count);
    }
    if total != delta {
        r.number(total.packets.wrapping_sub(delta.packets));
        r.number(total.bytes.wrapping_sub(delta.bytes));
        r.number(total.frame_bytes.wrapping_sub(delta.frame_bytes));
    }
    r.extend(*tcp_flags);
    if let Some((least, greatest)) = ttl {
        r.extend_from_slice(&[*least, *greatest]);
    }
    r.extend(*traffic_class);
}
