//! Ports, TCP flags, ICMP type and code.

use crate::bytes::{Bytes, word};
use crate::headers::{Headers, PortForm};
use crate::reason::Unmetered;
use crate::step::Next;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;
const SCTP_HEADER: u32 = 12;

/// TCP and UDP where all that is wanted is at hand; `false`, and nothing changed, anywhere else.
#[inline(always)]
pub(crate) fn common<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> bool {
    match h.protocol {
        TCP => match h.read::<14, B>(bytes, Unmetered::MalformedTcp) {
            Ok(header) => {
                tcp_header(h, &header);
                true
            }
            Err(_) => false,
        },
        UDP => match h.read::<4, B>(bytes, Unmetered::MalformedUdp) {
            Ok(header) => {
                port_header(h, header, UDP_HEADER);
                true
            }
            Err(_) => false,
        },
        _ => false,
    }
}

/// A transport that has something to read.
#[inline(always)]
pub(crate) fn transport<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    match h.protocol {
        TCP => tcp(bytes, h),
        UDP => ports(bytes, h, UDP_HEADER, Unmetered::MalformedUdp),
        SCTP => ports(bytes, h, SCTP_HEADER, Unmetered::MalformedSctp),
        ICMP => icmp(bytes, h, Unmetered::MalformedIcmp),
        _ => icmp(bytes, h, Unmetered::MalformedIcmpv6),
    }
}

#[inline(always)]
fn ports<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers, size: u32, malformed: Unmetered) -> Next {
    match h.read::<4, B>(bytes, malformed) {
        Ok(header) => {
            port_header(h, header, size);
            Next::Done
        }
        Err(reason) => h.reject(reason),
    }
}

#[inline(always)]
fn port_header(h: &mut Headers, ports: [u8; 4], size: u32) {
    h.ports = u32::from_ne_bytes(ports);
    h.port_form = PortForm::Ports;
    h.offset += size;
}

/// The ports make the flow; flags are taken where they are.
#[inline(always)]
fn tcp<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    match h.read::<14, B>(bytes, Unmetered::MalformedTcp) {
        Ok(header) => {
            tcp_header(h, &header);
            Next::Done
        }
        Err(_) => ports(bytes, h, TCP_HEADER, Unmetered::MalformedTcp),
    }
}

/// A data offset below five words makes the flags doubtful.
#[inline(always)]
fn tcp_header(h: &mut Headers, header: &[u8; 14]) {
    h.ports = word::<0, 14>(header);
    h.port_form = PortForm::Ports;
    let size = u32::from(header[12] >> 4) << 2;
    if size < TCP_HEADER {
        h.offset += TCP_HEADER;
    } else {
        h.tcp_flags = header[13];
        h.has_tcp_flags = true;
        h.offset += size;
    }
}

/// Type and code past the captured bytes leave a flow without them.
#[inline(always)]
fn icmp<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers, malformed: Unmetered) -> Next {
    match h.read::<2, B>(bytes, malformed) {
        Ok([kind, code]) => {
            h.ports = u32::from(kind) << 8 | u32::from(code) << 24;
            h.port_form = PortForm::IcmpTypeCode;
        }
        Err(Unmetered::Truncated) => {}
        Err(reason) => return h.reject(reason),
    }
    h.offset += 8;
    Next::Done
}
