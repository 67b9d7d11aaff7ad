//! Whether the agent does its work at all, and whether its figures can be believed.

use super::change::longer;
use super::{Finding, no_core, share, times};
use crate::diagnose::figures::Figures;
use crate::summary::time;

/// A link may be quiet for so long. Seconds.
const QUIET: f64 = 10.0;
/// Why a packet is lost at which a worker has panicked twice.
pub(super) const QUARANTINED: &str = "worker_quarantine";

/// The agent itself says what is wrong.
pub(super) fn not_ready(figures: &Figures) -> Vec<Finding> {
    if figures.failed_checks.is_empty() {
        return Vec::new();
    }
    // Outputs and Kubernetes have rules of their own, which say more.
    let own = |what: &str| what == "kubernetes" || what.starts_with("output ");
    let checks = figures.failed_checks.iter().map(|check| match own(&check.what) {
        true => format!("{} (see below)", check.what),
        false => format!("{} ({})", check.what, check.how),
    });
    let what = format!(
        "the agent does not do all that it was configured to do: {}",
        checks.collect::<Vec<_>>().join(", ")
    );
    let mut finding = Finding::new(what);
    for (check, advice) in [
        ("threads", "a thread that has panicked is a bug: please report it with the agent's log"),
        (
            "packet reader",
            "nothing is taken from the kernel: its log may say why, or the machine is in distress",
        ),
        ("flow workers", "a worker hangs: a bug, please report it with the agent's log"),
        ("enrichment workers", "a worker hangs: a bug, please report it with the agent's log"),
        ("capture", "mermin check lists the interfaces, and which of them capture.interfaces selects"),
    ] {
        if figures.failed_checks.iter().any(|failed| failed.what == check) {
            finding = finding.advise(advice);
        }
    }
    vec![finding]
}

/// Somebody did not answer in time.
pub(super) fn figures_missing(figures: &Figures) -> Vec<Finding> {
    if figures.source_silent && !figures.live {
        let what =
            "the source did not answer before the end: how many packets were seen, and lost, is not known";
        let timeout = longer(figures, "pipeline.shutdown_timeout", "the end may take longer");
        return vec![Finding::new(what).change(timeout)];
    }
    // A replay's reader does not answer while it waits for its input.
    if !figures.torn || figures.replay {
        return Vec::new();
    }
    let what = "a stage did not answer in time: the figures are not of one moment, and some are missing";
    let why = match no_core(figures) {
        Some(none) => format!("{none}: the stage has to wait until it may run"),
        None => "ask again; if that is no better, its log may say why".to_owned(),
    };
    vec![Finding::new(what).advise(why)]
}

/// A packet or record is missing, or counted twice.
pub(super) fn unbalanced(figures: &Figures) -> Vec<Finding> {
    let books = match figures.unbalanced.as_slice() {
        [] => return Vec::new(),
        [one] => format!("the book of {one} does not balance"),
        several => format!("the books of {} do not balance", several.join(", ")),
    };
    let finding = Finding::new(format!("{books}: what is said here may be wrong")).advise(
        "this is a bug: please report it with the statistics (--stats FILE, or mermin status --json)",
    );
    vec![finding]
}

/// Threads have panicked and gone on.
pub(super) fn worker_failures(figures: &Figures) -> Vec<Finding> {
    let lost = figures.lost.get(QUARANTINED).copied().unwrap_or_default();
    if figures.panics + lost == 0 {
        return Vec::new();
    }
    let mut what = format!("threads have panicked {}, and went on", times(figures.panics));
    if lost > 0 {
        what += &format!(
            "; {} could not be metered ({QUARANTINED})",
            share(figures, lost, figures.packets, "packet")
        );
    }
    vec![Finding::new(what).advise("this is a bug: please report it with the agent's log")]
}

/// Nothing was ever seen.
pub(super) fn no_packets(figures: &Figures) -> Vec<Finding> {
    if figures.saw_packets != Some(false) || figures.replay || figures.up_seconds < QUIET {
        return Vec::new();
    }
    let what = format!("no packet has crossed the selected interfaces in {}", time(figures.up_seconds));
    let finding = Finding::new(what).advise(
        "mermin check lists the interfaces; -i lo captures the loopback, which is left out unless named",
    );
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fires, well};
    use super::*;
    use crate::diagnose::figures::FailedCheck;

    fn failed(checks: &[(&str, &str)]) -> Vec<FailedCheck> {
        let failed =
            |(what, how): &(&str, &str)| FailedCheck { what: (*what).to_owned(), how: (*how).to_owned() };
        checks.iter().map(failed).collect()
    }

    #[test]
    fn an_agent_that_is_not_ready_says_why() {
        let checks = failed(&[
            ("capture", "no interface is attached"),
            ("output otlp", "refused"),
            ("kubernetes", "degraded"),
        ]);
        let finding = fires(not_ready, |figures| figures.failed_checks = checks);
        assert_eq!(
            finding.what,
            "the agent does not do all that it was configured to do: capture (no interface is attached), output otlp (see below), kubernetes (see below)"
        );
        assert!(finding.advice.len() == 1 && finding.advice[0].contains("mermin check"), "{finding:?}");
        let finding = fires(not_ready, |figures| figures.failed_checks = failed(&[("run", "it is ending")]));
        assert!(finding.advice.is_empty() && finding.what.ends_with(": run (it is ending)"), "{finding:?}");
    }

    #[test]
    fn figures_that_are_not_of_one_moment_are_no_good_news() {
        let finding = fires(figures_missing, |figures| figures.torn = true);
        assert!(finding.what.starts_with("a stage did not answer in time"), "{finding:?}");
        assert!(finding.advice[0].starts_with("ask again"), "{finding:?}");
        let finding = fires(figures_missing, |figures| (figures.torn, figures.idle) = (true, Some(0.1)));
        assert!(finding.advice[0].starts_with("no core is free"), "{finding:?}");
        let silent = |live| Figures { source_silent: true, live, ..well() };
        let changes: Vec<_> =
            figures_missing(&silent(false))[0].changes.iter().map(|change| change.key).collect();
        assert_eq!(changes, ["pipeline.shutdown_timeout"]);
        assert_eq!(figures_missing(&silent(true)), [], "it may answer yet");
        assert_eq!(
            figures_missing(&Figures { torn: true, replay: true, ..well() }),
            [],
            "it waits for its input"
        );
    }

    #[test]
    fn books_that_do_not_balance_are_named() {
        let finding = fires(unbalanced, |figures| figures.unbalanced = vec!["sightings".to_owned()]);
        assert_eq!(finding.what, "the book of sightings does not balance: what is said here may be wrong");
        let both = vec!["metering".to_owned(), "output json".to_owned()];
        let finding = fires(unbalanced, |figures| figures.unbalanced = both);
        assert!(finding.what.starts_with("the books of metering, output json do not balance"), "{finding:?}");
    }

    #[test]
    fn panics_and_what_they_cost_are_said() {
        let finding = fires(worker_failures, |figures| figures.panics = 1);
        assert_eq!(finding.what, "threads have panicked once, and went on");
        let finding = fires(worker_failures, |figures| {
            (figures.panics, figures.lost) = (2, [(QUARANTINED.to_owned(), 5)].into());
        });
        let expected = "threads have panicked 2 times, and went on; 1 packet/s (less than 0.1 %) could not be metered (worker_quarantine)";
        assert_eq!(finding.what, expected);
    }

    #[test]
    fn a_link_that_was_quiet_from_the_start_is_said() {
        let finding =
            fires(no_packets, |figures| (figures.packets, figures.saw_packets) = (Some(0), Some(false)));
        assert_eq!(finding.what, "no packet has crossed the selected interfaces in 600 s");
        let quiet = Figures { packets: Some(0), saw_packets: Some(false), ..well() };
        assert_eq!(no_packets(&Figures { replay: true, ..quiet.clone() }), []);
        assert_eq!(
            no_packets(&Figures { up_seconds: 9.0, ..quiet.clone() }),
            [],
            "it has begun a moment ago"
        );
        assert_eq!(no_packets(&Figures { saw_packets: None, ..quiet.clone() }), [], "it isn't known");
        assert_eq!(
            no_packets(&Figures { saw_packets: Some(true), ..quiet }),
            [],
            "it is quiet at the moment"
        );
    }
}
