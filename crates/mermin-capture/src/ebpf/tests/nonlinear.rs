//! Headers outside the linear part of a buffer, and tags inline at egress that are beside the frame at ingress.

use super::can_run;
use super::frames::ethernet;
use super::live::open;
use crate::AttachKind;
use crate::config::RING_BYTES;
use crate::testing::{Kept, Pair, finish, interface, run};
use mermin_flow::Observation;
use mermin_wire::{Buffer, Headers, Link, count, parse};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Larger than a page: below that the kernel makes all of it linear.
const FRAME: usize = 5_000;
const PACKET_VNET_HDR: libc::c_int = 15;
/// `struct virtio_net_hdr`.
const VNET_HEADER: usize = 10;

/// A packet socket on a device that takes frames behind a `virtio_net_hdr`.
fn packet_socket(device: &str) -> OwnedFd {
    // SAFETY: no pointers; the descriptor is checked and new.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    };
    let on: libc::c_int = 1;
    // SAFETY: the option is an int.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, (&raw const on).cast(), 4)
    };
    assert_eq!(set, 0);
    // SAFETY: integers only, zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = interface(device).index as i32;
    let size = size_of_val(&address) as u32;
    // SAFETY: the address is as long as said.
    assert_eq!(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) }, 0);
    socket
}

fn send(socket: &OwnedFd, frame: &[u8], linear: u16) {
    let mut bytes = vec![0; VNET_HEADER];
    bytes[2..4].copy_from_slice(&linear.to_ne_bytes());
    bytes.extend(frame);
    // SAFETY: a buffer of this length.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    assert_eq!(sent, bytes.len() as isize, "{}", std::io::Error::last_os_error());
}

/// What user space makes of the frame, as far as it doesn't depend on where it was seen.
fn expected(frame: &[u8]) -> Option<Observation> {
    let mut h = Headers::new(frame.len() as u32, None);
    parse(Link::Ethernet, frame, &mut h).ok()?;
    let counts = count(&h, &Buffer::packet(frame.len() as u32));
    Some(Observation {
        addresses: [h.source[0], h.source[1], h.destination[0], h.destination[1]],
        packets: 1,
        bytes: counts.ip_bytes,
        frame_bytes: counts.frame_bytes,
        ports: h.port_pair(),
        port_form: h.port_form,
        fragment_id: h.fragment_id,
        macs: frame[..12].try_into().unwrap(),
        vlan: h.vlan,
        inner_vlan: h.inner_vlan,
        protocol: h.protocol,
        ip_version: h.version,
        has_tcp_flags: h.has_tcp_flags,
        tcp_flags: h.tcp_flags,
        traffic_class: h.traffic_class,
        ttl: h.ttl,
        ..Observation::EMPTY
    })
}

/// Without what depends on where and when it was seen.
fn placeless(observation: &Observation) -> Observation {
    Observation {
        start: 0,
        end: 0,
        point: 0,
        buffers: 0,
        buffer_bytes: 0,
        fragment: Observation::EMPTY.fragment,
        ..*observation
    }
}

#[test]
fn both_hooks_see_headers_wherever_they_lie() {
    if !can_run("both_hooks_see_headers_wherever_they_lie") {
        return;
    }
    let pair = Pair::new();
    run(&format!("ip -n {} link set va mtu 9000", pair.here));
    run(&format!("ip -n {} link set vb mtu 9000", pair.there));
    let mut out = Pair::inside(&pair.here, || open("va", RING_BYTES, AttachKind::Tcx));
    let mut into = Pair::inside(&pair.there, || open("vb", RING_BYTES, AttachKind::Tcx));
    let frames: Vec<Vec<u8>> = ethernet()
        .into_iter()
        .map(|mut frame| {
            frame.resize(FRAME, 0);
            frame
        })
        .collect();
    let mut expectations = Vec::new();
    Pair::inside(&pair.here, || {
        let socket = packet_socket("va");
        for linear in [14, 20, 40, 66] {
            for frame in &frames {
                send(&socket, frame, linear);
                expectations.extend(expected(frame));
            }
        }
    });
    // The namespaces' own chatter is in other address ranges.
    let ours = |kept: &Kept, point| -> Vec<Observation> {
        let from = [[10, 0, 0, 1], [0x20, 1, 0xd, 0xb8]].map(u32::from_ne_bytes);
        let of_ours = |o: &&Observation| o.point == point && from.contains(&(o.addresses[0] as u32));
        kept.0.iter().filter(of_ours).map(placeless).collect()
    };
    let (mut sent, mut received) = (Kept::default(), Kept::default());
    finish(&mut out, &mut sent);
    finish(&mut into, &mut received);
    assert!(expectations.len() > 300);
    assert_eq!(ours(&sent, 1).len(), expectations.len());
    for (seen, expected) in ours(&sent, 1).iter().zip(&expectations) {
        assert_eq!(seen, expected, "egress");
    }
    assert_eq!(ours(&received, 0).len(), expectations.len());
    for (seen, expected) in ours(&received, 0).iter().zip(&expectations) {
        assert_eq!(seen, expected, "ingress");
    }
    let beside = received.0.iter().filter(|o| o.frame_bytes == u64::from(o.buffer_bytes) + 4).count();
    assert!(beside > 200, "the kernel took {beside} tags off");
}
