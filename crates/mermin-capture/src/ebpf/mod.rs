//! The live source on eBPF: programs at tc ingress and egress of each interface, one ring to user space.
//!
//! The programs count what they saw before they parse anything, and give every buffer one verdict; an epoch's counters
//! are read when no program runs in it any more. So what the ring carried, what it had no room for and what is not
//! metered add up to what was seen, exactly and at any moment, while traffic flows.
//!
//! Limits: one network namespace; counters rely on bottom halves that don't preempt each other, which a PREEMPT_RT
//! kernel does not promise; below Linux 6.6 programs hang on a clsact qdisc, where a filter of someone else that ends
//! the chain hides packets from the egress program, and the qdisc stays when Mermin goes.

mod attach;
mod book;
mod clock;
mod error;
mod grace;
mod mapped;
mod object;
mod privilege;
mod ring;
mod source;
#[cfg(test)]
mod tests;

pub use attach::{Attached, hooks};
pub use error::EbpfError;
pub use source::{EbpfSource, Opened, RING_BYTES, Skipped};
