//! Whole-process benchmarks. `cargo xtask bench …` builds and runs this with optimisation.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;

mod cluster;
mod core;
#[cfg(feature = "kafka")]
mod fleet;
mod generate;
mod headroom;
mod journal;
#[cfg(feature = "kafka")]
mod kafka;
mod kernel;
mod measure;
mod otlp;
mod random;
mod record;
mod replay;
mod scrape;
mod ways;

/// Makes captures, measures the kernel programs, replay, enrichment, the OTLP and Kafka outputs.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
enum Task {
    /// Writes a capture; the same arguments give the same bytes.
    Capture(generate::Capture),
    /// Replays a capture by turns through the program and through softflowd, and prints a table.
    Replay(replay::Replay),
    /// Sends records to a discarding receiver by every way of OTLP, and prints a table.
    Otlp(otlp::Otlp),
    /// Sends records to a topic of a broker that runs, in every form, and prints a table.
    #[cfg(feature = "kafka")]
    Kafka(kafka::Kafka),
    /// Has hundreds of agents write to one topic of a real broker, reads back whether all is there once, and prints a table.
    #[cfg(feature = "kafka")]
    Fleet(fleet::Fleet),
    /// Replays a capture by turns with and without metrics, and prints a table.
    Scrape(scrape::Scrape),
    /// Replays a capture in several ways by turns, and prints a table.
    Ways(ways::Ways),
    /// Measures what a packet costs in the kernel, by turns with other programs, and prints a table.
    Kernel(kernel::Kernel),
    /// Measures what the agent leaves of a link's throughput, and prints a table.
    Headroom(headroom::Headroom),
    /// Measures what the journal costs, and prints a table.
    Journal(journal::JournalCost),
    /// Names the ends of records by a cluster of many pods, while it changes, and tells what it cost.
    Cluster(cluster::ClusterTask),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Capture(task) => task.run(),
        Task::Replay(task) => task.run(),
        Task::Otlp(task) => task.run(),
        #[cfg(feature = "kafka")]
        Task::Kafka(task) => task.run(),
        #[cfg(feature = "kafka")]
        Task::Fleet(task) => task.run(),
        Task::Scrape(task) => task.run(),
        Task::Ways(task) => task.run(),
        Task::Kernel(task) => task.run(),
        Task::Headroom(task) => task.run(),
        Task::Journal(task) => task.run(),
        Task::Cluster(task) => task.run(),
    }
}
