//! Frames from parts, and the walk over them.

use mermin_wire::{Headers, Link, Unmetered, parse};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Ports 12345 and 80, flags PSH and ACK, four bytes of payload.
pub(crate) fn tcp() -> Vec<u8> {
    let mut bytes = vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    bytes.extend(*b"data");
    bytes
}

/// Ports 53 and 12345, four bytes of payload.
pub(crate) fn udp() -> Vec<u8> {
    vec![0, 53, 0x30, 0x39, 0, 12, 0, 0, 1, 2, 3, 4]
}

/// 10.0.0.1 to 192.168.1.2, DSCP 46, TTL 64, id 0x1234.
pub(crate) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let mut ip = vec![0x45, 0xb8];
    ip.extend(total.to_be_bytes());
    ip.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 192, 168, 1, 2]);
    ip.extend(payload);
    ip
}

/// 2001:db8::1 to fe80::2, traffic class 0xab, hop limit 61.
pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x6a, 0xb1, 2, 3];
    ip.extend((payload.len() as u16).to_be_bytes());
    ip.extend([next, 61]);
    ip.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    ip.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    ip.extend(payload);
    ip
}

/// An extension header with options of 0 (Pad1) in `units` times 8 more bytes.
pub(crate) fn extension(next: u8, units: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, units];
    bytes.resize(8 + 8 * usize::from(units), 0);
    bytes.extend(payload);
    bytes
}

/// A fragment header.
pub(crate) fn fragment(next: u8, offset_and_more: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, 0];
    bytes.extend(offset_and_more.to_be_bytes());
    bytes.extend([0xa, 0xb, 0xc, 0xd]);
    bytes.extend(payload);
    bytes
}

pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    tagged(&[], ethertype, payload)
}

/// Tags as (ethertype, control information), outermost first.
pub(crate) fn tagged(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    for (kind, control) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A whole frame.
pub(crate) fn walk(link: Link, frame: &[u8]) -> Result<Headers, Unmetered> {
    cut(link, frame, frame.len())
}

/// A frame of which only `captured` bytes are there.
pub(crate) fn cut(link: Link, frame: &[u8], captured: usize) -> Result<Headers, Unmetered> {
    let mut headers = Headers::new(frame.len() as u32, None);
    parse(link, &frame[..captured], &mut headers).map(|()| headers)
}

/// IP without a link header.
pub(crate) fn ip(datagram: &[u8]) -> Result<Headers, Unmetered> {
    walk(Link::Ip, datagram)
}
