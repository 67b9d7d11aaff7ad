//! Traffic between two namespaces: what comes out equals what was sent.

use super::can_run;
use crate::config::RING_BYTES;
use crate::ebpf::{Attached, EbpfOptions, EbpfSource, hooks};
use crate::testing::{Kept, PORT, Pair, Touchy, assert_balanced, finish, interface, run, send, sender};
use crate::{AttachKind, CaptureMode};
use mermin_flow::{Hook, Loss, Observation, ObservationPoints, Polled, Source as _};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(super) fn open(device: &str, ring_bytes: u64, attach: AttachKind) -> EbpfSource {
    let points = Arc::new(ObservationPoints::default());
    let mode = CaptureMode::Packet;
    let options = EbpfOptions { ring_bytes, attach, mode, ..EbpfOptions::default() };
    let opened = EbpfSource::open(&[interface(device)], &points, &options).unwrap();
    assert!(opened.skipped.is_empty());
    for (number, hook) in [(0, Hook::Ingress), (1, Hook::Egress)] {
        let point = points.get(number).unwrap();
        assert_eq!((point.interface.as_deref(), point.hook), (Some(device), Some(hook)));
    }
    opened.source
}

fn udp_counts(way: AttachKind) {
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let receiver = UdpSocket::bind(("10.9.0.2", PORT)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut source = open("vb", RING_BYTES, way);
        let before = source.watermark();
        Pair::inside(&pair.here, || send(&sender(), 100, 100));
        for _ in 0..100 {
            receiver.recv(&mut [0; 200]).unwrap();
        }
        receiver.send_to(&[1; 50], "10.9.0.1:5555").unwrap();
        let mut kept = Kept::default();
        let sightings = finish(&mut source, &mut kept);

        let sent: Vec<&Observation> = kept.to(PORT);
        assert_eq!(sent.len(), 100);
        for o in &sent {
            assert_eq!((o.packets, o.bytes, o.frame_bytes, o.buffers, o.buffer_bytes), (1, 128, 142, 1, 142));
            assert_eq!((o.addresses[0] as u32).to_ne_bytes(), [10, 9, 0, 1]);
            assert_eq!((o.ports, o.point, o.ttl), ([5_555_u16.to_be(), PORT.to_be()], 0, 64));
            assert!(o.start == o.end && o.start >= before && o.macs != [0; 12]);
        }
        let answer: Vec<&Observation> = kept.to(5_555).into_iter().filter(|o| o.point == 1).collect();
        assert_eq!(answer.iter().map(|o| (o.bytes, o.frame_bytes)).collect::<Vec<_>>(), [(78, 92)]);
        // The sender had to ask for the address.
        assert!(sightings.ethertypes[&0x0806] >= 2);
        assert!(source.watermark() >= before);
    });
}

#[test]
fn udp_counts_equal_the_senders() {
    if can_run("udp_counts_equal_the_senders") {
        udp_counts(AttachKind::Tcx);
    }
}

#[test]
fn udp_counts_equal_the_senders_by_clsact() {
    if can_run("udp_counts_equal_the_senders_by_clsact") {
        udp_counts(AttachKind::Clsact);
    }
}

#[test]
fn segmented_buffers_equal_the_receivers_wire_packets() {
    const BYTES: usize = 20_000_000;
    if !can_run("segmented_buffers_equal_the_receivers_wire_packets") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let listener = TcpListener::bind(("10.9.0.2", PORT)).unwrap();
        let mut source = open("vb", RING_BYTES, AttachKind::Tcx);
        let segments = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                Pair::inside(&pair.here, || {
                    let mut stream = TcpStream::connect(("10.9.0.2", PORT)).unwrap();
                    stream.write_all(&vec![9; BYTES]).unwrap();
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                    // Until the other end has closed too, so that everything was acknowledged.
                    stream.read_to_end(&mut Vec::new()).unwrap();
                    run("nstat -asz TcpOutSegs TcpRetransSegs")
                })
            });
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            assert_eq!(received.len(), BYTES);
            drop(stream);
            sender.join().unwrap()
        });
        let witness = |name: &str| -> u64 {
            let line = segments.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let mut kept = Kept::default();
        finish(&mut source, &mut kept);
        let data: Vec<&Observation> = kept.to(PORT);
        let packets: u64 = data.iter().map(|o| u64::from(o.packets)).sum();
        assert!(packets > 2 * data.len() as u64, "offload was on: {packets} in {} buffers", data.len());
        // The kernel leaves retransmissions out of the first number.
        let repeated = witness("TcpRetransSegs");
        assert_eq!(packets, witness("TcpOutSegs") + repeated);
        let ip_bytes: u64 = data.iter().map(|o| o.bytes).sum();
        let frame_bytes: u64 = data.iter().map(|o| o.frame_bytes).sum();
        assert_eq!(frame_bytes - ip_bytes, 14 * packets);
        // Each packet has its headers, 52 bytes of IP and TCP with timestamps; the SYN's options are 8 bytes longer.
        // What was sent again carries up to 1 448 bytes each.
        let payload = ip_bytes - 52 * packets - 8;
        let bytes = BYTES as u64;
        assert!(payload >= bytes && payload <= bytes + 1_448 * repeated, "{payload}, {repeated} sent again");
    });
}

#[test]
fn a_panic_costs_the_event_that_it_was_at() {
    if !can_run("a_panic_costs_the_event_that_it_was_at") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let mut source = open("vb", RING_BYTES, AttachKind::Tcx);
        Pair::inside(&pair.here, || send(&sender(), 250, 100));
        let mut touchy = Touchy::default();
        // Some before the book of their epoch is closed, some after.
        for _ in 0..20 {
            touchy.poll(&mut source, 9);
        }
        while source.sightings().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        Pair::inside(&pair.here, || send(&sender(), 250, 100));
        let sightings = touchy.finish(&mut source);
        let lost = sightings.lost[&Loss::WorkerQuarantine];
        assert_eq!((lost.packets, lost.buffers), (touchy.panics, touchy.panics));
        assert!(touchy.kept.to(PORT).len() as u64 + lost.packets >= 500);
    });
}

#[test]
fn a_full_ring_is_counted_exactly() {
    if !can_run("a_full_ring_is_counted_exactly") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let _receiver = UdpSocket::bind(("10.9.0.2", PORT)).unwrap();
        let mut source = open("vb", 4_096, AttachKind::Tcx);
        Pair::inside(&pair.here, || send(&sender(), 1_000, 100));
        let unread = loop {
            if let Some(sightings) = source.sightings() {
                break sightings;
            }
            thread::yield_now();
        };
        assert_balanced(&unread, &Kept::default());
        assert!((20..40).contains(&unread.in_ring.buffers), "{unread:?}");
        let mut kept = Kept::default();
        let sightings = finish(&mut source, &mut kept);
        let lost = sightings.lost[&Loss::RingFull];
        let read = kept.to(PORT).len() as u64;
        // 104 bytes each: 39 fit; neighbour discovery may have taken a few.
        assert!((20..40).contains(&read), "{read}");
        let others = kept.0.len() as u64 - read;
        assert!(lost.packets >= 1_000 - read && lost.packets <= 1_000 - read + 20, "{lost:?} {others}");
        assert_eq!((lost.buffers, lost.bytes), (lost.packets, lost.buffer_bytes));
        assert!(lost.bytes >= 142 * (1_000 - read));
    });
}

#[test]
fn snapshots_balance_while_traffic_flows() {
    if !can_run("snapshots_balance_while_traffic_flows") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let _receiver = UdpSocket::bind(("10.9.0.2", PORT)).unwrap();
        // Small, so that losses are among what must balance.
        let mut source = open("vb", 65_536, AttachKind::Tcx);
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut kept = Kept::default();
        let mut snapshots = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                Pair::inside(&pair.here, || {
                    let socket = sender();
                    while !stop.load(Ordering::Relaxed) {
                        send(&socket, 100, 60);
                        sent.fetch_add(100, Ordering::Relaxed);
                    }
                });
            });
            let began = Instant::now();
            let mut last = 0;
            while snapshots < 40 && began.elapsed() < Duration::from_secs(20) {
                while source.poll(&mut kept, 256) == Polled::More {}
                if let Some(sightings) = source.sightings() {
                    assert_balanced(&sightings, &kept);
                    assert!(sightings.seen.buffers >= last);
                    last = sightings.seen.buffers;
                    snapshots += 1;
                }
                source.wait(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(snapshots, 40);
        let sightings = finish(&mut source, &mut kept);
        let metered = kept.to(PORT).len() as u64;
        let lost = sightings.lost[&Loss::RingFull].packets;
        let sent = sent.load(Ordering::Relaxed);
        assert!(
            sent > 1_000 && metered + lost >= sent && metered + lost <= sent + 50,
            "{metered} + {lost}, {sent}"
        );
    });
}

/// Ends the traffic also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The end is a moment of the books: packets go on coming while and after the source is closed.
#[test]
fn an_end_in_the_midst_of_traffic_balances() {
    if !can_run("an_end_in_the_midst_of_traffic_balances") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let _receiver = UdpSocket::bind(("10.9.0.2", PORT)).unwrap();
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let _stop = Stop(&stop);
            scope.spawn(|| {
                Pair::inside(&pair.here, || {
                    let socket = sender();
                    while !stop.load(Ordering::Relaxed) {
                        send(&socket, 10, 60);
                        sent.fetch_add(10, Ordering::Relaxed);
                    }
                });
            });
            for round in 0..10 {
                // Small in half of the rounds, so that losses are among what must balance.
                let ring_bytes = if round % 2 == 0 { 65_536 } else { RING_BYTES };
                let mut source = open("vb", ring_bytes, AttachKind::Tcx);
                let mut kept = Kept::default();
                while kept.to(PORT).len() < 1_000 {
                    source.poll(&mut kept, 100);
                }
                let before = sent.load(Ordering::Relaxed);
                finish(&mut source, &mut kept);
                while sent.load(Ordering::Relaxed) < before + 1_000 {
                    thread::yield_now();
                }
                // What came after the end is nobody's.
                let (kept_before, sightings) = (kept.0.len(), source.sightings().unwrap());
                assert_eq!(source.poll(&mut kept, 100), Polled::Ended);
                assert_eq!((kept.0.len(), source.sightings().unwrap()), (kept_before, sightings));
            }
        });
    });
}

/// What is attached, once it is `expected` or half a minute has passed: a child process that another test starts has all
/// descriptors of this process, links too, until it becomes its program.
fn settled(expected: &[Attached]) -> Vec<Attached> {
    let began = Instant::now();
    loop {
        let attached = hooks("vb").unwrap();
        if attached == expected || began.elapsed() > Duration::from_secs(30) {
            return attached;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn programs_go_with_the_source_and_others_stay() {
    if !can_run("programs_go_with_the_source_and_others_stay") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let other = open("vb", 4_096, AttachKind::Tcx);
        let before = hooks("vb").unwrap();
        assert_eq!(before.iter().map(|a| a.hook).collect::<Vec<_>>(), [Hook::Ingress, Hook::Egress]);
        assert!(before.iter().all(|attached| attached.name.starts_with("mermin_")));

        let mut source = open("vb", 4_096, AttachKind::Tcx);
        let both = hooks("vb").unwrap();
        // First at ingress, last at egress.
        assert_eq!(both.len(), 4);
        assert_eq!((both[1].id, both[2].id), (before[0].id, before[1].id));
        source.close();
        assert_eq!(settled(&before), before, "closing takes programs off");
        drop(source);

        let third = open("vb", 4_096, AttachKind::Tcx);
        assert_eq!(hooks("vb").unwrap().len(), 4);
        drop(third);
        assert_eq!(settled(&before), before, "dropping takes programs off");
        drop(other);
        assert_eq!(settled(&[]), []);
    });
}

#[test]
fn a_device_that_refuses_is_skipped_and_named() {
    if !can_run("a_device_that_refuses_is_skipped_and_named") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let gone = crate::interfaces::Interface { name: "gone0".into(), index: 999, ..interface("vb") };
        let points = Arc::new(ObservationPoints::default());
        let mode = CaptureMode::Packet;
        let options = EbpfOptions { ring_bytes: 4_096, mode, ..EbpfOptions::default() };
        let opened = EbpfSource::open(&[gone.clone(), interface("vb")], &points, &options).unwrap();
        assert_eq!(opened.skipped.len(), 1);
        assert_eq!(&*opened.skipped[0].interface, "gone0");
        assert_eq!(hooks("vb").unwrap().len(), 2);
        let error = EbpfSource::open(&[gone], &points, &options).err().unwrap();
        assert_eq!(error.to_string(), "no program can be attached to any of the 1 selected interfaces");
    });
}

#[test]
fn waiting_ends_with_the_first_packet() {
    if !can_run("waiting_ends_with_the_first_packet") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let mut source = open("vb", RING_BYTES, AttachKind::Tcx);
        let mut kept = Kept::default();
        thread::scope(|scope| {
            scope.spawn(|| Pair::inside(&pair.here, || send(&sender(), 1, 10)));
            let began = Instant::now();
            while kept.to(PORT).is_empty() {
                source.wait(Duration::from_secs(30));
                source.poll(&mut kept, 100);
                assert!(began.elapsed() < Duration::from_secs(20), "the wait did not end");
            }
        });
        finish(&mut source, &mut kept);
    });
}
