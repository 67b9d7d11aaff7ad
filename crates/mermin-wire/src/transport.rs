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
fn ports<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers, header: u32, malformed: Unmetered) -> Next {
    match h.read::<4, B>(bytes, malformed) {
        Ok(ports) => {
            h.ports = u32::from_ne_bytes(ports);
            h.port_form = PortForm::Ports;
            h.offset += header;
            Next::Done
        }
        Err(reason) => h.reject(reason),
    }
}

/// The ports make the flow; flags are taken where they are, and a data offset below five words makes them doubtful.
#[inline(always)]
fn tcp<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    let Ok(tcp) = h.read::<14, B>(bytes, Unmetered::MalformedTcp) else {
        return ports(bytes, h, TCP_HEADER, Unmetered::MalformedTcp);
    };
    h.ports = word::<0, 14>(&tcp);
    h.port_form = PortForm::Ports;
    let header = u32::from(tcp[12] >> 4) << 2;
    if header < TCP_HEADER {
        h.offset += TCP_HEADER;
    } else {
        h.tcp_flags = tcp[13];
        h.offset += header;
    }
    Next::Done
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
