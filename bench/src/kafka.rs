//! Records encoded and sent to a broker: what the Kafka output costs, and how long messages are.
//!
//! The broker is one that runs already. Its bytes are counted as sent: requests, with headers and keys, after compression.

use crate::core::{busy_in_all, pin_to};
use crate::record::record;
use anyhow::{Result, bail};
use mermin_export::kafka::{KafkaConfig, KafkaPlan};
use mermin_export::{Agent, ClockError};
use mermin_flow::{CommunityId, FlowRecord, Hook, ObservationPoint, ObservationPoints, Receipt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Records that are made beforehand: more than a batch holds, so that none compresses by being there twice.
const STOCK: u64 = 65_536;

/// What an output gets at a time.
const BATCH: usize = 256;

/// How long the client's last figures may take.
const FIGURES: Duration = Duration::from_millis(1_500);

/// Sends records to a topic in every form, by turns, and prints a table.
#[derive(clap::Args)]
pub(crate) struct Kafka {
    /// Brokers and topic, as behind `-o kafka:`.
    #[arg(long, default_value = "127.0.0.1:9092/mermin.bench")]
    to: String,
    /// Records of each run.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Runs of each form.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only these forms: protobuf, json.
    #[arg(long, value_delimiter = ',', default_values = ["protobuf", "json"])]
    encodings: Vec<String>,
    /// Only these compressions.
    #[arg(long, value_delimiter = ',', default_values = ["none", "lz4", "zstd"])]
    compressions: Vec<String>,
}

/// A run of one form.
struct Cost {
    /// CPU time of all threads of this process: encoding, and librdkafka's.
    busy: f64,
    seconds: f64,
    bytes: u64,
}

impl Kafka {
    pub(crate) fn run(self) -> Result<()> {
        // The broker has the other core, as far as it is content with it.
        pin_to(0);
        println!(
            "| records | form | records per CPU-second (min–max) | records/s | bytes per record, as sent |"
        );
        println!("|---|---|---|---|---|");
        let forms: Vec<_> = self
            .encodings
            .iter()
            .flat_map(|encoding| self.compressions.iter().map(move |compression| (encoding, compression)))
            .collect();
        for (kind, kubernetes) in [("of a host", false), ("with Kubernetes", true)] {
            let stock: Vec<_> = (0..STOCK).map(|n| stocked(n, kubernetes)).collect();
            let mut costs: Vec<_> = forms.iter().map(|_| Vec::new()).collect();
            for _ in 0..self.runs {
                for (costs, form) in costs.iter_mut().zip(&forms) {
                    costs.push(self.one(*form, &stock)?);
                }
            }
            for (costs, (encoding, compression)) in costs.iter_mut().zip(&forms) {
                costs.sort_by(|a: &Cost, b| a.busy.total_cmp(&b.busy));
                let rate = |seconds: f64| self.records as f64 / seconds / 1e6;
                let middle = &costs[costs.len() / 2];
                println!(
                    "| {kind} | {encoding}, {compression} | {:.2} M ({:.2}–{:.2}) | {:.2} M | {:.0} |",
                    rate(middle.busy),
                    rate(costs[costs.len() - 1].busy),
                    rate(costs[0].busy),
                    rate(middle.seconds),
                    middle.bytes as f64 / self.records as f64
                );
            }
        }
        Ok(())
    }

    fn one(&self, (encoding, compression): (&String, &String), stock: &[FlowRecord]) -> Result<Cost> {
        let (brokers, topic) = self.to.split_once('/').unwrap_or((&self.to, "mermin.bench"));
        let config = serde_json::json!({
            "brokers": brokers.split(',').collect::<Vec<_>>(), "topic": topic,
            "encoding": encoding, "compression": compression,
        });
        let config: KafkaConfig = serde_json::from_value(config)?;
        let points = Arc::new(ObservationPoints::default());
        points.number(ObservationPoint {
            interface: Some("eth0".into()),
            index: Some(2),
            hook: Some(Hook::Egress),
        });
        // As long as real ones.
        let clock = || Some(ClockError { offset: -12_345, bound: 1_234_567 });
        let agent = Agent { id: "0123456789abcdef0123456789abcdef".to_owned(), clock: Some(clock) };
        let mut outputs = KafkaPlan::new(&config, "node-17".to_owned())?.open(&points, &agent)?;
        let Some(output) = outputs.first_mut() else { bail!("built without Kafka") };
        let mut receipt = Receipt::default();
        // Connected, and the topic is known.
        output.export(&stock[..1], &mut receipt).map_err(|failure| failure.error)?;
        output.flush(&mut receipt).map_err(|failure| failure.error)?;
        let (began, began_busy, before) = (Instant::now(), busy_in_all(), receipt.delivered.records);
        let mut sent = 0;
        'sent: loop {
            for batch in stock.chunks(BATCH) {
                if sent >= self.records {
                    break 'sent;
                }
                output.export(batch, &mut receipt).map_err(|failure| failure.error)?;
                sent += batch.len() as u64;
            }
        }
        output.flush(&mut receipt).map_err(|failure| failure.error)?;
        let share = self.records as f64 / sent as f64;
        let busy = (busy_in_all() - began_busy).as_secs_f64() * share;
        let seconds = began.elapsed().as_secs_f64() * share;
        if receipt.delivered.records - before != sent || !receipt.dropped.is_empty() {
            bail!("{} of {sent} records were delivered", receipt.delivered.records);
        }
        let until = Instant::now() + FIGURES;
        while Instant::now() < until {
            output.idle(&mut receipt).map_err(|failure| failure.error)?;
            std::thread::sleep(Duration::from_millis(50));
        }
        let bytes = output.delivery().map_or(0, |delivery| delivery.bytes.load(Ordering::Relaxed));
        Ok(Cost { busy, seconds, bytes: bytes * self.records / sent })
    }
}

/// Digests are random: they don't compress.
fn stocked(n: u64, kubernetes: bool) -> FlowRecord {
    let mut record = record(n, kubernetes);
    let (mut digest, mut state) = ([0; 20], n);
    for chunk in digest.chunks_mut(8) {
        state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ 0xbf58_476d_1ce4_e5b9;
        chunk.copy_from_slice(&state.to_be_bytes()[..chunk.len()]);
    }
    record.community_id = CommunityId(digest);
    record
}
