//! Plain packets, which most of any traffic is: a whole IP datagram without options or extension headers, all of it
//! within the frame, and in it TCP or UDP whose ports and flags were captured.
//!
//! For user space. Everything is at a constant place, and what is the same for all plain packets of an IP version the
//! compiler knows from here on. The headers of a plain packet are those that the walk would find; a packet that is not
//! plain leaves nothing to rely on in them and is walked from its start.

use crate::bytes::{Bytes, be16, long, word};
use crate::headers::Headers;
use crate::link::{self, Link};
use crate::step::Next;
use crate::transport;

/// Version 4, five words.
const IPV4_FRONT: u8 = 0x45;
/// RFC 791: more fragments, and the fragment's offset.
const FRAGMENT: u16 = 0x3fff;

/// The link header with up to two tags; what comes next.
#[inline(always)]
pub fn link_header(bytes: &[u8], link: Link, h: &mut Headers) -> Next {
    let mut next = match link {
        Link::Ethernet => link::ethernet(bytes, h),
        Link::Ip => link::raw_ip(bytes, h),
        Link::LinuxSll => link::sll(bytes, h),
        Link::LinuxSll2 => link::sll2(bytes, h),
        Link::BsdNull => link::bsd_null(bytes, h),
        Link::BsdLoop => link::bsd_loop(bytes, h),
    };
    h.steps = 1;
    if next == Next::Vlan {
        next = link::vlan(bytes, h);
        h.steps = 2;
        if next == Next::Vlan {
            next = link::vlan(bytes, h);
            h.steps = 3;
        }
    }
    next
}

/// Whether the packet whose IPv4 header is next is plain; then its headers.
#[inline(always)]
pub fn plain_ipv4<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> bool {
    let Some(ip) = bytes.array::<20>(h.offset as usize) else { return false };
    if ip[0] != IPV4_FRONT || be16::<6, 20>(&ip) & FRAGMENT != 0 {
        return false;
    }
    h.version = 4;
    h.traffic_class = ip[1];
    h.ttl = ip[8];
    h.protocol = ip[9];
    h.source[0] = u64::from(word::<12, 20>(&ip));
    h.destination[0] = u64::from(word::<16, 20>(&ip));
    within_frame(h, 20, u32::from(be16::<2, 20>(&ip))) && transport::common(bytes, h)
}

/// Whether the packet whose IPv6 header is next is plain; then its headers.
#[inline(always)]
pub fn plain_ipv6<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> bool {
    let Some(ip) = bytes.array::<40>(h.offset as usize) else { return false };
    if ip[0] >> 4 != 6 {
        return false;
    }
    h.version = 6;
    h.traffic_class = ip[0] << 4 | ip[1] >> 4;
    h.protocol = ip[6];
    h.ttl = ip[7];
    h.source = [long::<8, 40>(&ip), long::<16, 40>(&ip)];
    h.destination = [long::<24, 40>(&ip), long::<32, 40>(&ip)];
    within_frame(h, 40, 40 + u32::from(be16::<4, 40>(&ip))) && transport::common(bytes, h)
}

/// Whether a datagram of `length` bytes ends within the frame; its header has `header` bytes.
#[inline(always)]
fn within_frame(h: &mut Headers, header: u32, length: u32) -> bool {
    h.network = h.offset;
    h.offset += header;
    h.ip_length = length;
    h.steps += 2;
    let end = h.network + length;
    let fits = end <= h.limit;
    h.limit = end;
    fits
}
