//! What metrics cost: a replay by turns without them, with the waiting times of channels, and scraped too.
//!
//! One per cent is less than what runs differ by. So runs are compared within their turn, and scrapes are made often:
//! what one costs is then their cost together by their number.

use crate::measure::{Cost, Spread, run};
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
    #[arg(long, default_value_t = 20)]
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
        for turn in 0..self.runs {
            let mut order = [0, 1, 2];
            order.rotate_left(turn % 3);
            for way in order {
                costs[way].push(self.one(ways[way].0, &scrapes)?);
            }
        }
        println!(
            "| metrics | CPU s (min–max) | of that without, in the same turn (quartiles) | wall s (min–max) |\n|---|---|---|---|"
        );
        for (way, (_, title)) in ways.iter().enumerate() {
            let cpu = Spread::of(costs[way].iter().map(|cost| cost.cpu));
            let wall = Spread::of(costs[way].iter().map(|cost| cost.wall));
            let ratio = Spread::of(costs[way].iter().zip(&costs[0]).map(|(cost, base)| cost.cpu / base.cpu));
            println!(
                "| {title} | {:.2} ({:.2}–{:.2}) | {:.3} ({:.3}–{:.3}) | {:.2} ({:.2}–{:.2}) |",
                cpu.median,
                cpu.least,
                cpu.most,
                ratio.median,
                ratio.lower,
                ratio.upper,
                wall.median,
                wall.least,
                wall.most
            );
        }
        let scrapes = scrapes.into_inner().max(1) as f64;
        let more = costs[2].iter().zip(&costs[1]).map(|(scraped, counted)| scraped.cpu - counted.cpu);
        let more = Spread::of(more);
        let each = |seconds: f64| seconds * 1e3 * self.runs as f64 / scrapes;
        println!(
            "\n{scrapes} scrapes in {} runs; CPU for one, by turns: {:.2} ms (quartiles {:.2}–{:.2})",
            self.runs,
            each(more.median),
            each(more.lower),
            each(more.upper)
        );
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
