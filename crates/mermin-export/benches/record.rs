//! The cost of one record in each form: of line, and of message.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mermin_export::ipfix::IpfixMessages;
use mermin_export::{Format, JsonLines, Style, TextLines};
use mermin_flow::{
    CommunityId, Counts, Direction, End, Enrichment, FlowEndReason, FlowEvent, FlowId, FlowRecord, Hook,
    Identity, Initiator, ObservationPoint, ObservationPoints, Tally, TcpState,
};
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

fn end(address: IpAddr, port: u16) -> End {
    End { address, port: Some(port), mac: Some([2, 0, 0, 0, 0, 9]), identity: Identity::default() }
}

/// A TCP flow with everything but names and tags; times, ids and counts differ from record to record.
fn record(n: u64, ends: [IpAddr; 2]) -> FlowRecord {
    let counts = Counts { packets: 17 + n, bytes: 12_345 + n * 97, frame_bytes: 12_583 + n * 97 };
    let direction = Direction {
        delta: counts,
        total: counts,
        tcp_flags: Some(0x1b),
        ttl: Some((63, 64)),
        traffic_class: Some(0),
    };
    FlowRecord {
        id: FlowId(u128::from(n) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834),
        sequence: 0,
        community_id: CommunityId([n as u8; 20]),
        event: FlowEvent::End,
        end_reason: Some(FlowEndReason::EndOfFlowDetected),
        start_time: 1_767_225_599_987_654_321 + n * 71_234_567,
        end_time: 1_767_225_609_987_654_321 + n * 71_234_567,
        counts_from: 0,
        clock_ahead: [0; 2],
        protocol: 6,
        source: end(ends[0], 40_000 + n as u16),
        destination: end(ends[1], 443),
        initiator: Initiator::Syn,
        enrichment: Enrichment::default(),
        icmp: None,
        forward: direction,
        reverse: direction,
        tcp_state: TcpState::TimeWait,
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

fn lines(criterion: &mut Criterion) {
    let points = Arc::new(ObservationPoints::default());
    points.number(ObservationPoint {
        interface: Some("eth0".into()),
        index: Some(2),
        hook: Some(Hook::Egress),
    });
    let v4 = ["10.12.34.56", "203.0.113.80"].map(|address| address.parse().expect("an address"));
    let v6 =
        ["2001:db8:85a3::8a2e:370:7334", "2001:db8::53"].map(|address| address.parse().expect("an address"));
    let formats: [(&str, Box<dyn Format>); 3] = [
        ("json", Box::new(JsonLines::new(Arc::clone(&points)))),
        ("text", Box::new(TextLines::new(Style::PLAIN))),
        ("ipfix", Box::new(IpfixMessages::new(points))),
    ];
    for (name, mut format) in formats {
        let mut group = criterion.benchmark_group(name);
        for (family, ends) in [("ipv4", v4), ("ipv6", v6)] {
            let records: Vec<_> = (0..256).map(|n| record(n, ends)).collect();
            let mut out = Vec::with_capacity(512 * 1024);
            // The first ones bring templates.
            records.iter().for_each(|record| format.push(record, &mut out));
            out.clear();
            records.iter().for_each(|record| format.push(record, &mut out));
            println!("{name} {family}: {} bytes a record", out.len() / records.len());
            group.throughput(Throughput::Elements(256));
            group.bench_function(family, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    records.iter().for_each(|record| format.push(record, &mut out));
                    black_box(&out);
                });
            });
        }
    }
}

criterion_group!(benches, lines);
criterion_main!(benches);
