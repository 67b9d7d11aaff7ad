//! Link headers: Ethernet and its tags, raw IP, Linux cooked captures, BSD loopback.

use crate::bytes::{Bytes, be16, part};
use crate::headers::{Headers, NO_VLAN};
use crate::reason::Unmetered;
use crate::step::Next;

/// What a frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// Ethernet II or IEEE 802.3.
    Ethernet,
    /// An IP header; its version is in the first four bits.
    Ip,
    /// Linux cooked capture, version 1 (16 bytes).
    LinuxSll,
    /// Linux cooked capture, version 2 (20 bytes).
    LinuxSll2,
    /// BSD loopback: an address family in the byte order of the capturing machine.
    BsdNull,
    /// OpenBSD loopback: the same in network byte order.
    BsdLoop,
}

impl Link {
    /// The link of a LINKTYPE number of pcap and pcapng (<https://www.tcpdump.org/linktypes.html>), also of the two
    /// DLT numbers that old captures have for raw IP. `None`: no parser here.
    #[must_use]
    pub const fn from_linktype(number: u16) -> Option<Self> {
        Some(match number {
            0 => Self::BsdNull,
            1 => Self::Ethernet,
            12 | 14 | 101 | 228 | 229 => Self::Ip,
            108 => Self::BsdLoop,
            113 => Self::LinuxSll,
            276 => Self::LinuxSll2,
            _ => return None,
        })
    }

    /// The step that reads it.
    #[inline(always)]
    #[must_use]
    pub const fn first(self) -> Next {
        match self {
            Self::Ethernet => Next::Ethernet,
            Self::Ip => Next::RawIp,
            Self::LinuxSll => Next::Sll,
            Self::LinuxSll2 => Next::Sll2,
            Self::BsdNull => Next::BsdNull,
            Self::BsdLoop => Next::BsdLoop,
        }
    }
}

/// Destination and source MAC address, as on the wire. Only Ethernet has both; a cooked header has the sender's only,
/// and half a pair is not reported.
#[inline(always)]
#[must_use]
pub fn macs<B: Bytes + ?Sized>(link: Link, bytes: &B) -> Option<[u8; 12]> {
    match link {
        Link::Ethernet => bytes.array::<12>(0),
        _ => None,
    }
}

#[inline(always)]
pub(crate) fn ethernet<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    h.offset = 12;
    match h.read::<2, B>(bytes, Unmetered::MalformedEthernet) {
        Ok(ethertype) => {
            h.offset = 14;
            of_ethertype(h, u16::from_be_bytes(ethertype))
        }
        Err(reason) => h.reject(reason),
    }
}

/// A tag's control information and the ethertype behind it. The ids of the two outermost tags are kept.
#[inline(always)]
pub(crate) fn vlan<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    let tag = match h.read::<4, B>(bytes, Unmetered::MalformedVlan) {
        Ok(tag) => tag,
        Err(reason) => return h.reject(reason),
    };
    let id = be16::<0, 4>(&tag) & 0x0fff;
    if h.vlan == NO_VLAN {
        h.vlan = id;
    } else if h.inner_vlan == NO_VLAN {
        h.inner_vlan = id;
    }
    h.offset += 4;
    of_ethertype(h, be16::<2, 4>(&tag))
}

#[inline(always)]
fn of_ethertype(h: &mut Headers, ethertype: u16) -> Next {
    match ethertype {
        0x0800 => Next::Ipv4,
        0x86dd => Next::Ipv6,
        0x8100 | 0x88a8 | 0x9100 => Next::Vlan,
        // An IEEE 802.3 length.
        0..0x0600 => h.reject(Unmetered::Llc),
        _ => {
            h.ethertype = ethertype;
            h.reject(Unmetered::of_ethertype(ethertype))
        }
    }
}

/// IP without a link header. What is neither version can't be blamed on one and counts as malformed IPv4. Two bytes
/// are read though one would do: the check for one at the packet's start is compiled to a comparison of 32 bits, which
/// the kernel's verifier doesn't take as one.
#[inline(always)]
pub(crate) fn raw_ip<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    match h.read::<2, B>(bytes, Unmetered::MalformedIpv4) {
        Ok([first, _]) => match first >> 4 {
            4 => Next::Ipv4,
            6 => Next::Ipv6,
            _ => h.reject(Unmetered::MalformedIpv4),
        },
        Err(reason) => h.reject(reason),
    }
}

/// <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html>
#[inline(always)]
pub(crate) fn sll<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    match h.read::<16, B>(bytes, Unmetered::MalformedEthernet) {
        Ok(header) => {
            h.offset = 16;
            of_cooked(h, be16::<2, 16>(&header), be16::<14, 16>(&header))
        }
        Err(reason) => h.reject(reason),
    }
}

/// <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>
#[inline(always)]
pub(crate) fn sll2<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    match h.read::<20, B>(bytes, Unmetered::MalformedEthernet) {
        Ok(header) => {
            h.offset = 20;
            of_cooked(h, be16::<8, 20>(&header), be16::<0, 20>(&header))
        }
        Err(reason) => h.reject(reason),
    }
}

/// The protocol of a cooked header is an ethertype, except on devices whose payload is something else: frame relay
/// (770), 802.11 in its three forms (801–803), netlink (824). Below 0x0600 stand Linux's own numbers, not lengths:
/// 1 and 4 are IEEE 802.3 and 802.2, the others no ethertypes at all.
#[inline(always)]
fn of_cooked(h: &mut Headers, device_type: u16, protocol: u16) -> Next {
    match (device_type, protocol) {
        (770 | 801..=803 | 824, _) => h.reject(Unmetered::LinkType),
        (_, 0x0001 | 0x0004) => h.reject(Unmetered::Llc),
        (_, 0..0x0600) => h.reject(Unmetered::OtherEthertype),
        _ => of_ethertype(h, protocol),
    }
}

/// The family is 32 bits in the byte order of whoever captured: both are tried, all families are small numbers.
#[inline(always)]
pub(crate) fn bsd_null<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    match h.read::<4, B>(bytes, Unmetered::MalformedEthernet) {
        Ok(header) => {
            let little = u32::from_le_bytes(part::<0, 4, 4>(&header));
            of_family(h, if little > 0xffff { little.swap_bytes() } else { little })
        }
        Err(reason) => h.reject(reason),
    }
}

#[inline(always)]
pub(crate) fn bsd_loop<B: Bytes + ?Sized>(bytes: &B, h: &mut Headers) -> Next {
    match h.read::<4, B>(bytes, Unmetered::MalformedEthernet) {
        Ok(header) => of_family(h, u32::from_be_bytes(header)),
        Err(reason) => h.reject(reason),
    }
}

/// IPv6 has a number of its own in Linux (10), NetBSD and OpenBSD (24), FreeBSD (28) and Darwin (30).
#[inline(always)]
fn of_family(h: &mut Headers, family: u32) -> Next {
    h.offset = 4;
    match family {
        2 => Next::Ipv4,
        10 | 24 | 28 | 30 => Next::Ipv6,
        _ => h.reject(Unmetered::OtherEthertype),
    }
}
