//! Figures of each stage and channel, as the statistics show them.

use crate::enrichment::EnrichmentCells;
use crate::observer::Shared;
use crate::statistics::Figures;
use mermin_flow::Delivery;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};

impl Shared {
    /// Figures of each stage and channel: drops and merges always, the rest with `enable_metrics`.
    pub(crate) fn stages(&self) -> Vec<(String, Figures)> {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let rate = |count: u64| json!((count as f64 / seconds).round());
        let (control, credits) = (&self.control, &self.credits);
        let metrics = self.enable_metrics;
        let mut stages = Vec::new();
        let mut stage = |name: &str, drops: u64, more: Figures| {
            let mut figures: Figures = vec![("drops", json!(drops)), ("merges", json!(0))];
            if metrics {
                figures.extend(more);
            }
            stages.push((name.to_owned(), figures));
        };
        let observed = control.observed.get().packets;
        let reader_waits = credits.waits.load(Ordering::Relaxed);
        stage(
            "packet_reader",
            0,
            vec![
                ("rate", rate(observed + control.rejected.load(Ordering::Relaxed))),
                ("waits", json!(reader_waits)),
                ("polls", json!(control.polls.load(Ordering::Relaxed))),
                ("longest_gap_seconds", json!(control.longest_gap.load(Ordering::Relaxed) as f64 / 1e9)),
            ],
        );
        stage(
            "packet_channel",
            control.lost.get().packets,
            vec![
                ("capacity", json!(credits.capacity)),
                ("depth", json!(credits.used())),
                ("high_water", json!(credits.high_water.load(Ordering::Relaxed))),
            ],
        );
        let metered: u64 = self.meters.iter().map(|cells| cells.get().metered.packets).sum();
        let wakes: u64 = self.meters.iter().map(|cells| cells.messages.load(Ordering::Relaxed)).sum();
        stage("flow_workers", 0, vec![("rate", rate(metered)), ("batches", json!(wakes))]);
        if !self.enrichment.is_empty() {
            let figures: Vec<_> = self.enrichment.iter().map(|(queue, _)| queue.figures()).collect();
            stage(
                "enrichment_channel",
                0,
                vec![
                    ("capacity", json!(figures.iter().map(|f| f.capacity).sum::<usize>())),
                    ("depth", json!(figures.iter().map(|f| f.depth).sum::<usize>())),
                    ("high_water", json!(figures.iter().map(|f| f.high_water).sum::<usize>())),
                    ("waits", json!(figures.iter().map(|f| f.waits).sum::<u64>())),
                ],
            );
            let sum = |of: fn(&EnrichmentCells) -> &AtomicU64| -> u64 {
                self.enrichment.iter().map(|(_, cells)| of(cells).load(Ordering::Relaxed)).sum()
            };
            stage(
                "enrichment_workers",
                0,
                vec![
                    ("rate", rate(sum(|cells| &cells.records))),
                    ("held", json!(sum(|cells| &cells.held))),
                    ("early", json!(sum(|cells| &cells.early))),
                ],
            );
        }
        for output in &self.fan_out.outputs {
            let (book, figures) = (output.book(), output.figures());
            let mut more = vec![
                ("rate", rate(book.delivered.records)),
                ("capacity", json!(figures.capacity)),
                ("depth", json!(figures.depth)),
                ("high_water", json!(figures.high_water)),
                ("waits", json!(figures.waits)),
            ];
            more.extend(output.delivery.iter().flat_map(|delivery| deliveries(delivery)));
            let drops = book.dropped.values().map(|dropped| dropped.records).sum();
            stage(&format!("output {}", output.name), drops, more);
        }
        stages
    }
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
