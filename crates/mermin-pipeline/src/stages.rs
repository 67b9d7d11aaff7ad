//! Figures of each stage and channel, as the statistics show them.

use crate::observer::Shared;
use crate::pulse::{ChannelPulse, OutputPulse, Pulse};
use crate::statistics::Figures;
use mermin_flow::Delivery;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};

/// Outputs that a reload has removed.
const REMOVED: &str = "removed outputs";

impl Shared {
    /// Figures of each stage and channel: drops and merges always, the rest with `enable_metrics`.
    pub(crate) fn stages(&self) -> Vec<(String, Figures)> {
        stages(&self.pulse())
    }
}

fn stages(pulse: &Pulse) -> Vec<(String, Figures)> {
    let seconds = pulse.running.as_secs_f64().max(1e-9);
    let rate = |count: u64| ("rate", json!((count as f64 / seconds).round()));
    let outputs = pulse.outputs.iter().map(|output| (of_output(output), output.panics));
    let panics: Vec<_> = [
        ("packet_reader".to_owned(), pulse.reader.panics),
        ("flow_workers".to_owned(), pulse.flow_workers.panics),
        ("enrichment_workers".to_owned(), pulse.enrichment.as_ref().map_or(0, |(_, workers)| workers.panics)),
        (REMOVED.to_owned(), pulse.past_panics),
        ("tasks".to_owned(), pulse.task_panics),
    ]
    .into_iter()
    .chain(outputs)
    .collect();
    let mut stages = Vec::new();
    let mut stage = |name: &str, (drops, merges): (u64, u64), more: Figures| {
        let mut figures: Figures = vec![("drops", json!(drops)), ("merges", json!(merges))];
        if let Some((_, panics)) = panics.iter().find(|(stage, _)| *stage == name) {
            figures.push(("panics", json!(panics)));
        }
        if pulse.detailed {
            figures.extend(more);
        }
        stages.push((name.to_owned(), figures));
    };
    let (reader, packets) = (&pulse.reader, &pulse.packet_channel);
    stage(
        "packet_reader",
        (0, 0),
        vec![
            rate(reader.packets),
            ("waits", json!(packets.waits)),
            ("polls", json!(reader.polls)),
            ("longest_gap_seconds", json!(reader.longest_gap.as_secs_f64())),
        ],
    );
    stage("packet_channel", (packets.drops, 0), room(packets));
    if let Some(waiting) = &pulse.coalescing {
        stage("coalescing", (0, waiting.merges), room(&waiting.room));
    }
    let workers = &pulse.flow_workers;
    stage("flow_workers", (0, 0), vec![rate(workers.packets), ("batches", json!(workers.batches))]);
    if let Some((channel, workers)) = &pulse.enrichment {
        let mut figures = room(channel);
        figures.push(("waits", json!(channel.waits)));
        stage("enrichment_channel", (0, 0), figures);
        let figures =
            vec![rate(workers.records), ("held", json!(workers.held)), ("early", json!(workers.early))];
        stage("enrichment_workers", (0, 0), figures);
    }
    for output in &pulse.outputs {
        let mut figures = vec![rate(output.delivered)];
        figures.extend(room(&output.queue));
        figures.push(("waits", json!(output.queue.waits)));
        figures.extend(output.delivery.iter().flat_map(|delivery| deliveries(delivery)));
        stage(&of_output(output), (output.drops, output.merged), figures);
    }
    if pulse.past_panics > 0 {
        stage(REMOVED, (0, 0), Vec::new());
    }
    stage("tasks", (0, 0), Vec::new());
    stages
}

fn of_output(output: &OutputPulse) -> String {
    format!("output {}", output.name)
}

fn room(channel: &ChannelPulse) -> Figures {
    vec![
        ("capacity", json!(channel.capacity)),
        ("depth", json!(channel.depth)),
        ("high_water", json!(channel.high_water)),
    ]
}

/// How an output's deliveries over a network go.
fn deliveries(delivery: &Delivery) -> Figures {
    let count = |count: &AtomicU64| json!(count.load(Ordering::Relaxed));
    let (state, error) = delivery.condition();
    let mut figures = vec![
        ("state", json!(state.name())),
        ("requests", count(&delivery.requests)),
        ("retries", count(&delivery.retries)),
        ("failures", count(&delivery.failures)),
        ("in_flight", count(&delivery.in_flight)),
    ];
    figures.extend(error.map(|error| ("error", json!(error))));
    figures
}
