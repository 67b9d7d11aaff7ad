//! What a packet costs in the kernel: the shipped programs by turns with an empty one and with plain hashes of flows, live at the
//! receiving end of a veth.

use crate::measure::Spread;
use crate::random::Random;
use anyhow::{Context as _, Result, ensure};
use aya::TestRunOptions;
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, TestRun as _};
use aya::sys::{Stats, enable_stats};
use aya::{Ebpf, programs::links::FdLink};
use mermin_capture::ebpf::{Aggregation, EbpfOptions, EbpfSource};
use mermin_capture::interfaces::Interface;
use mermin_capture::{CaptureMode, FilterRules};
use mermin_flow::{Observation, ObservationPoints, Polled, Sink, Source as _, Tally};
use mermin_tests::netns::Net;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The object with what the shipped programs are compared with, as `cargo xtask ebpf` leaves it.
pub(crate) const COMPARED: &str = "target/bpfel-unknown-none/bpf/mermin-bench-bpf.stripped";

/// Measures what a packet costs in the kernel, and prints a table: ns per packet over an empty program, and what it takes the
/// reader to make an observation of a delta. Needs root, Linux 6.6, and
/// `cargo xtask ebpf` before, which builds what is compared with.
#[derive(clap::Args)]
pub(crate) struct Kernel {
    /// The object with what is compared with.
    #[arg(long, default_value = COMPARED)]
    object: PathBuf,
    /// Packets of a turn.
    #[arg(long, default_value_t = 1_000_000)]
    packets: usize,
    /// Turns.
    #[arg(long, default_value_t = 7)]
    turns: usize,
    /// Runs the programs on frames that are made (`BPF_PROG_TEST_RUN`), instead of sending these over the veth.
    #[arg(long)]
    test_run: bool,
    /// Only traffic whose title has this in it.
    #[arg(long, default_value = "")]
    only: String,
    /// Also with 64 rules of filters, that meter the packets, or leave them out.
    #[arg(long)]
    filters: bool,
    /// Also with as many slots (`capture.kernel_slots`), each a column; the reader's figures of each stand behind those of
    /// aggregate mode.
    #[arg(long, value_delimiter = ',')]
    slots: Vec<u32>,
}

/// What is sent.
struct Traffic {
    title: &'static str,
    flows: u64,
    zipf: bool,
    ipv6: bool,
}

const TRAFFIC: [Traffic; 7] = [
    Traffic { title: "1 flow", flows: 1, zipf: false, ipv6: false },
    Traffic { title: "10 k flows, uniform", flows: 10_000, zipf: false, ipv6: false },
    Traffic { title: "64 k flows, uniform", flows: 65_536, zipf: false, ipv6: false },
    Traffic { title: "64 k flows, Zipf", flows: 65_536, zipf: true, ipv6: false },
    Traffic { title: "1 M flows, uniform", flows: 1_000_000, zipf: false, ipv6: false },
    Traffic { title: "1 flow, IPv6", flows: 1, zipf: false, ipv6: true },
    Traffic { title: "64 k flows, uniform, IPv6", flows: 65_536, zipf: false, ipv6: true },
];

/// What the packets run through.
#[derive(Clone, Copy)]
enum Subject {
    /// A program of the object that is compared with.
    Compared(&'static str),
    /// The shipped ones.
    Ours(CaptureMode, Filters),
    /// The shipped ones in aggregate mode, with so many slots.
    Slots(u32),
}

/// What filters of the shipped programs say of the packets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filters {
    /// There are none.
    None,
    /// No rule matches them, and they are metered.
    Metered,
    /// The last of all rules leaves them out.
    Filtered,
}

const SUBJECTS: [(&str, Subject); 9] = [
    ("empty", Subject::Compared("bench_empty")),
    ("hash, tick", Subject::Compared("bench_hash_tick")),
    ("hash, boot clock", Subject::Compared("bench_hash_boot")),
    ("packet mode", Subject::Ours(CaptureMode::Packet, Filters::None)),
    ("aggregate mode", Subject::Ours(CaptureMode::Aggregate, Filters::None)),
    ("aggregate, filters meter", Subject::Ours(CaptureMode::Aggregate, Filters::Metered)),
    ("aggregate, filtered", Subject::Ours(CaptureMode::Aggregate, Filters::Filtered)),
    ("packet mode, filters meter", Subject::Ours(CaptureMode::Packet, Filters::Metered)),
    ("packet mode, filtered", Subject::Ours(CaptureMode::Packet, Filters::Filtered)),
];
/// Subjects without filters.
const UNFILTERED: usize = 5;
const TICK: usize = 1;
const AGGREGATE: usize = 4;

impl Kernel {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(self.turns > 0 && self.packets > 0, "no turns or no packets measure nothing");
        let object = std::fs::read(&self.object).with_context(|| {
            format!("no programs at {}: `cargo xtask ebpf` builds them", self.object.display())
        })?;
        let _stats = enable_stats(Stats::RunTime).context("run times of programs")?;
        let net = Net::new("kernel", false);
        let route = |way: &str| net.left.ip(way);
        route("route add 11.0.0.0/8 via 10.77.0.2");
        route("-6 route add fd11::/16 via fd77::2");
        let _ = net.left.run("ping -q -c 1 10.77.0.2");
        let _ = net.left.run("ping -q -c 1 fd77::2");
        let shipped = if self.filters { &SUBJECTS[..] } else { &SUBJECTS[..UNFILTERED] };
        let slots = self.slots.iter().map(|slots| (format!("{slots} slots"), Subject::Slots(*slots)));
        let subjects: Vec<(String, Subject)> =
            shipped.iter().map(|(title, subject)| ((*title).into(), *subject)).chain(slots).collect();
        let titles: Vec<&str> = subjects.iter().map(|(title, _)| title.as_str()).collect();
        println!(
            "| traffic | {} | hash, tick over aggregate mode | reader, ns a delta (deltas a packet) |",
            titles.join(" | ")
        );
        println!("|---|{}---|---|", "---|".repeat(subjects.len()));
        for traffic in TRAFFIC.iter().filter(|traffic| traffic.title.contains(&self.only)) {
            let order = order(traffic, self.packets);
            let (mut costs, mut readings) =
                (vec![Vec::new(); subjects.len()], vec![Vec::new(); subjects.len()]);
            // The first turn warms up.
            for turn in 0..=self.turns {
                for number in 0..subjects.len() {
                    let subject = (turn + number) % subjects.len();
                    let traffic = |program: &SchedClassifier| match self.test_run {
                        true => test_run(traffic, &order, program),
                        false => {
                            send(traffic, &order, &net);
                            Ok(())
                        }
                    };
                    let (cost, reading) = measure(&net, subjects[subject].1, &object, traffic)?;
                    if turn > 0 {
                        costs[subject].push(cost);
                        readings[subject].extend(reading);
                    }
                }
            }
            let of = (0..subjects.len()).filter(|subject| *subject == AGGREGATE || *subject >= shipped.len());
            let told: Vec<String> = of.map(|subject| told(&readings[subject])).collect();
            println!("{} {} |", row(traffic.title, &costs), told.join("; "));
        }
        Ok(())
    }
}

/// A line of the table: median and quartiles of what each costs over an empty program in the same turn.
fn row(title: &str, costs: &[Vec<f64>]) -> String {
    let over = |subject: usize| costs[subject].iter().zip(&costs[0]).map(|(cost, empty)| cost - empty);
    let empty = Spread::of(costs[0].iter().copied());
    let mut line = format!("| {title} | {:.0} |", empty.median);
    for subject in 1..costs.len() {
        let spread = Spread::of(over(subject));
        line += &format!(" {:.0} ({:.0}–{:.0}) |", spread.median, spread.lower, spread.upper);
    }
    let ratio = Spread::of(over(TICK)).median / Spread::of(over(AGGREGATE)).median;
    line + &format!(" {ratio:.2} |")
}

/// Processor time of the reader, and how many observations it made of how many packets.
#[derive(Clone, Copy)]
struct Reading {
    nanos: f64,
    observations: u64,
    packets: u64,
}

fn told(readings: &[Reading]) -> String {
    let each = Spread::of(readings.iter().map(|reading| reading.nanos / reading.observations.max(1) as f64));
    let of = Spread::of(readings.iter().map(|it| it.observations as f64 / it.packets.max(1) as f64));
    format!("{:.0} ({:.3})", each.median, of.median)
}

/// Flows in the order in which they send.
fn order(traffic: &Traffic, packets: usize) -> Vec<u64> {
    let mut random = Random::new(7);
    let mut cumulative = Vec::new();
    if traffic.zipf {
        let mut sum = 0.0;
        for rank in 1..=traffic.flows {
            sum += 1.0 / rank as f64;
            cumulative.push(sum);
        }
    }
    let mut next = || match cumulative.last() {
        Some(sum) => cumulative.partition_point({
            let at = random.unit() * sum;
            move |to| *to < at
        }) as u64,
        None => random.below(traffic.flows),
    };
    (0..packets).map(|_| next()).collect()
}

/// Sends each flow's packet to an address and port of its own.
fn send(traffic: &Traffic, order: &[u64], net: &Net) {
    net.left.within(|| {
        let mut cpus = CpuSet::new();
        cpus.set(0);
        sched_setaffinity(None, &cpus).expect("there is a first CPU");
        let own =
            if traffic.ipv6 { IpAddr::from(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((own, 0)).expect("a socket");
        for flow in order {
            let random = scatter(*flow);
            let port = (random >> 48) as u16 | 1;
            let to: IpAddr = if traffic.ipv6 {
                let [a, b] = [(random >> 16) as u16, random as u16];
                Ipv6Addr::new(0xfd11, 0, 0, 0, 0, (random >> 32) as u16, a, b).into()
            } else {
                Ipv4Addr::from(11 << 24 | random as u32 & 0xff_ffff).into()
            };
            // A buffer that the kernel has no memory for is not counted by any program either.
            let _ = socket.send_to(&[0; 24], SocketAddr::new(to, port));
        }
    });
}

/// Runs the program on each flow's frame.
fn test_run(traffic: &Traffic, order: &[u64], program: &SchedClassifier) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0);
    thread::scope(|scope| {
        let run = || {
            sched_setaffinity(None, &cpus)?;
            let mut frame = frame(traffic.ipv6);
            for flow in order {
                address(&mut frame, traffic.ipv6, scatter(*flow));
                program.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() })?;
            }
            Ok(())
        };
        scope.spawn(run).join().ok().context("the runner panicked")?
    })
}

/// Ethernet, IP, UDP and 24 bytes, as [`send`] makes the kernel send them.
fn frame(ipv6: bool) -> Vec<u8> {
    let mut frame = vec![2; 12];
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 17, 64]);
        frame.extend([0xfd; 32]);
    } else {
        frame.extend([8, 0, 0x45, 0, 0, 52, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, 1, 11, 0, 0, 0]);
    }
    frame.extend([0x9c, 0x40, 0, 0, 0, 32, 0, 0]);
    frame.extend([0; 24]);
    frame
}

/// Makes it one of another flow.
fn address(frame: &mut [u8], ipv6: bool, random: u64) {
    let to = if ipv6 { 38..54 } else { 30..34 };
    let port = to.end + 2;
    frame[to.end - 3..to.end].copy_from_slice(&random.to_be_bytes()[5..]);
    frame[port..port + 2].copy_from_slice(&((random >> 48) as u16 | 1).to_be_bytes());
}

fn scatter(flow: u64) -> u64 {
    Random::new(flow).next()
}

/// ns a packet in a program at the right end's ingress, and what it was to read what the shipped ones said.
fn measure(
    net: &Net,
    subject: Subject,
    object: &[u8],
    send: impl Fn(&SchedClassifier) -> Result<()>,
) -> Result<(f64, Option<Reading>)> {
    match subject {
        Subject::Compared(name) => {
            let mut ebpf = Ebpf::load(object).context("what is compared with")?;
            let program: &mut SchedClassifier = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load()?;
            let _link: FdLink = net.right.within(|| -> Result<FdLink> {
                let link = program.attach("right", TcAttachType::Ingress)?;
                Ok(program.take_link(link)?.try_into()?)
            })?;
            Ok((cost_of(net, send)?, None))
        }
        Subject::Ours(mode, filters) => {
            let options = EbpfOptions { mode, filters: rules(filters)?, ..EbpfOptions::default() };
            ours(net, &options, send).map(|(cost, reading)| (cost, Some(reading)))
        }
        Subject::Slots(slots) => {
            let aggregation = Aggregation { slots, ..Aggregation::default() };
            let options = EbpfOptions { mode: CaptureMode::Aggregate, aggregation, ..EbpfOptions::default() };
            ours(net, &options, send).map(|(cost, reading)| (cost, Some(reading)))
        }
    }
}

/// The shipped programs, with a reader behind them and epochs as in a run; its books have to balance.
fn ours(
    net: &Net,
    options: &EbpfOptions,
    send: impl Fn(&SchedClassifier) -> Result<()>,
) -> Result<(f64, Reading)> {
    let over = AtomicBool::new(false);
    let index = net.right.run("cat /sys/class/net/right/ifindex");
    let mut source = net.right.within(|| -> Result<EbpfSource> {
        let index = index.trim().parse()?;
        let link = mermin_wire::Link::Ethernet;
        let interface = Interface { name: Arc::from("right"), index, link, up: true };
        let points = Arc::new(ObservationPoints::default());
        Ok(EbpfSource::open(&[interface], &points, options)?.source)
    })?;
    thread::scope(|scope| {
        let reading = scope.spawn(|| read(&mut source, &over));
        let cost = cost_of(net, send);
        over.store(true, Ordering::Release);
        let reading = reading.join().ok().context("the reader panicked")?;
        Ok((cost?, reading.context("the books don't balance")?))
    })
}

/// As many rules as there can be, and nearly as many networks; the last one is about what is sent, or not.
fn rules(filters: Filters) -> Result<FilterRules> {
    let last = match filters {
        Filters::None => return Ok(FilterRules::default()),
        Filters::Metered => json!(["192.0.2.0/24", "2001:db8::/32"]),
        Filters::Filtered => json!(["11.0.0.0/8", "fd11::/16"]),
    };
    let rule = |number: usize, networks: serde_json::Value, ports: &[u16]| {
        let matches = json!({ "destination_networks": networks, "destination_ports": ports });
        json!({ "name": format!("r{number}"), "action": "exclude", "match": matches })
    };
    let others = (0..63).map(|n| {
        let networks =
            (0..7).flat_map(|m| [format!("172.16.{n}.{}/32", 9 * m), format!("fd12::{n}:{m}/128")]);
        rule(n, networks.collect(), &[n as u16])
    });
    Ok(serde_json::from_value(others.chain([rule(63, last, &[])]).collect())?)
}

/// Adds up what it is given.
#[derive(Default)]
struct Sum(Tally, u64);

impl Sink for Sum {
    fn observe(&mut self, observation: Observation) {
        self.0 += observation.tally();
        self.1 += 1;
    }
}

/// Reads to the end; nothing, unless all that was seen came, or is lost, or is no flow traffic.
fn read(source: &mut EbpfSource, over: &AtomicBool) -> Option<Reading> {
    let mut cpus = CpuSet::new();
    cpus.set(1);
    // The sender has the first; where there is but one, they share it.
    let _ = sched_setaffinity(None, &cpus);
    let (mut sum, mut closed) = (Sum::default(), false);
    loop {
        if over.load(Ordering::Acquire) && !closed {
            source.close();
            closed = true;
        }
        match source.poll(&mut sum, 4_096) {
            Polled::More => {}
            Polled::Drained => source.wait(Duration::from_millis(20)),
            Polled::Ended => break,
        }
    }
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = time.tv_sec as f64 * 1e9 + time.tv_nsec as f64;
    let sightings = source.sightings()?;
    let lost: Tally = sightings.lost.values().copied().sum();
    let unmetered: Tally = sightings.unmetered.iter().copied().sum();
    let filtered: Tally = sightings.filtered.values().copied().sum();
    let balances = sightings.seen.buffers == (sum.0 + lost + unmetered + filtered).buffers;
    balances.then_some(Reading { nanos, observations: sum.1, packets: sum.0.packets })
}

/// Run time over run count of what is on the hook, while `send` sends. By the hook: programs of the same name may be on others.
fn cost_of(net: &Net, send: impl Fn(&SchedClassifier) -> Result<()>) -> Result<f64> {
    let info = || -> Result<ProgramInfo> {
        let (_, programs) =
            net.right.within(|| SchedClassifier::query_tcx("right", TcAttachType::Ingress))?;
        let count = programs.len();
        let [program] =
            <[_; 1]>::try_from(programs).ok().with_context(|| format!("{count} programs are on the hook"))?;
        Ok(program)
    };
    let counted = || info().map(|info| (info.run_time(), info.run_count()));
    let on_the_hook =
        || -> Result<SchedClassifier> { Ok(SchedClassifier::from_program_info(info()?, "measured".into())?) };
    let program = on_the_hook()?;
    // Maps are new: what is measured is the second time that each flow sends.
    send(&program)?;
    thread::sleep(Duration::from_millis(50));
    let before = counted()?;
    send(&program)?;
    // What is on a backlog still runs through it.
    thread::sleep(Duration::from_millis(50));
    let after = counted()?;
    let packets = after.1 - before.1;
    ensure!(packets > 0, "no packet came to the hook");
    Ok((after.0 - before.0).as_nanos() as f64 / packets as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_what_each_costs_over_nothing() {
        let costs =
            [vec![40.0, 44.0, 42.0], vec![140.0, 141.0, 142.0], vec![1.0; 3], vec![1.0; 3], vec![90.0; 3]];
        let line = row("title", &costs);
        assert!(line.starts_with("| title | 42 | 100 (97–100) |"), "{line}");
        assert!(line.ends_with(" 48 (46–48) | 2.08 |"), "{line}");
    }

    #[test]
    fn frames_are_whole_and_of_their_flows() {
        for (ipv6, length, port) in [(false, 66, 36), (true, 86, 56)] {
            let mut frames = [frame(ipv6), frame(ipv6)];
            assert_eq!(frames[0].len(), length);
            frames.iter_mut().zip([3, 4]).for_each(|(frame, flow)| address(frame, ipv6, scatter(flow)));
            let [one, other] = frames;
            assert!(one[..port] != other[..port] && one[port..port + 2] != [0; 2]);
            let ip_bytes = if ipv6 {
                40 + u16::from_be_bytes([one[18], one[19]])
            } else {
                u16::from_be_bytes([one[16], one[17]])
            };
            assert_eq!(usize::from(ip_bytes) + 14, length);
        }
    }

    #[test]
    fn flows_send_in_an_order_that_is_the_same_everywhere() {
        for traffic in &TRAFFIC {
            let order = order(traffic, 10_000);
            assert!(order.iter().all(|flow| *flow < traffic.flows));
            let first = order.iter().filter(|flow| **flow == 0).count();
            match (traffic.flows, traffic.zipf) {
                (1, _) => assert_eq!(first, 10_000),
                (_, true) => assert!((700..1_100).contains(&first), "{first}"),
                _ => assert!(first < 10, "{first}"),
            }
        }
    }
}
