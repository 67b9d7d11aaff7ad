//! Packets of conversations, for the models.
//!
//! Conversations are chosen so that several share each of three shards: capacity, eviction and creation order belong
//! to the shard, and with keys spread over all 64 nothing would ever meet.

use mermin_flow::{
    Fragment, HashSecret, Hook, Layer, NO_VLAN, Observation, ObservationPoint, ObservationPoints, PortForm,
};
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

pub(crate) const T0: u64 = 1_700_000_000_123_456_789;
pub(crate) const MILLISECOND: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MILLISECOND;
pub(crate) const SECRET: u64 = 7;
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
pub(crate) fn back(mut o: Observation) -> Observation {
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
pub(crate) struct Step {
    pub(crate) conversation: usize,
    pub(crate) back: bool,
    /// Nanoseconds since the packet before; negative: out of order or a clock set back.
    pub(crate) step: i64,
    pub(crate) flags: Option<u8>,
    pub(crate) fragment: Fragment,
    pub(crate) fragment_id: u32,
    pub(crate) point: u16,
    pub(crate) packets: u32,
    pub(crate) bytes: u64,
    pub(crate) ttl: u8,
    pub(crate) vlan: u16,
    pub(crate) macs: bool,
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
            start: at,
            end: at,
            packets: self.packets,
            bytes: self.bytes,
            frame_bytes: self.bytes + 14 * packets,
            buffers: 1,
            buffer_bytes: (self.bytes + 18 - packets) as u32,
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

/// Two links, one on which both are ports, and a point of which nothing is known: numbers 0 to 3.
pub(crate) fn points() -> Arc<ObservationPoints> {
    let points = ObservationPoints::default();
    for (index, below) in [(1, &[][..]), (2, &[]), (3, &[1, 2])] {
        let place =
            ObservationPoint { index: Some(index), hook: Some(Hook::Ingress), ..ObservationPoint::default() };
        let layer = Layer { depth: u8::from(!below.is_empty()), below: below.into(), ..Layer::default() };
        points.lies(points.register(place, 0).unwrap(), &Arc::new(layer));
    }
    points.register(ObservationPoint::default(), 0).unwrap();
    Arc::new(points)
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

pub(crate) fn step(conversations: std::ops::Range<usize>) -> impl Strategy<Value = Step> {
    use Fragment::{First, Later, Whole};
    (
        (conversations, any::<bool>(), time_step(), flags()),
        (
            prop::sample::select(vec![Whole, Whole, First, Later]),
            0_u32..3,
            prop::sample::select(vec![0, 0, 0, 1, 2, 3]),
        ),
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

pub(crate) fn observations(steps: &[Step]) -> Vec<Observation> {
    let mut at = T0;
    let packet = |step: &Step| {
        at = at.checked_add_signed(step.step).unwrap();
        step.packet(at)
    };
    steps.iter().map(packet).collect()
}
