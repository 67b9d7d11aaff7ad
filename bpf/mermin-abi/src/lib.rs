//! Structs and constants shared with the kernel programs.
//!
//! Integers and arrays of them only, every padding written out, so that a struct is nothing but its bytes: both sides
//! are compiled apart, perhaps by different compilers. Enums cross as their numbers and are decoded behind the border.
//! Sizes are asserted; whoever changes a layout or a meaning raises [`ABI_VERSION`].
#![no_std]

#[cfg(target_endian = "big")]
compile_error!(
    "Mermin's kernel programs and user space share words in memory order and support little-endian machines only"
);

mod counters;
mod event;
mod slots;

pub use counters::{
    Clock, Control, Counters, Crowd, ETHERTYPE_PROBES, ETHERTYPE_SLOTS, EthertypeSlot, FEWER_SET_BITS,
    Verdict,
};
pub use event::{EVENT_EGRESS, EVENT_HAS_TCP_FLAGS, EVENT_TICKS, Event, STAGED, Stage};
pub use slots::{
    CLOSED, Closed, First, IFINDEX_MAX, META_EGRESS, META_FORM_SHIFT, META_IFINDEX_SHIFT, META_V6, Overflow,
    OverflowKey, SLOT_BYTES_MAX, Set, Slot, Sums, WORDS_V4, WORDS_V6,
};

/// The version of everything in this crate.
pub const ABI_VERSION: u32 = 7;

/// What the programs do with a metered packet: an event for each.
pub const MODE_PACKET: u32 = 0;
/// Add it to a slot of its CPU.
pub const MODE_SLOTS: u32 = 1;
/// Add it to the epoch's hash.
pub const MODE_HASH: u32 = 2;

/// Filters have a say.
pub const FILTERED_AT_ALL: u32 = 1;
/// It depends on the interface.
pub const FILTERED_BY_INTERFACE: u32 = 2;
