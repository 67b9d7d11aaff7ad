//! Outputs: those that are slow, those that fail.

use super::change::{longer, more_room};
use super::load::many_records;
use super::{Finding, share};
use crate::diagnose::figures::{Figures, Output};

const NEARLY_FULL: f64 = 0.8;
const QUEUE_FULL: &str = "queue_full";
const AT_END: &str = "shutdown_timeout";
const DISK_FULL: &str = "buffer_full";

/// Reasons of which no setting is the cure, and what is.
const REASONS: [(&str, &str); 13] = [
    ("write_failed", "it could not be written to: a full disk, for example"),
    ("closed", "nobody reads it any more: a pipe's reader has ended"),
    ("breaker_open", "it failed or hung, and was let be: its receiver, or the way there"),
    ("rejected", "its receiver takes requests and refuses records in them: the receiver's log says which"),
    ("refused", "its receiver refuses requests for good: the receiver's log says why"),
    ("no_access", "its brokers refuse the login, the certificate or writing: the log says which"),
    ("no_topic", "its topic is not there: make it"),
    ("too_large", "a record is larger than its receiver takes"),
    ("quarantine", "it panics at these records: a bug, please report it with the agent's log"),
    ("crash", "it has panicked: a bug, please report it with the agent's log"),
    ("buffer_write_failed", "its disk could not be written to: the log says why"),
    ("buffer_damaged", "what it had on disk is damaged: the disk, or somebody who was at its folder"),
    ("buffer_unreadable", "what it had on disk can't be read: another version wrote it, or a disk that errs"),
];

/// What helps an output that is slower than records come.
fn relieved(finding: Finding, figures: &Figures) -> Finding {
    finding
        .because(many_records(figures))
        .change(more_room(figures, "export.queue_capacity", "holds longer bursts of records"))
        .change(longer(figures, "flow.active_timeout", "gives fewer records of long flows"))
        .advise("a faster receiver helps for good; pipeline.priority says which records go first")
}

/// An output's queue is full, so records are dropped or merged.
pub(super) fn full(figures: &Figures) -> Vec<Finding> {
    let finding = |output: &Output| {
        let of = |records| share(figures, records, Some(output.handed), "record");
        let parts = [
            (output.dropped.get(QUEUE_FULL).copied().unwrap_or_default(), "dropped"),
            (output.merged, "merged into later ones of their flows"),
        ];
        let parts: Vec<_> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, how)| format!("{} {how}", of(*n))).collect();
        (!parts.is_empty()).then(|| {
            let what =
                format!("output {}: {}, for want of room in its queue", output.name, parts.join(" and "));
            relieved(Finding::new(what), figures)
        })
    };
    figures.outputs.iter().filter_map(finding).collect()
}

/// Nothing is dropped or merged yet.
pub(super) fn fills(figures: &Figures) -> Vec<Finding> {
    let finding = |output: &Output| {
        let fill = output.queue?.fill();
        let is_full = output.merged > 0 || output.dropped.contains_key(QUEUE_FULL);
        // A replay fills it as fast as it can, and waits; one that fails has another cause.
        if fill < NEARLY_FULL || is_full || figures.replay || output.error.is_some() {
            return None;
        }
        let what = format!("output {}: its queue is {:.0} % full", output.name, 100.0 * fill);
        Some(relieved(Finding::new(what), figures))
    };
    figures.outputs.iter().filter_map(finding).collect()
}

/// An output's receiver does not take records.
pub(super) fn failing(figures: &Figures) -> Vec<Finding> {
    let finding = |output: &Output| {
        let others = |(reason, _): &(&String, &u64)| ![QUEUE_FULL, AT_END].contains(&reason.as_str());
        let dropped: Vec<_> = output.dropped.iter().filter(others).collect();
        if output.error.is_none() && dropped.is_empty() {
            return None;
        }
        let lost = dropped.iter().map(|(reason, records)| {
            format!("{} dropped ({reason})", share(figures, **records, Some(output.handed), "record"))
        });
        let parts: Vec<_> = output.error.iter().cloned().chain(lost).collect();
        let mut finding = Finding::new(format!("output {}: {}", output.name, parts.join("; ")));
        for (_, cure) in REASONS.iter().filter(|(known, _)| dropped.iter().any(|(reason, _)| reason == known))
        {
            finding = finding.advise(*cure);
        }
        if output.dropped.contains_key(DISK_FULL) {
            finding = finding.advise(
                "export.disk_buffer.bytes is its room on disk: more of it lasts for a longer absence of the receiver",
            );
            if output.error.is_none() && dropped.len() == 1 {
                return Some(finding);
            }
        }
        let more = if figures.live { "; mermin status shows how it goes on" } else { "" };
        Some(finding.advise(format!("no setting helps: look at what it writes or sends to{more}")))
    };
    figures.outputs.iter().filter_map(finding).collect()
}

/// A run has ended before everything was delivered.
pub(super) fn undelivered(figures: &Figures) -> Vec<Finding> {
    let finding = |output: &Output| {
        let records = *output.dropped.get(AT_END)?;
        let share = share(figures, records, Some(output.handed), "record");
        let what = format!("output {}: {share} not delivered in time at the end ({AT_END})", output.name);
        let timeout = longer(figures, "pipeline.shutdown_timeout", "the end may take longer");
        let finding = Finding::new(what).change(timeout);
        Some(finding.advise("what starts the agent must wait for longer than that: TimeoutStopSec of systemd, terminationGracePeriodSeconds of Kubernetes"))
    };
    figures.outputs.iter().filter_map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{changes, fires, well};
    use super::*;
    use crate::diagnose::figures::Channel;
    use serde_json::json;

    fn drop(reason: &str, records: u64) -> impl FnOnce(&mut Figures) {
        let reason = reason.to_owned();
        move |figures| figures.outputs[0].dropped = [(reason, records)].into()
    }

    #[test]
    fn a_full_output_wants_room_and_fewer_records() {
        let finding = fires(full, drop(QUEUE_FULL, 500));
        let expected = "output json: 100 records/s (50.0 %) dropped, for want of room in its queue";
        assert_eq!(finding.what, expected);
        let more = [("export.queue_capacity", json!(16_384)), ("flow.active_timeout", json!("2m"))];
        assert_eq!(changes(&finding), more);
        let finding = fires(full, |figures| {
            drop(QUEUE_FULL, 500)(figures);
            figures.outputs[0].merged = 10;
        });
        assert!(finding.what.contains("dropped and 2 records/s (1.0 %) merged"), "{}", finding.what);
    }

    #[test]
    fn a_queue_that_fills_is_said_before_it_loses() {
        let nearly = Channel { capacity: 100, depth: 10, most: 85, high_water: 100, waits: 0 };
        let finding = fires(fills, |figures| figures.outputs[0].queue = Some(nearly));
        assert_eq!(
            (finding.what.as_str(), finding.changes.len()),
            ("output json: its queue is 85 % full", 2)
        );
        let mut figures = well();
        figures.outputs[0].queue = Some(nearly);
        assert_eq!(fills(&Figures { replay: true, ..figures.clone() }), []);
        figures.outputs[0].merged = 1;
        assert_eq!(fills(&figures), [], "the other rule says it");
        figures.outputs[0] =
            Output { error: Some("refused".to_owned()), merged: 0, ..figures.outputs[0].clone() };
        assert_eq!(fills(&figures), [], "room is not what it lacks");
    }

    #[test]
    fn an_output_that_fails_is_said_with_its_reason() {
        let finding = fires(failing, |figures| figures.outputs[0].error = Some("refused".to_owned()));
        assert_eq!((finding.what.as_str(), finding.changes.len()), ("output json: refused", 0));
        assert!(finding.advice[0].contains("mermin status"), "{finding:?}");
        let finding = fires(failing, drop("write_failed", 5));
        assert_eq!(finding.what, "output json: 1 record/s (0.5 %) dropped (write_failed)");
        assert!(finding.advice[0].contains("a full disk"), "{finding:?}");
        let finding = fires(failing, drop("buffer_full", 5));
        let advice = finding.advice.concat();
        assert!(advice.contains("export.disk_buffer.bytes") && !advice.contains("no setting"), "{advice}");
        let of_a_run = |figures: &mut Figures| {
            drop("write_failed", 5)(figures);
            figures.live = false;
        };
        let finding = fires(failing, of_a_run);
        assert!(!finding.advice.concat().contains("mermin status"), "nobody is there to ask: {finding:?}");
        for reason in [QUEUE_FULL, AT_END] {
            let mut figures = well();
            drop(reason, 5)(&mut figures);
            assert_eq!(failing(&figures), [], "{reason} has a rule of its own");
        }
    }

    #[test]
    fn an_end_that_was_too_short_wants_time() {
        let finding = fires(undelivered, drop(AT_END, 500));
        assert!(
            finding.what.ends_with(" not delivered in time at the end (shutdown_timeout)"),
            "{finding:?}"
        );
        assert_eq!(changes(&finding), [("pipeline.shutdown_timeout", json!("10s"))]);
    }
}
