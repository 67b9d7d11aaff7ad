//! What the kernel programs count: an independent `seen` at their entry and one verdict at their exit.
//!
//! The counters lie in a memory-mapped array: one [`Counters`] per possible CPU and parity of the epoch, at
//! `parity * cpus + cpu`. Only its CPU adds to one, with bottom halves off, so plain adds do. The epoch is read once
//! per run of a program; a half is read and cleared after a grace period, when nobody adds to it any more.

use mermin_wire::Unmetered;

/// Slots of the table of ethertypes in each [`Counters`]; a power of two.
pub const ETHERTYPE_SLOTS: usize = 64;
/// Slots in a row that may hold an ethertype, the first one its own number modulo the size.
pub const ETHERTYPE_PROBES: usize = 4;

/// The word that user space writes.
#[repr(C)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Control {
    /// The live epoch. Its parity chooses the half of the counters.
    pub epoch: u32,
    /// Up to a cache line: nobody else writes here.
    pub pad: [u32; 15],
}

/// What a program that is run for it reads of two clocks at one moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Clock {
    /// `jiffies`.
    pub ticks: u64,
    /// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`).
    pub boot: u64,
}

/// Buffers that left by one exit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Verdict {
    /// Packets on the wire.
    pub packets: u64,
    /// Frame bytes on the wire.
    pub bytes: u64,
    /// Socket buffers.
    pub buffers: u64,
    /// Their length.
    pub buffer_bytes: u64,
}

/// Packets that are not IP, by ethertype.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct EthertypeSlot {
    /// The ethertype; 0: the slot is free.
    pub ethertype: u64,
    /// Packets.
    pub packets: u64,
}

/// Counters of one CPU in one epoch. `seen == slots + submitted + overflowed + lost + Σ unmetered`, in buffers and their
/// bytes; what stands in slots is summed up by whoever reads them.
#[repr(C)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Counters {
    /// Buffers at the programs' entry, before anything is parsed.
    pub seen_buffers: u64,
    /// Their length.
    pub seen_bytes: u64,
    /// What the ring took.
    pub submitted: Verdict,
    /// What the ring had no room for, and the epoch's hash took.
    pub overflowed: Verdict,
    /// What the ring had no room for, and no hash took: there is none (packet mode), or it is full.
    pub ring_full: Verdict,
    /// Buffers that are not metered, by [`Unmetered`].
    pub unmetered: [Verdict; Unmetered::COUNT],
    /// Metered packets that claim more IP bytes than their frame holds.
    pub ip_length_over_frame: u64,
    /// Packets whose ethertype found no slot.
    pub ethertypes_other: u64,
    /// Deltas that left their slot for another flow.
    pub evicted: u64,
    /// Up to a cache line.
    pub pad: [u64; 3],
    /// Packets by ethertype.
    pub ethertypes: [EthertypeSlot; ETHERTYPE_SLOTS],
}

const _: () = {
    assert!(size_of::<Control>() == 64);
    assert!(size_of::<Verdict>() == 32);
    assert!(size_of::<EthertypeSlot>() == 16);
    assert!(size_of::<Counters>() == 1856);
    assert!(size_of::<Counters>().is_multiple_of(64), "two CPUs must not share a cache line");
    assert!(ETHERTYPE_SLOTS.is_power_of_two() && ETHERTYPE_PROBES <= ETHERTYPE_SLOTS);
};
