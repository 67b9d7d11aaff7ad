//! A simulated agent: the Kafka output of a real one, with a connection, a name and a thread of its own, and a book.

use super::Load;
use super::flows::Flows;
use anyhow::{Context, Result, bail};
use mermin_export::kafka::{KafkaConfig, KafkaPlan};
use mermin_export::{Agent, ClockError};
use mermin_flow::{Amount, Exporter, FlowRecord, Hook, ObservationPoint, ObservationPoints, Receipt};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// An agent that is connected.
pub(super) struct Simulated {
    pub(super) id: String,
    pub(super) node: String,
    /// Its place in the fleet, 0 to 1: agents that report at an interval don't do it all at once.
    phase: f64,
    output: Box<dyn Exporter>,
    receipt: Receipt,
    records: Vec<FlowRecord>,
    /// What it is to deliver.
    pub(super) wanted: Amount,
}

impl Simulated {
    /// Number `n` of so many; its first record is delivered.
    pub(super) fn join(
        n: usize,
        of: usize,
        flows: &Flows,
        config: &KafkaConfig,
        load: &Load,
    ) -> Result<Self> {
        let number = n as u64;
        let id = format!(
            "{:032x}",
            (u128::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        );
        let node = format!("node-{n:05}");
        let count = load.of_an_agent(of);
        let records: Vec<_> = (0..=count).map(|record| flows.record(number, record, count + 1)).collect();
        let mut wanted = Amount::default();
        records.iter().for_each(|record| wanted += Amount::of(record));
        let points = Arc::new(ObservationPoints::default());
        points.number(ObservationPoint {
            interface: Some("eth0".into()),
            index: Some(2),
            hook: Some(if n.is_multiple_of(2) { Hook::Egress } else { Hook::Ingress }),
        });
        let clock = || Some(ClockError { offset: -12_345, bound: 1_234_567 });
        let agent = Agent { id: id.clone(), clock: Some(clock) };
        let mut outputs = KafkaPlan::new(config, node.clone())?.open(&points, &agent)?;
        let output = outputs.pop().context("built without Kafka")?;
        let mut agent = Self {
            id,
            node,
            phase: n as f64 / of as f64,
            output,
            receipt: Receipt::default(),
            records,
            wanted,
        };
        agent.output.export(&agent.records[..1], &mut agent.receipt).map_err(|failure| failure.error)?;
        agent.output.flush(&mut agent.receipt).map_err(|failure| failure.error)?;
        Ok(agent)
    }

    /// Hands over all other records, as the load says, and is done when they are acknowledged. Agents without an interval
    /// begin each round together.
    pub(super) fn run(&mut self, load: &Load, began: Instant, together: &Barrier) -> Result<()> {
        let mut failed = Ok(());
        for (round, batch) in self.records[1..].chunks(load.each).enumerate() {
            let due = load.every.map(|every| every.mul_f64(round as f64 + self.phase));
            if due.is_none() {
                together.wait();
            }
            // The others wait at the barrier for one that has failed, too.
            if failed.is_err() {
                continue;
            }
            let sent = (|| {
                while let Some(left) =
                    due.and_then(|due| (began + due).checked_duration_since(Instant::now()))
                {
                    let soon = self.output.idle(&mut self.receipt)?;
                    std::thread::sleep(left.min(soon.unwrap_or(Duration::from_secs(1))));
                }
                self.output.export(batch, &mut self.receipt)?;
                if due.is_none() { self.output.flush(&mut self.receipt) } else { Ok(()) }
            })();
            failed = sent.map_err(|failure: mermin_flow::Failure| failure.error);
        }
        failed?;
        self.output.flush(&mut self.receipt).map_err(|failure| failure.error)?;
        if self.receipt.delivered != self.wanted || !self.receipt.dropped.is_empty() {
            bail!("{} has {:?}, {:?} was to be delivered", self.node, self.receipt, self.wanted);
        }
        Ok(())
    }
}
