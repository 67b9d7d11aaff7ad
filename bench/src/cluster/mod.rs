//! What Kubernetes costs: memory of a large cluster, and time of a record, while nothing changes and while much does.

mod server;

use crate::core::{busy, pin_to};
use crate::random::Random;
use crate::record::record;
use anyhow::{Context, Result, bail};
use mermin_enrich::{Chain, Cluster, EnrichConfig, Environment, KubernetesConfig, WatchesState};
use mermin_flow::{Enricher, FlowConfig, FlowRecord, Resolution, WallClock};
use server::{Town, pod_address};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Records that are made beforehand and named again and again.
const STOCK: usize = 65_536;
/// Pods of a node.
const LOCAL: usize = 100;
/// What is timed at once.
const BATCH: usize = 256;

/// Names the ends of records, pods of all over the cluster, and prints a table.
#[derive(clap::Args)]
pub(crate) struct ClusterTask {
    /// Pods.
    #[arg(long, default_value_t = 50_000)]
    pods: usize,
    /// Services, each with five backends.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Records of each run.
    #[arg(long, default_value_t = 4_000_000)]
    records: usize,
    /// Pods that a node's own talk to, for the second table.
    #[arg(long, default_value_t = 2_000)]
    peers: usize,
    /// Runs, by turns at rest and under changes.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// What a run took, for each record: CPU time, and the slowest batch's wall time.
struct Cost {
    each: f64,
    worst: Duration,
}

impl ClusterTask {
    pub(crate) fn run(self) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let town = Arc::new(Town {
            pods: self.pods,
            services: self.services,
            changes: false.into(),
            told: 0.into(),
        });
        // The server and the watches have a core, the lookups another.
        pin_to(1);
        let kubeconfig = server::start(&town, folder.path())?;
        let kubernetes: KubernetesConfig = serde_json::from_value(serde_json::json!({
            "enabled": true, "kubeconfig": kubeconfig, "labels": ["app", "version"],
        }))?;
        let cluster =
            Cluster::find(&kubernetes, &Environment::default(), true)?.context("it was just made")?;
        let config = EnrichConfig { kubernetes, ..EnrichConfig::default() };
        let (before, began) = (anonymous()?, Instant::now());
        let chain =
            Chain::build(&config, Some(&cluster), &FlowConfig::default(), Some(&WallClock::default()))?
                .context("a chain")?;
        let status = chain.kubernetes().context("its Kubernetes")?;
        while status.state() != WatchesState::Ready {
            thread::sleep(Duration::from_millis(5));
        }
        let (took, bytes) = (began.elapsed(), anonymous()? - before);
        println!(
            "{} pods, {} services: listed in {:.1} s; {} MB, {} bytes for each",
            self.pods,
            self.services,
            took.as_secs_f64(),
            bytes / 1_000_000,
            bytes / (self.pods + self.services) as u64,
        );
        pin_to(0);
        println!("\nbetween any pods:\n");
        self.name(&chain, &town, [self.pods; 2])?;
        println!("\nbetween {LOCAL} pods of a node and {} others:\n", self.peers);
        self.name(&chain, &town, [LOCAL, self.peers])
    }

    /// Ends are chosen at random among so many pods each.
    fn name(&self, chain: &Chain, town: &Town, pods: [usize; 2]) -> Result<()> {
        let mut stock = stock(town, pods);
        let time = stock[0].end_time;
        while chain.known_until() < time {
            thread::sleep(Duration::from_millis(50));
        }
        let mut costs: [Vec<Cost>; 2] = Default::default();
        let (mut changes, mut changing) = (0, Duration::ZERO);
        for _ in 0..self.runs {
            for (change, costs) in costs.iter_mut().enumerate() {
                town.changes.store(change == 1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(200));
                let (told, began) = (town.told.load(Ordering::Relaxed), Instant::now());
                costs.push(self.once(chain, &mut stock)?);
                if change == 1 {
                    changes += town.told.load(Ordering::Relaxed) - told;
                    changing += began.elapsed();
                }
            }
        }
        town.changes.store(false, Ordering::Relaxed);
        println!(
            "| the cluster | ns a record, two ends (min–max) | slowest {BATCH} records, µs |\n|---|---|---|"
        );
        let rate = changes as f64 / changing.as_secs_f64();
        let titles = ["at rest".to_owned(), format!("{rate:.0} changes/s")];
        for (costs, title) in costs.iter_mut().zip(titles) {
            costs.sort_by(|a, b| a.each.total_cmp(&b.each));
            let worst = costs.iter().map(|cost| cost.worst).max().unwrap_or_default();
            println!(
                "| {title} | {:.0} ({:.0}–{:.0}) | {} |",
                costs[costs.len() / 2].each,
                costs[0].each,
                costs[costs.len() - 1].each,
                worst.as_micros()
            );
        }
        Ok(())
    }

    fn once(&self, chain: &Chain, stock: &mut [FlowRecord]) -> Result<Cost> {
        let (began, mut worst, mut named) = (busy(), Duration::ZERO, 0);
        while named < self.records {
            for batch in stock.chunks_mut(BATCH) {
                let began = Instant::now();
                batch.iter_mut().for_each(|record| chain.enrich(record));
                worst = worst.max(began.elapsed());
                named += batch.len();
            }
        }
        let each = (busy() - began).as_nanos() as f64 / named as f64;
        for record in stock.iter() {
            for end in [&record.source, &record.destination] {
                if end.identity.kubernetes.as_ref().map(|end| end.resolution) != Some(Resolution::Exact) {
                    bail!("{:?} is not known", end);
                }
            }
        }
        Ok(Cost { each, worst })
    }
}

/// Between pods that are chosen at random, a while ago: so that all is known of that time.
fn stock(town: &Town, pods: [usize; 2]) -> Vec<FlowRecord> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or_default();
    let mut random = Random::new(7);
    // Those of a node, and who talks to them, are spread over the cluster.
    let mut address = |pods: usize| {
        let pod = usize::try_from(random.below(pods as u64)).unwrap_or_default();
        pod_address(pod * 7_919 % town.pods).into()
    };
    let one = |number: usize| {
        let mut record = record(number as u64, false);
        (record.start_time, record.end_time) = (now - 1_000_000_000, now);
        (record.source.address, record.destination.address) = (address(pods[0]), address(pods[1]));
        record.destination.port = Some(8_080);
        record
    };
    (0..STOCK).map(one).collect()
}

/// Anonymous memory of this process, bytes.
fn anonymous() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1_024)
}
