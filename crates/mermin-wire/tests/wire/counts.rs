//! Packets, IP bytes and frame bytes.

use crate::build::{TCP, UDP, ethernet, extension, ipv4, ipv6, tagged, tcp, udp, walk};
use mermin_wire::{Buffer, Counts, Link, count};

fn counts(frame: &[u8], buffer: Buffer) -> Counts {
    count(&walk(Link::Ethernet, frame).expect("a frame that is metered"), &buffer)
}

fn whole(frame: &[u8]) -> Counts {
    counts(frame, Buffer::packet(frame.len() as u32))
}

const fn packet(ip_bytes: u64, frame_bytes: u64) -> Counts {
    Counts { packets: 1, ip_bytes, frame_bytes, length_over_frame: false }
}

#[test]
fn ip_bytes_are_the_datagrams_own() {
    let datagram = ipv4(UDP, &udp());
    assert_eq!(whole(&ethernet(0x0800, &datagram)), packet(32, 46));
    // Padding and trailers count in frame bytes only.
    assert_eq!(whole(&ethernet(0x0800, &[datagram.clone(), vec![0; 14]].concat())), packet(32, 60));
    assert_eq!(whole(&tagged(&[(0x8100, 1), (0x8100, 2)], 0x0800, &datagram)), packet(32, 54));
    assert_eq!(whole(&ethernet(0x86dd, &ipv6(UDP, &udp()))), packet(52, 66));
}

#[test]
fn lengths_that_do_not_say() {
    let zero = |mut datagram: Vec<u8>, at: usize| {
        datagram[at..at + 2].fill(0);
        datagram.extend([0; 10]);
        datagram
    };
    assert_eq!(whole(&ethernet(0x0800, &zero(ipv4(UDP, &udp()), 2))), packet(42, 56));
    assert_eq!(whole(&ethernet(0x86dd, &zero(ipv6(UDP, &udp()), 4))), packet(62, 76));
    assert_eq!(whole(&ethernet(0x86dd, &zero(ipv6(59, &[]), 4))), packet(40, 64));
    let mut jumbo = vec![UDP, 0, 0xc2, 4, 0, 0, 0, 20];
    jumbo.extend(udp());
    assert_eq!(whole(&ethernet(0x86dd, &zero(ipv6(0, &jumbo), 4))), packet(60, 84));
}

#[test]
fn lengths_past_the_frame_are_an_anomaly() {
    for (ethertype, mut datagram, at) in [(0x0800, ipv4(UDP, &udp()), 3), (0x86dd, ipv6(UDP, &udp()), 5)] {
        let length = datagram.len() as u64;
        datagram[at] += 1;
        let over = Counts { length_over_frame: true, ..packet(length, length + 14) };
        assert_eq!(whole(&ethernet(ethertype, &datagram)), over);
        // By the length on the wire, not by what was captured.
        let frame = ethernet(ethertype, &datagram);
        assert_eq!(counts(&frame, Buffer::packet(frame.len() as u32 + 1)), packet(length + 1, length + 15));
    }
}

#[test]
fn a_tag_beside_the_frame_is_part_of_it() {
    let frame = ethernet(0x0800, &ipv4(UDP, &udp()));
    let buffer = Buffer { tag_beside: true, ..Buffer::packet(frame.len() as u32) };
    assert_eq!(counts(&frame, buffer), packet(32, 50));
    assert_eq!(buffer.unmetered(), (1, 50));
    assert_eq!(Buffer::packet(46).unmetered(), (1, 46));
    // Without a length of its own the datagram ends with the frame all the same.
    let mut datagram = ipv4(UDP, &udp());
    datagram[3] = 0;
    assert_eq!(counts(&ethernet(0x0800, &datagram), buffer), packet(32, 50));
}

#[test]
fn segmented_buffers() {
    let frame = ethernet(0x0800, &ipv4(TCP, &tcp()));
    // Headers of 54 bytes: 14, 20 and 20.
    for (length, size, packets) in [
        (54, 100, 1),
        (55, 100, 1),
        (154, 100, 1),
        (155, 100, 2),
        (254, 100, 2),
        (54 + 1_448 * 40, 1_448, 40),
        (60, 1, 6),
    ] {
        for tag_beside in [false, true] {
            let tag = if tag_beside { 4 } else { 0 };
            let buffer = Buffer { length, segment_size: size, segments: 77, tag_beside };
            let packets_wide = u64::from(packets);
            let payload = u64::from(length) - 54;
            assert_eq!(
                counts(&frame, buffer),
                Counts {
                    packets,
                    ip_bytes: payload + 40 * packets_wide,
                    frame_bytes: payload + (54 + tag) * packets_wide,
                    length_over_frame: false,
                },
                "{length} {size} {tag_beside}"
            );
        }
    }
    // Shorter than its headers: one packet.
    let buffer = Buffer { segment_size: 10, ..Buffer::packet(30) };
    assert_eq!(counts(&frame, buffer), packet(16, 30));
}

#[test]
fn headers_of_a_segment_end_at_its_payload() {
    let inner = extension(UDP, 0, &udp());
    let frame = tagged(&[(0x8100, 1)], 0x86dd, &ipv6(60, &inner));
    let buffer = Buffer { segment_size: 500, ..Buffer::packet(18 + 40 + 8 + 8 + 1_000) };
    let expected = Counts { packets: 2, ip_bytes: 2 * 556, frame_bytes: 2 * 574, length_over_frame: false };
    assert_eq!(counts(&frame, buffer), expected);
}

#[test]
fn segments_by_list_are_counted_by_their_number() {
    let frame = ethernet(0x0800, &ipv4(132, &[0; 16]));
    for (segments, packets) in [(3, 3), (1, 1), (0, 1)] {
        let buffer = Buffer { segment_size: 0xffff, segments, ..Buffer::packet(1_046) };
        let counted = counts(&frame, buffer);
        assert_eq!((counted.packets, counted.frame_bytes), (packets, 1_046 + 46 * u64::from(packets - 1)));
    }
}
