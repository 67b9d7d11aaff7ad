//! What metrics cost: a replay by turns without them, with the waiting times of channels, and scraped every second too.

use crate::measure::{Cost, run};
use anyhow::{Result, bail};
use mermin_tests::program::{binary, plain};
use mermin_tests::servers::http::{Client, Request};
use mermin_tests::servers::place::Place;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Replays a capture by turns with and without metrics, and prints a table.
#[derive(clap::Args)]
pub(crate) struct Scrape {
    /// The capture: long enough for some scrapes.
    capture: PathBuf,
    /// Runs of each.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Between scrapes, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    every: u64,
}

/// What is switched on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Without,
    Counted,
    Scraped,
}

impl Scrape {
    pub(crate) fn run(self) -> Result<()> {
        if !self.capture.is_file() {
            bail!("no capture at {}: `cargo xtask bench capture` makes one", self.capture.display());
        }
        let ways =
            [(Way::Without, "without"), (Way::Counted, "`enable_metrics`"), (Way::Scraped, "and scraped")];
        let mut costs: [Vec<Cost>; 3] = Default::default();
        let scrapes = AtomicUsize::new(0);
        for _ in 0..self.runs {
            for (costs, (way, _)) in costs.iter_mut().zip(ways) {
                costs.push(self.one(way, &scrapes)?);
            }
        }
        println!("| metrics | CPU s (min–max) | of that without | wall s (min–max) |\n|---|---|---|---|");
        let mut base = None;
        for (costs, (_, title)) in costs.iter().zip(ways) {
            let sorted = |part: fn(&Cost) -> f64| {
                let mut values: Vec<f64> = costs.iter().map(part).collect();
                values.sort_by(f64::total_cmp);
                [values[values.len() / 2], values[0], values[values.len() - 1]]
            };
            let ([cpu, least, most], [wall, shortest, longest]) =
                (sorted(|cost| cost.cpu), sorted(|cost| cost.wall));
            let base = *base.get_or_insert(cpu);
            println!(
                "| {title} | {cpu:.2} ({least:.2}–{most:.2}) | {:.3} | {wall:.2} ({shortest:.2}–{longest:.2}) |",
                cpu / base
            );
        }
        println!("\n{} scrapes in {} runs", scrapes.into_inner(), self.runs);
        Ok(())
    }

    fn one(&self, way: Way, scrapes: &AtomicUsize) -> Result<Cost> {
        let address = Place::Here.free_address();
        let mut command = plain(binary());
        command.arg("replay").arg(&self.capture).args(["-o", "none"]);
        if way != Way::Without {
            command.args(["--set", "pipeline.enable_metrics=true"]);
            command.arg("--set").arg(format!("server.listen={address}"));
        }
        let over = AtomicBool::new(way != Way::Scraped);
        std::thread::scope(|scope| {
            scope.spawn(|| self.scrape(address, &over, scrapes));
            let cost = run(&mut command);
            over.store(true, Ordering::Relaxed);
            cost
        })
    }

    fn scrape(&self, address: SocketAddr, over: &AtomicBool, scrapes: &AtomicUsize) {
        let client = Client::plain(&Place::Here, address);
        let mut due = Instant::now();
        while !over.load(Ordering::Relaxed) {
            if Instant::now() < due {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            // Before it listens, and when it has ended, there is nobody.
            if client.send(Request::get("/metrics")).is_ok_and(|answer| answer.status == 200) {
                scrapes.fetch_add(1, Ordering::Relaxed);
                due += Duration::from_millis(self.every);
            }
        }
    }
}
