//! The meter against a naive reference: the same records for any batches, workers and ticks.
//!
//! Conversations are chosen so that several share each of three shards: capacity, eviction and creation order belong
//! to the shard, and with keys spread over all 64 nothing would ever meet.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "model/reference.rs"]
mod reference;

use mermin_flow::{
    CommunityId, FlowConfig, FlowEvent, FlowId, FlowRecord, Fragment, HashSecret, Interval, Meter, NO_VLAN,
    Observation, Orientation, PortForm, RecordSink, Tally,
};
use proptest::prelude::*;
use reference::{ACK, FIN, RST, Reference, SYN};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

const T0: u64 = 1_700_000_000_123_456_789;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const SECRET: u64 = 7;
const SHARDS: [u8; 3] = [5, 6, 13];

fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => [u64::from(u32::from_ne_bytes(v4.octets())), 0],
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            [0, 8].map(|at| u64::from_ne_bytes(octets[at..at + 8].try_into().unwrap()))
        }
    }
}

fn packet(protocol: u8, from: &str, to: &str, port_form: PortForm, ports: [u16; 2]) -> Observation {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let ([a, b], [c, d]) = (words(from), words(to));
    Observation {
        addresses: [a, b, c, d],
        ports: ports.map(u16::to_be),
        port_form,
        protocol,
        ip_version: if from.is_ipv4() { 4 } else { 6 },
        ..Observation::EMPTY
    }
}

/// The packet on its way back. ICMP keeps type and code; [`Step::packet`] turns a request into its reply.
fn back(mut o: Observation) -> Observation {
    o.addresses.rotate_left(2);
    if o.port_form == PortForm::Ports {
        o.ports.swap(0, 1);
    }
    o
}

/// Two conversations of each kind in each of the three shards.
static CONVERSATIONS: LazyLock<Vec<Observation>> = LazyLock::new(|| {
    let kinds: [fn(u16) -> Observation; 10] = [
        |n| packet(17, &format!("10.5.{}.{}", n >> 8, n & 255), "10.0.0.1", PortForm::Ports, [123, 123]),
        |n| packet(6, "10.0.0.9", "10.0.0.1", PortForm::Ports, [40_000 + n, 443]),
        |n| packet(6, "10.0.0.1", "10.0.0.9", PortForm::Ports, [5_000 + n, 5_000]),
        |n| packet(6, &format!("239.0.{}.{}", n >> 8, n & 255), "10.0.0.1", PortForm::Ports, [7, 9_000]),
        |n| packet(17, "fe80::9", "fe80::1", PortForm::Ports, [40_000 + n, 53]),
        |n| packet(17, "10.0.0.9", "255.255.255.255", PortForm::Ports, [67, 40_000 + n]),
        |n| packet(47, "10.0.0.9", &format!("10.2.{}.{}", n >> 8, n & 255), PortForm::Absent, [0, 0]),
        |n| packet(1, "10.0.0.9", &format!("10.3.{}.{}", n >> 8, n & 255), PortForm::IcmpTypeCode, [8, 0]),
        |n| packet(1, "10.0.0.9", &format!("10.4.{}.{}", n >> 8, n & 255), PortForm::IcmpTypeCode, [3, 1]),
        |n| packet(58, "fe80::9", &format!("fe80::{n:x}"), PortForm::IcmpTypeCode, [128, 0]),
    ];
    let mut found = Vec::new();
    for kind in kinds {
        for shard in SHARDS {
            let in_shard = |o: &Observation| {
                let mut oriented = *o;
                oriented.orient(&HashSecret::new(SECRET));
                oriented.shard == shard
            };
            found.extend((1..20_000).map(kind).filter(in_shard).take(2));
        }
    }
    assert_eq!(found.len(), 60);
    found
});

#[derive(Clone, Debug)]
struct Step {
    conversation: usize,
    back: bool,
    /// Nanoseconds since the packet before; negative: out of order or a clock set back.
    step: i64,
    flags: Option<u8>,
    fragment: Fragment,
    fragment_id: u32,
    point: u16,
    packets: u32,
    bytes: u64,
    ttl: u8,
    vlan: u16,
    macs: bool,
}

impl Step {
    fn packet(&self, at: u64) -> Observation {
        let mut o = CONVERSATIONS[self.conversation];
        if self.back {
            o = back(o);
            if o.port_form == PortForm::IcmpTypeCode {
                // Echo request to reply; a one-way type stays, and is another flow.
                let reply: u16 = match (o.protocol, o.icmp_type()) {
                    (1, 8) => 0,
                    (58, 128) => 129,
                    (_, other) => other.into(),
                };
                o.ports[0] = reply.to_be();
            }
        }
        if o.protocol == 6 {
            o.has_tcp_flags = self.flags.is_some();
            o.tcp_flags = self.flags.unwrap_or(0);
        }
        if o.port_form == PortForm::Ports && o.protocol == 17 && self.fragment != Fragment::Whole {
            o.fragment = self.fragment;
            o.fragment_id = self.fragment_id;
            if self.fragment == Fragment::Later {
                (o.ports, o.port_form) = ([0; 2], PortForm::Absent);
            }
        }
        let packets = u64::from(self.packets);
        Observation {
            start: at - (packets - 1) * 1_000,
            end: at,
            packets: self.packets,
            bytes: self.bytes,
            frame_bytes: self.bytes + 14 * packets,
            buffers: 1,
            buffer_bytes: self.bytes + 18 - packets,
            point: self.point,
            ttl: self.ttl,
            traffic_class: self.ttl ^ 0x55,
            vlan: self.vlan,
            inner_vlan: if self.vlan == NO_VLAN { NO_VLAN } else { 9 },
            macs: if self.macs { std::array::from_fn(|i| self.ttl.wrapping_add(i as u8)) } else { [0; 12] },
            ..o
        }
    }
}

fn flags() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![
        1 => Just(None),
        2 => Just(Some(SYN)),
        1 => Just(Some(SYN | ACK)),
        4 => Just(Some(ACK)),
        1 => Just(Some(FIN)),
        2 => Just(Some(FIN | ACK)),
        1 => Just(Some(RST)),
        1 => any::<u8>().prop_map(Some),
    ]
}

/// From nothing over the timeouts' edges to several idle timeouts, small disorder, a clock set back.
fn time_step() -> impl Strategy<Value = i64> {
    let (ms, s) = (MILLISECOND as i64, SECOND as i64);
    prop_oneof![
        4 => Just(0),
        6 => 1..900 * ms,
        6 => 1..3 * s,
        2 => prop::sample::select(vec![2 * s, 3 * s, 5 * s, 7 * s, 10 * s, 30 * s, 60 * s]),
        2 => prop::sample::select(vec![2 * s - 1, 5 * s - 1, 10 * s - 1, 30 * s - 1]),
        2 => 4 * s..40 * s,
        1 => 100 * s..500 * s,
        2 => -900 * ms..0,
        1 => -8 * s..-s,
    ]
}

fn step(conversations: std::ops::Range<usize>) -> impl Strategy<Value = Step> {
    use Fragment::{First, Later, Whole};
    (
        (conversations, any::<bool>(), time_step(), flags()),
        (prop::sample::select(vec![Whole, Whole, First, Later]), 0_u32..3, 0_u16..3),
        (
            1_u32..4,
            40_u64..9_000,
            1_u8..=255,
            prop::sample::select(vec![NO_VLAN, NO_VLAN, 0, 7]),
            any::<bool>(),
        ),
    )
        .prop_map(|((conversation, back, step, flags), (fragment, fragment_id, point), rest)| {
            let (packets, bytes, ttl, vlan, macs) = rest;
            // Most packets are seen at the first point.
            let point = point.saturating_sub(1);
            Step {
                conversation,
                back,
                step,
                flags,
                fragment,
                fragment_id,
                point,
                packets,
                bytes,
                ttl,
                vlan,
                macs,
            }
        })
}

fn timeout(choices: &'static [u64]) -> impl Strategy<Value = Interval> {
    prop::sample::select(choices)
        .prop_map(|milliseconds| Interval(std::time::Duration::from_millis(milliseconds)))
}

fn config() -> impl Strategy<Value = FlowConfig> {
    (
        (prop::sample::select(vec![1, 2, 3, 100]), timeout(&[7_000, 60_000, 60_001, 700, 7_200_000])),
        (timeout(&[30_000, 9_500, 3_600_000]), timeout(&[30_000, 3_000]), timeout(&[10_000, 650])),
        (timeout(&[5_000, 1_000]), timeout(&[5_000, 2_000]), any::<bool>()),
    )
        .prop_map(|((per_shard, active_timeout), (idle_timeout, udp_timeout, icmp_timeout), rest)| {
            let (tcp_fin_timeout, tcp_rst_timeout, start_records) = rest;
            FlowConfig {
                table_capacity: NonZeroUsize::new(64 * per_shard).unwrap(),
                active_timeout,
                idle_timeout,
                udp_timeout,
                icmp_timeout,
                tcp_fin_timeout,
                tcp_rst_timeout,
                community_id_seed: per_shard as u16,
                start_records,
            }
        })
}

/// Records, and the ids of flows as they were created.
#[derive(Default)]
struct Records(Vec<FlowRecord>, Vec<CommunityId>);

impl RecordSink for Records {
    fn record(&mut self, record: FlowRecord) {
        self.0.push(record);
    }

    fn created(&mut self, community_id: impl FnOnce() -> CommunityId) {
        self.1.push(community_id());
    }
}

/// How observations reach the meters.
#[derive(Clone, Copy, Debug)]
struct Way {
    workers: usize,
    batch: usize,
    ticks: bool,
}

const WAYS: [Way; 6] = [
    Way { workers: 1, batch: 1, ticks: false },
    Way { workers: 1, batch: 1, ticks: true },
    Way { workers: 1, batch: 1_000, ticks: false },
    Way { workers: 2, batch: 7, ticks: false },
    Way { workers: 8, batch: 100, ticks: false },
    Way { workers: 8, batch: 3, ticks: true },
];

fn observations(steps: &[Step]) -> Vec<Observation> {
    let mut at = T0;
    let packet = |step: &Step| {
        at = at.checked_add_signed(step.step).unwrap();
        step.packet(at)
    };
    steps.iter().map(packet).collect()
}

/// Meters raw observations one way; the books are checked after every batch.
fn meter(config: &FlowConfig, raw: &[Observation], way: Way) -> (Vec<FlowRecord>, Tally) {
    let mut orientation = Orientation::new(HashSecret::new(SECRET));
    let mut prepared = raw.to_vec();
    for o in &mut prepared {
        orientation.prepare(o);
    }
    let end = prepared.last().map_or(0, |o| o.watermark);
    let (mut records, mut secondary) = (Records::default(), Tally::ZERO);
    for worker in 0..way.workers {
        let mut meter = Meter::new(config, "");
        let own: Vec<_> =
            prepared.iter().filter(|o| usize::from(o.shard) % way.workers == worker).copied().collect();
        let mut taken = Tally::ZERO;
        let batches: Vec<_> = own.chunks(way.batch).collect();
        for (number, batch) in batches.iter().enumerate() {
            meter.observe(batch, &mut records);
            taken += batch.iter().map(Observation::tally).sum();
            balances(&meter, taken);
            if way.ticks {
                let now = batch.last().unwrap().watermark;
                let next = batches.get(number + 1).map_or(now, |batch| batch[0].watermark);
                for quarter in 0..=4 {
                    meter.advance(now + (next - now) / 4 * quarter, &mut records);
                    balances(&meter, taken);
                }
            }
        }
        meter.finish(end, &mut records);
        balances(&meter, taken);
        assert_eq!((meter.active(), meter.resident()), (0, Tally::ZERO));
        assert_eq!(meter.book().created, meter.book().released);
        secondary += meter.book().secondary;
    }
    let ended = records.0.iter().filter(|record| record.event == FlowEvent::End);
    let mut ended: Vec<_> = ended.map(|record| record.community_id.0).collect();
    let mut created: Vec<_> = records.1.iter().map(|id| id.0).collect();
    ended.sort_unstable();
    created.sort_unstable();
    assert!(created == ended, "each flow is created once and ends once");
    (records.0, secondary)
}

fn balances(meter: &Meter, taken: Tally) {
    let book = meter.book();
    assert_eq!(book.metered, book.reported + meter.resident());
    assert_eq!(book.metered + book.secondary, taken);
    assert_eq!(meter.active() as u64, book.created - book.released);
}

/// Flows in a fixed order, each as its records. The reference doesn't know ids, so they become 0; that each flow has
/// one of its own is checked on the way.
fn flows_of(records: &[FlowRecord]) -> Vec<Vec<FlowRecord>> {
    let mut flows: HashMap<FlowId, Vec<FlowRecord>> = HashMap::new();
    for record in records {
        let flow = flows.entry(record.id).or_default();
        assert_eq!(record.sequence as usize, flow.len(), "records of a flow come in order");
        flow.push(record.clone());
    }
    let mut flows: Vec<_> = flows.into_values().collect();
    for record in flows.iter_mut().flatten() {
        record.id = FlowId(0);
    }
    flows.sort_by_cached_key(|flow| format!("{flow:?}"));
    flows
}

/// The reference's records as flows: each ends with its `end`.
fn flows_of_reference(reference: Vec<FlowRecord>) -> Vec<Vec<FlowRecord>> {
    let mut open: BTreeMap<String, Vec<FlowRecord>> = BTreeMap::new();
    let mut flows = Vec::new();
    for record in reference {
        let mut ends = [format!("{:?}", record.source), format!("{:?}", record.destination)];
        if record.icmp.is_none_or(|(kind, _)| kind != 3) {
            ends.sort();
        }
        let icmp = record.icmp.is_some();
        let key = format!("{ends:?} {} {icmp} {:?}", record.protocol, record.community_id);
        open.entry(key.clone()).or_default().push(record.clone());
        if record.event == FlowEvent::End {
            flows.extend(open.remove(&key));
        }
    }
    assert!(open.is_empty());
    flows.sort_by_cached_key(|flow| format!("{flow:?}"));
    flows
}

fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn meters_as_the_reference_does(config in config(), steps in prop::collection::vec(step(0..60), 1..150)) {
        let raw = observations(&steps);
        let mut reference = Reference::new(&config);
        let mut clock = mermin_flow::Watermark::default();
        for o in &raw {
            clock.stamp(o.end);
            reference.observe(o);
        }
        reference.finish(clock.now());
        let expected = flows_of_reference(std::mem::take(&mut reference.records));
        let mut ids: Option<Vec<_>> = None;
        for way in WAYS {
            let (records, secondary) = meter(&config, &raw, way);
            let flows = flows_of(&records);
            for (flow, expected) in flows.iter().zip(&expected) {
                prop_assert_eq!(flow, expected, "{:?}", way);
            }
            prop_assert_eq!(flows.len(), expected.len(), "{:?}", way);
            prop_assert_eq!(secondary, reference.secondary);
            let mut own: Vec<_> = records.iter().map(|record| (record.id, record.sequence)).collect();
            own.sort_unstable();
            prop_assert_eq!(ids.get_or_insert_with(|| own.clone()), &own, "ids, {:?}", way);
        }
    }

    /// The same packets the other way round: what one end sent, the other has now sent.
    #[test]
    fn mirrored_packets_give_mirrored_records(config in config(), steps in prop::collection::vec(step(0..42), 1..100)) {
        let config = FlowConfig { table_capacity: NonZeroUsize::new(64 * 100).unwrap(), ..config };
        let raw = observations(&steps);
        let mirrored: Vec<_> = raw.iter().copied().map(back).collect();
        let by_end = |records: &[FlowRecord], swap: bool| {
            let mut facts: Vec<_> = records.iter().map(|r| {
                let mut ends = [(r.source.address, r.source.port), (r.destination.address, r.destination.port)];
                if swap {
                    ends.swap(0, 1);
                }
                let mut sent = [(ends[0], r.forward), (ends[1], r.reverse)];
                sent.sort_by_key(|(end, _)| *end);
                format!("{:?} {} {sent:?} {:?} {:?} {:?}", r.start_time, r.sequence, r.end_reason, r.end_time, r.tcp_state)
            }).collect();
            facts.sort();
            facts
        };
        let (there, _) = meter(&config, &raw, WAYS[0]);
        let (mirror, _) = meter(&config, &mirrored, WAYS[0]);
        prop_assert_eq!(by_end(&there, false), by_end(&mirror, true));
    }
}
