//! Whole-process benchmarks. `cargo xtask bench …` builds and runs this with optimisation.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;

mod generate;
mod measure;
mod otlp;
mod random;
mod replay;

/// Makes captures, measures replay and the OTLP output.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
enum Task {
    /// Writes a capture; the same arguments give the same bytes.
    Capture(generate::Capture),
    /// Replays a capture by turns through the program and through softflowd, and prints a table.
    Replay(replay::Replay),
    /// Sends records to a discarding receiver by every way of OTLP, and prints a table.
    Otlp(otlp::Otlp),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Capture(task) => task.run(),
        Task::Replay(task) => task.run(),
        Task::Otlp(task) => task.run(),
    }
}
