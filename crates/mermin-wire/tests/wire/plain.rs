//! Which packets are plain, and that a plain packet's headers and counts are those of the walk.

use crate::build::{TCP, UDP, ethernet, extension, fragment, ipv4, ipv6, tagged, tcp, udp};
use mermin_wire::{
    Buffer, Headers, Link, Next, count, count_plain, link_header, parse, plain_ipv4, plain_ipv6,
};

/// The headers of a plain packet; that the walk finds the same, and that it counts the same.
pub(crate) fn plain(link: Link, bytes: &[u8], wire_length: usize) -> Option<Headers> {
    let mut headers = Headers::new(wire_length as u32, None);
    let plain = match link_header(bytes, link, &mut headers) {
        Next::Ipv4 => plain_ipv4(bytes, &mut headers),
        Next::Ipv6 => plain_ipv6(bytes, &mut headers),
        _ => false,
    };
    plain.then(|| {
        let mut walked = Headers::new(wire_length as u32, None);
        assert_eq!((parse(link, bytes, &mut walked), walked), (Ok(()), headers), "{bytes:02x?}");
        for (segment_size, tag_beside) in [(0, false), (0, true), (7, false), (7, true)] {
            let buffer = Buffer { segment_size, tag_beside, ..Buffer::packet(wire_length as u32) };
            assert_eq!(count_plain(&headers, &buffer), count(&headers, &buffer), "{bytes:02x?}, {buffer:?}");
        }
        headers
    })
}

/// With a byte, counted from the IP header, set to another value.
fn with(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[at] = value;
    packet
}

#[test]
fn tcp_and_udp_in_a_whole_datagram_are_plain() {
    for (ethertype, packet) in [
        (0x0800, ipv4(TCP, &tcp())),
        (0x0800, ipv4(UDP, &udp())),
        (0x0800, ipv4(UDP, &udp()[..8])),
        (0x0800, with(ipv4(TCP, &tcp()), 6, 0x80)),
        (0x86dd, ipv6(TCP, &tcp())),
        (0x86dd, ipv6(UDP, &udp())),
    ] {
        for tags in [&[][..], &[(0x8100, 5)], &[(0x88a8, 5), (0x8100, 0xf006)]] {
            let frame = tagged(tags, ethertype, &packet);
            assert!(plain(Link::Ethernet, &frame, frame.len()).is_some(), "{frame:02x?}");
            // Padding, captured or not.
            assert!(plain(Link::Ethernet, &frame, frame.len() + 6).is_some(), "{frame:02x?}");
            let padded = [&frame[..], &[0; 6]].concat();
            assert!(plain(Link::Ethernet, &padded, padded.len()).is_some(), "{frame:02x?}");
        }
        assert!(plain(Link::Ip, &packet, packet.len()).is_some(), "{packet:02x?}");
        let cooked = [&[0; 14][..], &u16::to_be_bytes(ethertype), &packet].concat();
        assert!(plain(Link::LinuxSll, &cooked, cooked.len()).is_some(), "{cooked:02x?}");
    }
}

#[test]
fn anything_else_is_not() {
    let options = with(ipv4(TCP, &[&[1; 4], &tcp()[..]].concat()), 0, 0x46);
    for (what, ethertype, packet) in [
        ("options", 0x0800, options),
        ("a first fragment", 0x0800, with(ipv4(UDP, &udp()), 6, 0x20)),
        ("a later fragment", 0x0800, with(ipv4(UDP, &udp()), 7, 1)),
        ("a far fragment", 0x0800, with(ipv4(UDP, &udp()), 6, 0x10)),
        ("another version", 0x0800, with(ipv4(TCP, &tcp()), 0, 0x65)),
        ("more than the frame", 0x0800, with(ipv4(TCP, &tcp()), 3, 45)),
        ("no length", 0x0800, with(ipv4(TCP, &tcp()), 3, 0)),
        ("less than the flags", 0x0800, with(ipv4(TCP, &tcp()), 3, 33)),
        ("less than the ports", 0x0800, with(ipv4(UDP, &udp()), 3, 23)),
        ("ICMP", 0x0800, ipv4(1, &[8, 0, 0, 0, 0, 0, 0, 0])),
        ("SCTP", 0x0800, ipv4(132, &[0; 16])),
        ("another version", 0x86dd, with(ipv6(TCP, &tcp()), 0, 0x45)),
        ("more than the frame", 0x86dd, with(ipv6(TCP, &tcp()), 5, 25)),
        ("no length", 0x86dd, with(ipv6(TCP, &tcp()), 5, 0)),
        ("an extension", 0x86dd, ipv6(60, &extension(UDP, 0, &udp()))),
        ("a fragment", 0x86dd, ipv6(44, &fragment(UDP, 0, &udp()))),
        ("ICMPv6", 0x86dd, ipv6(58, &[128, 0, 0, 0, 0, 0, 0, 0])),
    ] {
        let frame = ethernet(ethertype, &packet);
        assert!(plain(Link::Ethernet, &frame, frame.len()).is_none(), "{what}: {frame:02x?}");
    }
    let arp = ethernet(0x0806, &[0; 28]);
    assert!(plain(Link::Ethernet, &arp, arp.len()).is_none());
}

#[test]
fn what_is_read_must_be_captured() {
    for (packet, ethertype, least) in [
        (ipv4(TCP, &tcp()), 0x0800, 14 + 20 + 14),
        (ipv4(UDP, &udp()), 0x0800, 14 + 20 + 4),
        (ipv6(TCP, &tcp()), 0x86dd, 14 + 40 + 14),
        (ipv6(UDP, &udp()), 0x86dd, 14 + 40 + 4),
    ] {
        let frame = ethernet(ethertype, &packet);
        for captured in 0..=frame.len() {
            let plain = plain(Link::Ethernet, &frame[..captured], frame.len());
            assert_eq!(plain.is_some(), captured >= least, "{captured}");
        }
    }
}
