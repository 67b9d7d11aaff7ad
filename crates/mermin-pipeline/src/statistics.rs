//! Statistics of a run: flows, ledger, stages, outputs. As one JSON object in `--stats`, as a line in the log.

use crate::budget::BudgetsPulse;
use crate::ledger::Ledger;
use crate::snapshot::{OutputBook, Parts};
use mermin_flow::Amount;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Ethertypes told one by one; the rest together as `other`.
const ETHERTYPES: usize = 16;

/// Figures of one stage or channel: a name and a number each, in the order in which they are shown.
pub type Figures = Vec<(&'static str, Value)>;

/// Everything that a run counts.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Flows in the tables, counted one by one.
    pub flows_active: u64,
    /// Flows created since the start.
    pub flows_created: u64,
    /// Flows ended since the start.
    pub flows_released: u64,
    /// Those of them that had to go for another, the table being full.
    pub flows_evicted: u64,
    /// See [`Ledger`].
    pub ledger: Ledger,
    /// Non-IP packets by ethertype.
    pub ethertypes: BTreeMap<u16, u64>,
    /// Oddities of packets that were metered all the same, by name.
    pub anomalies: BTreeMap<&'static str, u64>,
    /// By output's name.
    pub outputs: Vec<(String, OutputBook)>,
    /// What the agent may take, and what it does without to keep to that.
    pub budgets: Option<BudgetsPulse>,
    /// By stage's name.
    pub stages: Vec<(String, Figures)>,
    /// Wall-clock time of the run.
    pub duration: Duration,
    /// Between the first and the last packet that has a time, ns.
    pub capture_nanos: u64,
}

impl Statistics {
    pub(crate) fn of(parts: Parts, duration: Duration, stages: Vec<(String, Figures)>) -> Self {
        let ledger = Ledger::of(&parts);
        let reader = parts.reader;
        let mut anomalies = reader.sightings.anomalies;
        if reader.unresolved_fragments > 0 {
            *anomalies.entry("unresolved_fragments").or_default() += reader.unresolved_fragments;
        }
        Self {
            flows_active: parts.active,
            flows_created: parts.meter.created,
            flows_released: parts.meter.released,
            flows_evicted: parts.meter.evicted,
            ledger,
            ethertypes: reader.sightings.ethertypes,
            anomalies,
            outputs: parts.outputs,
            budgets: None,
            stages,
            duration,
            capture_nanos: reader.span.map_or(0, |(first, last)| last - first),
        }
    }

    /// The line of the statistics task.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "Flow Pipeline Stats: {} active flows, {} total created, {} total released, {} packets processed",
            self.flows_active,
            self.flows_created,
            self.flows_released,
            self.ledger.processed()
        )
    }

    /// One JSON object; the keys are part of the reference (`docs/reference/statistics.md`).
    #[must_use]
    pub fn to_json(&self, version: &str) -> Value {
        let stages: Map<_, _> =
            self.stages.iter().map(|(name, figures)| (name.clone(), object(figures))).collect();
        let outputs: Map<_, _> =
            self.outputs.iter().map(|(name, book)| (name.clone(), output(book))).collect();
        json!({
            "version": version,
            "duration_seconds": self.duration.as_secs_f64(),
            "capture_seconds": self.capture_nanos as f64 / 1e9,
            "flows": {
                "active": self.flows_active,
                "created": self.flows_created,
                "released": self.flows_released,
                "evicted": self.flows_evicted,
            },
            "packets_processed": self.ledger.processed(),
            "ethertypes": ethertypes(&self.ethertypes),
            "anomalies": self.anomalies,
            "ledger": self.ledger.to_json(),
            "budgets": self.budgets.as_ref().map(BudgetsPulse::to_json),
            "stages": stages,
            "outputs": outputs,
        })
    }
}

fn object(figures: &Figures) -> Value {
    Value::Object(figures.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

fn amount(amount: &Amount) -> Value {
    json!({ "records": amount.records, "packets": amount.packets, "bytes": amount.bytes })
}

fn output(book: &OutputBook) -> Value {
    let none = Amount::default();
    let dropped: Map<_, _> =
        book.dropped.iter().map(|(reason, dropped)| ((*reason).to_owned(), amount(dropped))).collect();
    let mut json = json!({
        "handed": amount(&book.handed),
        "recovered": amount(&book.recovered),
        "delivered": amount(&book.delivered),
        "queued": amount(&book.queued),
        "spooled": amount(&book.spooled),
        "dropped": dropped,
        "merged": amount(&Amount { records: book.merged, ..none }),
    });
    if !book.inexact.is_empty() {
        json["inexact"] = json!(book.inexact);
    }
    json
}

/// The most frequent ones by name (`0x0806`), then the sum of the others.
fn ethertypes(counts: &BTreeMap<u16, u64>) -> Value {
    let mut by_count: Vec<_> = counts.iter().map(|(ethertype, packets)| (*packets, *ethertype)).collect();
    by_count.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let (named, others) = by_count.split_at(by_count.len().min(ETHERTYPES));
    let mut map: Map<_, _> =
        named.iter().map(|(packets, ethertype)| (format!("{ethertype:#06x}"), json!(packets))).collect();
    let other: u64 = others.iter().map(|(packets, _)| packets).sum();
    map.insert("other".to_owned(), json!(other));
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_reads_as_the_documentation_prints_it() {
        let mut statistics = Statistics {
            flows_active: 150,
            flows_created: 500,
            flows_released: 350,
            ..Statistics::default()
        };
        statistics.ledger.metered.packets = 1_000;
        assert_eq!(
            statistics.line(),
            "Flow Pipeline Stats: 150 active flows, 500 total created, 350 total released, 1000 packets processed"
        );
    }

    #[test]
    fn the_sixteen_largest_ethertypes_are_named() {
        let counts = (0..20).map(|n| (0x9000 + n, u64::from(n) + 1)).collect();
        let json = ethertypes(&counts);
        assert_eq!(json.as_object().map(Map::len), Some(17));
        assert_eq!((&json["0x9013"], &json["other"]), (&json!(20), &json!(1 + 2 + 3 + 4)));
    }
}
