//! IPv4, IPv6 and what may stand between them and the transport.

use crate::bytes::{Bytes, be16, long, word};
use crate::headers::{Fragment, Headers};
use crate::reason::Unmetered;
use crate::step::Next;
use crate::transport::{ICMP, ICMPV6, SCTP, TCP, UDP};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
const PAD1: u8 = 0;
/// RFC 2675.
const JUMBO_PAYLOAD: u8 = 0xc2;
const IPV6_HEADER: u32 = 40;

/// RFC 791. One bounds check for the fixed header; fields that nobody reads are never loaded.
#[inline(always)]
pub(crate) fn ipv4<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    h.network = h.offset;
    let ip = match h.read::<20, B>(bytes, Unmetered::MalformedIpv4) {
        Ok(ip) => ip,
        Err(reason) => return h.reject(reason),
    };
    let header = u32::from(ip[0] & 0x0f) << 2;
    let total = u32::from(be16::<2, 20>(&ip));
    if ip[0] >> 4 != 4 || header < 20 || (total != 0 && total < header) || h.network + header > h.limit {
        return h.reject(Unmetered::MalformedIpv4);
    }
    // Options say nothing here, but a header that was not captured to its end was cut.
    if header > 20 && bytes.array::<1>((h.offset + header - 1) as usize).is_none() {
        return h.reject(Unmetered::Truncated);
    }
    h.version = 4;
    h.traffic_class = ip[1];
    h.ttl = ip[8];
    h.protocol = ip[9];
    h.source[0] = u64::from(word::<12, 20>(&ip));
    h.destination[0] = u64::from(word::<16, 20>(&ip));
    h.offset += header;
    datagram_length(h, total);
    let fragment = be16::<6, 20>(&ip);
    if fragment & 0x3fff != 0 {
        h.fragment_id = u32::from(h.protocol) << 16 | u32::from(be16::<4, 20>(&ip));
        h.fragment = Fragment::First;
        if fragment & 0x1fff != 0 {
            h.fragment = Fragment::Later;
            return Next::Done;
        }
    }
    of_protocol(h)
}

/// RFC 8200.
#[inline(always)]
pub(crate) fn ipv6<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    h.network = h.offset;
    let ip = match h.read::<40, B>(bytes, Unmetered::MalformedIpv6) {
        Ok(ip) => ip,
        Err(reason) => return h.reject(reason),
    };
    if ip[0] >> 4 != 6 {
        return h.reject(Unmetered::MalformedIpv6);
    }
    h.version = 6;
    h.traffic_class = ip[0] << 4 | ip[1] >> 4;
    h.protocol = ip[6];
    h.ttl = ip[7];
    h.source = [long::<8, 40>(&ip), long::<16, 40>(&ip)];
    h.destination = [long::<24, 40>(&ip), long::<32, 40>(&ip)];
    h.offset += IPV6_HEADER;
    let payload = u32::from(be16::<4, 40>(&ip));
    if payload != 0 || h.protocol == NO_NEXT_HEADER {
        datagram_length(h, IPV6_HEADER + payload);
    }
    of_protocol(h)
}

/// The datagram says how long it is (0: it doesn't). What it claims past the frame's end is no reason to read there.
#[inline(always)]
fn datagram_length(h: &mut Headers, length: u32) {
    h.ip_length = length;
    let end = h.network.saturating_add(length);
    if length != 0 && end < h.limit {
        h.limit = end;
    }
}

/// What follows by number. IPv4 has none of IPv6's extension headers but AH; everything unknown is the transport.
#[inline(always)]
fn of_protocol(h: &Headers) -> Next {
    match h.protocol {
        TCP | UDP | SCTP | ICMP | ICMPV6 => Next::Transport,
        AUTHENTICATION => Next::Authentication,
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS if h.version == 6 => Next::Extension,
        FRAGMENT if h.version == 6 => Next::Fragment,
        _ => Next::Done,
    }
}

/// Hop-by-hop options, routing and destination options (RFC 8200 sections 4.3, 4.4, 4.6) have their length in common.
#[inline(always)]
pub(crate) fn extension<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    let [next, units] = match h.read::<2, B>(bytes, Unmetered::MalformedExtension) {
        Ok(header) => header,
        Err(reason) => return h.reject(reason),
    };
    let end = h.offset + ((u32::from(units) + 1) << 3);
    if end > h.limit {
        return h.reject(Unmetered::MalformedExtension);
    }
    let jumbo_possible = h.protocol == HOP_BY_HOP && h.ip_length == 0;
    h.protocol = next;
    if jumbo_possible {
        h.options_end = end;
        h.offset += 2;
        return Next::Options;
    }
    h.offset = end;
    of_protocol(h)
}

/// One hop-by-hop option of a packet whose payload length is 0, in search of the length of a jumbogram.
///
/// Options are read in twos, so a Pad1 in the last byte may not be readable: it would only lead to the end too.
#[inline(always)]
pub(crate) fn option<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    if h.offset < h.options_end
        && let Some([kind, length]) = bytes.array::<2>(h.offset as usize)
    {
        let size = if kind == PAD1 { 1 } else { 2 + u32::from(length) };
        if kind != JUMBO_PAYLOAD {
            h.offset += size;
            return Next::Options;
        }
        if length == 4
            && h.offset + size <= h.options_end
            && let Some(payload) = bytes.array::<4>(h.offset as usize + 2)
        {
            datagram_length(h, u32::from_be_bytes(payload).saturating_add(IPV6_HEADER));
        }
    }
    h.offset = h.options_end;
    if h.offset > h.limit {
        return h.reject(Unmetered::MalformedExtension);
    }
    of_protocol(h)
}

/// RFC 8200 section 4.5.
#[inline(always)]
pub(crate) fn fragment<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    let header = match h.read::<8, B>(bytes, Unmetered::MalformedExtension) {
        Ok(header) => header,
        Err(reason) => return h.reject(reason),
    };
    h.protocol = header[0];
    h.offset += 8;
    let position = be16::<2, 8>(&header);
    if position & 0xfff9 != 0 {
        h.fragment_id = u32::from_be(word::<4, 8>(&header));
        h.fragment = Fragment::First;
        if position & 0xfff8 != 0 {
            h.fragment = Fragment::Later;
            return Next::Done;
        }
    }
    of_protocol(h)
}

/// RFC 4302: the length counts 32-bit words, less two.
#[inline(always)]
pub(crate) fn authentication<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    let [next, words] = match h.read::<2, B>(bytes, Unmetered::MalformedExtension) {
        Ok(header) => header,
        Err(reason) => return h.reject(reason),
    };
    let end = h.offset + ((u32::from(words) + 2) << 2);
    if end > h.limit {
        return h.reject(Unmetered::MalformedExtension);
    }
    h.protocol = next;
    h.offset = end;
    of_protocol(h)
}
