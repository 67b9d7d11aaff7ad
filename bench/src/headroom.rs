//! What the agent leaves of a link's throughput: iperf3 over a veth by turns without it, with empty programs in its place and with it,
//! at the receiving end.

use crate::kernel::COMPARED;
use crate::measure::Spread;
use crate::random::Random;
use anyhow::{Context, Result, bail, ensure};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType};
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::{Outcome, Program};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

const PORT: u16 = 8_078;
/// Of the bootstrap.
const SAMPLES: usize = 10_000;
/// What is at the receiving end.
const WITHOUT: usize = 0;
const EMPTY: usize = 1;
const MERMIN: usize = 2;

/// Measures how much iperf3 gets over a veth with the agent in aggregate mode at the receiving end, on both hooks, and with empty programs
/// there, of what it gets without, in turns, and prints a table. Client and server have a CPU each. Needs root, iperf3, ethtool and,
/// for the empty programs, `cargo xtask ebpf` before.
#[derive(clap::Args)]
pub(crate) struct Headroom {
    /// Turns of each protocol; which of the three comes first goes round.
    #[arg(long, default_value_t = 15)]
    turns: usize,
    /// The object with the empty program; where it is not there, none is measured.
    #[arg(long, default_value = COMPARED)]
    object: PathBuf,
    /// Seconds of each run.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Only traffic whose title has this in it.
    #[arg(long, default_value = "")]
    only: String,
}

struct Traffic {
    title: &'static str,
    /// Of the client.
    arguments: &'static str,
    unit: &'static str,
    /// What was received each second, of iperf3's report.
    rate: fn(&Value) -> Option<f64>,
}

/// A payload of 22 bytes makes a frame of 64.
const TRAFFIC: [Traffic; 2] = [
    Traffic { title: "TCP, 1 stream", arguments: "", unit: "Gbit/s", rate: gigabits },
    Traffic {
        title: "UDP, frames of 64 bytes",
        arguments: "-u -b 0 -l 22",
        unit: "M packets/s",
        rate: packets,
    },
];

impl Headroom {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(self.turns > 0 && self.seconds > 0, "no turns or no seconds measure nothing");
        if let Err(missing) = namespaces().and(tool("iperf3")).and(tool("ethtool")) {
            bail!("can't measure: {missing}");
        }
        let object = std::fs::read(&self.object).ok();
        if object.is_none() {
            eprintln!("no empty program at {}: `cargo xtask ebpf` builds it", self.object.display());
        }
        let net = Net::new("headroom", true);
        println!(
            "| traffic | without (quartiles) | with empty programs, of without | with Mermin, of without, by turns (quartiles) | median at least (95 %) | with Mermin, of empty programs | lost of seen packets |\n|---|---|---|---|---|---|---|"
        );
        for traffic in TRAFFIC.iter().filter(|traffic| traffic.title.contains(&self.only)) {
            println!("{}", self.row(&net, traffic, object.as_deref())?);
        }
        Ok(())
    }

    fn row(&self, net: &Net, traffic: &Traffic, object: Option<&[u8]>) -> Result<String> {
        let (mut rates, mut lost, mut seen) = ([const { Vec::new() }; 3], 0, 0);
        for turn in 0..self.turns {
            for what in (0..3).map(|number| (turn + number) % 3) {
                let _empty = match object {
                    Some(object) if what == EMPTY => Some(empty(net, object)?),
                    None if what == EMPTY => continue,
                    _ => None,
                };
                let agent = (what == MERMIN).then(|| {
                    let program = Program::new("run").inside(&net.right.name).args(["-i", "right"]);
                    program.output("none").set("capture.mode=aggregate").start()
                });
                // What it does to begin with is not what it costs.
                std::thread::sleep(Duration::from_millis(300));
                rates[what].push(self.rate(net, traffic)?);
                if let Some(agent) = agent {
                    let counts = counts(&agent.interrupt())?;
                    lost += counts.0;
                    seen += counts.1;
                }
            }
        }
        let ratios = |what: usize, of: usize| -> Vec<f64> {
            rates[what].iter().zip(&rates[of]).map(|(with, without)| with / without).collect()
        };
        let cell = |values: &[f64]| {
            if values.is_empty() {
                return "–".to_owned();
            }
            let spread = Spread::of(values.iter().copied());
            format!("{:.3} ({:.3}–{:.3})", spread.median, spread.lower, spread.upper)
        };
        let all = ratios(MERMIN, WITHOUT);
        Ok(format!(
            "| {}, {} | {} | {} | {} | {:.3} | {} | {lost} of {seen} |",
            traffic.title,
            traffic.unit,
            cell(&rates[WITHOUT]),
            cell(&ratios(EMPTY, WITHOUT)),
            cell(&all),
            least_median(&all),
            cell(&ratios(MERMIN, EMPTY)),
        ))
    }

    /// A server for each run: one that has just served calls itself busy.
    fn rate(&self, net: &Net, traffic: &Traffic) -> Result<f64> {
        let mut server = net.right.serve(&format!("iperf3 -s -1 -p {PORT}"), PORT);
        let line = format!("iperf3 -J -A 0,1 -c {RIGHT} -p {PORT} -t {} {}", self.seconds, traffic.arguments);
        let report = net.left.run(&line);
        server.0.wait()?;
        let report: Value = serde_json::from_str(&report).context("iperf3's report")?;
        let rate = (traffic.rate)(&report).filter(|rate| *rate > 0.0);
        rate.with_context(|| format!("nothing was received: {}", report["end"]))
    }
}

/// Empty programs on both hooks of the receiving end, until they are dropped.
fn empty(net: &Net, object: &[u8]) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load(object).context("the empty program")?;
    let program: &mut SchedClassifier =
        ebpf.program_mut("bench_empty").context("no empty program")?.try_into()?;
    program.load()?;
    net.right.within(|| -> Result<()> {
        program.attach("right", TcAttachType::Ingress)?;
        program.attach("right", TcAttachType::Egress)?;
        Ok(())
    })?;
    Ok(ebpf)
}

/// Gbit/s of payload that was received.
fn gigabits(report: &Value) -> Option<f64> {
    Some(report.pointer("/end/sum_received/bits_per_second")?.as_f64()? / 1e9)
}

/// Million datagrams received a second.
fn packets(report: &Value) -> Option<f64> {
    let sum = report.pointer("/end/sum")?;
    let field = |name: &str| sum.get(name)?.as_f64();
    Some((field("packets")? - field("lost_packets")?) / field("seconds")? / 1e6)
}

/// Packets that the agent lost, and saw.
fn counts(outcome: &Outcome) -> Result<(u64, u64)> {
    let statistics = outcome.statistics.as_ref().context("the agent left no statistics")?;
    let lost = statistics["ledger"]["lost"].as_object().context("no losses in the statistics")?;
    let lost: u64 = lost.values().filter_map(|part| part["packets"].as_u64()).sum();
    let processed = statistics["packets_processed"].as_u64().context("no packets in the statistics")?;
    ensure!(processed > 0, "the agent saw nothing");
    Ok((lost, processed + lost))
}

/// What the median is at least, with 95 % confidence, by a bootstrap.
fn least_median(values: &[f64]) -> f64 {
    let mut random = Random::new(1);
    let any = |random: &mut Random| {
        let place = random.below(values.len() as u64);
        values[usize::try_from(place).expect("a place in memory")]
    };
    let sample = |_| Spread::of((0..values.len()).map(|_| any(&mut random))).median;
    let mut medians: Vec<f64> = (0..SAMPLES).map(sample).collect();
    medians.sort_by(f64::total_cmp);
    medians[SAMPLES / 20]
}

#[cfg(test)]
mod tests {
    use super::{Headroom, gigabits, least_median, packets};
    use mermin_tests::need;
    use mermin_tests::need::{namespaces, tool};
    use serde_json::json;
    use std::path::PathBuf;

    #[test]
    fn rates_are_of_what_was_received() {
        let tcp =
            json!({"end": {"sum_sent": {"bits_per_second": 9e9}, "sum_received": {"bits_per_second": 8e9}}});
        assert_eq!(gigabits(&tcp), Some(8.0));
        let udp = json!({"end": {"sum": {"packets": 5_000_000, "lost_packets": 1_000_000, "seconds": 2.0}}});
        assert_eq!(packets(&udp), Some(2.0));
        assert_eq!(packets(&tcp), None);
    }

    #[test]
    fn the_bound_lies_below_the_median_and_within_the_values() {
        assert_eq!(least_median(&[0.5; 15]).to_bits(), 0.5_f64.to_bits());
        let spread: Vec<f64> = (0..15).map(f64::from).collect();
        // Of 15 values the fourth or fifth is the bound: it's the binomial distribution's.
        assert!((3.0..=5.0).contains(&least_median(&spread)), "{}", least_median(&spread));
    }

    #[test]
    fn a_short_run_finds_rates_and_loses_nothing_of_the_books() {
        need!(namespaces(), tool("iperf3"), tool("ethtool"));
        Headroom { turns: 1, seconds: 1, only: String::new(), object: PathBuf::new() }.run().unwrap();
    }
}
