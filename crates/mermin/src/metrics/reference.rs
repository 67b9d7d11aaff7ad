//! The reference page of the metrics, written from their table.

use super::table::{When, sections};
use mermin_flow::{Metric, MetricKind};
use std::fmt::Write as _;

const INTRODUCTION: &str = "\
# Metrics

<!-- Generated from crates/mermin/src/metrics/table.rs by `UPDATE=1 cargo test -p mermin`. -->

`GET /metrics` of the [server](../guide/operations.md) tells these, in the classic text form of Prometheus, or as
OpenMetrics where the request's `Accept` header asks for `application/openmetrics-text`. Each answer is gathered when it
is asked for.

No label has values from traffic or from interfaces. All values of a label are there from the start, with 0, so the number
of series depends on the configuration alone, whatever the traffic. *Detailed* ones are there with
`pipeline.enable_metrics: true`.
";

/// The page `docs/reference/metrics.md`.
#[must_use]
pub fn metrics_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in sections() {
        let _ = write!(page, "\n## {}\n\n", section.title);
        if !section.introduction.is_empty() {
            let _ = write!(page, "{}\n\n", section.introduction);
        }
        page.push_str("| name | type | labels | what | when |\n|---|---|---|---|---|\n");
        for (when, metric) in section.metrics {
            row(&mut page, when, metric);
        }
    }
    page
}

fn row(page: &mut String, when: When, metric: &Metric) {
    let (kind, total) = match metric.kind {
        MetricKind::Counter => ("counter", "_total"),
        MetricKind::Gauge => ("gauge", ""),
        MetricKind::Histogram => ("histogram", ""),
    };
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let when = match when {
        When::Always => "always",
        When::Detailed => "detailed",
        When::Live => "live capture",
        When::OnDisk => "outputs with a disk buffer",
        When::WithJournal => "there is a journal",
        When::WithReceiver => "outputs with a receiver",
        When::WithKubernetes => "Kubernetes is asked",
        When::WithConntrack => "connection tracking is asked",
    };
    let _ = writeln!(
        page,
        "| `{}{total}` | {kind} | {} | {} | {when} |",
        metric.name,
        labels.join(", "),
        metric.help
    );
}
