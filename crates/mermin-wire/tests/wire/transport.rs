//! Ports, flags, type and code; what a snap length leaves of them.

use crate::build::{TCP, UDP, cut, ip, ipv4, ipv6, tcp, udp};
use mermin_wire::{Link, PortForm, Unmetered};

const SCTP: [u8; 16] = [0x0b, 0x59, 0x0b, 0x5a, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 4];

#[test]
fn ports() {
    for (protocol, payload, pair, offset) in [
        (TCP, tcp(), [12_345_u16, 80], 40),
        (UDP, udp(), [53, 12_345], 28),
        (132, SCTP.to_vec(), [2_905, 2_906], 32),
    ] {
        let headers = ip(&ipv4(protocol, &payload)).unwrap();
        assert_eq!(headers.port_pair(), pair.map(u16::to_be), "{protocol}");
        assert_eq!((headers.port_form, headers.offset), (PortForm::Ports, offset), "{protocol}");
        assert_eq!(headers.has_tcp_flags, protocol == TCP);
    }
}

#[test]
fn type_and_code() {
    for (datagram, kind, code) in
        [(ipv4(1, &[3, 1, 0, 0, 0, 0, 0, 0]), 3_u16, 1_u16), (ipv6(58, &[135, 2, 0, 0, 0, 0, 0, 0]), 135, 2)]
    {
        let headers = ip(&datagram).unwrap();
        assert_eq!(headers.port_pair(), [kind.to_be(), code.to_be()]);
        assert_eq!(headers.port_form, PortForm::IcmpTypeCode);
        assert_eq!(headers.offset as usize, datagram.len());
    }
    // Each in the other's IP version too.
    assert_eq!(ip(&ipv6(1, &[3, 1])).unwrap().port_form, PortForm::IcmpTypeCode);
    assert_eq!(ip(&ipv4(58, &[3, 1])).unwrap().port_form, PortForm::IcmpTypeCode);
}

#[test]
fn tcp_flags_need_a_header_of_a_possible_length() {
    for (offset_field, flags, payload) in
        [(0x50, Some(0x18), 40), (0xf0, Some(0x18), 80), (0x40, None, 40), (0, None, 40)]
    {
        let mut segment = tcp();
        segment[12] = offset_field;
        let headers = ip(&ipv4(TCP, &segment)).unwrap();
        assert_eq!(headers.has_tcp_flags.then_some(headers.tcp_flags), flags, "{offset_field:#x}");
        assert_eq!(headers.offset, payload, "{offset_field:#x}");
        assert_eq!(headers.port_form, PortForm::Ports);
    }
}

#[test]
fn what_a_snap_length_leaves() {
    let packet = ipv4(TCP, &tcp());
    for captured in 20..packet.len() {
        let outcome = cut(Link::Ip, &packet, captured);
        match captured {
            ..24 => assert_eq!(outcome, Err(Unmetered::Truncated), "{captured}"),
            24..34 => {
                let headers = outcome.unwrap();
                assert_eq!(
                    (headers.port_pair(), headers.has_tcp_flags),
                    ([12_345_u16.to_be(), 80_u16.to_be()], false)
                );
                assert_eq!((headers.tcp_flags, headers.offset), (0, 40));
            }
            _ => assert_eq!(outcome, ip(&packet), "{captured}"),
        }
    }
    for protocol in [UDP, 132] {
        let packet = ipv6(protocol, &SCTP);
        for captured in 40..44 {
            assert_eq!(cut(Link::Ip, &packet, captured), Err(Unmetered::Truncated), "{protocol} {captured}");
        }
        assert_eq!(cut(Link::Ip, &packet, 44), ip(&packet), "{protocol}");
    }
    // Type and code may be missing: addresses and protocol are the flow.
    for (packet, header) in [(ipv4(1, &[8, 0, 0, 0]), 20), (ipv6(58, &[128, 0, 0, 0]), 40)] {
        for captured in [header, header + 1] {
            let headers = cut(Link::Ip, &packet, captured).unwrap();
            assert_eq!((headers.port_form, headers.ports), (PortForm::Absent, 0));
        }
    }
}

#[test]
fn what_the_packet_itself_lacks() {
    for (protocol, least, reason) in [
        (TCP, 4, Unmetered::MalformedTcp),
        (UDP, 4, Unmetered::MalformedUdp),
        (132, 4, Unmetered::MalformedSctp),
        (1, 2, Unmetered::MalformedIcmp),
        (58, 2, Unmetered::MalformedIcmpv6),
    ] {
        for length in 0..least {
            assert_eq!(ip(&ipv4(protocol, &tcp()[..length])), Err(reason), "{protocol} {length}");
        }
        assert!(ip(&ipv4(protocol, &tcp()[..least])).is_ok(), "{protocol}");
    }
    for length in 4..14 {
        let headers = ip(&ipv4(TCP, &tcp()[..length])).unwrap();
        assert!(!headers.has_tcp_flags && headers.port_form == PortForm::Ports, "{length}");
    }
    assert!(ip(&ipv4(TCP, &tcp()[..14])).unwrap().has_tcp_flags);
}
