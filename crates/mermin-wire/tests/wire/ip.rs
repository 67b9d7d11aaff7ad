//! IPv4, IPv6, extension headers, fragments, the end of the datagram.

use crate::build::{TCP, UDP, cut, extension, fragment, ip, ipv4, ipv6, tcp, udp};
use mermin_wire::{Fragment, Link, PortForm, STEPS, Unmetered};

fn word(bytes: [u8; 4]) -> u64 {
    u64::from(u32::from_ne_bytes(bytes))
}

#[test]
fn ipv4_fields() {
    let headers = ip(&ipv4(UDP, &udp())).unwrap();
    assert_eq!(headers.source, [word([10, 0, 0, 1]), 0]);
    assert_eq!(headers.destination, [word([192, 168, 1, 2]), 0]);
    assert_eq!((headers.version, headers.protocol, headers.ttl, headers.traffic_class), (4, UDP, 64, 0xb8));
    assert_eq!((headers.ip_length, headers.offset, headers.fragment), (32, 28, Fragment::Whole));
}

#[test]
fn ipv6_fields() {
    let headers = ip(&ipv6(UDP, &udp())).unwrap();
    let long = |bytes: [u8; 8]| u64::from_ne_bytes(bytes);
    assert_eq!(headers.source, [long([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0]), long([0, 0, 0, 0, 0, 0, 0, 1])]);
    assert_eq!(headers.destination, [long([0xfe, 0x80, 0, 0, 0, 0, 0, 0]), long([0, 0, 0, 0, 0, 0, 0, 2])]);
    assert_eq!((headers.version, headers.protocol, headers.ttl, headers.traffic_class), (6, UDP, 61, 0xab));
    assert_eq!((headers.ip_length, headers.offset, headers.fragment), (52, 48, Fragment::Whole));
}

/// Changes bytes of a datagram.
fn with(mut datagram: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for &(at, byte) in changes {
        datagram[at] = byte;
    }
    datagram
}

#[test]
fn ipv4_that_is_malformed() {
    let good = ipv4(UDP, &udp());
    for (what, changes) in [
        ("header length 4", &[(0, 0x44)][..]),
        ("header length 0", &[(0, 0x40)]),
        ("header past the frame", &[(0, 0x49)]),
        ("total length below the header's", &[(2, 0), (3, 19)]),
        ("total length below that of a header with options", &[(0, 0x46), (2, 0), (3, 23)]),
    ] {
        assert_eq!(ip(&with(good.clone(), changes)), Err(Unmetered::MalformedIpv4), "{what}");
    }
    for length in 2..20 {
        assert_eq!(ip(&good[..length]), Err(Unmetered::MalformedIpv4), "{length}");
        assert_eq!(cut(Link::Ip, &good, length), Err(Unmetered::Truncated), "{length}");
    }
    let as_ethertype_says = crate::build::ethernet(0x0800, &ipv6(UDP, &udp()));
    assert_eq!(crate::build::walk(Link::Ethernet, &as_ethertype_says), Err(Unmetered::MalformedIpv4));
}

#[test]
fn ipv6_that_is_malformed() {
    let good = ipv6(UDP, &udp());
    for length in 2..40 {
        assert_eq!(ip(&good[..length]), Err(Unmetered::MalformedIpv6), "{length}");
        assert_eq!(cut(Link::Ip, &good, length), Err(Unmetered::Truncated), "{length}");
    }
    let as_ethertype_says = crate::build::ethernet(0x86dd, &[ipv4(UDP, &udp()), vec![0; 20]].concat());
    assert_eq!(crate::build::walk(Link::Ethernet, &as_ethertype_says), Err(Unmetered::MalformedIpv6));
}

/// Whatever follows: also a protocol of which nothing more is read.
#[test]
fn ipv4_options_that_were_not_captured_are_truncated() {
    const GRE: u8 = 47;
    for protocol in [GRE, UDP] {
        let mut datagram = ipv4(protocol, &[0; 8]);
        datagram.splice(20..20, [1; 8]);
        let length = datagram.len() as u8;
        let datagram = with(datagram, &[(0, 0x47), (3, length)]);
        for captured in 20..28 {
            assert_eq!(cut(Link::Ip, &datagram, captured), Err(Unmetered::Truncated), "{captured}");
        }
    }
    let mut gre = ipv4(GRE, &[0; 8]);
    gre.splice(20..20, [1; 8]);
    let length = gre.len() as u8;
    assert!(cut(Link::Ip, &with(gre, &[(0, 0x47), (3, length)]), 28).is_ok());
}

#[test]
fn ipv4_options_are_passed_over() {
    for words in 0..=10_u8 {
        let mut datagram = ipv4(UDP, &[&vec![1; 4 * usize::from(words)][..], &udp()].concat());
        datagram[0] = 0x45 + words;
        let headers = ip(&datagram).unwrap();
        assert_eq!(headers.port_pair(), [53_u16.to_be(), 12_345_u16.to_be()], "{words}");
    }
    // Header and datagram end together: there is no transport header, but there is a port-less packet.
    assert_eq!(ip(&with(ipv4(UDP, &[]), &[(3, 20)])), Err(Unmetered::MalformedUdp));
    assert!(ip(&with(ipv4(47, &[]), &[(3, 20)])).is_ok());
    assert!(ip(&with(ipv4(47, &[1; 4]), &[(0, 0x46)])).is_ok());
}

#[test]
fn ipv4_fragments() {
    for (field, position, id) in [
        (0x0000, Fragment::Whole, 0),
        (0x4000, Fragment::Whole, 0),
        (0x8000, Fragment::Whole, 0),
        (0x2000, Fragment::First, 0x0011_1234),
        (0x6000, Fragment::First, 0x0011_1234),
        (0x2001, Fragment::Later, 0x0011_1234),
        (0x0001, Fragment::Later, 0x0011_1234),
        (0x1fff, Fragment::Later, 0x0011_1234),
        (0x1000, Fragment::Later, 0x0011_1234),
    ] {
        let [high, low] = u16::to_be_bytes(field);
        let headers = ip(&with(ipv4(UDP, &udp()), &[(6, high), (7, low)])).unwrap();
        assert_eq!((headers.fragment, headers.fragment_id), (position, id), "{field:#06x}");
        let later = position == Fragment::Later;
        assert_eq!(headers.port_form, if later { PortForm::Absent } else { PortForm::Ports });
        assert_eq!((headers.ports == 0, headers.protocol), (later, UDP));
    }
}

#[test]
fn ipv6_fragments() {
    for (field, position, id) in [
        (0x0000, Fragment::Whole, 0),
        (0x0006, Fragment::Whole, 0),
        (0x0001, Fragment::First, 0x0a0b_0c0d),
        (0x0008, Fragment::Later, 0x0a0b_0c0d),
        (0x0009, Fragment::Later, 0x0a0b_0c0d),
        (0xfff8, Fragment::Later, 0x0a0b_0c0d),
    ] {
        let headers = ip(&ipv6(44, &fragment(UDP, field, &udp()))).unwrap();
        assert_eq!((headers.fragment, headers.fragment_id), (position, id), "{field:#06x}");
        assert_eq!(headers.port_form == PortForm::Absent, position == Fragment::Later);
        assert_eq!(headers.protocol, UDP);
    }
    // What a later fragment starts with is no header, whatever its number.
    let later = ip(&ipv6(44, &fragment(60, 8, &[1, 2]))).unwrap();
    assert_eq!((later.protocol, later.fragment), (60, Fragment::Later));
    for length in 0..8 {
        let short = ipv6(44, &fragment(UDP, 0, &udp())[..length]);
        assert_eq!(ip(&short), Err(Unmetered::MalformedExtension), "{length}");
    }
}

#[test]
fn extension_headers_are_walked() {
    let inner = extension(43, 1, &extension(60, 2, &extension(TCP, 0, &tcp())));
    for first in [0, 43, 60] {
        let headers = ip(&ipv6(first, &inner)).unwrap();
        assert_eq!((headers.protocol, headers.port_form), (TCP, PortForm::Ports), "{first}");
        assert_eq!((headers.tcp_flags, headers.offset), (0x18, 40 + 16 + 24 + 8 + 20));
    }
    // In IPv4 these numbers are transports like any other.
    for protocol in [0, 43, 44, 60] {
        let headers = ip(&ipv4(protocol, &inner)).unwrap();
        assert_eq!((headers.protocol, headers.port_form, headers.offset), (protocol, PortForm::Absent, 20));
    }
    for length in [0, 1, 7, 15] {
        let short = ipv6(60, &extension(UDP, 1, &[])[..length]);
        assert_eq!(ip(&short), Err(Unmetered::MalformedExtension), "{length}");
    }
}

#[test]
fn authentication_headers_are_walked() {
    let header = |next, words: u8| {
        let mut bytes = vec![next, words];
        bytes.resize(4 * (usize::from(words) + 2), 9);
        bytes
    };
    for words in [1, 4, 5] {
        let payload = [header(TCP, words), tcp()].concat();
        for datagram in [ipv4(51, &payload), ipv6(51, &payload)] {
            let headers = ip(&datagram).unwrap();
            assert_eq!((headers.protocol, headers.tcp_flags), (TCP, 0x18), "{words}");
        }
        for length in [0, 1, payload.len() - tcp().len() - 1] {
            assert_eq!(
                ip(&ipv4(51, &payload[..length])),
                Err(Unmetered::MalformedExtension),
                "{words} {length}"
            );
        }
        // A packet may end with the header.
        assert_eq!(ip(&ipv4(51, &header(59, words))).unwrap().offset, 20 + 4 * (u32::from(words) + 2));
    }
}

#[test]
fn transports_that_end_the_walk() {
    for protocol in [2, 4, 41, 47, 50, 59, 89, 103, 115, 135, 136, 139, 140, 253, 255] {
        for datagram in
            [ipv4(protocol, &[0xff; 9]), ipv6(protocol, &[0xff; 9]), ipv6(60, &extension(protocol, 0, &[]))]
        {
            let headers = ip(&datagram).unwrap();
            assert_eq!((headers.protocol, headers.port_form, headers.ports), (protocol, PortForm::Absent, 0));
        }
    }
}

#[test]
fn padding_is_never_read() {
    // The datagram ends before the ports, the frame does not.
    for (datagram, reason) in [
        (ipv4(UDP, &[0; 3]), Unmetered::MalformedUdp),
        (ipv4(TCP, &[]), Unmetered::MalformedTcp),
        (ipv4(132, &[0; 2]), Unmetered::MalformedSctp),
        (ipv4(1, &[8]), Unmetered::MalformedIcmp),
        (ipv6(58, &[128]), Unmetered::MalformedIcmpv6),
        (ipv6(60, &[UDP]), Unmetered::MalformedExtension),
        (ipv6(60, &extension(UDP, 1, &[])[..15]), Unmetered::MalformedExtension),
        (ipv6(44, &[UDP, 0, 0]), Unmetered::MalformedExtension),
        (ipv4(51, &[UDP]), Unmetered::MalformedExtension),
    ] {
        let padded = [datagram.clone(), vec![0x77; 30]].concat();
        assert_eq!(ip(&padded), Err(reason), "{datagram:02x?}");
        // Also where the padding was not captured.
        assert_eq!(cut(Link::Ip, &padded, datagram.len()), Err(reason));
    }
    // A length of 0, or past the frame, is no end.
    assert!(ip(&with(ipv4(UDP, &udp()), &[(3, 0)])).is_ok());
    assert!(ip(&with(ipv4(UDP, &udp()), &[(2, 5)])).is_ok());
    assert!(ip(&with(ipv6(UDP, &udp()), &[(5, 0)])).is_ok());
    assert!(ip(&with(ipv6(UDP, &udp()), &[(4, 5)])).is_ok());
}

#[test]
fn lengths_of_jumbograms() {
    let jumbo = |options: &[u8]| {
        let mut bytes = vec![UDP, (options.len() / 8) as u8];
        bytes.extend(options);
        bytes.extend(udp());
        with(ipv6(0, &bytes), &[(4, 0), (5, 0)])
    };
    for (options, length) in [
        (&[0xc2, 4, 0, 0, 0, 20][..], 60),
        (&[0xc2, 4, 0, 1, 0, 0], 40 + 65_536),
        (&[1, 4, 0, 0, 0, 0], 0),
        (&[0, 0, 0, 0, 0, 0], 0),
        (&[0, 1, 0, 5, 2, 0, 0, 0xc2, 4, 0, 0, 0, 28, 0], 68),
        (&[1, 0, 5, 2, 9, 9, 0xc2, 4, 0, 0, 0, 28, 1, 0], 68),
        // A length that is no jumbo's, and one whose value runs out of the header.
        (&[0xc2, 3, 0, 0, 20, 0], 0),
        (&[1, 2, 0, 0, 0xc2, 4], 0),
        // Options that claim more than the header.
        (&[5, 200, 0xc2, 4, 0, 0], 0),
    ] {
        let headers = ip(&jumbo(options)).unwrap();
        assert_eq!(headers.ip_length, length, "{options:?}");
        assert_eq!(headers.port_pair(), [53_u16.to_be(), 12_345_u16.to_be()], "{options:?}");
    }
    // Only hop-by-hop options count, and only where the header has no length.
    let elsewhere = [&[UDP, 0, 0xc2, 4, 0, 0, 0, 20][..], &udp()].concat();
    assert_eq!(ip(&with(ipv6(60, &elsewhere), &[(5, 0)])).unwrap().ip_length, 0);
    assert_eq!(ip(&ipv6(0, &elsewhere)).unwrap().ip_length, 60);
    // A jumbogram that ends before its options do.
    assert_eq!(ip(&jumbo(&[0xc2, 4, 0, 0, 0, 7])), Err(Unmetered::MalformedExtension));
    assert_eq!(ip(&jumbo(&[0xc2, 4, 0, 0, 0, 8])), Err(Unmetered::MalformedUdp));
}

#[test]
fn no_next_header_with_no_payload_is_forty_bytes() {
    let headers = ip(&[ipv6(59, &[]), vec![0; 6]].concat()).unwrap();
    assert_eq!((headers.ip_length, headers.protocol), (40, 59));
    assert_eq!(ip(&with(ipv6(47, &[0; 4]), &[(5, 0)])).unwrap().ip_length, 0);
}

#[test]
fn the_walk_has_an_end() {
    // Link, IP and transport are three of the steps.
    for (extensions, expected) in [(STEPS - 3, Ok(UDP)), (STEPS - 2, Err(Unmetered::TooDeep))] {
        let chain =
            (0..extensions).fold((UDP, udp()), |(next, payload), _| (60, extension(next, 0, &payload)));
        assert_eq!(ip(&ipv6(chain.0, &chain.1)).map(|headers| headers.protocol), expected, "{extensions}");
    }
    let tags = vec![(0x8100, 1); STEPS as usize - 2];
    let frame = crate::build::tagged(&tags, 0x0800, &ipv4(UDP, &udp()));
    assert_eq!(crate::build::walk(Link::Ethernet, &frame), Err(Unmetered::TooDeep));
    let frame = crate::build::tagged(&tags[1..], 0x0800, &ipv4(UDP, &udp()));
    assert!(crate::build::walk(Link::Ethernet, &frame).is_ok());
}

#[test]
fn options_are_steps_too_and_their_end_is_one() {
    // Bare IP, IPv6, the hop-by-hop header, the end of its options and the transport are the others.
    for (options, expected) in [(STEPS - 5, Ok(UDP)), (STEPS - 4, Err(Unmetered::TooDeep))] {
        // All of one byte but the last, which takes what is left of three units of eight bytes.
        let mut bytes = vec![UDP, 2];
        bytes.resize(2 + options as usize - 1, 0);
        let rest = 24 - bytes.len();
        bytes.extend([1, rest as u8 - 2]);
        bytes.resize(24, 0);
        bytes.extend(udp());
        let datagram = with(ipv6(0, &bytes), &[(4, 0), (5, 0)]);
        assert_eq!(ip(&datagram).map(|headers| headers.protocol), expected, "{options}");
    }
}
