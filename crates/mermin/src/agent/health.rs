//! Whether the agent lives, and whether it does what it was configured to do.
//!
//! Alive: no thread has panicked, and a live reader looks at its source. Ready: packets are taken, every output takes
//! records, and where Kubernetes is asked everything is known that is to be. What degrades later takes readiness away
//! until it has recovered: flow processing goes on meanwhile, but its records are not what was asked for.

use super::{Agent, KubernetesView};
use mermin_pipeline::{OutputPulse, Pulse};
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
        checks.extend(pulse.outputs.iter().map(output));
        checks.extend(self.kubernetes().as_ref().map(kubernetes));
        Readiness(checks)
    }
}

fn alive(pulse: &Pulse, live: bool) -> Readiness {
    let threads = if pulse.panicked { "one has panicked: a bug" } else { "all run" };
    let mut checks = vec![check("threads", !pulse.panicked, threads)];
    if live {
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

fn output(output: &OutputPulse) -> Check {
    let how = match (&output.failing, output.closed, output.is_healthy()) {
        (_, true, _) => "nobody reads it any more".to_owned(),
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
    use mermin_pipeline::{ChannelPulse, ReaderPulse, WorkersPulse};
    use std::sync::Arc;

    fn pulse(idle: Option<u64>, running: u64) -> Pulse {
        Pulse {
            detailed: false,
            running: Duration::from_secs(running),
            reader: ReaderPulse {
                packets: 0,
                polls: 0,
                longest_gap: Duration::ZERO,
                idle: idle.map(Duration::from_secs),
            },
            packet_channel: ChannelPulse::default(),
            flow_workers: WorkersPulse { threads: 2, packets: 0, batches: 0 },
            enrichment: None,
            outputs: Vec::new(),
            panicked: false,
            ending: false,
        }
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
        let panicked = Pulse { panicked: true, ..pulse(Some(0), 1) };
        assert!(!alive(&panicked, false).is_ready());
    }

    #[test]
    fn an_output_that_fails_says_why() {
        let delivery = Arc::new(Delivery::default());
        let mut one = OutputPulse {
            name: "otlp".to_owned(),
            drops: 0,
            delivered: 0,
            drop_reasons: Vec::new(),
            queue: ChannelPulse::default(),
            closed: false,
            failing: None,
            delivery: Some(Arc::clone(&delivery)),
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
