//! Records and spools for this crate's tests.

use crate::{Fsync, Spool, SpoolSettings};
use mermin_flow::{
    CommunityId, Counts, Direction, End, Enrichment, Estimate, FlowDirection, FlowEndReason, FlowEvent,
    FlowId, FlowRecord, Hop, Hops, Identity, Initiator, KubernetesAttribute, KubernetesEnd, KubernetesObject,
    Nat, NatStage, Resolution, Sampled, Tally, TcpState,
};
use proptest::prelude::*;
use proptest::{option, sample};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// A spool that is never synced, in a folder of its own.
pub(crate) fn spool(bytes: u64) -> (Spool, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), SpoolSettings { bytes, fsync: Fsync::Never }).unwrap();
    (spool, folder)
}

const SILENT: Direction = {
    let none = Counts { packets: 0, bytes: 0, frame_bytes: 0 };
    Direction { delta: none, total: none, tcp_flags: None, ttl: None, traffic_class: None }
};

/// `n` records of one flow, each of one packet of `60 + sequence` bytes.
pub(crate) fn records(n: u32) -> Vec<FlowRecord> {
    let end = |last| End {
        address: [192, 0, 2, last].into(),
        port: Some(443),
        mac: None,
        identity: Identity::default(),
    };
    let record = |sequence: u32| FlowRecord {
        id: FlowId(7),
        sequence,
        community_id: CommunityId([1; 20]),
        event: FlowEvent::Update,
        end_reason: Some(FlowEndReason::ActiveTimeout),
        start_time: 1_767_225_599_987_654_321,
        end_time: 1_767_225_599_987_654_999,
        counts_from: 1_767_225_599_987_654_321,
        clock_ahead: [0; 2],
        protocol: 17,
        source: end(1),
        destination: end(2),
        initiator: Initiator::FirstSeen,
        enrichment: Enrichment::default(),
        icmp: None,
        forward: SILENT,
        reverse: SILENT,
        tcp_state: TcpState::Unknown,
        vlan: None,
        inner_vlan: None,
        point: 0,
        shard: 5,
        tally: Tally::frame(60 + u64::from(sequence)),
        sampled: None,
        hops: None,
        nat: None,
        lease: mermin_flow::Lease::default(),
    };
    (0..n).map(record).collect()
}

/// With every attribute that an object can have.
pub(crate) fn object(value: &str) -> KubernetesObject {
    let all = KubernetesAttribute::ALL.iter();
    let attributes = all.map(|attribute| (*attribute, format!("{value} {attribute:?}").into())).collect();
    let labels = [("k8s.pod.label.app".into(), value.into()), ("k8s.pod.label.tier".into(), "".into())];
    KubernetesObject { attributes, labels: labels.into() }
}

fn counts() -> impl Strategy<Value = Counts> {
    let count = || prop_oneof![0..300_u64, any::<u64>()];
    (count(), count(), count()).prop_map(|(packets, bytes, frame_bytes)| Counts {
        packets,
        bytes,
        frame_bytes,
    })
}

fn direction() -> impl Strategy<Value = Direction> {
    let total = option::of(counts());
    (counts(), total, any::<Option<u8>>(), any::<Option<(u8, u8)>>(), any::<Option<u8>>()).prop_map(
        |(delta, total, tcp_flags, ttl, traffic_class)| Direction {
            delta,
            total: total.unwrap_or(delta),
            tcp_flags,
            ttl,
            traffic_class,
        },
    )
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-zé]{0,8}".prop_map(Arc::from)
}

fn some_object() -> impl Strategy<Value = Arc<KubernetesObject>> {
    let attributes = sample::subsequence(KubernetesAttribute::ALL.to_vec(), 0..6);
    let values = prop::collection::vec(text(), 6);
    let labels = prop::collection::vec((text(), text()), 0..3);
    (attributes, values, labels).prop_map(|(attributes, values, labels)| {
        let attributes = attributes.into_iter().zip(values).collect();
        Arc::new(KubernetesObject { attributes, labels: labels.into_boxed_slice() })
    })
}

fn end() -> impl Strategy<Value = End> {
    let resolution = sample::select(vec![Resolution::Exact, Resolution::Ambiguous, Resolution::Unknown]);
    let kubernetes = (resolution, option::of(some_object()), option::of(text()), option::of(some_object()));
    let kubernetes = kubernetes.prop_map(|(resolution, object, container, service)| KubernetesEnd {
        resolution,
        object,
        container,
        service,
    });
    let identity = (option::of(text()), option::of(kubernetes));
    let identity = identity.prop_map(|(name, kubernetes)| Identity { name, kubernetes });
    (any::<IpAddr>(), any::<Option<u16>>(), any::<Option<[u8; 6]>>(), identity)
        .prop_map(|(address, port, mac, identity)| End { address, port, mac, identity })
}

/// What is said of a record in a byte each.
fn kinds()
-> impl Strategy<Value = (FlowEvent, Option<FlowEndReason>, Initiator, Option<FlowDirection>, TcpState)> {
    (
        sample::select(vec![FlowEvent::Start, FlowEvent::Update, FlowEvent::End]),
        option::of(sample::select(vec![
            FlowEndReason::IdleTimeout,
            FlowEndReason::ActiveTimeout,
            FlowEndReason::EndOfFlowDetected,
            FlowEndReason::ForcedEnd,
            FlowEndReason::LackOfResources,
        ])),
        sample::select(Initiator::ALL.to_vec()),
        option::of(sample::select(vec![
            FlowDirection::Inbound,
            FlowDirection::Outbound,
            FlowDirection::WithinNode,
            FlowDirection::Transit,
        ])),
        sample::select(TcpState::ALL.to_vec()),
    )
}

/// Any record, whether or not the meter would make it. Its tally is small enough to be added up.
pub(crate) fn record() -> impl Strategy<Value = FlowRecord> {
    let start = || prop_oneof![Just(1_767_225_599_987_654_321), any::<u64>()];
    let times = (start(), any::<u64>(), option::of(any::<u64>()), option::of(any::<[i64; 2]>()));
    let tally = (0..1_u64 << 50, 0..1_u64 << 50, any::<u64>(), any::<u64>());
    let tally = option::of(tally.prop_map(|(packets, bytes, buffers, buffer_bytes)| Tally {
        packets,
        bytes,
        buffers,
        buffer_bytes,
    }));
    let numbers = (any::<u128>(), any::<u32>(), any::<[u8; 20]>(), any::<u8>(), any::<u16>(), any::<u8>());
    let degraded = (any::<Option<u64>>(), any::<bool>());
    let estimate = (any::<[u64; 3]>(), any::<[u128; 2]>()).prop_map(|(excess, variances)| Estimate {
        excess: Counts { packets: excess[0], bytes: excess[1], frame_bytes: excess[2] },
        packets_variance: variances[0],
        bytes_variance: variances[1],
    });
    let sampled = (any::<[u32; 2]>(), [estimate.clone(), estimate])
        .prop_map(|(one_in, directions)| Box::new(Sampled { one_in, directions }));
    let hop =
        (0..3_u16, any::<[bool; 2]>(), any::<[u64; 3]>()).prop_map(|(point, [first, counted], counts)| Hop {
            point,
            first,
            counted,
            counts: Counts { packets: counts[0], bytes: counts[1], frame_bytes: counts[2] },
        });
    let way = || prop::collection::vec(hop.clone(), 0..9);
    let hops = [way(), way()].prop_map(|directions| Box::new(Hops { directions }));
    let tuple = prop_oneof![
        any::<[Ipv4Addr; 2]>().prop_map(|ends| ends.map(IpAddr::V4)),
        any::<[Ipv6Addr; 2]>().prop_map(|ends| ends.map(IpAddr::V6)),
    ];
    let stage = sample::select(NatStage::ALL.to_vec());
    let nat = (stage, tuple, any::<[u16; 2]>(), any::<[u8; 20]>()).prop_map(
        |(stage, [source, destination], ports, community_id)| {
            let (source, destination) = ((source, ports[0]), (destination, ports[1]));
            Box::new(Nat { stage, source, destination, community_id: CommunityId(community_id) })
        },
    );
    let beside = (option::of(sampled), option::of(hops), option::of(nat));
    let optional = (degraded, any::<Option<(u8, u8)>>(), any::<[Option<u16>; 2]>(), beside);
    (numbers, kinds(), times, (end(), end()), (direction(), direction()), optional, tally).prop_map(
        |(numbers, kinds, times, (source, destination), (mut forward, mut reverse), optional, tally)| {
            let (id, sequence, community_id, protocol, point, shard) = numbers;
            let (event, end_reason, initiator, direction, tcp_state) = kinds;
            let (start_time, end_time, counts_from, clock_ahead) = times;
            let ((degraded, omitted), icmp, [vlan, inner_vlan], (sampled, hops, nat)) = optional;
            if tally.is_none() {
                for side in [&mut forward, &mut reverse] {
                    side.delta.packets %= 1 << 50;
                    side.delta.frame_bytes %= 1 << 50;
                }
            }
            let tally = tally.unwrap_or_else(|| crate::codec::expected_tally(&forward.delta, &reverse.delta));
            FlowRecord {
                id: FlowId(id),
                sequence,
                community_id: CommunityId(community_id),
                event,
                end_reason,
                start_time,
                end_time,
                counts_from: counts_from.unwrap_or(start_time),
                clock_ahead: clock_ahead.unwrap_or_default(),
                protocol,
                source,
                destination,
                initiator,
                enrichment: Enrichment { direction, degraded: degraded.map(Duration::from_nanos), omitted },
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
                lease: mermin_flow::Lease::default(),
            }
        },
    )
}
