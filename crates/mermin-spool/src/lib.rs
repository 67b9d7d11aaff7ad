//! A bounded, crash-safe queue of flow records on disk: where an output's records wait while their receiver is away.
//!
//! A [`Spool`] is a folder. Batches of records are appended to numbered segment files and read in the same order; what is
//! acknowledged is removed, a segment at a time. It promises:
//!
//! - What an append took is there after the process was killed, in order, and after a loss of power as far as
//!   [`Fsync`] goes. What comes twice (read, not acknowledged when it ended) is told by `flow.id` and `flow.sequence`.
//! - All files together never take more than [`SpoolSettings::bytes`]. An append without room is refused; who appends
//!   decides what becomes of the records, and counts them.
//! - Nothing is lost without a count. Every head on disk says what all entries before it carry, so whatever is damaged
//!   between two heads that can be read is known exactly ([`Read::Lost`]); behind the last one it is said to be inexact.
//!   No damage is an error.
//! - [`Spool::spooled`] is exact at any time: what is in it when it is opened ([`Recovery::spooled`]) and what is appended
//!   leaves it by exactly one of being acknowledged and being told as lost.
//!
//! It has no thread and no lock of its own. [`Encoder`] and [`Decoder`] do the costly part and don't need the spool, so
//! that a mutex around it is held for the system calls alone.
//!
//! ```
//! # use mermin_flow::*;
//! # fn records() -> Vec<FlowRecord> {
//! #     let count = Counts::default();
//! #     let side = Direction { delta: count, total: count, tcp_flags: None, ttl: None, traffic_class: None };
//! #     let end = End { address: [192, 0, 2, 1].into(), port: None, mac: None, identity: Identity::default() };
//! #     vec![FlowRecord {
//! #         id: FlowId(1), sequence: 0, community_id: CommunityId([0; 20]), event: FlowEvent::Start, end_reason: None,
//! #         start_time: 0, end_time: 0, counts_from: 0, clock_ahead: [0; 2], protocol: 1, source: end.clone(), destination: end,
//! #         initiator: Initiator::FirstSeen, enrichment: Enrichment::default(), icmp: None, forward: side,
//! #         reverse: side, tcp_state: TcpState::Unknown, vlan: None, inner_vlan: None, point: 0, shard: 0,
//! #         tally: Tally::frame(60), sampled: None, hops: None, nat: None, lease: mermin_flow::Lease::default(),
//! #     }]
//! # }
//! use mermin_spool::{Fsync, Read, Spool, SpoolSettings};
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let settings = SpoolSettings { bytes: 64 << 20, fsync: Fsync::default() };
//! let mut spool = Spool::open(folder, settings)?;
//! let (mut encoder, mut decoder) = mermin_spool::codec(Arc::default());
//!
//! let records = records();
//! spool.append(&mut encoder.encode(&records))?;
//! assert_eq!(spool.spooled().records, 1);
//!
//! while let Some(read) = spool.read()? {
//!     match read {
//!         Read::Batch(stored) => {
//!             match decoder.decode(&stored) {
//!                 Ok(batch) => assert_eq!(batch, records), // and a receiver took them
//!                 Err(reason) => eprintln!("{} records are lost: {reason}", stored.amount().records),
//!             }
//!             spool.acknowledge(stored.position())?;
//!         }
//!         Read::Lost(lost) => eprintln!("{} records were damaged", lost.amount.records),
//!     }
//! }
//! assert_eq!(spool.spooled().records, 0);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod append;
mod codec;
mod cursor;
mod disk;
mod entry;
mod error;
mod folder;
mod frame;
mod mark;
mod position;
mod random;
mod read;
mod recover;
mod segment;
mod settings;
mod spool;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use codec::{Decoder, Encoder, Undecodable, codec};
pub use entry::{Entry, Lost, Position, Stored};
pub use error::SpoolError;
pub use read::Read;
pub use recover::Recovery;
pub use settings::{Fsync, SpoolSettings};
pub use spool::Spool;
