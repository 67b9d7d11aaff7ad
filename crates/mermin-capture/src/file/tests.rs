//! Hand-made captures: each feature of the formats, each kind of damage, any bytes, and the captures in `../shared`.

use super::{Damage, Fault, OpenError, Part, ReplaySource};
use flate2::Compression;
use flate2::write::GzEncoder;
use mermin_flow::{
    NO_VLAN, Observation, ObservationPoint, ObservationPoints, Polled, Sightings, Sink, Source, Tally,
};
use mermin_wire::Unmetered;
use proptest::prelude::*;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A UDP packet over IPv4 over Ethernet: 42 bytes of headers.
fn frame(port: u16, payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend(((28 + payload) as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53]);
    frame.extend(((8 + payload) as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(vec![0xaa; payload]);
    frame
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Order {
    Little,
    Big,
}
use Order::{Big, Little};

/// Writes words in one byte order.
struct Bytes(Order, Vec<u8>);
impl Bytes {
    fn half(&mut self, value: u16) -> &mut Self {
        self.1.extend(if self.0 == Big { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }
    fn word(&mut self, value: u32) -> &mut Self {
        self.1.extend(if self.0 == Big { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.1.extend(bytes);
        self
    }
    fn pad(&mut self) -> &mut Self {
        while !self.1.len().is_multiple_of(4) {
            self.1.push(0);
        }
        self
    }
}

fn pcap(order: Order, magic: u32, network: u32, records: &[(u32, u32, Vec<u8>, u32)]) -> Vec<u8> {
    let mut file = Bytes(order, Vec::new());
    file.word(magic).half(2).half(4).word(0).word(0).word(65_535).word(network);
    for (seconds, fraction, data, wire) in records {
        file.word(*seconds).word(*fraction).word(data.len() as u32).word(*wire);
        if magic == 0xa1b2_cd34 {
            file.raw(&[9; 8]);
        }
        file.raw(data);
    }
    file.1
}

fn plain(count: usize) -> Vec<u8> {
    let records: Vec<_> = (0..count).map(|i| (1_000 + i as u32, 7, frame(i as u16, 10), 52)).collect();
    pcap(Little, 0xa1b2_c3d4, 1, &records)
}

fn block(order: Order, kind: u32, content: &[u8]) -> Vec<u8> {
    let mut block = Bytes(order, Vec::new());
    let length = 12 + content.len().next_multiple_of(4) as u32;
    block.word(kind).word(length).raw(content).pad().word(length);
    block.1
}
fn section(order: Order) -> Vec<u8> {
    let mut content = Bytes(order, Vec::new());
    content.word(0x1a2b_3c4d).half(1).half(0).raw(&[0xff; 8]);
    block(order, 0x0a0d_0d0a, &content.1)
}
/// Link type, snap length, options by code.
fn interface(order: Order, link: u16, snap: u32, options: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut content = Bytes(order, Vec::new());
    content.half(link).half(0).word(snap);
    for (code, value) in options {
        content.half(*code).half(value.len() as u16).raw(value).pad();
    }
    block(order, 1, &content.1)
}
fn enhanced(order: Order, interface: u32, ticks: u64, data: &[u8], wire: u32) -> Vec<u8> {
    let mut content = Bytes(order, Vec::new());
    content.word(interface).word((ticks >> 32) as u32).word(ticks as u32).word(data.len() as u32).word(wire);
    // An option behind the data: a comment.
    content.raw(data).pad().half(1).half(2).raw(b"ok").pad();
    block(order, 6, &content.1)
}
fn obsolete(order: Order, interface: u16, ticks: u64, data: &[u8]) -> Vec<u8> {
    let mut content = Bytes(order, Vec::new());
    content.half(interface).half(3).word((ticks >> 32) as u32).word(ticks as u32);
    content.word(data.len() as u32).word(data.len() as u32).raw(data);
    block(order, 2, &content.1)
}
fn simple(order: Order, data: &[u8], wire: u32) -> Vec<u8> {
    let mut content = Bytes(order, Vec::new());
    content.word(wire).raw(data);
    block(order, 3, &content.1)
}

#[derive(Default)]
struct Kept(Vec<Observation>);
impl Sink for Kept {
    fn observe(&mut self, observation: Observation) {
        self.0.push(observation);
    }
}
impl Kept {
    fn times(&self) -> Vec<u64> {
        self.0.iter().map(|seen| seen.start).collect()
    }
    fn ports(&self) -> Vec<u16> {
        self.0.iter().map(|seen| u16::from_be(seen.ports[0])).collect()
    }
}

/// Reads to the end; the book has to balance.
fn drain(source: &mut ReplaySource, budget: usize) -> (Kept, Sightings) {
    let mut kept = Kept::default();
    let mut watermark = 0;
    while source.poll(&mut kept, budget) != Polled::Ended {
        assert!(source.watermark() >= watermark);
        watermark = source.watermark();
    }
    let sightings = source.sightings().unwrap();
    let metered: Tally = kept.0.iter().map(Observation::tally).sum();
    let unmetered: Tally = sightings.unmetered.iter().copied().sum();
    let left = metered + unmetered;
    assert_eq!((sightings.seen.buffers, sightings.seen.buffer_bytes), (left.buffers, left.buffer_bytes));
    assert_eq!(source.rejected(), unmetered.packets);
    (kept, sightings)
}

fn reader(bytes: Vec<u8>) -> (ReplaySource, Arc<ObservationPoints>) {
    let points = Arc::new(ObservationPoints::default());
    (ReplaySource::from_reader("made", Box::new(Cursor::new(bytes)), Arc::clone(&points)), points)
}

fn read(bytes: Vec<u8>) -> (Kept, Sightings, Vec<String>) {
    let (mut source, _) = reader(bytes);
    let (kept, sightings) = drain(&mut source, 3);
    (kept, sightings, source.damages().iter().map(Damage::to_string).collect())
}

#[test]
fn classic_magics() {
    for (order, magic, nanos) in [
        (Little, 0xa1b2_c3d4, 7_000),
        (Big, 0xa1b2_c3d4, 7_000),
        (Little, 0xa1b2_3c4d, 7),
        (Big, 0xa1b2_3c4d, 7),
        (Little, 0xa1b2_cd34, 7_000),
    ] {
        let file = pcap(order, magic, 1, &[(5, 7, frame(1, 10), 52), (6, 7, frame(2, 0), 1500)]);
        let (kept, sightings, damages) = read(file);
        assert_eq!(damages, [""; 0], "{order:?} {magic:x}");
        assert_eq!(kept.times(), [5_000_000_000 + nanos, 6_000_000_000 + nanos]);
        assert_eq!((kept.0[0].bytes, kept.0[0].frame_bytes), (38, 52));
        assert_eq!((kept.0[1].bytes, kept.0[1].frame_bytes), (28, 1500));
        assert_eq!(sightings.seen.buffer_bytes, 1552);
    }
}

#[test]
fn an_observation_says_what_the_frame_says() {
    let (kept, ..) = read(pcap(Little, 0xa1b2_c3d4, 0xf000_0001, &[(5, 7, frame(0x1234, 10), 52)]));
    let expected = Observation {
        addresses: [
            u64::from(u32::from_ne_bytes([10, 0, 0, 1])),
            0,
            u64::from(u32::from_ne_bytes([10, 0, 0, 2])),
            0,
        ],
        start: 5_000_007_000,
        end: 5_000_007_000,
        bytes: 38,
        frame_bytes: 52,
        packets: 1,
        buffers: 1,
        buffer_bytes: 52,
        ports: [0x1234u16.to_be(), 53u16.to_be()],
        macs: [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2],
        vlan: NO_VLAN,
        inner_vlan: NO_VLAN,
        protocol: 17,
        ip_version: 4,
        port_form: mermin_flow::PortForm::Ports,
        ttl: 64,
        ..Observation::EMPTY
    };
    assert_eq!(kept.0, [expected]);
}

#[test]
fn what_is_not_metered_is_counted_by_reason() {
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    let (kept, sightings, _) =
        read(pcap(Little, 0xa1b2_c3d4, 1, &[(1, 0, arp.clone(), 60), (2, 0, arp, 60)]));
    assert_eq!(kept.0.len(), 0);
    assert_eq!(
        sightings.unmetered[Unmetered::Arp as usize],
        Tally { packets: 2, bytes: 120, buffers: 2, buffer_bytes: 120 }
    );
    assert_eq!(sightings.ethertypes.into_iter().collect::<Vec<_>>(), [(0x0806, 2)]);

    // PPP has no parser here, and that is no damage.
    let (_, sightings, damages) = read(pcap(Little, 0xa1b2_c3d4, 9, &[(1, 0, vec![0; 40], 40)]));
    assert_eq!(sightings.unmetered[Unmetered::LinkType as usize].packets, 1);
    assert_eq!(damages.len(), 0);

    // The datagram claims 38 bytes, the wire had 10 fewer.
    let (kept, sightings, _) = read(pcap(Little, 0xa1b2_c3d4, 1, &[(1, 0, frame(1, 10)[..42].to_vec(), 42)]));
    assert_eq!(kept.0[0].bytes, 28);
    assert_eq!(sightings.anomalies.into_iter().collect::<Vec<_>>(), [("ip_length_over_frame", 1)]);

    // Fewer bytes on the wire than captured can't be.
    let (kept, ..) = read(pcap(Little, 0xa1b2_c3d4, 1, &[(1, 0, frame(1, 10), 3)]));
    assert_eq!(kept.0[0].frame_bytes, 52);
}

#[test]
fn pcapng_blocks_in_both_byte_orders() {
    for order in [Little, Big] {
        let file = [
            section(order),
            interface(order, 1, 0, &[(2, b"eth0".to_vec())]),
            block(order, 0x4242, &[1; 1000]),
            enhanced(order, 0, 5_000_007, &frame(1, 1), 43),
            simple(order, &frame(2, 2), 44),
            block(order, 5, &[0; 12]),
            obsolete(order, 0, 6_000_000, &frame(3, 3)),
        ]
        .concat();
        let (kept, _, damages) = read(file);
        assert_eq!(damages, [""; 0], "{order:?}");
        assert_eq!(kept.ports(), [1, 2, 3]);
        assert_eq!(kept.times(), [5_000_007_000, 5_000_007_000, 6_000_000_000]);
        assert_eq!(kept.0.iter().map(|seen| seen.frame_bytes).collect::<Vec<_>>(), [43, 44, 45]);
    }
}

#[test]
fn pcapng_clocks_links_and_names_belong_to_the_interface() {
    for order in [Little, Big] {
        let offset: i64 = -2;
        let offset = if order == Big { offset.to_be_bytes() } else { offset.to_le_bytes() };
        let file = [
            section(order),
            interface(order, 1, 0, &[(9, vec![9]), (2, b"eth0".to_vec())]),
            interface(order, 101, 0, &[(9, vec![0x80 | 1]), (14, offset.to_vec())]),
            interface(order, 9, 0, &[(2, b"ppp0".to_vec())]),
            enhanced(order, 0, 5_000_000_007, &frame(1, 1), 43),
            enhanced(order, 1, 13, &frame(2, 2)[14..], 30),
            enhanced(order, 2, 1, &[0; 9], 9),
            // Before 1970.
            enhanced(order, 1, 1, &frame(3, 3)[14..], 31),
            // Another section, other interfaces; eth0 is the same point.
            section(order),
            interface(order, 1, 0, &[]),
            interface(order, 1, 0, &[(2, b"eth0\0\0".to_vec()), (0, vec![])]),
            enhanced(order, 0, 7_000_000, &frame(4, 4), 46),
            enhanced(order, 1, 8_000_000, &frame(5, 5), 47),
        ]
        .concat();
        let (mut source, points) = reader(file);
        let (kept, sightings) = drain(&mut source, 100);
        assert_eq!(source.damages().len(), 0);
        assert_eq!(kept.ports(), [1, 2, 4, 5]);
        assert_eq!(kept.times(), [5_000_000_007, 4_500_000_000, 7_000_000_000, 8_000_000_000]);
        assert_eq!(sightings.unmetered[Unmetered::LinkType as usize].packets, 1);
        assert_eq!(sightings.unmetered[Unmetered::BadTimestamp as usize].packets, 1);
        let name = |i: usize| points.get(kept.0[i].point).unwrap();
        assert_eq!(name(0).interface.as_deref(), Some("eth0"));
        assert_eq!(*name(1), ObservationPoint { interface: None, index: Some(1), hook: None });
        assert_eq!(*name(2), ObservationPoint::default());
        assert_eq!(kept.0[3].point, kept.0[0].point);
        assert_eq!(source.watermark(), 8_000_000_000);
    }
}

#[test]
fn sections_may_change_the_byte_order() {
    let part = |order, ticks| {
        [section(order), interface(order, 1, 0, &[]), enhanced(order, 0, ticks, &frame(1, 1), 43)]
    };
    let (kept, _, damages) = read([part(Little, 1), part(Big, 2), part(Little, 3)].concat().concat());
    assert_eq!((kept.times(), damages.len()), (vec![1_000, 2_000, 3_000], 0));
}

#[test]
fn simple_blocks_are_as_long_as_the_snap_length_says() {
    let data = frame(1, 22);
    let file = [section(Little), interface(Little, 1, 50, &[]), simple(Little, &data[..52], 64)].concat();
    let (kept, ..) = read(file);
    assert_eq!((kept.0[0].bytes, kept.0[0].frame_bytes, kept.0[0].start), (50, 64, 0));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compression_is_recognised_by_magic() {
    let file = plain(1000);
    let (front, back) = file.split_at(30_000);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(&file)].concat();
    for (name, bytes) in [
        ("gzip", gzip(&file)),
        ("two gzip members", [gzip(front), gzip(back)].concat()),
        ("zstd", zstd(&file)),
        ("two zstd frames", [zstd(front), zstd(back)].concat()),
        ("zstd after a skippable frame", skippable),
    ] {
        let (kept, _, damages) = read(bytes);
        assert_eq!((kept.0.len(), damages.as_slice()), (1000, &[] as &[String]), "{name}");
    }
}

/// Each kind of damage, after how many packets, at which byte.
#[test]
fn damage_is_told_by_place_after_all_before_it_was_delivered() {
    let classic = plain(3);
    let mut long = classic.clone();
    long.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 5, 0]);
    let mut held_long = pcap(Little, 0xa1b2_c3d4, 1, &[(0, 0, vec![0; 262_145], 262_145)]);
    held_long.extend([0; 16]);
    // The first makes the buffer grow, the second empties it, so that the last lies in it as a whole.
    let lengths = [262_144, 262_104 - 16, 10, 262_145];
    let grown = lengths.map(|length| (0, 0, vec![0; length], length as u32));
    let grown = pcap(Little, 0xa1b2_c3d4, 1, &grown);
    let start = [section(Little), interface(Little, 1, 0, &[])].concat();
    let one = enhanced(Little, 0, 1, &frame(1, 1), 43);
    let at = start.len() + one.len();
    let after = |tail: &[u8]| [start.as_slice(), &one, tail].concat();
    let mut bad_end = one.clone();
    *bad_end.last_mut().unwrap() = 1;
    let mut bad_skip = block(Little, 99, &[0; 8]);
    *bad_skip.last_mut().unwrap() = 1;
    let mut version = section(Little);
    version[12] = 2;
    let mut order = section(Little);
    order[8] = 0;
    let mut captured = one.clone();
    captured[20] = 200;
    let mut huge = one.clone();
    huge[20..24].copy_from_slice(&300_000u32.to_le_bytes());
    let gz = gzip(&plain(2000));
    let after_gzip =
        "made: the gzip data is followed by something else at byte 136024 of the uncompressed data";
    let zst = zstd::encode_all(plain(2000).as_slice(), 1).unwrap();
    for (name, bytes, packets, message) in [
        ("0 bytes", vec![], 0, "made: the file is empty".to_owned()),
        (
            "magic",
            b"hello".to_vec(),
            0,
            "made: not a pcap or pcapng file (it begins with 68 65 6c 6c)".into(),
        ),
        ("short magic", vec![0xd4], 0, "made: not a pcap or pcapng file (it begins with d4)".into()),
        ("cut header", classic[..23].to_vec(), 0, "made: the file ends inside a header at byte 0".into()),
        (
            "cut record header",
            classic[..24 + 68 + 15].to_vec(),
            1,
            "made: the file ends inside a record at byte 92".into(),
        ),
        (
            "cut record",
            classic[..24 + 3 * 68 - 1].to_vec(),
            2,
            "made: the file ends inside a record at byte 160".into(),
        ),
        (
            "long record",
            long,
            3,
            "made: a captured length of 327680 bytes is beyond the limit of 262144 at byte 228".into(),
        ),
        (
            "long record in the buffer",
            held_long,
            0,
            "made: a captured length of 262145 bytes is beyond the limit of 262144 at byte 24".into(),
        ),
        (
            "long record in a grown buffer",
            grown,
            0,
            "made: a captured length of 262145 bytes is beyond the limit of 262144 at byte 524314".into(),
        ),
        ("cut block front", after(&one[..11]), 1, format!("made: the file ends inside a block at byte {at}")),
        ("cut block", after(&one[..40]), 1, format!("made: the file ends inside a block at byte {at}")),
        (
            "cut unknown block",
            after(&block(Little, 99, &[0; 8])[..17]),
            1,
            format!("made: the file ends inside a block at byte {at}"),
        ),
        (
            "length 8",
            after(&[6, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0]),
            1,
            format!("made: a block's length is wrong (8) at byte {at}"),
        ),
        (
            "length 13",
            after(&[99, 0, 0, 0, 13, 0, 0, 0, 8, 0, 0, 0, 0]),
            1,
            format!("made: a block's length is wrong (13) at byte {at}"),
        ),
        (
            "length beyond reason",
            after(&[6, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]),
            1,
            format!("made: a block's length is wrong (33554432) at byte {at}"),
        ),
        (
            "length at the end",
            after(&bad_end),
            1,
            format!("made: a block's length is wrong ({}) at byte {at}", one.len()),
        ),
        (
            "length at the end of an unknown block",
            after(&bad_skip),
            1,
            format!("made: a block's length is wrong (20) at byte {at}"),
        ),
        (
            "version",
            after(&version),
            1,
            format!("made: a section is of version 2, which isn't known at byte {at}"),
        ),
        (
            "byte order",
            after(&order),
            1,
            format!("made: a section header has no byte-order magic at byte {at}"),
        ),
        (
            "captured length",
            after(&captured),
            1,
            format!("made: a block's content does not fit its length at byte {at}"),
        ),
        (
            "captured length beyond reason",
            after(&huge),
            1,
            format!("made: a captured length of 300000 bytes is beyond the limit of 262144 at byte {at}"),
        ),
        (
            "interface",
            after(&enhanced(Little, 1, 1, &frame(1, 1), 43)),
            1,
            format!("made: a packet belongs to interface 1, which isn't described at byte {at}"),
        ),
        (
            "no interface",
            [section(Little), simple(Little, &[0; 4], 4)].concat(),
            0,
            "made: a packet belongs to interface 0, which isn't described at byte 28".into(),
        ),
        ("empty gzip", gzip(&[]), 0, "made: after decompression, the file is empty".into()),
        (
            "cut gzip",
            gz[..gz.len() - 12].to_vec(),
            2000,
            "made: the compressed data is cut at byte 136024 of the uncompressed data".into(),
        ),
        (
            "cut zstd",
            zst[..zst.len() - 12].to_vec(),
            0,
            "made: the compressed data is cut at byte 0 of the uncompressed data".into(),
        ),
        (
            "text in gzip",
            gzip(b"hello"),
            0,
            "made: after decompression, not a pcap or pcapng file (it begins with 68 65 6c 6c)".into(),
        ),
        ("bytes after gzip", [gz.as_slice(), b"no further member"].concat(), 2000, after_gzip.into()),
        ("a byte after gzip", [gz.as_slice(), b"\n"].concat(), 2000, after_gzip.into()),
        ("half a magic after gzip", [gz.as_slice(), &[0x1f, 0]].concat(), 2000, after_gzip.into()),
        (
            "cut second member",
            [gz.as_slice(), &gz[..5]].concat(),
            2000,
            "made: the compressed data is cut at byte 136024 of the uncompressed data".into(),
        ),
    ] {
        let (kept, _, damages) = read(bytes);
        if name == "cut gzip" || name == "cut zstd" {
            // How much comes out of a cut stream is the decompressor's affair.
            assert!(
                damages[0].starts_with("made: the compressed data is cut at byte"),
                "{name}: {damages:?}"
            );
            assert!(
                kept.0.len() < 2000 && (name == "cut zstd" || kept.0.len() > 1000),
                "{name}: {}",
                kept.0.len()
            );
            continue;
        }
        assert_eq!(damages, [message], "{name}");
        assert_eq!(kept.0.len(), packets, "{name}");
    }
}

#[test]
fn help_tells_what_was_delivered() {
    let help = |bytes: &[u8]| {
        let (mut source, _) = reader(bytes.to_vec());
        drain(&mut source, 100);
        source.damages()[0].help()
    };
    let file = plain(2);
    for (bytes, expected) in [
        (&[][..], "nothing was delivered: get the capture with its content"),
        (b"%PDF", "name captures in pcap or pcapng, as they are or compressed by gzip or zstd"),
        (&file[..20], "nothing was delivered: get a whole copy of the capture"),
        (&file[..100], "what lies before the damage was delivered; get a whole copy of the capture"),
        (
            &[gzip(&file).as_slice(), b"x"].concat(),
            "all before it was delivered: cut off what is not part of the capture",
        ),
    ] {
        assert_eq!(help(bytes), expected);
    }
}

/// Gives a few bytes at a time, as a slow pipe does.
struct Trickle(Cursor<Vec<u8>>);

impl Read for Trickle {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let few = into.len().min(3);
        self.0.read(&mut into[..few])
    }
}

/// The modified format's record header has 24 bytes, of which 16 already say what is wrong.
#[test]
fn damage_does_not_depend_on_how_much_was_read_at_once() {
    let mut bytes = pcap(Little, 0xa1b2_cd34, 1, &[]);
    bytes.extend([0xff; 20]);
    let points = Arc::new(ObservationPoints::default());
    let mut slow = ReplaySource::from_reader("made", Box::new(Trickle(Cursor::new(bytes.clone()))), points);
    let (mut whole, _) = reader(bytes);
    let told = |source: &mut ReplaySource| {
        drain(source, 512);
        source.damages().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut whole), ["made: the file ends inside a record at byte 24"]);
    assert_eq!(told(&mut slow), told(&mut whole));
}

#[test]
fn a_header_without_packets_is_fine() {
    for file in
        [plain(0), section(Little), [section(Big), interface(Big, 1, 0, &[])].concat(), gzip(&plain(0))]
    {
        let (kept, sightings, damages) = read(file);
        assert_eq!((kept.0.len(), sightings.seen, damages.len()), (0, Tally::ZERO, 0));
    }
}

#[test]
fn a_reading_error_of_the_system_is_not_a_fault_of_the_data() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
    let points = Arc::new(ObservationPoints::default());
    let mut source = ReplaySource::from_reader("made", Box::new(Cursor::new(plain(2)).chain(Broken)), points);
    let (kept, _) = drain(&mut source, 10);
    assert_eq!(kept.0.len(), 2);
    assert!(matches!(source.damages(), [Damage { fault: Fault::Read { .. }, .. }]), "{:?}", source.damages());
}

#[test]
fn files_are_one_stream_and_damage_ends_only_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let named = [section(Little), interface(Little, 1, 0, &[]), simple(Little, &frame(9, 9), 51)].concat();
    let paths = [
        write("a.gz", &plain(2)),
        write("cut", &plain(2)[..100]),
        write("empty", &[]),
        write("b.pcap", &gzip(&named)),
        write("c", &plain(1)),
    ];
    let points = Arc::new(ObservationPoints::default());
    let mut source = ReplaySource::open(&paths, points).unwrap();
    let (kept, _) = drain(&mut source, 2);
    assert_eq!(kept.ports(), [0, 1, 0, 9, 0]);
    // The simple block takes the time of the packet before, in another file.
    assert_eq!(kept.times()[3], 1_000_000_007_000);
    assert_eq!(source.watermark(), 1_001_000_007_000);
    assert!(kept.0.iter().all(|seen| seen.point == 0));
    let faults: Vec<_> =
        source.damages().iter().map(|damage| (damage.file.as_str(), &damage.fault)).collect();
    assert!(
        matches!(faults.as_slice(), [(cut, Fault::Cut(Part::Record)), (empty, Fault::Empty)]
            if cut.ends_with("cut") && empty.ends_with("empty")),
        "{faults:?}"
    );
}

#[test]
fn nothing_is_read_when_one_file_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    std::fs::write(&good, plain(1)).unwrap();
    let open = |paths: &[PathBuf]| ReplaySource::open(paths, Arc::default()).err().unwrap();
    assert!(
        matches!(open(&[good.clone(), folder.path().join("none")]), OpenError::Open { path, .. } if path.ends_with("none"))
    );
    assert!(matches!(open(&[good, folder.path().to_owned()]), OpenError::Directory { .. }));
    assert!(matches!(open(&["-".into(), "-".into()]), OpenError::StandardInputTwice));
}

#[test]
fn closing_ends_the_replay() {
    let (mut source, _) = reader(plain(10));
    let mut kept = Kept::default();
    source.poll(&mut kept, 4);
    source.poll(&mut kept, 4);
    source.close();
    assert_eq!(source.poll(&mut kept, 4), Polled::Ended);
    assert_eq!((kept.0.len(), source.sightings().unwrap().seen.buffers), (4, 4));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), plain(2)).unwrap();
    let paths = [file.path().to_owned(), file.path().to_owned()];
    let mut source = ReplaySource::open(&paths, Arc::default()).unwrap();
    source.poll(&mut kept, 1);
    source.close();
    assert_eq!(source.poll(&mut kept, 1), Polled::Ended);
}

proptest! {
    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read(bytes);
    }

    #[test]
    fn changed_captures_end(
        which in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let pcapng = [
            section(Big),
            interface(Big, 1, 0, &[(9, vec![9]), (2, b"eth0".to_vec())]),
            enhanced(Big, 0, 5_000_000_007, &frame(1, 1), 43),
            simple(Big, &frame(2, 2), 44),
            obsolete(Big, 0, 6, &frame(3, 3)),
        ].concat();
        let mut bytes = match which {
            0 => plain(4),
            1 => pcapng,
            2 => gzip(&pcapng),
            _ => zstd::encode_all(pcapng.as_slice(), 1).unwrap(),
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()));
        read(bytes);
    }

    #[test]
    fn any_cut_of_a_classic_delivers_the_whole_records_before_it(cut in 0usize..(24 + 5 * 68)) {
        let (kept, _, damages) = read(plain(5)[..cut].to_vec());
        prop_assert_eq!(kept.0.len(), cut.saturating_sub(24) / 68);
        prop_assert_eq!(damages.is_empty(), cut >= 24 && (cut - 24).is_multiple_of(68));
    }
}

fn shared_captures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pcaps");
    let mut found: Vec<_> = ["ndpi", "tcpdump", "malformed", "wireshark"]
        .into_iter()
        .filter_map(|folder| std::fs::read_dir(root.join(folder)).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.to_string_lossy().into_owned();
            [".pcap", ".pcapng", ".pcap.gz"].iter().any(|end| name.ends_with(end))
        })
        .collect();
    found.sort();
    found
}

/// Every packet that tshark finds is seen, whatever else a capture does to parsers.
#[test]
fn shared_captures_have_as_many_packets_as_tshark_says() {
    let captures = shared_captures();
    if captures.is_empty() {
        eprintln!("SKIP shared_captures_have_as_many_packets_as_tshark_says: ../shared/pcaps");
        return;
    }
    if Command::new("capinfos").arg("-h").output().is_err() {
        eprintln!("SKIP shared_captures_have_as_many_packets_as_tshark_says: capinfos");
        return;
    }
    for path in captures {
        let mut source = ReplaySource::open(std::slice::from_ref(&path), Arc::default()).unwrap();
        let (_, sightings) = drain(&mut source, 1000);
        let output = Command::new("capinfos").args(["-M", "-c", "-T", "-r"]).arg(&path).output().unwrap();
        if String::from_utf8_lossy(&output.stderr).contains("unknown or unsupported") {
            // A link type that isn't known there either: nothing to compare with.
            assert_eq!(sightings.unmetered[Unmetered::LinkType as usize].buffers, sightings.seen.buffers);
            continue;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let expected: u64 = text.trim().rsplit('\t').next().unwrap_or_default().parse().unwrap_or(0);
        assert_eq!(sightings.seen.buffers, expected, "{} {:?}", path.display(), source.damages());
        // Both call the same captures damaged.
        assert_eq!(!source.damages().is_empty(), !output.status.success(), "{}", path.display());
    }
}
