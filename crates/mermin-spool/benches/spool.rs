//! What a record costs on its way to the disk and back: `cargo bench -p mermin-spool`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mermin_flow::{
    CommunityId, Counts, Direction, End, Enrichment, FlowDirection, FlowEndReason, FlowEvent, FlowId,
    FlowRecord, Hook, Identity, Initiator, KubernetesAttribute, KubernetesEnd, KubernetesObject,
    ObservationPoint, ObservationPoints, Resolution, Tally, TcpState,
};
use mermin_spool::{Fsync, Read, Spool, SpoolSettings, codec};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// As many as the pipeline hands on at once.
const BATCH: usize = 512;
const START: u64 = 1_767_225_599_987_654_321;

/// The same numbers each time, and no pattern that compresses.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn uid(&mut self) -> Arc<str> {
        let (a, b) = (self.next(), self.next());
        let groups = [a >> 32, a >> 16 & 0xffff, a & 0xffff, b >> 48];
        let [first, second, third, fourth] = groups;
        format!("{first:08x}-{second:04x}-{third:04x}-{fourth:04x}-{:012x}", b & 0xffff_ffff_ffff).into()
    }
}

/// 300 pods of 40 deployments, each with names, uids and a label.
fn pods(random: &mut Random) -> Vec<Arc<KubernetesObject>> {
    use KubernetesAttribute::{
        DeploymentName, DeploymentUid, NamespaceName, NodeName, NodeUid, PodName, PodUid, ReplicaSetName,
        ReplicaSetUid,
    };
    let node_uid = random.uid();
    let deployments: Vec<_> =
        (0..40).map(|n| (n, random.uid(), random.uid(), random.below(1 << 32))).collect();
    let pod = |n: usize| {
        let (d, deployment_uid, set_uid, hash) = &deployments[n % deployments.len()];
        let name = |text: String| Arc::<str>::from(text);
        let attributes = [
            (NamespaceName, name(format!("team-{}", d % 7))),
            (PodName, name(format!("service-{d}-{hash:010x}-{:05x}", n * 2_654_435_761 % (1 << 20)))),
            (PodUid, Random(n as u64).uid()),
            (NodeName, "worker-17.example.net".into()),
            (NodeUid, Arc::clone(&node_uid)),
            (DeploymentName, name(format!("service-{d}"))),
            (DeploymentUid, Arc::clone(deployment_uid)),
            (ReplicaSetName, name(format!("service-{d}-{hash:010x}"))),
            (ReplicaSetUid, Arc::clone(set_uid)),
        ];
        let labels = [("k8s.pod.label.app".into(), name(format!("service-{d}")))];
        Arc::new(KubernetesObject { attributes: attributes.into(), labels: labels.into() })
    };
    (0..300).map(pod).collect()
}

fn points() -> Arc<ObservationPoints> {
    let points = ObservationPoints::default();
    for index in 0..20 {
        let interface = Some(format!("veth{index:08x}").into());
        points.number(ObservationPoint { interface, index: Some(index), hook: Some(Hook::Ingress) });
    }
    Arc::new(points)
}

/// Connections between pods and the world, as a node of a cluster has them; `named`: with what Kubernetes says.
fn records(named: bool) -> Vec<FlowRecord> {
    let mut random = Random(1);
    let pods = pods(&mut random);
    (0..BATCH).map(|n| record(n as u64, named.then_some(pods.as_slice()), &mut random)).collect()
}

fn record(n: u64, pods: Option<&[Arc<KubernetesObject>]>, random: &mut Random) -> FlowRecord {
    let mut end = |port| {
        let pod = random.below(300);
        let kubernetes = pods.map(|pods| KubernetesEnd {
            resolution: Resolution::Exact,
            object: Some(Arc::clone(&pods[pod as usize])),
            container: Some("app".into()),
            service: None,
        });
        let [.., a, b] = pod.to_be_bytes();
        End {
            address: [10, 42, a, b].into(),
            port: Some(port),
            mac: Some([2, 0, 0, 0, a, b]),
            identity: Identity { name: None, kubernetes },
        }
    };
    let (source, destination) = (end(32_768 + n as u16), end([443, 53, 8080, 5432][n as usize % 4]));
    let mut counts = || {
        let packets = 1 + random.below(40);
        let bytes = packets * (52 + random.below(1_400));
        Counts { packets, bytes, frame_bytes: bytes + 14 * packets }
    };
    let side = |delta| Direction {
        delta,
        total: delta,
        tcp_flags: Some(0b0001_1011),
        ttl: Some((63, 64)),
        traffic_class: Some(0),
    };
    let (forward, reverse) = (side(counts()), side(counts()));
    let packets = forward.delta.packets + reverse.delta.packets;
    let bytes = forward.delta.frame_bytes + reverse.delta.frame_bytes;
    let start_time = START + random.below(30_000_000_000);
    let wide = |random: &mut Random| u128::from(random.next()) << 64 | u128::from(random.next());
    let id = FlowId(wide(random));
    let mut community_id = CommunityId([0; 20]);
    community_id.0[..16].copy_from_slice(&wide(random).to_be_bytes());
    community_id.0[16..].copy_from_slice(&(random.next() as u32).to_be_bytes());
    FlowRecord {
        id,
        sequence: random.below(3) as u32,
        community_id,
        event: FlowEvent::End,
        end_reason: Some(FlowEndReason::EndOfFlowDetected),
        start_time,
        end_time: start_time + random.below(5_000_000_000),
        counts_from: start_time,
        clock_ahead: [0; 2],
        protocol: 6,
        source,
        destination,
        initiator: Initiator::Syn,
        enrichment: Enrichment { direction: Some(FlowDirection::Outbound), ..Enrichment::default() },
        icmp: None,
        forward,
        reverse,
        tcp_state: TcpState::TimeWait,
        vlan: None,
        inner_vlan: None,
        point: random.below(20) as u16,
        shard: random.below(64) as u8,
        tally: Tally { packets, bytes, buffers: packets, buffer_bytes: bytes },
        sampled: None,
        hops: None,
        nat: None,
        lease: mermin_flow::Lease::default(),
    }
}

fn open(folder: &std::path::Path, fsync: Fsync) -> Spool {
    Spool::open(folder, SpoolSettings { bytes: 1 << 30, fsync }).expect("a folder of its own")
}

fn costs(criterion: &mut Criterion) {
    for named in [false, true] {
        let records = records(named);
        let kind = if named { "named" } else { "bare" };
        let (mut encoder, mut decoder) = codec(points());
        let size = encoder.encode(&records).size();
        println!("{kind}: {:.1} bytes a record on disk", size as f64 / BATCH as f64);
        let mut group = criterion.benchmark_group(kind);
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function("encode", |bencher| bencher.iter(|| encoder.encode(black_box(&records))));
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = open(folder.path(), Fsync::Never);
        spool.append(&mut encoder.encode(&records)).expect("there is room");
        let Ok(Some(Read::Batch(stored))) = spool.read() else { panic!("it was appended") };
        group.bench_function("decode", |bencher| bencher.iter(|| decoder.decode(black_box(&stored))));
        spool.acknowledge(stored.position()).expect("the position is written");
        group.bench_function("append, read, acknowledge", |bencher| {
            bencher.iter_batched(
                || encoder.encode(&records),
                |mut entry| {
                    spool.append(&mut entry).expect("there is room");
                    let Ok(Some(Read::Batch(stored))) = spool.read() else { panic!("it was appended") };
                    spool.acknowledge(stored.position()).expect("the position is written");
                    stored
                },
                BatchSize::SmallInput,
            );
        });
        group.bench_function("all of it", |bencher| {
            bencher.iter(|| {
                spool.append(&mut encoder.encode(&records)).expect("there is room");
                let Ok(Some(Read::Batch(stored))) = spool.read() else { panic!("it was appended") };
                let records = decoder.decode(&stored).expect("it was encoded");
                spool.acknowledge(stored.position()).expect("the position is written");
                records
            });
        });
        group.finish();
    }
}

/// What the disk makes of each policy: appends alone.
fn policies(criterion: &mut Criterion) {
    let records = records(true);
    let (mut encoder, _) = codec(points());
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(BATCH as u64)).measurement_time(Duration::from_secs(3));
    for (name, fsync) in [
        ("never", Fsync::Never),
        ("each second", Fsync::Interval(Duration::from_secs(1))),
        ("each entry", Fsync::Each),
    ] {
        let folder = tempfile::tempdir_in(".").expect("a folder on a disk");
        let mut spool = open(folder.path(), fsync);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                spool.append(&mut encoder.encode(&records)).expect("there is room");
                if spool.bytes() > 512 << 20 {
                    while let Ok(Some(Read::Batch(stored))) = spool.read() {
                        spool.acknowledge(stored.position()).expect("the position is written");
                    }
                }
                spool.tend(std::time::Instant::now()).expect("the disk is well");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, costs, policies);
criterion_main!(benches);
