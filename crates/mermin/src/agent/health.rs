//! Whether the agent lives, and whether it does what it was configured to do.
//!
//! Alive: no thread has panicked, a live reader looks at its source, and no worker hangs. Ready: packets are taken, every output takes
//! records, and where Kubernetes is asked everything is known that is to be. What degrades later takes readiness away
//! until it has recovered: flow processing goes on meanwhile, but its records are not what was asked for.

use super::{Agent, KubernetesView};
use mermin_pipeline::{BudgetPulse, OutputPulse, Pulse, WORKER_PATIENCE};
use std::time::Duration;

/// A live reader looks at its source ten times a second at least; on a machine in distress it may come late.
const READER_PATIENCE: Duration = Duration::from_secs(15);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) ok: bool,
    /// How it is, as part of a sentence.
    pub(crate) how: String,
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readiness(pub(crate) Vec<Check>);

impl Readiness {
    pub(crate) fn is_ready(&self) -> bool {
        self.0.iter().all(|check| check.ok)
    }
}

fn check(what: impl Into<String>, ok: bool, how: impl Into<String>) -> Check {
    Check { what: what.into(), ok, how: how.into() }
}

impl Agent {
    /// Whether the process is worth keeping.
    pub(crate) fn liveness(&self) -> Readiness {
        alive(&self.pulse(), self.views.capture.is_some())
    }

    /// Whether the agent does all that it was configured to do.
    pub(crate) fn readiness(&self) -> Readiness {
        let pulse = self.pulse();
        let mut checks = alive(&pulse, self.views.capture.is_some()).0;
        checks.push(check("run", !pulse.ending, if pulse.ending { "it is ending" } else { "under way" }));
        if let Some(capture) = self.capture() {
            let names: Vec<_> = capture.interfaces.iter().map(|interface| &*interface.name).collect();
            let how = if names.is_empty() {
                "no interface is attached".to_owned()
            } else {
                format!("on {}", names.join(", "))
            };
            checks.push(check("capture", !names.is_empty(), how));
        }
        checks.extend(budget("processor time", &pulse.budgets.cpu));
        checks.extend(budget("memory", &pulse.budgets.memory));
        checks.extend(pulse.outputs.iter().map(output));
        checks.extend(self.kubernetes().as_ref().map(kubernetes));
        Readiness(checks)
    }
}

fn alive(pulse: &Pulse, live: bool) -> Readiness {
    let contained = pulse.panics();
    let threads = match contained {
        _ if pulse.panicked => "one has panicked: a bug".to_owned(),
        0 => "all run".to_owned(),
        1 => "all run; one panic was contained: a bug".to_owned(),
        n => format!("all run; {n} panics were contained: a bug"),
    };
    let mut checks = vec![check("threads", !pulse.panicked, threads)];
    if live {
        let mut workers = vec![("flow workers", pulse.flow_workers.at_work)];
        workers.extend(pulse.enrichment.iter().map(|(_, workers)| ("enrichment workers", workers.at_work)));
        for (stage, at_work) in workers {
            let ok = pulse.ending || at_work < WORKER_PATIENCE;
            let how = if ok {
                "they get on".to_owned()
            } else {
                format!("one has been at the same message for {} s", at_work.as_secs())
            };
            checks.push(check(stage, ok, how));
        }
        let idle = pulse.reader.idle.unwrap_or(pulse.running);
        let ok = pulse.ending || idle < READER_PATIENCE;
        let how = match pulse.reader.idle {
            _ if ok => "it looks at its source".to_owned(),
            Some(_) => format!("it has not looked at its source for {} s", idle.as_secs()),
            None => format!("it has not begun to read in {} s", idle.as_secs()),
        };
        checks.push(check("packet reader", ok, how));
    }
    Readiness(checks)
}

/// What the agent does without to keep within its budget. It is ready all the same: that is what budgets are for.
fn budget(what: &str, budget: &BudgetPulse) -> Option<Check> {
    budget.budget?;
    let how = if budget.without.is_empty() { "enough".to_owned() } else { budget.without.join("; ") };
    Some(check(what, true, how))
}

fn output(output: &OutputPulse) -> Check {
    let how = match (&output.failing, output.closed, output.is_healthy()) {
        (_, true, _) => "nobody reads it any more".to_owned(),
        _ if output.let_be.is_some() => {
            format!("let be for now: {}", output.let_be.as_deref().unwrap_or_default())
        }
        (Some(error), ..) => error.clone(),
        (None, _, false) => {
            let error = output.delivery.as_ref().and_then(|delivery| delivery.condition().1);
            error.unwrap_or_else(|| "deliveries fail".to_owned())
        }
        (None, _, true) => "takes records".to_owned(),
    };
    check(format!("output {}", output.name), output.is_healthy(), how)
}

fn kubernetes(view: &KubernetesView) -> Check {
    let kind = view.kinds.iter().find(|kind| kind.failure.is_some());
    let failure = kind.and_then(|kind| Some(format!("; {}: {}", kind.kind, kind.failure.as_ref()?)));
    check("kubernetes", view.ready, format!("{}{}", view.state, failure.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::KindView;
    use mermin_flow::{Delivery, DeliveryState};
    use mermin_pipeline::{BreakerState, BudgetsPulse, ChannelPulse, ReaderPulse, WorkersPulse};
    use std::sync::Arc;

    fn pulse(idle: Option<u64>, running: u64) -> Pulse {
        Pulse {
            detailed: false,
            running: Duration::from_secs(running),
            reader: ReaderPulse {
                panics: 0,
                packets: 0,
                polls: 0,
                longest_gap: Duration::ZERO,
                idle: idle.map(Duration::from_secs),
            },
            packet_channel: ChannelPulse::default(),
            coalescing: None,
            flow_workers: WorkersPulse {
                threads: 2,
                packets: 0,
                batches: 0,
                panics: 0,
                at_work: Duration::ZERO,
            },
            enrichment: None,
            outputs: Vec::new(),
            journal: None,
            budgets: BudgetsPulse::default(),
            task_panics: 0,
            past_panics: 0,
            panicked: false,
            ending: false,
        }
    }

    #[test]
    fn what_is_shed_is_told_and_takes_no_readiness() {
        assert_eq!(budget("memory", &BudgetPulse::default()), None);
        let limited = BudgetPulse { budget: Some(1.0), ..BudgetPulse::default() };
        assert_eq!(budget("memory", &limited), Some(check("memory", true, "enough")));
        let short = BudgetPulse { without: vec!["one".to_owned(), "two".to_owned()], ..limited };
        assert_eq!(budget("memory", &short), Some(check("memory", true, "one; two")));
    }

    #[test]
    fn a_reader_that_does_not_look_is_dead_if_it_is_live() {
        for (idle, running, live, ok) in [
            (Some(0), 100, true, true),
            (Some(16), 100, true, false),
            (Some(16), 100, false, true),
            (None, 5, true, true),
            (None, 16, true, false),
        ] {
            assert_eq!(alive(&pulse(idle, running), live).is_ready(), ok, "{idle:?} {running} {live}");
        }
        let ending = Pulse { ending: true, ..pulse(Some(16), 100) };
        assert!(alive(&ending, true).is_ready(), "the end may wait for outputs");
        let mut hangs = pulse(Some(0), 100);
        for (seconds, live, ok) in [(29, true, true), (30, true, false), (30, false, true)] {
            hangs.flow_workers.at_work = Duration::from_secs(seconds);
            assert_eq!(alive(&hangs, live).is_ready(), ok, "{seconds} {live}");
        }
        let panicked = Pulse { panicked: true, ..pulse(Some(0), 1) };
        assert!(!alive(&panicked, false).is_ready());
    }

    #[test]
    fn an_output_that_fails_says_why() {
        let delivery = Arc::new(Delivery::default());
        let mut one = OutputPulse {
            buffer: None,
            name: "otlp".to_owned(),
            drops: 0,
            delivered: 0,
            merged: 0,
            panics: 0,
            drop_reasons: Vec::new(),
            queue: ChannelPulse::default(),
            closed: false,
            failing: None,
            delivery: Some(Arc::clone(&delivery)),
            breaker: BreakerState::Closed,
            let_be: None,
            opened: 0,
        };
        let told = |one: &OutputPulse| {
            let check = output(one);
            (check.ok, check.how)
        };
        assert_eq!(told(&one), (true, "takes records".to_owned()));
        delivery.turn(DeliveryState::Retrying, Some("refused".to_owned()));
        assert!(told(&one).0, "what may pass is no failure");
        delivery.turn(DeliveryState::Failing, Some("403".to_owned()));
        assert_eq!(told(&one), (false, "403".to_owned()));
        delivery.turn(DeliveryState::Delivering, None);
        (one.breaker, one.let_be) = (BreakerState::HalfOpen, Some("it answers after 6.0s".to_owned()));
        assert_eq!(told(&one), (false, "let be for now: it answers after 6.0s".to_owned()));
        (one.breaker, one.let_be) = (BreakerState::Closed, None);
        one.failing = Some("no space".to_owned());
        assert_eq!(told(&one), (false, "no space".to_owned()));
        one.closed = true;
        assert_eq!(told(&one), (false, "nobody reads it any more".to_owned()));
    }

    #[test]
    fn a_kind_that_fails_is_named() {
        let kinds = vec![
            KindView { kind: "pods", ..KindView::default() },
            KindView { kind: "nodes", failure: Some("forbidden".to_owned()), ..KindView::default() },
        ];
        let view = KubernetesView { state: "degraded", kinds, ..KubernetesView::default() };
        assert_eq!(kubernetes(&view), check("kubernetes", false, "degraded; nodes: forbidden"));
    }
}
