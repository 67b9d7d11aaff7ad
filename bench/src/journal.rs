//! What the journal costs: the agent's processor time and what it writes, by turns without and with it, under the same traffic.

use crate::measure::{Spread, cpu_seconds};
use crate::random::Random;
use anyhow::{Context, Result, bail, ensure};
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::Net;
use mermin_tests::program::{Program, binary, plain};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Measures what the journal takes of a processor, and writes, at a steady rate of packets, and prints a table. Needs root and nsenter.
#[derive(clap::Args)]
pub(crate) struct JournalCost {
    /// Turns of each traffic.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Packets a second.
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
}

struct Traffic {
    title: &'static str,
    mode: &'static str,
    flows: u64,
}

const TRAFFIC: [Traffic; 4] = [
    Traffic { title: "no packets", mode: "aggregate", flows: 0 },
    Traffic { title: "10 000 flows, aggregate mode", mode: "aggregate", flows: 10_000 },
    Traffic { title: "100 000 flows, aggregate mode", mode: "aggregate", flows: 100_000 },
    Traffic { title: "1 000 flows, packet mode", mode: "packet", flows: 1_000 },
];

/// What a run took, a second.
struct Cost {
    /// Milliseconds of a processor.
    cpu: f64,
    /// Bytes.
    written: f64,
}

impl JournalCost {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(
            self.turns > 0 && self.seconds > 0 && self.rate > 0,
            "no turns, no time or no packets measure nothing"
        );
        if let Err(missing) = namespaces().and(tool("nsenter")) {
            bail!("can't measure: {missing}");
        }
        let net = Net::new("journal", false);
        net.left.ip("route add 11.0.0.0/8 via 10.77.0.2");
        let _ = net.left.run("ping -q -c 1 10.77.0.2");
        println!(
            "| {} packets/s | without, ms of a processor a second | with | more, by pairs | written, MB/s |\n|---|---|---|---|---|",
            self.rate
        );
        for traffic in &TRAFFIC {
            let (mut costs, mut written) = ([Vec::new(), Vec::new()], Vec::new());
            for turn in 0..self.turns {
                for with in [turn % 2, 1 - turn % 2] {
                    let cost = self.cost(&net, traffic, with == 1)?;
                    costs[with].push(cost.cpu);
                    if with == 1 {
                        written.push(cost.written / 1e6);
                    }
                }
            }
            let [without, with] = costs;
            let more: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with - without).collect();
            let cell = |values: &[f64]| {
                let spread = Spread::of(values.iter().copied());
                format!("{:.1} ({:.1}–{:.1})", spread.median, spread.lower, spread.upper)
            };
            println!(
                "| {} | {} | {} | {} | {} |",
                traffic.title,
                cell(&without),
                cell(&with),
                cell(&more),
                cell(&written)
            );
        }
        Ok(())
    }

    /// One run; the sender is on the first CPU.
    fn cost(&self, net: &Net, traffic: &Traffic, journal: bool) -> Result<Cost> {
        let folder = tempfile::tempdir()?;
        let network = format!("--net=/run/netns/{}", net.right.name);
        // Names in a bpffs are of the mounts that `ip netns exec` would make anew.
        let agent = Program::new("run")
            .under(&["nsenter", &network])
            .args(["-i", "right", "--source", "ebpf"])
            .output("none")
            .set(&format!("capture.mode={}", traffic.mode))
            .set("capture.on_exit=keep")
            .set(&format!("pipeline.journal.enabled={journal}"))
            .set(&format!("pipeline.journal.folder={}", folder.path().join("journal").display()))
            .set("pipeline.flow_workers=1")
            .start();
        // Until it has settled down.
        std::thread::sleep(Duration::from_secs(2));
        let look = || {
            let cpu = cpu_seconds(agent.id()).context("the agent has ended")?;
            Ok::<_, anyhow::Error>((Instant::now(), cpu, written(agent.id())?))
        };
        let before = look()?;
        self.send(net, traffic.flows);
        let after = look()?;
        let seconds = after.0.duration_since(before.0).as_secs_f64();
        let outcome = agent.interrupt();
        let lost = &outcome.statistics.as_ref().context("the agent left no statistics")?["ledger"]["lost"];
        let lost: u64 =
            lost.as_object().into_iter().flatten().filter_map(|(_, lost)| lost["packets"].as_u64()).sum();
        ensure!(lost == 0, "{lost} packets were lost: send fewer a second");
        let cleaned = plain("nsenter").arg(&network).arg(binary()).arg("cleanup").output()?;
        ensure!(cleaned.status.success(), "what the agent has left can't be taken away: {cleaned:?}");
        Ok(Cost { cpu: (after.1 - before.1) * 1e3 / seconds, written: (after.2 - before.2) as f64 / seconds })
    }

    /// Sends at the rate for as long as a run takes, to an address and port for each flow by turns.
    fn send(&self, net: &Net, flows: u64) {
        let length = Duration::from_secs(self.seconds);
        if flows == 0 {
            return std::thread::sleep(length);
        }
        net.left.within(|| {
            let mut cpus = CpuSet::new();
            cpus.set(0);
            sched_setaffinity(None, &cpus).expect("there is a first CPU");
            let to: Vec<SocketAddr> = (0..flows)
                .map(|flow| {
                    let random = Random::new(flow).next();
                    let address = Ipv4Addr::from(11 << 24 | random as u32 & 0xff_ffff);
                    SocketAddr::from((address, (random >> 48) as u16 | 1))
                })
                .collect();
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
            let (began, mut sent) = (Instant::now(), 0_u64);
            for to in to.iter().cycle() {
                // A buffer that the kernel has no memory for crosses no link.
                let _ = socket.send_to(&[0; 64], to);
                sent += 1;
                if sent.is_multiple_of(100) {
                    let due = Duration::from_secs_f64(sent as f64 / self.rate as f64);
                    if due >= length {
                        break;
                    }
                    std::thread::sleep(due.saturating_sub(began.elapsed()));
                }
            }
        });
    }
}

/// Bytes that a process has written so far, to files and elsewhere.
fn written(id: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/io"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    value.and_then(|value| value.parse().ok()).context("the kernel doesn't say what was written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mermin_tests::need;

    #[test]
    fn a_short_run_tells_what_was_written() {
        need!(namespaces(), tool("nsenter"));
        let task = JournalCost { turns: 1, seconds: 1, rate: 2_000 };
        let net = Net::new("journal", false);
        net.left.ip("route add 11.0.0.0/8 via 10.77.0.2");
        let _ = net.left.run("ping -q -c 1 10.77.0.2");
        let traffic = Traffic { title: "", mode: "packet", flows: 100 };
        let [without, with] = [false, true].map(|journal| task.cost(&net, &traffic, journal).unwrap());
        assert!(with.written > without.written + 100_000.0, "{} {}", with.written, without.written);
    }
}
