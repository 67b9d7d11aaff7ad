//! Replays of a capture in several ways by turns, each compared with the first in the same turn: what a setting costs or
//! brings.

use crate::measure::{Cost, Spread, run};
use anyhow::{Result, bail};
use mermin_tests::program::{binary, plain};
use std::path::PathBuf;

/// Replays a capture in several ways by turns, and prints a table.
#[derive(clap::Args)]
pub(crate) struct Ways {
    /// The capture.
    capture: PathBuf,
    /// A title and the program's arguments, for example `two workers=-o none --set pipeline.flow_workers=2`. The others
    /// are compared with the first.
    #[arg(long = "way", required = true, value_parser = way, allow_hyphen_values = true)]
    ways: Vec<Way>,
    /// Runs of each.
    #[arg(long, default_value_t = 9)]
    runs: usize,
}

#[derive(Clone)]
struct Way {
    title: String,
    arguments: Vec<String>,
}

fn way(text: &str) -> Result<Way, String> {
    let (title, arguments) = text.split_once('=').ok_or("expected TITLE=ARGUMENTS")?;
    let arguments = arguments.split_whitespace().map(str::to_owned).collect();
    Ok(Way { title: title.to_owned(), arguments })
}

impl Ways {
    pub(crate) fn run(self) -> Result<()> {
        if !self.capture.is_file() {
            bail!("no capture at {}: `cargo xtask bench capture` makes one", self.capture.display());
        }
        if self.runs == 0 {
            bail!("--runs 0 measures nothing");
        }
        let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); self.ways.len()];
        for turn in 0..self.runs {
            for number in 0..self.ways.len() {
                let way = (turn + number) % self.ways.len();
                let mut command = plain(binary());
                command.arg("replay").arg(&self.capture).args(&self.ways[way].arguments);
                costs[way].push(run(&mut command)?);
            }
        }
        println!(
            "| way | CPU s (min–max) | of the first's, in the same turn (quartiles) | wall s (min–max) | throughput, of the first's (quartiles) | peak anonymous MiB |\n|---|---|---|---|---|---|"
        );
        for (way, costs_here) in self.ways.iter().zip(&costs) {
            let pairs = || costs_here.iter().zip(&costs[0]);
            let cpu = Spread::of(costs_here.iter().map(|cost| cost.cpu));
            let wall = Spread::of(costs_here.iter().map(|cost| cost.wall));
            let share = Spread::of(pairs().map(|(cost, first)| cost.cpu / first.cpu));
            let throughput = Spread::of(pairs().map(|(cost, first)| first.wall / cost.wall));
            let peak = costs_here.iter().map(|cost| cost.anonymous).max().unwrap_or_default();
            println!(
                "| {} | {:.2} ({:.2}–{:.2}) | {:.2} ({:.2}–{:.2}) | {:.2} ({:.2}–{:.2}) | {:.2} ({:.2}–{:.2}) | {} |",
                way.title,
                cpu.median,
                cpu.least,
                cpu.most,
                share.median,
                share.lower,
                share.upper,
                wall.median,
                wall.least,
                wall.most,
                throughput.median,
                throughput.lower,
                throughput.upper,
                peak >> 20,
            );
        }
        Ok(())
    }
}
