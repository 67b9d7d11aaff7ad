//! What a frame's headers say.

use crate::bytes::Bytes;
use crate::reason::Unmetered;
use crate::step::Next;

/// No VLAN tag.
pub const NO_VLAN: u16 = 0xffff;

/// What the ports of [`Headers`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PortForm {
    /// The protocol has none, the packet is a later fragment, or an ICMP type is not in the captured bytes.
    Absent = 0,
    /// Ports of TCP, UDP or SCTP.
    Ports = 1,
    /// Type and code of ICMP or ICMPv6, each widened to 16 bits.
    IcmpTypeCode = 2,
}

/// Where a packet stands within its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fragment {
    /// The packet is the whole datagram; also with a fragment header that says so (an atomic fragment, RFC 6946).
    Whole = 0,
    /// Offset 0, more to come: it has the transport header.
    First = 1,
    /// Any other fragment: its payload is never read as a transport header.
    Later = 2,
}

/// Headers of one frame, and the state of the walk over them.
///
/// The fields fall by size, so there is no padding that the kernel's verifier could call uninitialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Headers {
    /// Source address in network byte order; IPv4 in the low half of the first word, the rest zero.
    pub source: [u64; 2],
    /// Destination address, likewise.
    pub destination: [u64; 2],
    /// Source and destination port as in memory; [`Headers::port_pair`] takes them apart.
    pub ports: u32,
    /// Where the next header starts; after the walk, the payload of the transport, which segmented buffers are
    /// counted with.
    pub offset: u32,
    /// Where the IP header starts: the length of the link header with its inline tags.
    pub network: u32,
    /// Where the packet ends for the current layer: the frame's length on the wire, then the IP datagram's end if
    /// that comes before it, so that padding is never read as a header.
    pub limit: u32,
    /// Length of the IP datagram by its own fields; 0 where they don't say.
    pub ip_length: u32,
    /// Identification of a fragment: tells the datagrams between two addresses apart. IPv6: the field; IPv4: the field
    /// below the protocol, because RFC 791 has one number space per protocol.
    pub fragment_id: u32,
    /// State of the walk: end of the options being searched.
    pub options_end: u32,
    /// VLAN id of the outermost tag, or [`NO_VLAN`].
    pub vlan: u16,
    /// VLAN id of the second tag, or [`NO_VLAN`].
    pub inner_vlan: u16,
    /// Of a frame that is not IP; 0 where it has none (LLC, other families).
    pub ethertype: u16,
    /// State of the walk: steps taken.
    pub steps: u16,
    /// Of the transport, or of the next extension header during the walk.
    pub protocol: u8,
    /// 4 or 6, 0 before an IP header.
    pub version: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// Whether `tcp_flags` says something: TCP, with a header of a possible length that is captured that far.
    pub has_tcp_flags: bool,
    /// What `ports` holds.
    pub port_form: PortForm,
    /// Where the packet stands within its datagram.
    pub fragment: Fragment,
    /// Why the walk ended in [`Next::Reject`]: the number of an [`Unmetered`]. A number, because a compiler that knows an
    /// enum's range drops the bounds checks that the kernel's verifier wants to see.
    pub reason: u8,
    /// Zero.
    pub pad: u8,
    /// Zero. Apart, because three bytes in a row are cleared by a call of `memset` on the BPF target.
    pub pad_end: u16,
}

const _: () = assert!(size_of::<Headers>() == 80);

impl Headers {
    /// Before the walk over a frame of `wire_length` bytes (without a tag that is held beside it). `outer_tag` is the
    /// control information of such a tag: the outermost one, before any inline.
    #[inline(always)]
    #[must_use]
    pub const fn new(wire_length: u32, outer_tag: Option<u16>) -> Self {
        match outer_tag {
            Some(control) => Self::tagged(wire_length, control & 0x0fff),
            None => Self::tagged(wire_length, NO_VLAN),
        }
    }

    /// The same by the id of the tag, or [`NO_VLAN`].
    #[inline(always)]
    #[must_use]
    pub const fn tagged(wire_length: u32, vlan: u16) -> Self {
        Self {
            source: [0; 2],
            destination: [0; 2],
            ports: 0,
            offset: 0,
            network: 0,
            limit: wire_length,
            ip_length: 0,
            fragment_id: 0,
            options_end: 0,
            vlan,
            inner_vlan: NO_VLAN,
            ethertype: 0,
            steps: 0,
            protocol: 0,
            version: 0,
            traffic_class: 0,
            ttl: 0,
            tcp_flags: 0,
            has_tcp_flags: false,
            port_form: PortForm::Absent,
            fragment: Fragment::Whole,
            reason: Unmetered::LinkType as u8,
            pad: 0,
            pad_end: 0,
        }
    }

    /// Source and destination port, each in network byte order; of ICMP, type and code.
    #[inline(always)]
    #[must_use]
    pub const fn port_pair(&self) -> [u16; 2] {
        [self.ports as u16, (self.ports >> 16) as u16]
    }

    /// The reason after a walk that was not completed.
    #[must_use]
    pub const fn unmetered(&self) -> Unmetered {
        Unmetered::of_number(self.reason)
    }

    #[inline(always)]
    pub(crate) fn reject(&mut self, reason: Unmetered) -> Next {
        self.reason = reason as u8;
        Next::Reject
    }

    /// `N` bytes at the current offset. Past the packet's end that is `malformed`; past the captured bytes only, the
    /// packet was truncated by the snap length.
    #[inline(always)]
    pub(crate) fn read<const N: usize, B: Bytes + ?Sized>(
        &self,
        bytes: &B,
        malformed: Unmetered,
    ) -> Result<[u8; N], Unmetered> {
        if self.offset + N as u32 > self.limit {
            return Err(malformed);
        }
        bytes.array::<N>(self.offset as usize).ok_or(Unmetered::Truncated)
    }
}
