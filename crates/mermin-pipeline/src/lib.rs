//! Reader, shards, workers, channels, ledger and statistics.
//!
//! Data goes one way: source → packet reader → flow workers → enrichment workers → outputs, over bounded channels
//! that carry batches. A flow lives on one shard, a shard belongs to one worker. Every packet that a source has seen
//! stands in the [`Ledger`].
#![forbid(unsafe_code)]

mod cells;
mod config;
mod created_log;
mod enrichment;
mod flow_worker;
mod hold;
mod ledger;
mod output;
mod packet_channel;
mod progress;
mod reader;
mod record_queue;
mod run;
mod snapshot;
mod statistics;

pub use config::PipelineConfig;
pub use hold::Hold;
pub use ledger::Ledger;
pub use output::OutputFailure;
pub use run::{Observer, Outcome, Running, Stages, StartError, Stopper, start};
pub use snapshot::OutputBook;
pub use statistics::{Figures, Statistics};
