//! The live source on eBPF: programs at tc ingress and egress of each interface, one ring to user space.
//!
//! The programs count what they saw before they parse anything, and give every buffer one verdict; an epoch's counters
//! are read when no program runs in it any more. So what the ring carried, what it had no room for and what is not
//! metered add up to what was seen, exactly and at any moment, while traffic flows.
//!
//! The end is an epoch's, too: what the programs see after it is never looked at, so the books are closed in one grace
//! period, and however many interfaces there are, taking the programs off them holds up nothing.
//!
//! Limits: one network namespace; counters rely on bottom halves that don't preempt each other, which a PREEMPT_RT
//! kernel does not promise; on clsact a filter of someone else that ends the chain hides packets from the egress program.

mod book;
mod bpf;
mod cleanup;
mod clsact;
mod error;
mod grace;
mod hooks;
mod kept;
mod layout;
mod logged;
mod mapped;
mod object;
mod observe;
mod options;
mod other;
mod pace;
mod pins;
mod points;
mod privilege;
mod pulse;
mod ring;
mod slots;
mod source;
mod summed;
mod taps;
mod tcx;
#[cfg(test)]
mod tests;
mod ticks;
mod totals;
mod words;

pub use cleanup::{Left, LeftBooks, Removed, clean_up, left};
pub use error::EbpfError;
pub use hooks::{Attached, hooks};
pub use options::{Aggregation, EbpfOptions};
pub use pins::Holder;
pub use source::{EbpfSource, JournalUse, Opened, Skipped};
#[cfg(test)]
pub(crate) use tcx::fill as fill_tcx;
