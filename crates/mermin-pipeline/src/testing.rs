//! Flow records by hand, for this crate's tests.

use mermin_flow::{
    CommunityId, Counts, Direction, End, Enrichment, FlowEvent, FlowId, FlowRecord, Identity, Initiator,
    Tally, TcpState,
};

/// A record of a flow, the first and without packets.
pub(crate) fn record(flow: u128, event: FlowEvent) -> FlowRecord {
    let counts = Counts::default();
    let side = Direction { delta: counts, total: counts, tcp_flags: None, ttl: None, traffic_class: None };
    let end = End { address: [192, 0, 2, 1].into(), port: None, mac: None, identity: Identity::default() };
    FlowRecord {
        id: FlowId(flow),
        sequence: 0,
        community_id: CommunityId([0; 20]),
        event,
        end_reason: None,
        start_time: 0,
        end_time: 0,
        counts_from: 0,
        clock_ahead: [0; 2],
        protocol: 1,
        source: end.clone(),
        destination: end,
        initiator: Initiator::FirstSeen,
        enrichment: Enrichment::default(),
        icmp: None,
        forward: side,
        reverse: side,
        tcp_state: TcpState::Unknown,
        vlan: None,
        inner_vlan: None,
        point: 0,
        shard: 0,
        tally: Tally::ZERO,
        sampled: None,
        hops: None,
        nat: None,
        lease: mermin_flow::Lease::default(),
    }
}
