//! Reader, shards, workers, channels, ledger and statistics.
//!
//! Data goes one way: source → packet reader → flow workers → enrichment workers → outputs, over bounded channels
//! that carry batches. A flow lives on one shard, a shard belongs to one worker. Every packet that a source has seen
//! stands in the [`Ledger`].
#![forbid(unsafe_code)]

mod assembly;
mod cells;
mod config;
mod created_log;
mod credits;
mod enrichment;
mod flow_worker;
mod handover;
mod hold;
mod in_place;
mod ledger;
#[cfg(test)]
mod log_lines;
mod look;
mod observer;
mod output;
mod packet_channel;
mod progress;
mod pulse;
mod reader;
mod record_queue;
mod running;
mod snapshot;
mod stages;
mod statistics;
mod waits;

pub use assembly::{Stages, StartError, start};
pub use config::{PipelineConfig, ReplayMetering};
pub use hold::Hold;
pub use ledger::Ledger;
pub use look::FlowsSeen;
pub use observer::Observer;
pub use output::OutputFailure;
pub use pulse::{ChannelPulse, EnrichmentPulse, OutputPulse, Pulse, ReaderPulse, WorkersPulse};
pub use running::{Outcome, Running, Stopper};
pub use snapshot::OutputBook;
pub use statistics::{Figures, Statistics};
pub use waits::WaitFigures;
