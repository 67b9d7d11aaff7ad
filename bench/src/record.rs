//! Flow records that are alike and never the same.

use mermin_flow::{
    CommunityId, Counts, Direction, End, Enrichment, FlowDirection, FlowEndReason, FlowEvent, FlowId,
    FlowRecord, Identity, Initiator, KubernetesAttribute, KubernetesEnd, KubernetesObject, Resolution, Tally,
    TcpState,
};
use std::sync::Arc;

/// The record of a TCP connection by its number; with what Kubernetes knows of both ends, or without.
pub(crate) fn record(n: u64, kubernetes: bool) -> FlowRecord {
    let counts = Counts { packets: 17 + n, bytes: 12_345 + n * 97, frame_bytes: 12_583 + n * 97 };
    let direction = Direction {
        delta: counts,
        total: counts,
        tcp_flags: Some(0x1b),
        ttl: Some((63, 64)),
        traffic_class: Some(0),
    };
    let end = |address: [u8; 4], port, name: &str| End {
        address: address.into(),
        port: Some(port),
        mac: Some([2, 0, 0, 0, 0, 9]),
        identity: Identity { name: None, kubernetes: kubernetes.then(|| pod(name)) },
    };
    let [.., high, low] = n.to_be_bytes();
    FlowRecord {
        id: FlowId(u128::from(n + 1) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834),
        sequence: 0,
        community_id: CommunityId([low; 20]),
        event: FlowEvent::End,
        end_reason: Some(FlowEndReason::EndOfFlowDetected),
        start_time: 1_767_225_599_987_654_321 + n * 71_234_567,
        end_time: 1_767_225_609_987_654_321 + n * 71_234_567,
        counts_from: 0,
        clock_ahead: [0; 2],
        protocol: 6,
        source: end([10, 12, high, low], 40_000, "client"),
        destination: end([203, 0, 113, low], 443, "server"),
        initiator: Initiator::Syn,
        enrichment: Enrichment {
            direction: kubernetes.then_some(FlowDirection::Outbound),
            ..Enrichment::default()
        },
        icmp: None,
        forward: direction,
        reverse: direction,
        tcp_state: TcpState::TimeWait,
        vlan: None,
        inner_vlan: None,
        point: 0,
        shard: 0,
        tally: Tally { packets: 2 * counts.packets, bytes: 2 * counts.frame_bytes, ..Tally::ZERO },
        sampled: None,
        hops: None,
        nat: None,
        lease: mermin_flow::Lease::default(),
    }
}

/// A pod of a deployment, with two labels.
pub(crate) fn pod(name: &str) -> KubernetesEnd {
    use KubernetesAttribute::{
        DeploymentName, DeploymentUid, NamespaceName, NodeName, NodeUid, PodName, PodUid, ReplicaSetName,
        ReplicaSetUid,
    };
    let uid = "0c1a5f7e-3b2d-4c6e-9f80-1a2b3c4d5e6f";
    let attributes = [
        (NamespaceName, "shop".to_owned()),
        (PodName, format!("{name}-7d4b9c6f5-x2x4z")),
        (PodUid, uid.to_owned()),
        (NodeName, "node-17".to_owned()),
        (NodeUid, uid.to_owned()),
        (DeploymentName, name.to_owned()),
        (DeploymentUid, uid.to_owned()),
        (ReplicaSetName, format!("{name}-7d4b9c6f5")),
        (ReplicaSetUid, uid.to_owned()),
    ];
    let labels = [("k8s.pod.label.app", name), ("k8s.pod.label.team", "checkout")];
    let object = KubernetesObject {
        attributes: attributes.into_iter().map(|(key, value)| (key, value.into())).collect(),
        labels: labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
    };
    KubernetesEnd {
        resolution: Resolution::Exact,
        object: Some(Arc::new(object)),
        container: Some("app".into()),
        service: None,
    }
}
