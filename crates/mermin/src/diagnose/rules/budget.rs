//! Whether the agent does without something to keep within what it may take.

use super::change::set;
use super::{Finding, times};
use crate::diagnose::figures::{Figures, Shortage};
use mermin_flow::ByteSize;
use serde_json::{Value, json};

const CPU: &str = "resources.cpu";
const MEMORY: &str = "resources.memory";
const SAMPLING: &str = "resources.sampling";

/// Less is done because processor time is short.
pub(super) fn short_of_cpu(figures: &Figures) -> Vec<Finding> {
    let Some(short) = &figures.short_of_cpu else { return Vec::new() };
    let finding = found(short, "processor time", |cores| format!("{cores:.2} cores"));
    let twice = figures.setting(CPU).and_then(Value::as_f64).map(|cores| json!(cores * 2.0));
    let finding = raise(finding, figures, (CPU, twice), "cpu.max");
    let none_left_out = "every packet is metered again, at the price of losing some";
    vec![match figures.sampled_out {
        0 => finding,
        _ => finding.change(Some(set(figures, SAMPLING, json!(1), none_left_out))),
    }]
}

/// Bounds are smaller because memory is short.
pub(super) fn short_of_memory(figures: &Figures) -> Vec<Finding> {
    let Some(short) = &figures.short_of_memory else { return Vec::new() };
    let finding = found(short, "memory", |bytes| format!("{:.0} MiB", bytes / f64::from(1 << 20)));
    let present =
        figures.setting(MEMORY).and_then(Value::as_str).and_then(|text| text.parse::<ByteSize>().ok());
    let twice = present.map(|ByteSize(bytes)| json!(ByteSize(bytes.saturating_mul(2))));
    let finding = raise(finding, figures, (MEMORY, twice), "memory.max");
    vec![finding.advise("or less to keep: flow.table_capacity, the timeouts, capture.ring_bytes")]
}

fn found(short: &Shortage, of: &str, show: fn(f64) -> String) -> Finding {
    let (taken, budget) = (show(short.taken), show(short.budget));
    let what = if short.step > 0 {
        format!("{of} is short, {taken} are taken of {budget}: {}", short.without.join("; "))
    } else {
        let changes = times(short.changes);
        format!(
            "{of} was short: what the agent does without changed {changes}; now {taken} are taken of {budget}"
        )
    };
    Finding::new(what)
}

/// Twice as much, where the configuration says how much; otherwise the control group does.
fn raise(
    finding: Finding,
    figures: &Figures,
    (key, twice): (&'static str, Option<Value>),
    file: &str,
) -> Finding {
    match twice {
        Some(twice) => finding.change(Some(set(figures, key, twice, "nothing need be done without"))),
        None => finding.advise(format!("the limit is that of its control group ({file}): raise it there")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{changes, fires};
    use super::*;

    fn short(step: u64, budget: f64) -> Shortage {
        let without = if step > 0 { vec!["periodic reports are put off".to_owned()] } else { Vec::new() };
        Shortage { step, changes: 2, budget, taken: budget / 2.0, without }
    }

    #[test]
    fn what_is_done_without_is_said_and_twice_the_budget_suggested() {
        let finding = fires(short_of_cpu, |figures| {
            figures.short_of_cpu = Some(short(1, 0.5));
            figures.settings.insert(CPU.to_owned(), json!(0.5));
        });
        let expected =
            "processor time is short, 0.25 cores are taken of 0.50 cores: periodic reports are put off";
        assert_eq!((finding.what.as_str(), changes(&finding)), (expected, vec![(CPU, json!(1.0))]));
        let finding = fires(short_of_memory, |figures| {
            figures.short_of_memory = Some(short(1, 67_108_864.0));
            figures.settings.insert(MEMORY.to_owned(), json!("64MiB"));
        });
        assert!(finding.what.starts_with("memory is short, 32 MiB are taken of 64 MiB"), "{finding:?}");
        assert_eq!(changes(&finding), [(MEMORY, json!("128MiB"))]);
    }

    #[test]
    fn who_wants_no_sampling_is_told_how() {
        let finding = fires(short_of_cpu, |figures| {
            (figures.short_of_cpu, figures.sampled_out) = (Some(short(3, 0.5)), 64);
        });
        assert_eq!(changes(&finding), [(SAMPLING, json!(1))]);
    }

    #[test]
    fn what_was_short_is_said_and_a_control_group_named() {
        let finding = fires(short_of_cpu, |figures| figures.short_of_cpu = Some(short(0, 2.0)));
        assert!(finding.what.starts_with("processor time was short"), "{finding:?}");
        assert!(finding.changes.is_empty() && finding.advice[0].contains("cpu.max"), "{finding:?}");
    }
}
