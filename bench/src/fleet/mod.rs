//! Hundreds of agents that write to one topic of a real broker: whether each record is there once, and what it costs, from few
//! agents to many and at several numbers of partitions. `docs/guide/capacity.md` is made of its figures.
//!
//! An agent here is the Kafka output of a real one (`agent.rs`), with flows of captures in place of packets (`flows.rs`). All
//! share a process, and with the broker the machine: so costs are processor time, not speed.

mod agent;
mod flows;
mod results;
mod topic;

use crate::core::busy_in_all;
use crate::measure::{Spread, cpu_seconds};
use agent::Simulated;
use anyhow::{Context, Result, ensure};
use flows::Flows;
use mermin_export::kafka::KafkaConfig;
use mermin_flow::Interval;
use mermin_tests::need::captures;
use mermin_tests::servers::flink;
use mermin_tests::servers::kafka::{Kafka, Listener};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the fleet does nothing, to see what that costs.
const REST: Duration = Duration::from_secs(2);
/// Before the present: what is in the future counts nowhere.
const AGO: Duration = Duration::from_secs(600);

/// Has agents write to a topic, by turns in each number, and prints a table.
#[derive(clap::Args)]
pub(crate) struct Fleet {
    /// Numbers of agents.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 50, 100, 250, 500])]
    agents: Vec<usize>,
    /// Numbers of the topic's partitions.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    partitions: Vec<u16>,
    /// Records of a run, of all agents together.
    #[arg(long, default_value_t = 250_000)]
    records: usize,
    /// Records that an agent hands over at a time.
    #[arg(long, default_value_t = 500)]
    each: usize,
    /// An agent hands them over at this interval; without, when those before are acknowledged.
    #[arg(long)]
    every: Option<Interval>,
    /// `batch.delay` of the agents.
    #[arg(long, value_delimiter = ',', default_values_t = [Interval::milliseconds(100)])]
    delays: Vec<Interval>,
    /// `compression` of the agents.
    #[arg(long, default_value = "lz4")]
    compression: String,
    /// Runs of each kind.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Folder with captures; by default `../shared/pcaps`.
    #[arg(long)]
    captures: Option<PathBuf>,
    /// Has the stream job read each topic, too, and holds its results against the agents' books.
    #[arg(long)]
    job: bool,
}

/// What agents do.
struct Load {
    records: usize,
    each: usize,
    every: Option<Duration>,
}

impl Load {
    /// Records of each of so many agents: whole rounds.
    fn of_an_agent(&self, agents: usize) -> u64 {
        (self.rounds(agents) * self.each) as u64
    }

    fn rounds(&self, agents: usize) -> usize {
        (self.records / agents / self.each).max(1)
    }
}

/// A run of one kind.
struct Cost {
    /// Processor time of a record, µs.
    agent: f64,
    broker: f64,
    /// The same while nothing is sent, ms of each second: of one agent, and of the broker.
    agent_at_rest: f64,
    broker_at_rest: f64,
    bytes: f64,
    batch: f64,
    rate: f64,
    /// Processor time of the stream job in all, s.
    job: Option<f64>,
}

impl Fleet {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(!self.agents.contains(&0) && self.runs > 0, "give --agents and --runs one at least");
        let folder = match &self.captures {
            Some(folder) => folder.clone(),
            None => captures().map_err(anyhow::Error::msg)?,
        };
        // The others would wait for that agent.
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            tell(panic);
            std::process::exit(101);
        }));
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let flows = Flows::of(&folder, u64::try_from((now - AGO).as_nanos())?)?;
        println!("{} flows of captures", flows.len());
        Kafka::installed().map_err(|missing| anyhow::anyhow!("{missing}: `cargo xtask servers kafka`"))?;
        if self.job {
            flink::installed().map_err(anyhow::Error::msg)?;
        }
        let broker = Kafka::start();
        println!(
            "| agents | partitions | batch.delay | agent, µs a record (min–max) | broker, µs a record | bytes a record, on disk | records a batch | records/s | at rest, ms/s: an agent; the broker | job, s |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        let mut kinds = Vec::new();
        for delay in &self.delays {
            for partitions in &self.partitions {
                kinds.extend(self.agents.iter().map(|agents| (*agents, *partitions, *delay, Vec::new())));
            }
        }
        for run in 0..self.runs {
            for (kind, (agents, partitions, delay, costs)) in kinds.iter_mut().enumerate() {
                let topic = format!("fleet.{run}.{kind}");
                broker.create_topic(&topic, *partitions, &[]);
                let cost = self.measured(&broker, (&topic, *partitions), *agents, *delay, &flows);
                costs.push(cost.with_context(|| format!("{agents} agents, {partitions} partitions"))?);
            }
        }
        for (agents, partitions, delay, costs) in &kinds {
            print_row(&format!("| {agents} | {partitions} | {delay} |"), costs);
        }
        let results = if self.job { ", and so do the stream job's results" } else { "" };
        println!(
            "\nIn all {} runs each record was in the topic once, and the sums of each agent equal its book{results}.",
            kinds.len() * self.runs
        );
        Ok(())
    }

    fn load(&self) -> Load {
        Load { records: self.records, each: self.each.max(1), every: self.every.map(|every| every.0) }
    }

    fn config(&self, address: &str, topic: &str, delay: Interval) -> Result<KafkaConfig> {
        let config = serde_json::json!({
            "brokers": [address], "topic": topic, "compression": self.compression,
            "batch": {"delay": delay.to_string()},
        });
        Ok(serde_json::from_value(config)?)
    }

    fn measured(
        &self,
        broker: &Kafka,
        (topic, partitions): (&str, u16),
        agents: usize,
        delay: Interval,
        flows: &Flows,
    ) -> Result<Cost> {
        let address = broker.address(Listener::Plain);
        let load = self.load();
        let config = self.config(&address.to_string(), topic, delay)?;
        let mut fleet = fleet(agents, flows, &config, &load)?;
        let of_broker = || cpu_seconds(broker.process().id()).context("the broker is gone");
        let before = (busy_in_all(), of_broker()?);
        std::thread::sleep(REST);
        let rest = ((busy_in_all() - before.0).as_secs_f64(), of_broker()? - before.1);
        let (before, began) = ((busy_in_all(), of_broker()?), Instant::now());
        send(&mut fleet, &load)?;
        let seconds = began.elapsed().as_secs_f64();
        let busy = ((busy_in_all() - before.0).as_secs_f64(), of_broker()? - before.1);
        let found = broker.consume(topic);
        topic::compare(&found, &fleet, partitions)?;
        let job = if self.job { Some(results::of_the_job(broker, topic, &fleet)?) } else { None };
        // The first record of each was sent before.
        let records = (found.len() - agents) as u64;
        let disk = topic::on_disk(&broker.segments(topic))?;
        let (each, in_all) = (1e6 / records as f64, found.len() as f64);
        let at_rest = 1e3 / REST.as_secs_f64();
        Ok(Cost {
            agent: busy.0 * each,
            broker: busy.1 * each,
            agent_at_rest: rest.0 * at_rest / agents as f64,
            broker_at_rest: rest.1 * at_rest,
            bytes: disk.bytes as f64 / in_all,
            batch: records as f64 / (disk.batches - agents as u64) as f64,
            rate: records as f64 / seconds,
            job,
        })
    }
}

/// Agents that are connected, each by a thread of its own: how quickly one is says the broker's round trips.
fn fleet(agents: usize, flows: &Flows, config: &KafkaConfig, load: &Load) -> Result<Vec<Simulated>> {
    let join = |n| move || Simulated::join(n, agents, flows, config, load);
    in_threads((0..agents).map(join))
}

/// Has all of them send.
fn send(fleet: &mut [Simulated], load: &Load) -> Result<()> {
    let (began, together) = (Instant::now(), &Barrier::new(fleet.len()));
    in_threads(fleet.iter_mut().map(|agent| move || agent.run(load, began, together))).map(drop)
}

/// Each in a thread of its own; the answers in their order.
fn in_threads<T: Send>(tasks: impl Iterator<Item = impl FnOnce() -> Result<T> + Send>) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = tasks.map(|task| scope.spawn(task)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a panic ends the program")).collect()
    })
}

fn print_row(kind: &str, costs: &[Cost]) {
    let spread = |of: fn(&Cost) -> f64| Spread::of(costs.iter().map(of));
    let (agent, broker) = (spread(|cost| cost.agent), spread(|cost| cost.broker));
    let job: Vec<f64> = costs.iter().filter_map(|cost| cost.job).collect();
    let job = (!job.is_empty()).then(|| Spread::of(job.into_iter()));
    println!(
        "{kind} {:.2} ({:.2}–{:.2}) | {:.2} ({:.2}–{:.2}) | {:.0} | {:.0} | {:.0} | {:.1}; {:.0} | {} |",
        agent.median,
        agent.least,
        agent.most,
        broker.median,
        broker.least,
        broker.most,
        spread(|cost| cost.bytes).median,
        spread(|cost| cost.batch).median,
        spread(|cost| cost.rate).median,
        spread(|cost| cost.agent_at_rest).median,
        spread(|cost| cost.broker_at_rest).median,
        job.map_or_else(
            || "–".to_owned(),
            |job| format!("{:.1} ({:.1}–{:.1})", job.median, job.least, job.most)
        ),
    );
}
