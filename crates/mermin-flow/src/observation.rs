//! The one currency upstream of the flow table.
//!
//! An observation says that packets of one flow key were seen at one observation point: one packet, or the sum of
//! several (a segmented buffer, a kernel-side aggregate). Every source makes them, the packet reader orients them
//! and chooses their shard, a flow worker adds them to the flow table.
//!
//! The layout is two cache lines without indirection because batches of observations are handed between threads;
//! words of addresses and ports are in network byte order, so comparing and hashing them needs no conversion.

use crate::key::FlowKey;
use crate::record::Counts;
use crate::sampling::Sampling;
use crate::tally::Tally;
use crate::tcp;
use mermin_wire::{Fragment, NO_VLAN, PortForm};

/// Packets ≥ 1 of one flow key, seen at one observation point.
///
/// Times are nanoseconds since 1970, UTC. `start` ≤ `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Observation {
    /// Source (first two words) and destination as on the wire, in network byte order; IPv4 in the low half of the
    /// first word of each, the rest zero.
    pub addresses: [u64; 4],
    /// Time of the last packet.
    pub end: u64,
    /// IP bytes (RFC 7012 `octetDeltaCount`) of all packets.
    pub bytes: u64,
    /// Bytes on the link of all packets.
    pub frame_bytes: u64,
    /// Source and destination port, each in network byte order; for ICMP type and code of the packet, widened to 16
    /// bits and also in network byte order. Zero where `port_form` is `Absent`.
    pub ports: [u16; 2],
    /// Packets on the wire.
    pub packets: u32,

    /// The source's watermark when its last packet was read; set by the packet reader.
    pub watermark: u64,
    /// Time of the first packet.
    pub start: u64,
    /// Bytes of the buffers (socket buffers or frames) that carried the packets, as counted at the source's entry.
    pub buffer_bytes: u32,
    /// By what draw it was kept; set by the packet reader.
    pub sampling: Sampling,
    /// Those buffers. A segmented buffer is one buffer and many packets.
    pub buffers: u32,
    /// Hash of the flow key; set by the packet reader.
    pub hash: u32,
    /// Identification of a fragment's datagram among those between its two addresses. IPv6: the field; IPv4: the field
    /// below the protocol that the fragment's own header names, as each protocol has its own numbers (RFC 791).
    pub fragment_id: u32,
    /// Destination and source MAC address of the first packet, as on the wire; all zero where the link has none.
    pub macs: [u8; 12],
    /// VLAN id of the outermost tag, or [`NO_VLAN`].
    pub vlan: u16,
    /// VLAN id of the second tag, or [`NO_VLAN`].
    pub inner_vlan: u16,
    /// Number of the observation point in [`crate::ObservationPoints`].
    pub point: u16,
    /// IANA protocol number of the transport.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// What `ports` holds.
    pub port_form: PortForm,
    /// Set by the packet reader: the packets ran from the key's second end to its first, and `addresses` and ports
    /// have been swapped.
    pub reversed: bool,
    /// Whether `tcp_flags` says something: a TCP header was captured that far.
    pub has_tcp_flags: bool,
    /// Union of the TCP flags.
    pub tcp_flags: u8,
    /// Traffic class (DSCP and ECN) of the first packet.
    pub traffic_class: u8,
    /// TTL or hop limit of the first packet.
    pub ttl: u8,
    /// Where the packet stands within its datagram.
    pub fragment: Fragment,
    /// Set by the packet reader.
    pub shard: u8,
}

const _: () = assert!(size_of::<Observation>() == 128);

impl Observation {
    /// No packets of no flow: the base from which sources fill in what they know.
    pub const EMPTY: Self = Self {
        addresses: [0; 4],
        end: 0,
        bytes: 0,
        frame_bytes: 0,
        ports: [0; 2],
        packets: 0,
        watermark: 0,
        start: 0,
        buffer_bytes: 0,
        sampling: Sampling::NONE,
        buffers: 0,
        hash: 0,
        fragment_id: 0,
        macs: [0; 12],
        vlan: NO_VLAN,
        inner_vlan: NO_VLAN,
        point: 0,
        protocol: 0,
        ip_version: 4,
        port_form: PortForm::Absent,
        reversed: false,
        has_tcp_flags: false,
        tcp_flags: 0,
        traffic_class: 0,
        ttl: 0,
        fragment: Fragment::Whole,
        shard: 0,
    };

    /// Whether packets and frame bytes are not those of the buffers that carried them.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn is_segmented(&self) -> bool {
        self.packets != self.buffers || self.frame_bytes != self.buffer_bytes as u64
    }

    /// The watermark at its first packet: as far before that of its last as their times are apart.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn began(&self) -> u64 {
        self.watermark.saturating_sub(self.span())
    }

    /// The watermark at its first packet, or that packet's own time where the watermark is held back
    /// ([`crate::Sink::hold_back`]).
    #[inline(always)]
    #[must_use]
    pub(crate) const fn started(&self) -> u64 {
        let began = self.began();
        if began < self.start { self.start } else { began }
    }

    /// The watermark at its last packet, or that packet's own time likewise.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn ended(&self) -> u64 {
        if self.watermark < self.end { self.end } else { self.watermark }
    }

    /// How far the times of its first and last packet are apart.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn span(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Its packets and bytes.
    #[inline(always)]
    pub(crate) const fn counts(&self) -> Counts {
        Counts { packets: self.packets as u64, bytes: self.bytes, frame_bytes: self.frame_bytes }
    }

    /// Its packets and bytes in the ledger's units.
    #[inline]
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            packets: u64::from(self.packets),
            bytes: self.frame_bytes,
            buffers: u64::from(self.buffers),
            buffer_bytes: u64::from(self.buffer_bytes),
        }
    }
}

/// Flags that a connection begins or ends with.
const TURNS: u8 = tcp::SYN | tcp::FIN | tcp::RST;

/// Packets that are behind the watermark by so much more or less than others, ns, are not merged with them: when an
/// observation began is told by its times, and is wrong by as much.
const LAGS_APART: u64 = 10_000_000;

/// Merging: what is later of the same kind joins what waits.
impl Observation {
    /// Whether both are packets of one flow, in whichever direction. Both are oriented.
    #[must_use]
    pub fn is_of_flow_of(&self, other: &Self) -> bool {
        FlowKey::of(self).same(&FlowKey::of(other))
    }

    /// Whether a connection may begin or end with it: nothing of its flow may pass it, in either direction.
    #[must_use]
    pub const fn is_turn(&self) -> bool {
        self.tcp_flags & TURNS != 0
    }

    /// Whether both are of one direction at one observation point, if they are of one flow.
    #[must_use]
    pub const fn is_beside(&self, other: &Self) -> bool {
        self.reversed == other.reversed && self.point == other.point
    }

    /// Takes a later one of the same flow in, if the meter then does what it would do with both, provided that nothing
    /// in which [`Observation::is_turn`] came between them: the same flow, counts and facts, only a report may be later.
    /// So both are of one direction, point, TTL and rate of sampling, and less than `gap` apart: ns, at most the shortest idle timeout.
    pub fn absorb(&mut self, later: &Self, gap: u64) -> bool {
        let lag = |o: &Self| o.watermark.wrapping_sub(o.end).cast_signed();
        let (Some(packets), Some(buffers), Some(buffer_bytes)) = (
            self.packets.checked_add(later.packets),
            self.buffers.checked_add(later.buffers),
            self.buffer_bytes.checked_add(later.buffer_bytes),
        ) else {
            return false;
        };
        let fits = self.is_beside(later)
            && !self.is_turn()
            && !later.is_turn()
            && self.ttl == later.ttl
            && self.sampling.is_as(later.sampling)
            && self.has_tcp_flags == later.has_tcp_flags
            && later.watermark - self.watermark < gap
            && lag(self).abs_diff(lag(later)) <= LAGS_APART;
        if fits {
            (self.packets, self.buffers, self.buffer_bytes) = (packets, buffers, buffer_bytes);
            self.sampling = self.sampling.with(later.sampling);
            self.bytes += later.bytes;
            self.frame_bytes += later.frame_bytes;
            self.tcp_flags |= later.tcp_flags;
            self.end = self.end.max(later.end);
            self.watermark = later.watermark;
        }
        fits
    }
}
