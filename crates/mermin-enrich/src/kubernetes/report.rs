//! Log lines about the watches: one when something is lost, one when it is back, however many watches and attempts that
//! takes.

use crate::clock::Clock;
use crate::kubernetes::failure::Failure;
use crate::kubernetes::object::{Kind, Time};
use crate::kubernetes::rbac::rule;
use crate::kubernetes::status::{KubernetesStatus, WatchState, WatchesState};
use std::cell::Cell;
use tracing::{info, warn};

/// Failures in a row before a line is due. One is no news: a watch that broke is taken up again at once.
const DUE: u32 = 2;
/// The same for refusals: a server that has just started knows no rights for a moment.
const REFUSAL_DUE: u32 = 4;

/// What has been said.
#[derive(Debug)]
pub(crate) struct Report {
    clock: Clock,
    started: Time,
    has_been_ready: Cell<bool>,
    /// When the server was called lost.
    lost: Cell<Option<Time>>,
    refused: [Cell<bool>; Kind::ALL.len()],
    unreadable: [Cell<bool>; Kind::ALL.len()],
}

impl Report {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            started: clock.now(),
            has_been_ready: Cell::new(false),
            lost: Cell::new(None),
            refused: Default::default(),
            unreadable: Default::default(),
        }
    }

    /// A kind's watch failed, `in_a_row` times by now.
    pub(crate) fn failed(&self, status: &KubernetesStatus, kind: Kind, failure: &Failure, in_a_row: u32) {
        let server = status.server();
        let is_refusal = matches!(failure, Failure::Forbidden { .. } | Failure::Absent);
        if in_a_row < if is_refusal { REFUSAL_DUE } else { DUE } {
            return;
        }
        match failure {
            _ if is_refusal && self.refused[kind as usize].replace(true) => {}
            Failure::Forbidden { user } => warn!("{}", refusal(user, kind)),
            Failure::Absent => {
                warn!("Kubernetes: {server} doesn't serve {}: {}", kind.resource(), without(kind));
            }
            Failure::Expired | Failure::NoStreaming => {}
            _ if self.lost.get().is_none() => {
                self.lost.set(Some(self.clock.now()));
                let names =
                    if self.has_been_ready.get() { "keep the names that are known" } else { "get no names" };
                warn!("Kubernetes: {server} is lost: {failure}; until it is back flows {names}");
            }
            _ => {}
        }
    }

    /// A kind is watched (again).
    pub(crate) fn back(&self, status: &KubernetesStatus, kind: Kind) {
        if self.refused[kind as usize].replace(false) {
            info!("Kubernetes: {} are watched now", kind.resource());
        }
        let lost = |reading: &WatchState| matches!(reading, WatchState::Degraded | WatchState::Listing);
        if status.readings().any(|reading| lost(&reading.state)) {
            return;
        }
        let now = self.clock.now();
        if let Some(since) = self.lost.take() {
            info!("Kubernetes: {} is back after {:.1} s", status.server(), seconds(now - since));
        }
        if status.state() == WatchesState::Ready && !self.has_been_ready.replace(true) {
            let objects: Vec<_> = status
                .readings()
                .filter(|reading| reading.state != WatchState::Off)
                .map(|reading| format!("{} {}", reading.objects, reading.kind.resource()))
                .collect();
            let after = seconds(now - self.started);
            info!("Kubernetes: {} told of {} in {after:.1} s", status.server(), objects.join(", "));
        }
    }

    /// An object could not be read.
    pub(crate) fn unreadable(&self, kind: Kind, error: &serde_json::Error) {
        if !self.unreadable[kind as usize].replace(true) {
            warn!("Kubernetes: one of the {} can't be read and is left out ({error})", kind.resource());
        }
    }
}

/// What is missing, what that means, and what to add where.
fn refusal(user: &str, kind: Kind) -> String {
    let (resource, without, rule) = (kind.resource(), without(kind), rule(kind));
    format!("Kubernetes: {user} may not list and watch {resource}: {without}; add to its ClusterRole: {rule}")
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// What records lack without a kind.
const fn without(kind: Kind) -> &'static str {
    match kind {
        Kind::Pod => "no address is known as a pod's",
        Kind::Node => "no address is known as a node's",
        Kind::Service => "no address is known as a service's",
        Kind::EndpointSlice => "pods are not known as a service's backends",
        Kind::Namespace => "labels of namespaces are missing",
        Kind::ReplicaSet => "pods of deployments name their replica set alone",
        Kind::Job => "pods of cron jobs name their job alone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_right_that_is_missing() {
        assert_eq!(
            refusal("system:serviceaccount:mermin:mermin", Kind::EndpointSlice),
            "Kubernetes: system:serviceaccount:mermin:mermin may not list and watch endpointslices: pods are not known \
             as a service's backends; add to its ClusterRole: {apiGroups: [\"discovery.k8s.io\"], resources: \
             [endpointslices], verbs: [list, watch]}"
        );
    }

    /// One line for a loss, one for its end, whatever the number of kinds and attempts.
    #[test]
    fn a_loss_is_told_once() {
        let report = Report::new(Clock::new());
        let status = KubernetesStatus::new("https://192.0.2.1", |_| true, (Clock::new(), 1));
        let broken = Failure::Broken("refused".into());
        report.failed(&status, Kind::Pod, &broken, 1);
        assert_eq!(report.lost.get(), None, "one failure is no news");
        for in_a_row in 2..9 {
            Kind::ALL.into_iter().for_each(|kind| report.failed(&status, kind, &broken, in_a_row));
        }
        let since = report.lost.get();
        assert!(since.is_some());
        let forbidden = Failure::Forbidden { user: "u".into() };
        report.failed(&status, Kind::Job, &forbidden, 3);
        assert!(!report.refused[Kind::Job as usize].get(), "it may have just started");
        report.failed(&status, Kind::Job, &forbidden, 4);
        assert!(report.refused[Kind::Job as usize].get());
        report.failed(&status, Kind::Pod, &broken, 9);
        assert_eq!(report.lost.get(), since);
        for kind in Kind::ALL {
            assert_eq!(report.lost.get(), since, "not all are back");
            status.kind(kind).heard(2);
            status.kind(kind).set(WatchState::Watching, 2);
            report.back(&status, kind);
        }
        assert_eq!(report.lost.get(), None);
        assert!(report.has_been_ready.get());
    }
}
