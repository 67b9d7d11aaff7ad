//! The project's tasks, one file each: what a developer types is what CI runs.

use anyhow::Result;
use clap::Parser;

mod bench;
mod ebpf;
mod examples;
mod failed;
mod fuzz;
mod mutants;
mod run;
mod servers;
mod test;
mod tools;

/// The project's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Builds the kernel programs into `bpf/prebuilt`, the same bytes on every machine.
    Ebpf(ebpf::Ebpf),
    /// Runs all tests and counts those that could not run.
    Test(test::Test),
    /// Builds the real servers that tests talk to, once per machine.
    Servers(servers::Servers),
    /// Makes captures and measures replay beside a peer.
    Bench(bench::Bench),
    /// Feeds the parser, the capture readers, the configuration and the flow table with made-up bytes.
    Fuzz(fuzz::Fuzz),
    /// Changes the code in small ways and sees whether the tests notice.
    Mutants(mutants::Mutants),
    /// Writes the captures in `examples/` anew; the same bytes each time.
    ExampleCapture(examples::ExampleCapture),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Ebpf(task) => task.run(),
        Task::Test(task) => task.run(),
        Task::Servers(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Fuzz(task) => task.run(),
        Task::Mutants(task) => task.run(),
        Task::ExampleCapture(task) => task.run(),
    }
}
