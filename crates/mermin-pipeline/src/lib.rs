//! Reader, shards, workers, channels, ledger and statistics.
#![forbid(unsafe_code)]

mod config;

pub use config::PipelineConfig;
