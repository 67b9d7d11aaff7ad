//! Each kind of damage: which it is, where, and what was delivered before it.

use super::Order::Little;
use super::made::{block, enhanced, frame, gzip, interface, pcap, plain, section, simple};
use super::{drain, read, reader};
use crate::file::{Damage, Fault, ReplaySource};
use mermin_flow::ObservationPoints;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

/// Packets delivered, and what is said of the damage but for the file's name.
fn told(bytes: Vec<u8>) -> (usize, String) {
    let (kept, _, damages) = read(bytes);
    let [damage] = damages.as_slice() else { panic!("one damage: {damages:?}") };
    (kept.0.len(), damage.strip_prefix("made: ").unwrap().to_owned())
}

#[test]
fn a_file_that_is_no_capture_has_no_place() {
    for (bytes, expected) in [
        (vec![], "the file is empty"),
        (b"hello".to_vec(), "not a pcap or pcapng file (it begins with 68 65 6c 6c)"),
        (vec![0xd4], "not a pcap or pcapng file (it begins with d4)"),
        (gzip(&[]), "after decompression, the file is empty"),
        (gzip(b"hello"), "after decompression, not a pcap or pcapng file (it begins with 68 65 6c 6c)"),
    ] {
        assert_eq!(told(bytes), (0, expected.to_owned()));
    }
}

#[test]
fn damage_of_a_classic_pcap() {
    let classic = plain(3);
    let mut long = classic.clone();
    long.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 5, 0]);
    let mut held_long = pcap(Little, 0xa1b2_c3d4, 1, &[(0, 0, vec![0; 262_145], 262_145)]);
    held_long.extend([0; 16]);
    // The first makes the buffer grow, the second empties it, so that the last lies in it as a whole.
    let lengths = [262_144, 262_104 - 16, 10, 262_145];
    let grown = lengths.map(|length| (0, 0, vec![0; length], length as u32));
    let grown = pcap(Little, 0xa1b2_c3d4, 1, &grown);
    let beyond = |length| format!("a captured length of {length} bytes is beyond the limit of 262144");
    for (name, bytes, packets, fault, at) in [
        ("cut header", classic[..23].to_vec(), 0, "the file ends inside a header".to_owned(), 0),
        (
            "cut record header",
            classic[..24 + 68 + 15].to_vec(),
            1,
            "the file ends inside a record".to_owned(),
            92,
        ),
        (
            "cut record",
            classic[..24 + 3 * 68 - 1].to_vec(),
            2,
            "the file ends inside a record".to_owned(),
            160,
        ),
        ("long record", long, 3, beyond(327_680), 228),
        ("long record in the buffer", held_long, 0, beyond(262_145), 24),
        ("long record in a grown buffer", grown, 0, beyond(262_145), 524_314),
    ] {
        assert_eq!(told(bytes), (packets, format!("{fault} at byte {at}")), "{name}");
    }
}

#[test]
fn damage_of_a_pcapng() {
    let start = [section(Little), interface(Little, 1, 0, &[])].concat();
    let one = enhanced(Little, 0, 1, &frame(1, 1), 43);
    let changed = |mut block: Vec<u8>, at: usize, bytes: &[u8]| {
        block[at..at + bytes.len()].copy_from_slice(bytes);
        block
    };
    let unknown = block(Little, 99, &[0; 8]);
    let (end, unknown_end) = (one.len() - 1, unknown.len() - 1);
    let cut = "the file ends inside a block".to_owned();
    let length = |length| format!("a block's length is wrong ({length})");
    for (name, block, fault) in [
        ("cut block front", one[..11].to_vec(), cut.clone()),
        ("cut block", one[..40].to_vec(), cut.clone()),
        ("cut unknown block", unknown[..17].to_vec(), cut),
        ("length 8", vec![6, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0], length(8)),
        ("length 13", vec![99, 0, 0, 0, 13, 0, 0, 0, 8, 0, 0, 0, 0], length(13)),
        ("length beyond reason", vec![6, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], length(33_554_432)),
        ("length at the end", changed(one.clone(), end, &[1]), length(one.len())),
        ("length at the end of an unknown block", changed(unknown, unknown_end, &[1]), length(20)),
        (
            "version",
            changed(section(Little), 12, &[2]),
            "a section is of version 2, which isn't known".to_owned(),
        ),
        (
            "byte order",
            changed(section(Little), 8, &[0]),
            "a section header has no byte-order magic".to_owned(),
        ),
        (
            "captured length",
            changed(one.clone(), 20, &[200]),
            "a block's content does not fit its length".to_owned(),
        ),
        (
            "captured length beyond reason",
            changed(one.clone(), 20, &300_000_u32.to_le_bytes()),
            "a captured length of 300000 bytes is beyond the limit of 262144".to_owned(),
        ),
        (
            "interface",
            enhanced(Little, 1, 1, &frame(1, 1), 43),
            "a packet belongs to interface 1, which isn't described".to_owned(),
        ),
    ] {
        let expected = (1, format!("{fault} at byte {}", start.len() + one.len()));
        assert_eq!(told([start.as_slice(), &one, &block].concat()), expected, "{name}");
    }
    let no_interface = [section(Little), simple(Little, &[0; 4], 4)].concat();
    let expected = "a packet belongs to interface 0, which isn't described at byte 28";
    assert_eq!(told(no_interface), (0, expected.to_owned()));
}

#[test]
fn damage_of_compressed_data() {
    let gz = gzip(&plain(2000));
    let zst = zstd::encode_all(plain(2000).as_slice(), 1).unwrap();
    let followed = "the gzip data is followed by something else";
    for (name, tail, fault) in [
        ("text", &b"no further member"[..], followed),
        ("a byte", b"\n", followed),
        ("half a magic", &[0x1f, 0], followed),
        ("a cut member", &gz[..5], "the compressed data is cut"),
    ] {
        let expected = format!("{fault} at byte 136024 of the uncompressed data");
        assert_eq!(told([gz.as_slice(), tail].concat()), (2000, expected), "{name}");
    }
    // How much comes out of a cut stream is the decompressor's affair.
    for (cut, least) in [(&gz[..gz.len() - 12], 1000), (&zst[..zst.len() - 12], 0)] {
        let (packets, damage) = told(cut.to_vec());
        assert!(damage.starts_with("the compressed data is cut at byte "), "{damage}");
        assert!((least..2000).contains(&packets), "{packets}");
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
