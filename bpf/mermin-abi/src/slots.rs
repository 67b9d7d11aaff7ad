//! What the kernel programs sum up themselves: slots of a CPU, and the hash of an epoch that takes what has no room
//! elsewhere.
//!
//! A slot holds the packets of one flow key at one observation point since it entered the slot: a *delta*. Deltas of one
//! key merge by addition, so it doesn't matter where, or how often, one was moved on. Slots lie in memory-mapped arrays,
//! for each parity of the epoch and each possible CPU a range of sets, at `(parity * cpus + cpu) << set_bits`; only its CPU
//! writes to a range, with bottom halves off, so plain adds do.

/// Words of a key of IPv4: the addresses, then the ports over what the `META_…` constants take apart.
pub const WORDS_V4: usize = 2;
/// Words of a key of IPv6.
pub const WORDS_V6: usize = 5;

/// The low half of a key's last word is what the flow key has besides addresses and ports, and the observation point: bits 0
/// to 7 the protocol, bit 8 this: seen on the way out of the host; bits 9 and 10 the form of the ports, bit 11 [`META_V6`],
/// from bit 12 on the interface.
pub const META_EGRESS: u32 = 1 << 8;
/// Where the form of the ports begins.
pub const META_FORM_SHIFT: u32 = 9;
/// IPv6: in the hash keys of both versions have five words.
pub const META_V6: u32 = 1 << 11;
/// Where the interface's index begins.
pub const META_IFINDEX_SHIFT: u32 = 12;
/// The largest index of an interface that a key can hold; packets of others have no slots and go out one by one.
pub const IFINDEX_MAX: u32 = (1 << (32 - META_IFINDEX_SHIFT)) - 1;

/// A slot whose buffers have so many bytes is moved on: so 32 bits hold what it counts.
pub const SLOT_BYTES_MAX: u32 = 1 << 31;

/// Sums of a delta, and what the first packet said.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Sums {
    /// IP bytes on the wire.
    pub ip_bytes: u64,
    /// Frame bytes on the wire.
    pub frame_bytes: u64,
    /// Packets on the wire; 0: the slot is free.
    pub packets: u32,
    /// Socket buffers.
    pub buffers: u32,
    /// Their length.
    pub buffer_bytes: u32,
    /// Ticks of the kernel's clock (`jiffies`, its low half) at the first packet.
    pub first: u32,
    /// At the last.
    pub last: u32,
    /// TCP flags of all packets.
    pub tcp_flags: u8,
    /// 1: the TCP flags say something.
    pub has_tcp_flags: u8,
    /// TTL or hop limit of all packets.
    pub ttl: u8,
    /// DSCP and ECN of the first packet.
    pub traffic_class: u8,
    /// VLAN id of the outermost tag of the first packet, or `0xffff`.
    pub vlan: u16,
    /// Of the second tag.
    pub inner_vlan: u16,
    /// Not 0: a connection has begun since, so its packets start another delta. Written by any CPU: the slot may hold another
    /// flow by then, which then starts another delta too.
    pub stale: u8,
    /// What filters say of the key; 0: it is metered.
    pub verdict: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// A slot: with IPv4 a cache line, with IPv6 one and a half.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Slot<const WORDS: usize> {
    /// Addresses in network byte order, then ports (network byte order) over the rest.
    pub key: [u64; WORDS],
    /// What was counted.
    pub sums: Sums,
}

/// More of the first packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct First {
    /// Destination and source MAC address, as on the wire.
    pub macs: [u32; 3],
    /// The low half of the time since boot, ns; 0: only the tick is known.
    pub nanos: u32,
}

/// Two slots, either of which a key may take.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set<const WORDS: usize> {
    /// The slots.
    pub ways: [Slot<WORDS>; 2],
    /// Apart, for they are only touched when a flow enters or leaves.
    pub first: [First; 2],
}

/// Bytes in [`Closed`].
pub const CLOSED: usize = 1 << 16;

/// A byte by the highest bits of the hash of a slot's key, in it a bit by the next three: a TCP connection with such a key was closed
/// or reset in the epoch, so a SYN has to look for what CPUs still hold of it.
#[repr(C)]
pub struct Closed {
    /// See above.
    pub keys: [u8; CLOSED],
}

/// A key of the hash: the addresses as in an [`crate::Event`], the last word of a slot's key, and the TCP flags with, from
/// bit 8 on, whether they say something, and from bit 16 on the TTL. In the key, because all that is merged is merged by addition:
/// other atomic operations are refused by arm64 before Linux 5.18.
pub type OverflowKey = [u64; 6];

/// What the hash holds for a key: as [`Sums`], but shared by all CPUs. What a first packet said is that of the delta that
/// came first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Overflow {
    /// IP bytes.
    pub ip_bytes: u64,
    /// Frame bytes.
    pub frame_bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Buffers.
    pub buffers: u64,
    /// Their length.
    pub buffer_bytes: u64,
    /// Ticks at the first packet.
    pub first: u32,
    /// At the last.
    pub last: u32,
    /// Its MAC addresses.
    pub macs: [u32; 3],
    /// VLAN id of the outermost tag, or `0xffff`.
    pub vlan: u16,
    /// Of the second tag.
    pub inner_vlan: u16,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// As [`First::nanos`].
    pub nanos: u32,
}

const _: () = {
    assert!(size_of::<Sums>() == 48);
    assert!(size_of::<Slot<WORDS_V4>>() == 64);
    assert!(size_of::<Set<WORDS_V4>>() == 192);
    assert!(size_of::<Set<WORDS_V6>>() == 256);
    assert!(size_of::<Overflow>() == 72);
};
