//! The `pipeline` section of the configuration.

use crate::output::BreakerConfig;
use crate::priority::PriorityRule;
use crate::workers::Workers;
use mermin_flow::Interval;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Where a replay keeps its flow tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayMetering {
    /// In the flow workers where there is a core for each of them, for the reader and for the outputs; otherwise, as
    /// threads that share cores cost more than they bring, in the reader.
    #[default]
    Auto,
    /// In the packet reader's thread.
    Reader,
    /// In the flow workers' threads.
    Workers,
}

/// The journal of a live run by eBPF with `capture.on_exit: keep`: flows that have changed, records that are not delivered, and what
/// was read from the kernel. After `kill -9` or a crash the next run goes on with them, and `lost.crash` is nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Whether there is one. Records then come up to a second later. Without it what was in
    /// memory is lost with the process, and told to the packet.
    pub enabled: bool,
    /// Where it is; an absolute path. Made where it isn't there. It needs to outlast the process and not the machine, so a folder in
    /// memory will do. Takes some 250 bytes for each flow, and four times as much before it is written anew (32MiB at least), and up
    /// to 64MiB for records that are not delivered.
    pub folder: PathBuf,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { enabled: true, folder: PathBuf::from("/var/lib/mermin/journal") }
    }
}

/// The stages between source and outputs: how many workers, how much room between them, what happens when it is full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineConfig {
    /// Observations between the packet reader and the flow workers, all workers' queues together. More room takes
    /// longer bursts and batches more work; less room takes less memory.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub packet_channel_capacity: NonZeroUsize,
    /// Live, with `enable_backpressure`: observations that wait in the packet reader while the packet channel is full. What
    /// waits is merged by flow, direction and interface, so nothing is lost while there is room for these; beyond it the
    /// reader leaves packets in the kernel. Takes memory only while it is needed, about 180 bytes each.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub coalescing_capacity: NonZeroUsize,
    /// Flow records between the flow workers and the enrichment workers, all queues together.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub enrichment_channel_capacity: NonZeroUsize,
    /// Threads that keep the flow tables; there are 64 shards to share out, so more would have none. On two busy cores one
    /// is faster than two. `{min: 1, max: 4}`: as many as the load asks for, looked at every second; `auto`: from 1 to one
    /// less than there are cores. Flows move between workers whole.
    pub flow_workers: Workers,
    /// Which threads keep the flow tables of a replay that waits (`enable_backpressure: true`): `workers`, `reader`
    /// (`flow_workers` and `packet_channel_capacity` then play no part), or `auto`: workers where there is a core for
    /// each of them, for the reader and for the outputs, otherwise the reader. Live capture always uses workers.
    pub replay_metering: ReplayMetering,
    /// Threads that add names and identities to flow records; as `flow_workers`. The channel in front of them is shared out
    /// to as many lanes as there may be threads.
    pub enrichment_workers: Workers,
    /// How often statistics are logged.
    pub stats_interval: Interval,
    /// Whether statistics and log also carry each stage's rate, queue depth, high-water mark and waits; and `/metrics` of
    /// the server the series of stages and channels that its reference calls detailed.
    pub enable_metrics: bool,
    /// What happens when the packet channel is full. `true`: a replay waits; live, the reader merges what waits
    /// (`coalescing_capacity`), then leaves packets in the kernel, which counts exactly those that it has no room for
    /// (`ring_full`, `socket_drop`). `false`: the newest
    /// batch is dropped and counted (`packet_channel_full`).
    pub enable_backpressure: bool,
    /// Whose records go first where an output lags behind, and whose are merged and dropped last: the first rule that fits
    /// a record gives it its class; records of which no rule speaks are `normal`.
    pub priority: Vec<PriorityRule>,
    /// When an output is let be for a while instead of tried again: its records wait meanwhile, are merged where there is no
    /// room, and dropped at last (`breaker_open`). In a replay that waits for its outputs, and at the end of a run, every
    /// output is tried always.
    pub breaker: BreakerConfig,
    /// Where what is in memory is written down, too, so that a run that is killed loses nothing.
    pub journal: JournalConfig,
    /// How long an orderly end may take; what is undelivered then stands in the ledger, and the exit code is 75.
    pub shutdown_timeout: Interval,
}

const fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("the default is not zero")
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            packet_channel_capacity: count(10_000),
            coalescing_capacity: count(65_536),
            enrichment_channel_capacity: count(1_000),
            flow_workers: Workers::Fixed(count(2)),
            replay_metering: ReplayMetering::Auto,
            enrichment_workers: Workers::Fixed(count(1)),
            stats_interval: Interval::seconds(30),
            enable_metrics: false,
            enable_backpressure: true,
            priority: Vec::new(),
            breaker: BreakerConfig::default(),
            journal: JournalConfig::default(),
            shutdown_timeout: Interval::seconds(5),
        }
    }
}
