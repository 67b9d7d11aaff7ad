//! The stream job over a fleet's topic: whether its results are what the agents' books say, and what it took.

use super::agent::Simulated;
use crate::measure::children_cpu_seconds;
use anyhow::{Context, Result, ensure};
use mermin_flow::Amount;
use mermin_tests::servers::flink::Job;
use mermin_tests::servers::kafka::{Kafka, Listener};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Topics of the job's results, and how many partitions they get.
const RESULTS: [(&str, u16); 3] = [("traffic", 2), ("conversations", 2), ("counts", 1)];
/// What may be counted: a record that comes behind its minute's end stands in a correction, a view of a conversation that was
/// released in a row of its own.
const EXPECTED: [&str; 2] = ["late", "conversation_late"];

/// Runs the job over a topic to its end, and compares. Seconds of processor time that it took.
///
/// # Errors
/// What differs.
pub(super) fn of_the_job(broker: &Kafka, topic: &str, agents: &[Simulated]) -> Result<f64> {
    let name = |result: &str| format!("{topic}.{result}");
    let mut job = Job::over(broker.address(Listener::Plain)).with("--topic", topic).with("--group", topic);
    for (result, partitions) in RESULTS {
        broker.create_topic(&name(result), partitions, &[]);
        job = job.with(&format!("--{result}-topic"), &name(result));
    }
    let before = children_cpu_seconds();
    job.with("--transactions", topic).run_to_end();
    let took = children_cpu_seconds() - before;
    let [traffic, conversations, counts] = RESULTS.map(|(result, _)| rows(broker, &name(result)));
    compare(&traffic?, &conversations?, &counts?, agents)?;
    Ok(took)
}

fn rows(broker: &Kafka, topic: &str) -> Result<Vec<Value>> {
    let messages = broker.consume(topic);
    let values =
        messages.iter().map(|message| message.payload.as_deref().context("a result without a value"));
    values.map(|value| Ok(serde_json::from_slice(value?)?)).collect()
}

fn number(row: &Value, name: &str) -> Result<u64> {
    row[name].as_u64().with_context(|| format!("no {name} in {row}"))
}

/// Adds what stands in a row, both ways.
fn add(sum: &mut Amount, row: &Value, prefixes: &[&str]) -> Result<()> {
    for prefix in prefixes {
        sum.packets += number(row, &format!("{prefix}packets"))?;
        sum.bytes += number(row, &format!("{prefix}frame_bytes"))?;
    }
    Ok(())
}

const BOTH: [&str; 2] = ["flow.", "flow.reverse."];

fn compare(traffic: &[Value], conversations: &[Value], counts: &[Value], agents: &[Simulated]) -> Result<()> {
    let mut found = Amount::default();
    for row in traffic {
        add(&mut found, row, &BOTH)?;
        found.records += number(row, "records")?;
    }
    let mut wanted = Amount::default();
    agents.iter().for_each(|agent| wanted += agent.wanted);
    ensure!(found == wanted, "in the traffic there is {found:?}, not {wanted:?}");

    let mut unexpected = BTreeMap::new();
    for row in counts {
        let name = row["name"].as_str().context("a count without a name")?;
        if !EXPECTED.contains(&name) {
            *unexpected.entry(name).or_insert(0) += number(row, "count")?;
        }
    }
    ensure!(unexpected.is_empty(), "the job counted {unexpected:?}");

    let mut nodes: HashMap<&str, Amount> = HashMap::new();
    let mut once = Amount::default();
    for row in conversations {
        add(&mut once, row, &BOTH)?;
        for hops in ["hops", "reverse.hops"] {
            for hop in row[hops].as_array().into_iter().flatten() {
                add(
                    nodes.entry(hop["node"].as_str().context("a hop without a node")?).or_default(),
                    hop,
                    &[""],
                )?;
            }
        }
    }
    for agent in agents {
        let Amount { packets, bytes, .. } = nodes.remove(agent.node.as_str()).unwrap_or_default();
        let wanted = (agent.wanted.packets, agent.wanted.bytes);
        ensure!(
            (packets, bytes) == wanted,
            "as hops {} has {packets} packets, {bytes} bytes, not {wanted:?}",
            agent.node
        );
    }
    ensure!(nodes.is_empty(), "hops of nodes that are none: {:?}", nodes.keys());
    // Two agents see the same packets: those of the first of each pair are each packet once.
    let mut firsts = Amount::default();
    agents.iter().step_by(2).for_each(|agent| firsts += agent.wanted);
    let (found, wanted) = ((once.packets, once.bytes), (firsts.packets, firsts.bytes));
    ensure!(
        found == wanted,
        "conversations have {found:?} packets and bytes, each once it would be {wanted:?}"
    );
    Ok(())
}
