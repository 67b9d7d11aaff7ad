//! What the kernel programs count: an independent `seen` at their entry and one verdict at their exit.
//!
//! The counters lie in a memory-mapped array: one [`Counters`] per possible CPU and parity of the epoch, at
//! `parity * cpus + cpu`. Only its CPU adds to one, with bottom halves off, so plain adds do. The epoch is read once
//! per run of a program; a half is read and cleared after a grace period, when nobody adds to it any more.

use mermin_wire::{FILTERED, Unmetered};

/// Slots of the table of ethertypes in each [`Counters`]; a power of two.
pub const ETHERTYPE_SLOTS: usize = 64;
/// Slots in a row that may hold an ethertype, the first one its own number modulo the size.
pub const ETHERTYPE_PROBES: usize = 4;

/// What user space writes.
#[repr(C)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Control {
    /// The live epoch. Its parity chooses the half of the counters.
    pub epoch: u32,
    /// Zero.
    pub pad: u32,
    /// The tick (`jiffies`) from which on programs count nothing, as nobody has shown life for too long; 0: they always count.
    pub deadline: u64,
    /// Up to a cache line: nobody else writes here.
    pub rest: [u64; 6],
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

/// Whether flows push each other out of a CPU's sets so often that fewer sets, which stay in a near cache, are cheaper.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Crowd {
    /// 0: all sets are in use; else [`FEWER_SET_BITS`].
    pub fewer: u32,
    /// Deltas that had to leave their slot since that has changed.
    pub moved: u32,
    /// What [`Counters::seen_buffers`] was when that was last looked at; less what earlier epochs saw since.
    pub looked: u64,
}

/// A crowded CPU uses a part of its sets: an eighth, as a power of two.
pub const FEWER_SET_BITS: u32 = 3;

/// Counters of one CPU in one epoch. `seen == slots + submitted + overflowed + ring_full + table_full + Σ unmetered +
/// Σ filtered`, in buffers and their bytes; what stands in slots is summed up by whoever reads them, filtered or not.
#[repr(C)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Counters {
    /// Buffers at the programs' entry, before anything is parsed.
    pub seen_buffers: u64,
    /// Their length.
    pub seen_bytes: u64,
    /// How many of its sets the CPU uses. Outlasts the epoch.
    pub crowd: Crowd,
    /// What the ring took, or waits for it in a [`crate::Stage`].
    pub submitted: Verdict,
    /// What the epoch's hash took: the ring had no room for it, or the hash serves alone.
    pub overflowed: Verdict,
    /// What the ring had no room for, and can't be summed up.
    pub ring_full: Verdict,
    /// What neither ring nor hash had room for.
    pub table_full: Verdict,
    /// Buffers that are not metered, by [`Unmetered`].
    pub unmetered: [Verdict; Unmetered::COUNT],
    /// What filters leave out, by verdict less one; what stands in slots isn't among it yet.
    pub filtered: [Verdict; FILTERED],
    /// Packets, metered or filtered, that claim more IP bytes than their frame holds.
    pub ip_length_over_frame: u64,
    /// Packets whose ethertype found no slot.
    pub ethertypes_other: u64,
    /// Later fragments that the ring had no room for: summed up without their datagram's ports.
    pub unresolved_fragments: u64,
    /// Flows that came into the epoch's hash.
    pub inserted: u64,
    /// Up to a cache line.
    pub pad: [u64; 8],
    /// Packets by ethertype.
    pub ethertypes: [EthertypeSlot; ETHERTYPE_SLOTS],
}

const _: () = {
    assert!(size_of::<Control>() == 64);
    assert!(size_of::<Verdict>() == 32);
    assert!(core::mem::offset_of!(Counters, overflowed) == 64, "what most packets touch is a line");
    assert!(size_of::<EthertypeSlot>() == 16);
    assert!(size_of::<Counters>() == 4032);
    assert!(size_of::<Counters>().is_multiple_of(64), "two CPUs must not share a cache line");
    assert!(ETHERTYPE_SLOTS.is_power_of_two() && ETHERTYPE_PROBES <= ETHERTYPE_SLOTS);
};
