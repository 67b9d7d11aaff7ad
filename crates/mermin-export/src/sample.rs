//! Records for tests: one of each kind, between them with every attribute.

use mermin_flow::{
    CommunityId, Counts, Direction, End, Enrichment, Estimate, FlowDirection, FlowEndReason, FlowEvent,
    FlowId, FlowRecord, Hook, Hop, Hops, Identity, Initiator, KubernetesAttribute, KubernetesEnd,
    KubernetesObject, Nat, NatStage, ObservationPoint, ObservationPoints, Resolution, Sampled, Tally,
    TcpState,
};
use std::sync::Arc;

pub(crate) const START: u64 = 1_767_225_599_987_654_321; // 2025-12-31T23:59:59.987654321Z

/// Two points: a live one (0) and one of a capture that names nothing (1).
pub(crate) fn points() -> Arc<ObservationPoints> {
    let points = ObservationPoints::default();
    let eth0 = ObservationPoint { interface: Some("eth0".into()), index: Some(2), hook: Some(Hook::Ingress) };
    points.number(eth0);
    points.number(ObservationPoint::default());
    Arc::new(points)
}

fn end(address: &str, port: Option<u16>) -> End {
    End { address: address.parse().unwrap(), port, mac: None, identity: Identity::default() }
}

const fn counts(packets: u64, bytes: u64) -> Counts {
    Counts { packets, bytes, frame_bytes: bytes + 14 * packets }
}

const SILENT: Direction =
    Direction { delta: counts(0, 0), total: counts(0, 0), tcp_flags: None, ttl: None, traffic_class: None };

/// A record without anything optional: a protocol that has no keyword, one direction, nothing captured of its header.
pub(crate) fn bare() -> FlowRecord {
    FlowRecord {
        id: FlowId(7),
        sequence: 0,
        community_id: CommunityId([1; 20]),
        event: FlowEvent::Start,
        end_reason: None,
        start_time: START,
        end_time: START,
        counts_from: START,
        clock_ahead: [0; 2],
        protocol: 253,
        source: end("192.0.2.1", None),
        destination: end("198.51.100.254", None),
        initiator: Initiator::FirstSeen,
        enrichment: Enrichment::default(),
        icmp: None,
        forward: SILENT,
        reverse: SILENT,
        tcp_state: TcpState::Unknown,
        vlan: None,
        inner_vlan: None,
        point: 1,
        shard: 0,
        tally: Tally::ZERO,
        sampled: None,
        hops: None,
        nat: None,
        lease: mermin_flow::Lease::default(),
    }
}

/// A TCP connection, with all that a TCP record can have.
pub(crate) fn tcp() -> FlowRecord {
    let mut record = bare();
    record.id = FlowId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
    record.sequence = 3;
    record.event = FlowEvent::End;
    record.end_reason = Some(FlowEndReason::EndOfFlowDetected);
    record.end_time = START + 83_012_345_679;
    record.protocol = 6;
    record.source = end("10.1.2.3", Some(43_210));
    record.source.mac = Some([0xac, 0xde, 0x48, 0, 0, 1]);
    record.source.identity.name = Some("office".into());
    record.destination = end("203.0.113.80", Some(443));
    record.destination.mac = Some([2, 0, 0, 0, 0, 0xff]);
    record.destination.identity.name = Some("the \"dmz\"".into());
    record.initiator = Initiator::Syn;
    record.forward = Direction {
        delta: counts(2, 104),
        total: counts(1_234, 65_432),
        tcp_flags: Some(0b0001_1011),
        ttl: Some((63, 64)),
        traffic_class: Some(0b1011_1010),
    };
    record.reverse = Direction {
        delta: counts(1, 52),
        total: counts(123_456, 187_654_321),
        tcp_flags: Some(0b0001_0010),
        ttl: Some((57, 57)),
        traffic_class: Some(0),
    };
    record.tcp_state = TcpState::TimeWait;
    record.vlan = Some(100);
    record.inner_vlan = Some(4_094);
    record.point = 0;
    record.tally = Tally { packets: 3, bytes: 198, buffers: 3, buffer_bytes: 198 };
    record
}

/// A ping over IPv6.
pub(crate) fn icmpv6() -> FlowRecord {
    let mut record = bare();
    record.event = FlowEvent::Update;
    record.end_reason = Some(FlowEndReason::ActiveTimeout);
    record.end_time = START + 60_000_000_000;
    record.protocol = 58;
    record.source = end("2001:db8:0:0:1:0:0:1", None);
    record.destination = end("::ffff:192.0.2.1", None);
    record.initiator = Initiator::IcmpRequest;
    record.icmp = Some((128, 0));
    record.forward = Direction {
        delta: counts(60, 6_240),
        total: counts(60, 6_240),
        ttl: Some((64, 64)),
        traffic_class: Some(1),
        ..SILENT
    };
    record.reverse = Direction { ttl: Some((60, 64)), traffic_class: Some(0), ..record.forward };
    record.tally = Tally { packets: 120, bytes: 14_160, buffers: 120, buffer_bytes: 14_160 };
    record
}

/// A name lookup.
pub(crate) fn udp() -> FlowRecord {
    let mut record = bare();
    record.event = FlowEvent::End;
    record.end_reason = Some(FlowEndReason::IdleTimeout);
    record.end_time = START + 1_500_000;
    record.protocol = 17;
    record.source = end("2001:db8::5", Some(53_124));
    record.destination = end("2001:db8::53", Some(53));
    record.initiator = Initiator::ServicePort;
    record.forward = Direction { delta: counts(1, 71), total: counts(1, 71), ..SILENT };
    record.reverse = Direction { delta: counts(1, 140), total: counts(1, 140), ..SILENT };
    record.tally = Tally { packets: 2, bytes: 239, buffers: 2, buffer_bytes: 239 };
    record
}

/// An owner that has everything that an owner can have, which no real one has; `value` is in each of its values.
fn owner(value: &str) -> KubernetesEnd {
    use KubernetesAttribute::{ContainerName, ServiceName};
    let all = KubernetesAttribute::ALL.iter().filter(|attribute| **attribute != ContainerName);
    let pair = |attribute: &KubernetesAttribute| (*attribute, Arc::from(format!("{value} {attribute:?}")));
    let object = |attributes: Vec<KubernetesAttribute>, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect();
        Some(Arc::new(KubernetesObject { attributes: attributes.iter().map(pair).collect(), labels }))
    };
    let labels =
        [("k8s.namespace.label.team", "a"), ("k8s.pod.annotation.note", "b"), ("k8s.pod.label.app", "c")];
    let (own, services) = all.partition::<Vec<_>, _>(|attribute| **attribute < ServiceName);
    KubernetesEnd {
        resolution: Resolution::Exact,
        object: object(own, &labels),
        container: Some(Arc::from(format!("{value} \"c\""))),
        service: object(services, &[]),
    }
}

/// A name lookup between pods, while Kubernetes doesn't answer.
pub(crate) fn kubernetes() -> FlowRecord {
    let mut record = udp();
    record.source.identity.kubernetes = Some(owner("client"));
    record.destination.identity.kubernetes = Some(owner("server"));
    record.enrichment = Enrichment {
        direction: Some(FlowDirection::Outbound),
        degraded: Some(std::time::Duration::from_millis(90_900)),
        omitted: false,
    };
    record
}

/// A name lookup while processor time was short.
pub(crate) fn omitted() -> FlowRecord {
    FlowRecord { enrichment: Enrichment { omitted: true, ..Enrichment::default() }, ..udp() }
}

/// A flow during which the wall clock was set back: it ends before it starts.
pub(crate) fn set_back() -> FlowRecord {
    FlowRecord { clock_ahead: [1_500_000_000, -3_600_000_000_007], ..udp() }
}

/// A download of which packets were sampled, first at 1:4, then at 1:8.
pub(crate) fn sampled() -> FlowRecord {
    let estimate = |packets, bytes, variances: [u128; 2]| Estimate {
        excess: counts(packets, bytes),
        packets_variance: variances[0],
        bytes_variance: variances[1],
    };
    let mut record = tcp();
    record.forward.delta = counts(102, 5_304);
    record.reverse.delta = counts(500, 750_000);
    record.tally = Tally { packets: 602, bytes: 763_732, buffers: 602, buffer_bytes: 763_732 };
    let directions =
        [estimate(300, 15_600, [1_200, 3_244_800]), estimate(3_100, 4_650_000, [25_600, 57_600_000_000])];
    record.sampled = Some(Box::new(Sampled { one_in: [4, 8], directions }));
    record
}

/// A download that was seen on its way: in by one interface, some of it out by another.
pub(crate) fn passed() -> FlowRecord {
    let mut record = tcp();
    let hop = |point, first, counts| Hop { point, first, counted: first, counts };
    let fewer = Counts { packets: 1, bytes: 60, frame_bytes: 74 };
    let directions = [
        vec![hop(0, true, record.forward.delta)],
        vec![
            hop(1, true, record.reverse.delta),
            hop(0, false, fewer),
            hop(ObservationPoints::UNKNOWN, false, Counts::default()),
        ],
    ];
    record.hops = Some(Box::new(Hops { directions }));
    record
}

/// A connection to an address that stands for another one, behind the router that says so.
pub(crate) fn translated() -> FlowRecord {
    let mut record = tcp();
    record.nat = Some(Box::new(Nat {
        stage: NatStage::Behind,
        source: (record.source.address, record.source.port.unwrap()),
        destination: ("203.0.113.80".parse().unwrap(), 80),
        community_id: CommunityId([7; 20]),
    }));
    record
}

/// A datagram to such an address, before a router that gives the source another one, too.
pub(crate) fn translated_twice() -> FlowRecord {
    let mut record = udp();
    record.nat = Some(Box::new(Nat {
        stage: NatStage::Before,
        source: ("2001:db8::fe".parse().unwrap(), 65_535),
        destination: ("2001:db8:1::53".parse().unwrap(), 5_353),
        community_id: CommunityId([9; 20]),
    }));
    record
}

pub(crate) fn all() -> [FlowRecord; 11] {
    [
        bare(),
        tcp(),
        icmpv6(),
        udp(),
        kubernetes(),
        set_back(),
        omitted(),
        sampled(),
        passed(),
        translated(),
        translated_twice(),
    ]
}

/// Compares with a committed file; `UPDATE=1` writes it.
pub(crate) fn assert_golden(name: &str, actual: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(actual), golden, "{}: UPDATE=1 blesses", path.display());
}
