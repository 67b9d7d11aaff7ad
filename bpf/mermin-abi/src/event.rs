//! What a record of the ring consists of: what was seen of one flow key at one observation point.
//!
//! One buffer (packet mode; in aggregate mode fragments, and TCP segments with SYN, FIN or RST), or a delta that had to
//! leave its slot. A record holds one event or several: what leaves slots goes to the ring by the [`Stage`].

/// [`Event::flags`]: seen on the way out of the host.
pub const EVENT_EGRESS: u8 = 1;
/// [`Event::flags`]: the TCP flags say something.
pub const EVENT_HAS_TCP_FLAGS: u8 = 2;
/// [`Event::flags`]: times are ticks, as in a slot, of the first with [`crate::First::nanos`] in the high half; else
/// nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`).
pub const EVENT_TICKS: u8 = 4;

/// See the module's text.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "zerocopy",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout, zerocopy::IntoBytes)
)]
pub struct Event {
    /// Source address in network byte order; IPv4 in the low half of the first word.
    pub source: [u64; 2],
    /// Destination address, likewise.
    pub destination: [u64; 2],
    /// When the first packet was seen.
    pub first: u64,
    /// When the last one was.
    pub last: u64,
    /// IP bytes on the wire.
    pub ip_bytes: u64,
    /// Frame bytes on the wire.
    pub frame_bytes: u64,
    /// The epoch whose counters hold this.
    pub epoch: u32,
    /// Packets on the wire.
    pub packets: u32,
    /// Buffers.
    pub buffers: u32,
    /// Their length.
    pub buffer_bytes: u32,
    /// The interface.
    pub ifindex: u32,
    /// Both ports in network byte order; of ICMP, type and code, each widened to 16 bits.
    pub ports: u32,
    /// Identification of a fragment.
    pub fragment_id: u32,
    /// Destination and source MAC address of the first packet, as on the wire; zero where the link has none.
    pub macs: [u32; 3],
    /// VLAN id of the outermost tag of the first packet, or `0xffff`.
    pub vlan: u16,
    /// VLAN id of its second tag, or `0xffff`.
    pub inner_vlan: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub version: u8,
    /// DSCP and ECN of the first packet.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags of all packets.
    pub tcp_flags: u8,
    /// [`mermin_wire::PortForm`].
    pub port_form: u8,
    /// [`mermin_wire::Fragment`].
    pub fragment: u8,
    /// [`EVENT_EGRESS`], [`EVENT_HAS_TCP_FLAGS`], [`EVENT_TICKS`].
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 4],
}

/// Events that go to the ring together.
pub const STAGED: usize = 16;

/// What of a CPU in one epoch is on its way to the ring: one reservation serves them all. Lies at `parity * cpus + cpu`, only
/// its CPU writes to it, and what is left in it at the end of the epoch is taken from here.
#[repr(C, align(64))]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Stage {
    /// In the order in which they came.
    pub events: [Event; STAGED],
    /// How many there are, at most [`STAGED`].
    pub count: u64,
    /// Up to a cache line.
    pub pad: [u64; 7],
}

const _: () = {
    assert!(size_of::<Event>() == 120);
    assert!(size_of::<Stage>() == 1984);
};
