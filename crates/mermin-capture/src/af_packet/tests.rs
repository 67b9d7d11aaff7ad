//! Traffic between two namespaces: what comes out equals what was sent, what the kernel counted, and what eBPF sees.

use super::block::Cursor;
use super::{AfPacketError, AfPacketOptions, AfPacketSource};
use crate::ebpf::{EbpfOptions, EbpfSource};
use crate::interfaces::{Interface, discover};
use crate::testing::{self, Kept, PORT, Pair, Touchy, assert_balanced, finish, interface, run, send, sender};
use mermin_flow::{Hook, Loss, NO_VLAN, ObservationPoints, Polled, Source};
use mermin_wire::{Link, Unmetered};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const RING: u64 = 4 << 20;

/// Whether namespaces and packet sockets can be made; says what is missing where they can't.
fn can_run(test: &str) -> bool {
    let needed = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")];
    let missing = needed.into_iter().filter(|(bit, _)| !testing::has_capability(*bit));
    testing::can_run(test, missing.map(|(_, name)| name).collect())
}

fn options(ring_bytes: u64) -> AfPacketOptions {
    AfPacketOptions { ring_bytes, filters: crate::FilterRules::default(), follow: None }
}

fn open(device: &str, ring_bytes: u64) -> AfPacketSource {
    AfPacketSource::open(&[interface(device)], &Arc::default(), &options(ring_bytes)).unwrap()
}

/// Packets and bytes that a device has received and sent. A device that sends for the first time counts before it
/// hands over, so nothing is under way when the sender's call has returned.
fn device_counters(name: &str) -> [u64; 2] {
    let text = run("cat /proc/thread-self/net/dev");
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{name}:"))).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
    [numbers[0] + numbers[8], numbers[1] + numbers[9]]
}

#[test]
fn packet_socket_counts_equal_the_senders() {
    if !can_run("packet_socket_counts_equal_the_senders") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let receiver = UdpSocket::bind(("10.9.0.2", PORT)).unwrap();
        let points: Arc<ObservationPoints> = Arc::default();
        let mut source = AfPacketSource::open(&[interface("vb")], &points, &options(RING)).unwrap();
        for (number, hook) in [(0, Hook::Ingress), (1, Hook::Egress)] {
            let point = points.get(number).unwrap();
            assert_eq!((point.interface.as_deref(), point.hook), (Some("vb"), Some(hook)));
        }
        let before = source.watermark();
        Pair::inside(&pair.here, || {
            send(&sender(), 100, 100);
            // Longer than the snap length.
            send(&sender(), 10, 1_400);
        });
        receiver.send_to(&[1; 50], "10.9.0.1:5555").unwrap();
        let mut kept = Kept::default();
        let sightings = finish(&mut source, &mut kept);

        let sent = kept.to(PORT);
        assert_eq!(sent.len(), 110);
        for (at, seen) in sent.iter().enumerate() {
            let length = if at < 100 { 142 } else { 1_442 };
            assert_eq!(
                (seen.packets, seen.bytes, seen.frame_bytes, seen.buffers, u64::from(seen.buffer_bytes)),
                (1, length - 14, length, 1, length)
            );
            assert_eq!((seen.ports, seen.point, seen.ttl), ([5_555_u16.to_be(), PORT.to_be()], 0, 64));
            assert!(seen.start == seen.end && seen.start >= before && seen.macs != [0; 12]);
        }
        let answer: Vec<_> = kept.to(5_555).into_iter().filter(|seen| seen.point == 1).collect();
        assert_eq!(answer.iter().map(|seen| (seen.bytes, seen.frame_bytes)).collect::<Vec<_>>(), [(78, 92)]);
        assert!(sightings.ethertypes[&0x0806] >= 2);
        assert_eq!(sightings.lost.len() + sightings.inexact.len(), 0);
    });
}

/// A packet socket that sends whole frames.
fn raw(device: &str) -> OwnedFd {
    // SAFETY: no memory is passed; the descriptor is checked and new.
    let socket = unsafe {
        let descriptor = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        assert!(descriptor >= 0);
        OwnedFd::from_raw_fd(descriptor)
    };
    // SAFETY: integers and byte arrays, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = interface(device).index as i32;
    let length = size_of_val(&address) as u32;
    // SAFETY: an address of the family's type and its size.
    assert_eq!(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) }, 0);
    socket
}

fn transmit(socket: &OwnedFd, frame: &[u8]) {
    // SAFETY: a buffer and its length.
    let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

fn tagged(tags: &[[u8; 4]], payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(tags.concat());
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(((28 + payload) as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 1, 0, 2, 0x11, 0x11]);
    frame.extend(PORT.to_be_bytes());
    frame.extend(((8 + payload) as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(vec![1; payload]);
    frame
}

/// A tag is inline where the frame leaves and beside it where it arrives: the same observation.
#[test]
fn tags_beside_the_frame_count_as_tags_in_it() {
    if !can_run("tags_beside_the_frame_count_as_tags_in_it") {
        return;
    }
    let frames = [
        (tagged(&[], 100), [NO_VLAN, NO_VLAN]),
        (tagged(&[[0x81, 0, 0x60, 5]], 100), [5, NO_VLAN]),
        (tagged(&[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 8]], 100), [7, 8]),
    ];
    let pair = Pair::new();
    let mut near = Pair::inside(&pair.here, || open("va", RING));
    let mut far = Pair::inside(&pair.there, || open("vb", RING));
    Pair::inside(&pair.here, || {
        let socket = raw("va");
        frames.iter().for_each(|(frame, _)| transmit(&socket, frame));
    });
    let [mut left, mut arrived] = [Kept::default(), Kept::default()];
    finish(&mut near, &mut left);
    finish(&mut far, &mut arrived);
    let (left, arrived) = (left.to(PORT), arrived.to(PORT));
    assert_eq!((left.len(), arrived.len()), (3, 3));
    for (((frame, vlans), left), arrived) in frames.iter().zip(left).zip(arrived) {
        assert_eq!((left.point, arrived.point), (1, 0));
        let stripped = if vlans[0] == NO_VLAN { 0 } else { 4 };
        assert_eq!(u64::from(arrived.buffer_bytes), frame.len() as u64 - stripped);
        for seen in [left, arrived] {
            assert_eq!(([seen.vlan, seen.inner_vlan], seen.bytes), (*vlans, 128));
            assert_eq!(seen.frame_bytes, frame.len() as u64, "{vlans:?}");
        }
    }
}

/// Point, addresses, ports, protocol.
type Directed = (u16, [u64; 4], [u16; 2], u8);

/// Sums by hook and directed 5-tuple, of TCP and UDP.
fn sums(kept: &Kept) -> BTreeMap<Directed, [u64; 4]> {
    let mut sums = BTreeMap::new();
    for seen in kept.0.iter().filter(|seen| matches!(seen.protocol, 6 | 17)) {
        let sum: &mut [u64; 4] =
            sums.entry((seen.point, seen.addresses, seen.ports, seen.protocol)).or_default();
        sum[0] += u64::from(seen.packets);
        sum[1] += seen.bytes;
        sum[2] += seen.frame_bytes;
        sum[3] |= u64::from(seen.tcp_flags);
    }
    sums
}

#[test]
fn segmented_buffers_are_the_packets_that_ebpf_and_the_sender_count() {
    const BYTES: usize = 20_000_000;
    if !can_run("segmented_buffers_are_the_packets_that_ebpf_and_the_sender_count") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let listener = TcpListener::bind(("10.9.0.2", PORT)).unwrap();
        let mut socket = open("vb", 16 << 20);
        let points = Arc::new(ObservationPoints::default());
        let mut programs = match EbpfSource::open(&[interface("vb")], &points, &EbpfOptions::default()) {
            Ok(opened) => opened.source,
            Err(error) => {
                eprintln!("SKIP segmented_buffers_are_the_packets_that_ebpf_and_the_sender_count: {error}");
                return;
            }
        };
        let segments = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                Pair::inside(&pair.here, || {
                    let mut stream = TcpStream::connect(("10.9.0.2", PORT)).unwrap();
                    stream.write_all(&vec![9; BYTES]).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    stream.read_to_end(&mut Vec::new()).unwrap();
                    run("nstat -asz TcpOutSegs TcpRetransSegs")
                })
            });
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
            drop(stream);
            sender.join().unwrap()
        });
        let witness: u64 = segments
            .lines()
            .filter(|line| line.starts_with("Tcp"))
            .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
            .sum();
        let [mut by_socket, mut by_programs] = [Kept::default(), Kept::default()];
        let sightings = finish(&mut socket, &mut by_socket);
        finish(&mut programs, &mut by_programs);
        assert_eq!(sightings.lost.len(), 0, "{:?}", sightings.lost);
        let data = by_socket.to(PORT);
        let packets: u64 = data.iter().map(|seen| u64::from(seen.packets)).sum();
        assert!(packets > 2 * data.len() as u64, "offload was on: {packets} in {} buffers", data.len());
        assert_eq!(packets, witness);
        assert_eq!(sums(&by_socket), sums(&by_programs));
    });
}

/// The reader sleeps while the ring fills: the kernel drops, and says so to the packet.
#[test]
fn drops_of_a_stopped_reader_are_exact() {
    const SENT: usize = 5_000;
    if !can_run("drops_of_a_stopped_reader_are_exact") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        // Nothing but what is sent here: no neighbour or multicast discovery of IPv6.
        let quiet = || std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        quiet();
        Pair::inside(&pair.here, quiet);
        let _receiver = UdpSocket::bind(("10.9.0.2", PORT)).unwrap();
        let mut source = open("vb", 0);
        let counted = device_counters("vb");
        Pair::inside(&pair.here, || send(&sender(), SENT, 100));
        let live = source.sightings().unwrap();
        assert_balanced(&live, &Kept::default());
        assert!(live.in_ring.buffers > 0);
        let mut kept = Kept::default();
        let sightings = finish(&mut source, &mut kept);
        let lost = sightings.lost[&Loss::SocketDrop];
        let read = kept.to(PORT).len() as u64;
        assert!(read > 500 && read < 2_000, "256 KiB take about 900 of these: {read}");
        assert_eq!((lost.bytes, lost.buffer_bytes), (0, 0));
        assert_eq!(sightings.inexact, ["lost.socket_drop.bytes", "lost.socket_drop.buffer_bytes"]);
        // The device's own counters are the witness, address resolution included.
        let crossed = device_counters("vb")[1] - counted[1];
        assert!(crossed >= SENT as u64);
        assert_eq!(sightings.seen.buffers, crossed);
        assert_eq!(
            lost.packets + kept.0.len() as u64 + sightings.unmetered[Unmetered::Arp as usize].packets,
            crossed
        );
    });
}

#[test]
fn snapshots_of_the_socket_balance_while_traffic_flows() {
    if !can_run("snapshots_of_the_socket_balance_while_traffic_flows") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let _receiver = UdpSocket::bind(("10.9.0.2", PORT)).unwrap();
        let mut source = open("vb", RING);
        let (stop, mut kept) = (AtomicBool::new(false), Kept::default());
        let sent = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                Pair::inside(&pair.here, || {
                    let (socket, mut sent) = (sender(), 0);
                    while !stop.load(Ordering::Relaxed) {
                        send(&socket, 10, 30);
                        sent += 10;
                    }
                    sent
                })
            });
            let mut watermark = source.watermark();
            for round in 0..200 {
                if source.poll(&mut kept, 50 + round) == Polled::Drained {
                    source.wait(Duration::from_millis(50));
                }
                assert_balanced(&source.sightings().unwrap(), &kept);
                assert!(source.watermark() >= watermark);
                watermark = source.watermark();
            }
            stop.store(true, Ordering::Relaxed);
            sender.join().unwrap()
        });
        let sightings = finish(&mut source, &mut kept);
        let lost = sightings.lost.get(&Loss::SocketDrop).map_or(0, |lost| lost.packets);
        assert!(kept.to(PORT).len() as u64 + lost >= sent);
    });
}

/// What comes after a watermark is not older than it.
#[test]
fn no_frame_is_older_than_the_watermark_before_it() {
    if !can_run("no_frame_is_older_than_the_watermark_before_it") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let mut source = open("vb", RING);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                Pair::inside(&pair.here, || {
                    let socket = sender();
                    for _ in 0..100 {
                        send(&socket, 1, 30);
                        // Slower than blocks fill and about as fast as they are handed over.
                        thread::sleep(Duration::from_millis(3));
                    }
                });
                done.store(true, Ordering::Relaxed);
            });
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                let (watermark, mut kept) = (source.watermark(), Kept::default());
                if source.poll(&mut kept, 1_000) == Polled::Drained {
                    source.wait(Duration::from_millis(7));
                }
                assert!(kept.0.iter().all(|seen| seen.start >= watermark));
                seen += kept.to(PORT).len();
            }
            assert!(seen > 20, "{seen}");
        });
    });
}

#[test]
fn a_panic_costs_the_frame_that_it_was_at() {
    if !can_run("a_panic_costs_the_frame_that_it_was_at") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let mut source = open("vb", RING);
        Pair::inside(&pair.here, || send(&sender(), 500, 100));
        let mut touchy = Touchy::default();
        let sightings = touchy.finish(&mut source);
        assert!(touchy.kept.to(PORT).len() as u64 + touchy.panics >= 500);
        assert!(sightings.inexact.contains(&"lost.worker_quarantine.packets"));
    });
}

#[test]
fn waiting_for_the_socket_ends_with_frames_or_with_time() {
    if !can_run("waiting_for_the_socket_ends_with_frames_or_with_time") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let mut source = open("vb", RING);
        let waited = |source: &mut AfPacketSource, at_most| {
            let start = Instant::now();
            source.wait(at_most);
            start.elapsed()
        };
        // Duplicate address detection and the like may come first.
        while source.poll(&mut Kept::default(), 1_000) != Polled::Drained
            || waited(&mut source, Duration::from_millis(300)) < Duration::from_millis(300)
        {}
        Pair::inside(&pair.here, || send(&sender(), 1, 30));
        assert!(waited(&mut source, Duration::from_secs(20)) < Duration::from_secs(10));
        let mut kept = Kept::default();
        source.poll(&mut kept, 1_000);
        assert!(source.rejected() + kept.0.len() as u64 > 0);
    });
}

#[test]
fn an_interface_that_goes_away_leaves_a_source_that_can_be_read_to_its_end() {
    if !can_run("an_interface_that_goes_away_leaves_a_source_that_can_be_read_to_its_end") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let mut source = open("vb", RING);
        Pair::inside(&pair.here, || send(&sender(), 10, 30));
        run("ip link del vb");
        // The error is taken once; waiting then lasts as long as asked.
        while source.poll(&mut Kept::default(), 1_000) != Polled::Drained {}
        source.wait(Duration::from_millis(200));
        let mut kept = Kept::default();
        while source.poll(&mut kept, 1_000) != Polled::Drained {}
        let start = Instant::now();
        source.wait(Duration::from_millis(200));
        assert!(start.elapsed() >= Duration::from_millis(200));
        source.close();
        while source.poll(&mut kept, 1_000) != Polled::Ended {}
    });
}

#[test]
fn what_cannot_be_opened_says_why() {
    if !can_run("what_cannot_be_opened_says_why") {
        return;
    }
    let gone = Interface { name: "gone".into(), index: 999_999, link: Link::Ethernet, up: true };
    let points = Arc::new(ObservationPoints::default());
    let error = AfPacketSource::open(std::slice::from_ref(&gone), &points, &options(RING)).err().unwrap();
    assert!(
        matches!(&error, AfPacketError::NoInterface { count: 1, source: Some(source) }
            if source.raw_os_error() == Some(libc::ENODEV)),
        "{error:?}"
    );
    let here = discover().unwrap().into_iter().find(|device| &*device.name == "lo").unwrap();
    let loopback = Interface { name: here.name, index: here.index, link: Link::Ethernet, up: here.up };
    let source = AfPacketSource::open(&[gone, loopback.clone()], &points, &options(RING)).unwrap();
    assert_eq!(source.skipped().iter().map(|skipped| &*skipped.interface).collect::<Vec<_>>(), ["gone"]);

    // Capabilities belong to a thread: this one gives all of them up.
    let error = thread::spawn(move || {
        let header = [0x2008_0522_u32, 0];
        let sets = [0_u32; 6];
        // SAFETY: header and sets of version 3, which has two times three words.
        assert_eq!(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }, 0);
        AfPacketSource::open(&[loopback], &Arc::default(), &options(RING)).err().unwrap()
    })
    .join()
    .unwrap();
    assert!(matches!(error, AfPacketError::Permission), "{error:?}");
}

proptest! {
    /// The kernel writes blocks; a wrong one must not take the reader down.
    #[test]
    fn any_block_can_be_walked(mut block in prop::collection::vec(any::<u8>(), 0..300), frames in 0u32..5) {
        if let Some(count) = block.get_mut(12..16) {
            count.copy_from_slice(&frames.to_ne_bytes());
        }
        let mut cursor = Cursor::first(&block);
        while cursor.left > 0 {
            cursor.take(&block);
        }
    }
}
