//! Reader, shards, workers, channels, ledger and statistics.
//!
//! Data goes one way: source → packet reader → flow workers → enrichment workers → outputs, over bounded channels
//! that carry batches. A flow lives on one shard, a shard belongs to one worker. Every packet that a source has seen
//! stands in the [`Ledger`].
#![forbid(unsafe_code)]

mod adjustable;
mod assembly;
mod bell;
mod budget;
mod cells;
mod channel_room;
mod config;
mod counts;
mod created_log;
mod credits;
mod crew;
mod cut;
mod enrichment;
mod flow_worker;
mod handover;
mod hold;
mod in_place;
mod incidents;
mod journal;
mod ledger;
mod lock;
#[cfg(test)]
mod log_lines;
mod look;
mod observer;
mod output;
mod packet_channel;
mod priority;
mod progress;
mod pulse;
mod random;
mod reader;
mod record_queue;
mod running;
mod sampler;
mod scaling;
mod shed;
mod shedding;
mod snapshot;
mod staff;
mod stages;
mod statistics;
mod sync;
mod tasks;
#[cfg(test)]
mod testing;
mod threads;
mod tuning;
mod waiting;
mod waits;
mod workers;

pub use assembly::{Stages, start};
pub use budget::{Budget, BudgetPulse, BudgetsPulse, LOWEST_RATE, Usage};
pub use config::{JournalConfig, PipelineConfig, ReplayMetering};
pub use hold::Hold;
pub use incidents::contained_panics_go_to_the_log;
pub use journal::RunJournal;
pub use ledger::Ledger;
pub use look::FlowsSeen;
pub use observer::Observer;
pub use output::{BreakerConfig, BreakerState, ChangeError, DiskBuffer, NewOutput, OutputFailure};
pub use priority::{Class, Match, PriorityRule, Transport};
pub use pulse::{
    BufferPulse, ChannelPulse, CoalescingPulse, EnrichmentPulse, JournalPulse, OutputPulse, Pulse,
    ReaderPulse, WORKER_PATIENCE, WorkersPulse,
};
pub use running::{Outcome, Running, Staffing, Stopper};
pub use snapshot::OutputBook;
pub use statistics::{Figures, Statistics};
pub use threads::StartError;
pub use tuning::Tuning;
pub use waits::WaitFigures;
pub use workers::Workers;
