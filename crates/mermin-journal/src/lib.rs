//! What an agent holds in memory, written down cut by cut, so that another process goes on with it after a crash.
//!
//! A *cut* is a moment that all stages agree on. For each, a [`Journal`] takes one entry: where the source stood, what flow workers say
//! has changed in their flows, and the records that were made. Records go out when their cut is committed and not before, so whatever
//! anybody may have seen stands here as it was sent. What the source has read behind the last cut stands in a [`ReadLog`].
//!
//! After a crash, [`Journal::open`] gives all of it back. It promises: what a commit took is there after the process was killed, whole or
//! not at all. It does not sync: a loss of power loses what the kernel counts, too, and then nothing here is of use. So it is tied to
//! whose it is, which has the boot in it, and what is of another is removed.
#![forbid(unsafe_code)]

mod files;
mod frame;
mod journal;
mod read_log;
mod source;
#[cfg(test)]
mod tests;

pub use files::JournalError;
pub use journal::{Cut, Journal, Opened, Recovered};
pub use read_log::ReadLog;
pub use source::{Carried, SourceJournal};
