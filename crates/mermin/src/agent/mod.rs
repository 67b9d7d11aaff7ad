//! What others may see of a running agent: the server's answers and the metrics are made from this.

mod capture;
mod health;
mod kubernetes;
mod means;
mod report;

pub(crate) use capture::Capture;
pub(crate) use health::Readiness;
pub(crate) use kubernetes::{KindView, KubernetesView};
pub(crate) use means::{Means, Present};

use crate::reload::Reloads;
use mermin_enrich::{ConntrackReading, ConntrackStatus};
use mermin_flow::{Enricher, FlowOrder, ObservationPoints};
use mermin_pipeline::{FlowsSeen, Observer, Pulse, Statistics};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a snapshot may take: a reader with nothing to read looks up ten times a second, and the kernel's grace
/// period takes some tens of milliseconds.
const SNAPSHOT_PATIENCE: Duration = Duration::from_millis(500);
/// A snapshot serves all who ask within this time, so that many who ask cost no more than one.
const SNAPSHOT_AGE: Duration = Duration::from_millis(100);
/// How long the flow workers may take to go through their tables.
const FLOWS_PATIENCE: Duration = Duration::from_secs(2);

/// Something that is asked anew each time.
pub(crate) type View<T> = Box<dyn Fn() -> T + Send + Sync>;

/// See the module's text.
pub(crate) struct Agent {
    /// `run`, `replay` or `demo`.
    pub(crate) command: &'static str,
    /// What it does, in the words of its first line; outputs may have changed since.
    pub(crate) headline: Mutex<String>,
    pub(crate) started: Instant,
    pub(crate) observer: Observer,
    pub(crate) points: Arc<ObservationPoints>,
    pub(crate) enricher: Option<Arc<dyn Enricher>>,
    /// What it goes by.
    pub(crate) present: Arc<Present>,
    /// What came of reading its configuration again, where it does that.
    pub(crate) reloads: Option<Arc<Reloads>>,
    pub(crate) views: Views,
    pub(crate) looked: Mutex<Option<Looked>>,
}

/// What stages outside the pipeline tell of themselves.
#[derive(Default)]
pub(crate) struct Views {
    /// Absent in a replay.
    pub(crate) capture: Option<View<Capture>>,
    /// Absent where Kubernetes is not asked.
    pub(crate) kubernetes: Option<View<KubernetesView>>,
    /// Absent where connection tracking is not asked.
    pub(crate) conntrack: Option<Arc<ConntrackStatus>>,
}

/// The last statistics, and whether they were one cut.
pub(crate) struct Looked {
    at: Instant,
    statistics: Arc<Statistics>,
    consistent: bool,
}

impl Agent {
    /// The statistics of this moment, and whether they are one cut through the pipeline.
    pub(crate) fn statistics(&self) -> (Arc<Statistics>, bool) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        match &*looked {
            // At the end the last counts are wanted, not those of a moment before.
            Some(last) if last.at.elapsed() < SNAPSHOT_AGE && !self.observer.has_ended() => {
                (Arc::clone(&last.statistics), last.consistent)
            }
            _ => {
                let (statistics, consistent) = self.observer.statistics(SNAPSHOT_PATIENCE);
                let statistics = Arc::new(statistics);
                let shared = Arc::clone(&statistics);
                *looked = Some(Looked { at: Instant::now(), statistics: shared, consistent });
                (statistics, consistent)
            }
        }
    }

    pub(crate) fn headline(&self) -> String {
        self.headline.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on it does this.
    pub(crate) fn set_headline(&self, headline: String) {
        *self.headline.lock().unwrap_or_else(PoisonError::into_inner) = headline;
    }

    pub(crate) fn pulse(&self) -> Pulse {
        self.observer.pulse()
    }

    /// Live flows with what is known about their ends. `None` when too many ask already.
    pub(crate) fn flows(&self, order: FlowOrder, limit: usize) -> Option<FlowsSeen> {
        let mut seen = self.observer.flows(order, limit, FLOWS_PATIENCE)?;
        if let Some(enricher) = &self.enricher {
            seen.flows.iter_mut().for_each(|flow| enricher.enrich(flow));
        }
        Some(seen)
    }

    pub(crate) fn capture(&self) -> Option<Capture> {
        self.views.capture.as_ref().map(|view| view())
    }

    pub(crate) fn kubernetes(&self) -> Option<KubernetesView> {
        self.views.kubernetes.as_ref().map(|view| view())
    }

    pub(crate) fn conntrack(&self) -> Option<ConntrackReading> {
        self.views.conntrack.as_ref().map(|status| status.read())
    }
}
