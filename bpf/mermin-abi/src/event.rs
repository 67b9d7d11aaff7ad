//! A ring event of packet mode: one metered buffer, with all that an observation needs.

/// [`PacketEvent::flags`]: seen on the way out of the host.
pub const EVENT_EGRESS: u8 = 1;
/// [`PacketEvent::flags`]: the TCP flags say something.
pub const EVENT_HAS_TCP_FLAGS: u8 = 2;

/// One buffer: one packet, or with segmentation offload several of one flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "zerocopy",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout, zerocopy::IntoBytes)
)]
pub struct PacketEvent {
    /// Source address in network byte order; IPv4 in the low half of the first word.
    pub source: [u64; 2],
    /// Destination address, likewise.
    pub destination: [u64; 2],
    /// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`).
    pub time: u64,
    /// The epoch whose counters hold this event.
    pub epoch: u32,
    /// Packets on the wire.
    pub packets: u32,
    /// IP bytes on the wire.
    pub ip_bytes: u32,
    /// Frame bytes on the wire.
    pub frame_bytes: u32,
    /// The buffer's length.
    pub buffer_bytes: u32,
    /// The interface.
    pub ifindex: u32,
    /// Both ports in network byte order; of ICMP, type and code, each widened to 16 bits.
    pub ports: u32,
    /// Identification of a fragment.
    pub fragment_id: u32,
    /// Destination and source MAC address, as on the wire; zero where the link has none.
    pub macs: [u32; 3],
    /// VLAN id of the outermost tag, or `0xffff`.
    pub vlan: u16,
    /// VLAN id of the second tag, or `0xffff`.
    pub inner_vlan: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub version: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// [`mermin_wire::PortForm`].
    pub port_form: u8,
    /// [`mermin_wire::Fragment`].
    pub fragment: u8,
    /// [`EVENT_EGRESS`], [`EVENT_HAS_TCP_FLAGS`].
    pub flags: u8,
}

const _: () = assert!(size_of::<PacketEvent>() == 96);
