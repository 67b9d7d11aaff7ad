//! How the watches of a Kubernetes cluster are.

use super::View;
use mermin_enrich::{KindReading, KubernetesStatus, WatchState, WatchesState};
use std::sync::Arc;
use std::time::Duration;

/// All watches together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KubernetesView {
    /// One of [`KubernetesView::STATES`].
    pub(crate) state: &'static str,
    /// Whether everything is known that is to be.
    pub(crate) ready: bool,
    /// The API server's address.
    pub(crate) server: String,
    /// Every kind, also those that are not watched.
    pub(crate) kinds: Vec<KindView>,
    /// All states that a kind's watch can be in.
    pub(crate) watch_states: Vec<&'static str>,
}

/// The watch of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KindView {
    /// The resource's name, such as `pods`.
    pub(crate) kind: &'static str,
    /// One of [`KubernetesView::watch_states`].
    pub(crate) state: &'static str,
    /// How long ago everything was known; where it never was, since the agent's start.
    pub(crate) age: Duration,
    pub(crate) objects: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) lists: u64,
    pub(crate) errors: u64,
    pub(crate) unreadable: u64,
    /// The last failure, while it lasts.
    pub(crate) failure: Option<String>,
}

impl KubernetesView {
    /// Nobody is asked.
    pub(crate) const OFF: &str = "off";
    pub(crate) const STATES: [&str; 4] = [Self::OFF, "starting", "ready", "degraded"];

    /// Of watches, each time anew.
    pub(crate) fn of(status: Arc<KubernetesStatus>) -> View<Self> {
        Box::new(move || {
            let now = status.now();
            let state = status.state();
            Self {
                state: match state {
                    WatchesState::Starting => "starting",
                    WatchesState::Ready => "ready",
                    WatchesState::Degraded => "degraded",
                },
                ready: state == WatchesState::Ready,
                server: status.server().to_owned(),
                kinds: status.readings().map(|reading| KindView::of(&reading, now)).collect(),
                watch_states: WatchState::ALL.map(WatchState::name).to_vec(),
            }
        })
    }
}

impl KindView {
    fn of(reading: &KindReading, now: Duration) -> Self {
        let known = if reading.heard == 0 { reading.since } else { reading.heard };
        Self {
            kind: reading.kind.resource(),
            state: reading.state.name(),
            age: now.saturating_sub(Duration::from_nanos(known)),
            objects: reading.objects,
            events: reading.events,
            bytes: reading.bytes,
            lists: reading.lists,
            errors: reading.errors,
            unreadable: reading.unreadable,
            failure: reading.failure.as_deref().cloned(),
        }
    }
}
