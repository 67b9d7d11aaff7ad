//! Whole-process benchmarks. `cargo xtask bench …` builds and runs this with optimisation.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;

mod generate;
mod measure;
mod random;
mod replay;

/// Makes captures and measures replay.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
enum Task {
    /// Writes a capture; the same arguments give the same bytes.
    Capture(generate::Capture),
    /// Replays a capture by turns through the program and through softflowd, and prints a table.
    Replay(replay::Replay),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Capture(task) => task.run(),
        Task::Replay(task) => task.run(),
    }
}
