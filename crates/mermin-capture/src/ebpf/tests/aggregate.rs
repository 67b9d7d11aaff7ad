//! Sums of the kernel between two namespaces: per flow and in all what was sent, whatever had to leave its slot.

use super::can_run;
use crate::ebpf::{Aggregation, EbpfOptions, EbpfSource};
use crate::testing::{Kept, Pair, assert_balanced, finish, interface};
use crate::{CaptureMode, KernelTable};
use mermin_flow::{Loss, ObservationPoints, Polled, Source as _};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn open(ring_bytes: u64, aggregation: Aggregation) -> EbpfSource {
    let points = Arc::new(ObservationPoints::default());
    let options =
        EbpfOptions { ring_bytes, mode: CaptureMode::Aggregate, aggregation, ..EbpfOptions::default() };
    EbpfSource::open(&[interface("vb")], &points, &options).unwrap().source
}

/// Packets and buffer bytes by destination port, of those from `va`.
fn by_port(kept: &Kept) -> BTreeMap<u16, (u64, u64)> {
    let mut sums = BTreeMap::<_, (u64, u64)>::new();
    for o in kept.0.iter().filter(|o| o.protocol == 17 && o.point == 0 && o.ports[0] == 5_555_u16.to_be()) {
        let sum = sums.entry(u16::from_be(o.ports[1])).or_default();
        sum.0 += u64::from(o.packets);
        sum.1 += u64::from(o.buffer_bytes);
    }
    sums
}

/// Sends to each of so many ports in turn, with payloads of several lengths, round after round while `again` says so; what
/// arrives by port.
fn flood(pair: &Pair, flows: u16, mut again: impl FnMut(usize) -> bool + Send) -> BTreeMap<u16, (u64, u64)> {
    let mut sent = BTreeMap::<_, (u64, u64)>::new();
    Pair::inside(&pair.here, || {
        let socket = crate::testing::sender();
        let mut round = 0;
        while again(round) {
            for flow in 0..flows {
                let (port, payload) = (10_000 + flow, 20 + (round * 300 + usize::from(flow)) * 7 % 900);
                socket.send_to(&vec![7; payload], ("10.9.0.2", port)).unwrap();
                let sum = sent.entry(port).or_default();
                sum.0 += 1;
                sum.1 += payload as u64 + 42;
            }
            round += 1;
        }
    });
    sent
}

/// Polls until `over`, with snapshots that balance; how many there were.
fn watch(source: &mut EbpfSource, kept: &mut Kept, mut over: impl FnMut() -> bool) -> usize {
    let mut snapshots = 0;
    while !over() {
        while source.poll(kept, 256) == Polled::More {}
        if let Some(sightings) = source.sightings() {
            assert_balanced(&sightings, kept);
            snapshots += 1;
        }
        source.wait(Duration::from_millis(2));
    }
    snapshots
}

/// Eight slots for each CPU, so that nearly every packet has another flow leave, or the hash alone; a ring and a hash with
/// room, one of them, or none.
#[test]
fn sums_are_what_was_sent_however_they_came() {
    if !can_run("sums_are_what_was_sent_however_they_came") {
        return;
    }
    let (in_slots, in_hash) = (KernelTable::Slots, KernelTable::Hash);
    for (table, ring_bytes, hash_flows, loses) in [
        (in_slots, 1 << 24, 16, false),
        (in_slots, 4_096, 1_024, false),
        (in_slots, 4_096, 16, true),
        (in_hash, 4_096, 1_024, false),
        (in_hash, 1 << 24, 16, false),
        (in_hash, 4_096, 16, true),
    ] {
        let pair = Pair::new();
        Pair::inside(&pair.there, || {
            // Where nobody listens: then an answer comes for each.
            let _receivers: Vec<_> =
                (10_000..10_300).map(|port| UdpSocket::bind(("10.9.0.2", port)).unwrap()).collect();
            let aggregation = Aggregation { table, slots: 8, hash_flows, ..Aggregation::default() };
            let mut source = open(ring_bytes, aggregation);
            let sent = flood(&pair, 300, |round| round < 20);
            let mut kept = Kept::default();
            let sightings = finish(&mut source, &mut kept);
            let lost = sightings.lost.get(&Loss::KernelTableFull).copied().unwrap_or_default();
            let came = by_port(&kept);
            if loses {
                let packets = |sums: &BTreeMap<u16, (u64, u64)>| sums.values().map(|sum| sum.0).sum::<u64>();
                let missing = packets(&sent) - packets(&came);
                assert!(missing > 0 && lost.packets >= missing, "{missing} {lost:?}");
                // What was not sent by the test (neighbour discovery) may be among it.
                assert!(lost.packets < missing + 20, "{missing} {lost:?}");
                assert!(came.iter().all(|(port, sum)| *sum <= sent[port]));
            } else {
                assert_eq!(lost.packets, 0, "{table:?} {ring_bytes} {hash_flows}");
                assert_eq!(came, sent, "{table:?} {ring_bytes} {hash_flows}");
            }
        });
    }
}

/// Ends the traffic also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// An epoch ends every few milliseconds while packets flow.
#[test]
fn every_snapshot_balances_and_no_packet_is_counted_twice() {
    if !can_run("every_snapshot_balances_and_no_packet_is_counted_twice") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let _receivers: Vec<_> =
            (10_000..10_100).map(|port| UdpSocket::bind(("10.9.0.2", port)).unwrap()).collect();
        let aggregation =
            Aggregation { slots: 64, drain_max: Duration::from_millis(1), ..Aggregation::default() };
        let mut source = open(1 << 20, aggregation);
        let (over, mut kept) = (AtomicBool::new(false), Kept::default());
        let sent = thread::scope(|scope| {
            let sending = scope.spawn(|| flood(&pair, 100, |_| !over.load(Ordering::Acquire)));
            let _over = Over(&over);
            let began = Instant::now();
            let mut snapshots = 0;
            while snapshots < 20 {
                assert!(began.elapsed() < Duration::from_secs(60), "{snapshots} snapshots");
                let until = Instant::now() + Duration::from_millis(20);
                snapshots += watch(&mut source, &mut kept, || Instant::now() >= until);
            }
            over.store(true, Ordering::Release);
            sending.join().unwrap()
        });
        finish(&mut source, &mut kept);
        assert_eq!(by_port(&kept), sent);
    });
}

/// Times are those of the tick before; a sum comes no later than its epoch's end tells.
#[test]
fn times_lie_within_the_traffic_and_ahead_of_no_watermark() {
    if !can_run("times_lie_within_the_traffic_and_ahead_of_no_watermark") {
        return;
    }
    const TICK: u64 = 10_000_000;
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let _receiver = UdpSocket::bind(("10.9.0.2", 10_000)).unwrap();
        let aggregation = Aggregation { drain_max: Duration::from_millis(20), ..Aggregation::default() };
        let mut source = open(1 << 20, aggregation);
        let began = source.watermark();
        let mut kept = Kept::default();
        for _ in 0..10 {
            let before = (source.watermark(), kept.0.len());
            flood(&pair, 1, |round| round < 50);
            let until = Instant::now() + Duration::from_millis(60);
            watch(&mut source, &mut kept, || Instant::now() >= until);
            for o in &kept.0[before.1..] {
                assert!(o.start + TICK >= before.0, "{} before {}", o.start, before.0);
            }
        }
        finish(&mut source, &mut kept);
        let end = source.watermark();
        let sums: Vec<_> = kept.0.iter().filter(|o| o.ports[1] == 10_000_u16.to_be()).collect();
        assert!(sums.len() >= 10 && sums.iter().any(|o| o.packets > 10), "{}", sums.len());
        for o in sums {
            assert!(began <= o.start + TICK && o.start <= o.end && o.end <= end + 2 * TICK);
        }
    });
}
