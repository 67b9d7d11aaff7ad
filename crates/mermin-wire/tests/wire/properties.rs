//! What holds for any bytes.

use crate::build::{TCP, UDP, extension, fragment, ipv4, ipv6, tagged, tcp, udp};
use crate::plain::plain;
use mermin_wire::{Headers, Link, Next, Unmetered, parse, step, straight, walk as walk_on};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn link() -> impl Strategy<Value = Link> {
    select(vec![Link::Ethernet, Link::Ip, Link::LinuxSll, Link::LinuxSll2, Link::BsdNull, Link::BsdLoop])
}

/// Ethernet frames that mostly make sense.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let tags = vec((select(vec![0x8100_u16, 0x88a8, 0x9100]), any::<u16>()), 0..4);
    let chain = vec(select(vec![0_u8, 43, 44, 60]), 0..5);
    let transport = select(vec![1_u8, 2, 6, 17, 47, 50, 58, 59, 132]);
    (tags, any::<bool>(), chain, transport, vec(any::<u8>(), 0..20)).prop_map(
        |(tags, v6, chain, transport, tail)| {
            let mut payload = if transport == TCP { tcp() } else { udp() };
            payload.extend(tail);
            if !v6 {
                return tagged(&tags, 0x0800, &ipv4(transport, &payload));
            }
            let (next, payload) = chain.into_iter().fold((transport, payload), |(next, payload), header| {
                let bytes =
                    if header == 44 { fragment(next, 1, &payload) } else { extension(next, 1, &payload) };
                (header, bytes)
            });
            tagged(&tags, 0x86dd, &ipv6(next, &payload))
        },
    )
}

/// The same with a few bytes changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (frame(), vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)).prop_map(|(mut frame, changes)| {
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        frame
    })
}

fn walk(link: Link, bytes: &[u8], wire_length: usize) -> (Headers, Result<(), Unmetered>) {
    let mut headers = Headers::new(wire_length as u32, None);
    let outcome = parse(link, bytes, &mut headers);
    (headers, outcome)
}

fn by_steps_alone(link: Link, bytes: &[u8], wire_length: usize) -> (Headers, Result<(), Unmetered>) {
    let mut headers = Headers::new(wire_length as u32, None);
    let mut next = link.first();
    while !next.is_end() {
        next = step(bytes, &mut headers, next);
    }
    let outcome = if next == Next::Done { Ok(()) } else { Err(headers.unmetered()) };
    (headers, outcome)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_walked(link in link(), bytes in vec(any::<u8>(), 0..200), beyond in 0_usize..100) {
        let (headers, outcome) = walk(link, &bytes, bytes.len() + beyond);
        prop_assert!(headers.network as usize <= bytes.len() + beyond);
        prop_assert_eq!((headers, outcome), by_steps_alone(link, &bytes, bytes.len() + beyond));
    }

    #[test]
    fn the_straight_line_is_a_short_cut(frame in damaged(), keep in any::<prop::sample::Index>()) {
        let captured = keep.index(frame.len() + 1);
        prop_assert_eq!(
            walk(Link::Ethernet, &frame[..captured], frame.len()),
            by_steps_alone(Link::Ethernet, &frame[..captured], frame.len())
        );
    }

    /// In the kernel the straight line has the linear part of the packet, and the rest of the walk has all of it.
    #[test]
    fn the_walk_goes_on_where_the_straight_line_ran_out_of_bytes(
        frame in damaged(),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut headers = Headers::new(frame.len() as u32, None);
        let next = straight(&frame[..keep.index(frame.len() + 1)], Link::Ethernet, &mut headers);
        let outcome = walk_on(&frame, &mut headers, next);
        let expected = walk(Link::Ethernet, &frame, frame.len());
        if outcome.is_ok() {
            // What stopped the straight line is of no account any more.
            headers.reason = expected.0.reason;
        }
        prop_assert_eq!((headers, outcome), expected);
    }

    #[test]
    fn plain_packets_are_a_short_cut(link in link(), frame in damaged(), keep in any::<prop::sample::Index>()) {
        let captured = keep.index(frame.len() + 1);
        plain(Link::Ethernet, &frame[..captured], frame.len());
        plain(link, &frame[14..], frame.len() - 14);
    }

    #[test]
    fn cutting_a_frame_only_truncates(frame in damaged(), keep in any::<prop::sample::Index>()) {
        let captured = keep.index(frame.len() + 1);
        let (all, whole) = walk(Link::Ethernet, &frame, frame.len());
        let (left, cut) = walk(Link::Ethernet, &frame[..captured], frame.len());
        match (whole, cut) {
            (_, Err(Unmetered::Truncated)) => {}
            (Ok(()), Ok(())) => {
                prop_assert_eq!(
                    (left.source, left.destination, left.protocol, left.vlan, left.fragment_id),
                    (all.source, all.destination, all.protocol, all.vlan, all.fragment_id)
                );
                // A type may be missing, never another one.
                prop_assert!(left.ports == all.ports || left.port_form == mermin_wire::PortForm::Absent);
                prop_assert!(left.tcp_flags == all.tcp_flags || !left.has_tcp_flags);
            }
            // Without the bytes that make it malformed, a frame may look better than it is, not worse.
            (Err(_), _) => {}
            (Ok(()), Err(reason)) => prop_assert!(false, "cut at {} became {:?}", captured, reason),
        }
    }

    #[test]
    fn payload_is_not_looked_at(frame in frame(), tail in vec(any::<u8>(), 0..50)) {
        let (before, _) = walk(Link::Ethernet, &frame, frame.len());
        let longer = [&frame[..], &tail].concat();
        let (after, _) = walk(Link::Ethernet, &longer, longer.len());
        prop_assert_eq!(
            (before.source, before.ports, before.protocol, before.reason),
            (after.source, after.ports, after.protocol, after.reason)
        );
    }
}

#[test]
fn numbers_of_steps_come_back() {
    for code in 0..=20 {
        let next = Next::from_code(code);
        assert_eq!(next as u32, if code <= 15 { code } else { Next::Reject as u32 });
        assert_eq!(next.is_end(), code <= 1 || code > 15);
    }
    let mut headers = Headers::new(60, None);
    for end in [Next::Done, Next::Reject] {
        assert_eq!(step(&[0_u8; 60][..], &mut headers, end), end);
    }
    assert_eq!(headers, Headers::new(60, None));
}

#[test]
fn common_frames_need_no_more_than_the_straight_line() {
    for (protocol, payload) in [(TCP, tcp()), (UDP, udp())] {
        for (ethertype, datagram) in [(0x0800, ipv4(protocol, &payload)), (0x86dd, ipv6(protocol, &payload))]
        {
            let ends = |link, frame: &[u8]| {
                let mut headers = Headers::new(frame.len() as u32, None);
                assert_eq!(straight(frame, link, &mut headers), Next::Done, "{protocol} {frame:02x?}");
                assert_ne!(headers.ports, 0);
            };
            ends(Link::Ip, &datagram);
            for tags in 0..=2 {
                ends(Link::Ethernet, &tagged(&[(0x88a8, 7), (0x8100, 8)][..tags], ethertype, &datagram));
            }
        }
    }
}
