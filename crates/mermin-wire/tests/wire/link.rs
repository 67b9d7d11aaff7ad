//! Link headers and tags.

use crate::build::{UDP, cut, ethernet, ip, ipv4, ipv6, tagged, udp, walk};
use mermin_wire::{Headers, Link, NO_VLAN, Unmetered, macs, parse};

#[test]
fn linktypes() {
    for (number, link) in [
        (0, Some(Link::BsdNull)),
        (1, Some(Link::Ethernet)),
        (12, Some(Link::Ip)),
        (14, Some(Link::Ip)),
        (101, Some(Link::Ip)),
        (228, Some(Link::Ip)),
        (229, Some(Link::Ip)),
        (108, Some(Link::BsdLoop)),
        (113, Some(Link::LinuxSll)),
        (276, Some(Link::LinuxSll2)),
        (9, None),
        (105, None),
        (65_535, None),
    ] {
        assert_eq!(Link::from_linktype(number), link, "{number}");
    }
}

#[test]
fn ethernet_and_its_tags() {
    let datagram = ipv4(UDP, &udp());
    for (tags, vlan, inner) in [
        (&[][..], NO_VLAN, NO_VLAN),
        (&[(0x8100, 0xe064)], 100, NO_VLAN),
        (&[(0x8100, 0x6000)], 0, NO_VLAN),
        (&[(0x88a8, 0x0064), (0x8100, 0x0fff)], 100, 4_095),
        (&[(0x9100, 1), (0x8100, 2), (0x8100, 3), (0x88a8, 4)], 1, 2),
    ] {
        let headers = walk(Link::Ethernet, &tagged(tags, 0x0800, &datagram)).unwrap();
        assert_eq!((headers.vlan, headers.inner_vlan), (vlan, inner), "{tags:?}");
        assert_eq!(headers.network as usize, 14 + 4 * tags.len());
        assert_eq!(headers.port_pair(), [53_u16.to_be(), 12_345_u16.to_be()]);
    }
}

#[test]
fn a_tag_beside_the_frame_is_the_outermost() {
    let datagram = ipv6(UDP, &udp());
    for (beside, tags, vlan, inner) in [
        (Some(0xe00a), &[][..], 10, NO_VLAN),
        (Some(0x000a), &[(0x8100, 20)], 10, 20),
        (Some(0x000a), &[(0x8100, 20), (0x8100, 30)], 10, 20),
        (None, &[(0x8100, 20)], 20, NO_VLAN),
    ] {
        let frame = tagged(tags, 0x86dd, &datagram);
        let mut headers = Headers::new(frame.len() as u32, beside);
        assert_eq!(parse(Link::Ethernet, &frame, &mut headers), Ok(()));
        assert_eq!((headers.vlan, headers.inner_vlan), (vlan, inner), "{beside:?} {tags:?}");
        assert_eq!(headers.network as usize, 14 + 4 * tags.len());
    }
}

#[test]
fn frames_that_are_not_ip() {
    for (ethertype, reason, reported) in [
        (0x0806, Unmetered::Arp, 0x0806),
        (0x88cc, Unmetered::Lldp, 0x88cc),
        (0x888e, Unmetered::Eapol, 0x888e),
        (0x8847, Unmetered::Mpls, 0x8847),
        (0x8848, Unmetered::Mpls, 0x8848),
        (0x8863, Unmetered::Pppoe, 0x8863),
        (0x8864, Unmetered::Pppoe, 0x8864),
        (0x1234, Unmetered::OtherEthertype, 0x1234),
        (0x0600, Unmetered::OtherEthertype, 0x0600),
        (0x05ff, Unmetered::Llc, 0),
        (0x0026, Unmetered::Llc, 0),
        (0x0000, Unmetered::Llc, 0),
    ] {
        for tags in [&[][..], &[(0x8100, 1)]] {
            let frame = tagged(tags, ethertype, &[0; 46]);
            let mut headers = Headers::new(frame.len() as u32, None);
            assert_eq!(parse(Link::Ethernet, &frame, &mut headers), Err(reason), "{ethertype:#06x}");
            assert_eq!(headers.ethertype, reported, "{ethertype:#06x}");
            assert_eq!(headers.unmetered(), reason);
        }
        assert_eq!(Unmetered::of_ethertype(ethertype), reason);
    }
}

#[test]
fn reasons_have_numbers() {
    for (number, reason) in Unmetered::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, number);
        assert_eq!(Unmetered::of_number(number as u8), reason);
    }
    assert_eq!(Unmetered::of_number(Unmetered::COUNT as u8), Unmetered::LinkType);
}

#[test]
fn reasons_have_the_names_that_the_statistics_reference_gives() {
    let names = "arp lldp eapol llc mpls pppoe other_ethertype link_type truncated malformed_ethernet \
                 malformed_vlan malformed_ipv4 malformed_ipv6 malformed_extension malformed_tcp malformed_udp \
                 malformed_sctp malformed_icmp malformed_icmpv6 too_deep bad_timestamp";
    assert_eq!(Unmetered::ALL.map(Unmetered::name).join(" "), names);
}

#[test]
fn link_headers_cut_by_the_frame_or_by_the_capture() {
    let plain = ethernet(0x0800, &ipv4(UDP, &udp()));
    let qinq = tagged(&[(0x88a8, 1), (0x8100, 2)], 0x0800, &ipv4(UDP, &udp()));
    for length in 0..14 {
        assert_eq!(walk(Link::Ethernet, &plain[..length]), Err(Unmetered::MalformedEthernet), "{length}");
        assert_eq!(cut(Link::Ethernet, &plain, length), Err(Unmetered::Truncated), "{length}");
    }
    for length in 14..22 {
        assert_eq!(walk(Link::Ethernet, &qinq[..length]), Err(Unmetered::MalformedVlan), "{length}");
        assert_eq!(cut(Link::Ethernet, &qinq, length), Err(Unmetered::Truncated), "{length}");
    }
    for (link, header) in
        [(Link::LinuxSll, 16), (Link::LinuxSll2, 20), (Link::BsdNull, 4), (Link::BsdLoop, 4)]
    {
        for length in 0..header {
            assert_eq!(walk(link, &vec![0; length]), Err(Unmetered::MalformedEthernet), "{link:?} {length}");
            assert_eq!(cut(link, &[0; 60], length), Err(Unmetered::Truncated), "{link:?} {length}");
        }
    }
}

fn sll(device: u16, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 4];
    frame.extend(device.to_be_bytes());
    frame.extend([0, 6, 1, 2, 3, 4, 5, 6, 0, 0]);
    frame.extend(protocol.to_be_bytes());
    frame.extend(payload);
    frame
}

fn sll2(device: u16, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = protocol.to_be_bytes().to_vec();
    frame.extend([0, 0, 0, 0, 0, 2]);
    frame.extend(device.to_be_bytes());
    frame.extend([4, 6, 1, 2, 3, 4, 5, 6, 0, 0]);
    frame.extend(payload);
    frame
}

#[test]
fn cooked_captures() {
    let datagram = ipv4(UDP, &udp());
    let mut behind_tag = vec![0, 42, 0x08, 0];
    behind_tag.extend(&datagram);
    for (link, make, header) in [
        (Link::LinuxSll, sll as fn(u16, u16, &[u8]) -> Vec<u8>, 16),
        (Link::LinuxSll2, sll2 as fn(u16, u16, &[u8]) -> Vec<u8>, 20),
    ] {
        let plain = walk(link, &make(1, 0x0800, &datagram)).unwrap();
        assert_eq!((plain.network, plain.vlan, plain.version), (header, NO_VLAN, 4));
        assert_eq!(walk(link, &make(1, 0x86dd, &ipv6(UDP, &udp()))).unwrap().version, 6);
        let tagged = walk(link, &make(1, 0x8100, &behind_tag)).unwrap();
        assert_eq!((tagged.network, tagged.vlan), (header + 4, 42));
        for (device, protocol, reason) in [
            (1, 0x0806, Unmetered::Arp),
            (1, 0x0001, Unmetered::Llc),
            (1, 0x0004, Unmetered::Llc),
            (1, 0x000c, Unmetered::OtherEthertype),
            (1, 0x05ff, Unmetered::OtherEthertype),
            (824, 0x0800, Unmetered::LinkType),
            (770, 0x0800, Unmetered::LinkType),
            (801, 0x0800, Unmetered::LinkType),
            (803, 0x0800, Unmetered::LinkType),
        ] {
            assert_eq!(walk(link, &make(device, protocol, &datagram)), Err(reason), "{device} {protocol:#x}");
        }
        // GRE devices have ethertypes.
        assert!(walk(link, &make(778, 0x0800, &datagram)).is_ok());
    }
}

#[test]
fn bsd_loopback() {
    let (v4, v6) = (ipv4(UDP, &udp()), ipv6(UDP, &udp()));
    let frame = |family: [u8; 4], datagram: &[u8]| [&family, datagram].concat();
    for (family, datagram, version) in
        [(2_u32, &v4, 4), (10, &v6, 6), (24, &v6, 6), (28, &v6, 6), (30, &v6, 6)]
    {
        for (link, bytes) in [
            (Link::BsdNull, family.to_le_bytes()),
            (Link::BsdNull, family.to_be_bytes()),
            (Link::BsdLoop, family.to_be_bytes()),
        ] {
            let headers = walk(link, &frame(bytes, datagram)).unwrap();
            assert_eq!((headers.version, headers.network), (version, 4), "{link:?} {family}");
        }
        let wrong_order = frame(family.to_le_bytes(), datagram);
        assert_eq!(walk(Link::BsdLoop, &wrong_order), Err(Unmetered::OtherEthertype));
    }
    assert_eq!(walk(Link::BsdNull, &frame([7, 0, 0, 0], &v4)), Err(Unmetered::OtherEthertype));
}

#[test]
fn bare_ip_says_its_version() {
    assert_eq!(ip(&ipv4(UDP, &udp())).unwrap().version, 4);
    assert_eq!(ip(&ipv6(UDP, &udp())).unwrap().version, 6);
    assert_eq!(ip(&[0x50; 40]), Err(Unmetered::MalformedIpv4));
    assert_eq!(ip(&[]), Err(Unmetered::MalformedIpv4));
    assert_eq!(cut(Link::Ip, &ipv4(UDP, &udp()), 0), Err(Unmetered::Truncated));
}

#[test]
fn only_ethernet_has_both_addresses() {
    let frame = ethernet(0x0800, &ipv4(UDP, &udp()));
    assert_eq!(macs(Link::Ethernet, &frame[..]), Some([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]));
    assert_eq!(macs(Link::Ethernet, &frame[..11]), None);
    for link in [Link::Ip, Link::LinuxSll, Link::LinuxSll2, Link::BsdNull, Link::BsdLoop] {
        assert_eq!(macs(link, &frame[..]), None);
    }
}
