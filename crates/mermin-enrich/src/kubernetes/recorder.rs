//! Watches at work in a test, and what they told.

use crate::clock::Clock;
use crate::kubernetes::cluster::{Cluster, Environment};
use crate::kubernetes::config::KubernetesConfig;
use crate::kubernetes::object::{Change, Kind, Object, Pod, Time};
use crate::kubernetes::sink::ChangeSink;
use crate::kubernetes::status::{KindReading, WatchesState};
use crate::kubernetes::watch::Limits;
use crate::kubernetes::watches::Watches;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// More than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was told, and what is known by it.
#[derive(Default)]
pub(super) struct Record {
    pub(super) changes: Vec<(Change, Time)>,
    pub(super) known: BTreeMap<(Kind, Arc<str>), Object>,
    listing: BTreeMap<Kind, Vec<Arc<str>>>,
    pub(super) heard: BTreeMap<Kind, Time>,
}

#[derive(Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<Record>>);

fn kind_and_uid(object: &Object) -> (Kind, Arc<str>) {
    let (kind, meta) = match object {
        Object::Pod(pod) => (Kind::Pod, &pod.meta),
        Object::Node(node) => (Kind::Node, &node.meta),
        Object::Service(service) => (Kind::Service, &service.meta),
        Object::EndpointSlice(slice) => (Kind::EndpointSlice, &slice.meta),
        Object::Namespace(meta) => (Kind::Namespace, meta),
        Object::Owner(kind, meta) => (*kind, meta),
    };
    (kind, meta.uid.clone())
}

impl ChangeSink for Recorder {
    fn change(&mut self, change: Change, at: Time) {
        let mut record = self.record();
        match &change {
            Change::ListBegins(kind) => {
                record.listing.insert(*kind, Vec::new());
            }
            Change::Listed(object) => {
                let key = kind_and_uid(object);
                record.listing.entry(key.0).or_default().push(key.1.clone());
                record.known.insert(key, object.clone());
            }
            Change::ListEnds(kind) => {
                let listed = record.listing.remove(kind).expect("it began");
                record.known.retain(|(known, uid), _| known != kind || listed.contains(uid));
            }
            Change::Applied(object) => {
                record.known.insert(kind_and_uid(object), object.clone());
            }
            Change::Deleted(object) => {
                record.known.remove(&kind_and_uid(object));
            }
            Change::Heard(kind) => {
                assert!(
                    !record.listing.contains_key(kind),
                    "all {kind:?} are known in the middle of their list"
                );
                record.heard.insert(*kind, at);
            }
            Change::Interrupted(_) | Change::Forbidden(_) => {}
        }
        record.changes.push((change, at));
    }

    fn settle(&mut self) {}
}

impl Recorder {
    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap()
    }

    pub(super) fn pod(&self, name: &str) -> Option<Pod> {
        self.record().known.values().find_map(|object| match object {
            Object::Pod(pod) if &*pod.meta.name == name => Some(pod.clone()),
            _ => None,
        })
    }
}

/// Watches at work, with what they told.
pub(super) struct Run {
    pub(super) recorder: Recorder,
    pub(super) watches: Watches,
    pub(super) clock: Clock,
}

/// Starts watches of the cluster that `config` names.
pub(super) fn run_with(config: KubernetesConfig) -> Run {
    run_within(Limits::default(), config)
}

/// The same, with other limits than the product's.
pub(super) fn run_within(limits: Limits, config: KubernetesConfig) -> Run {
    let cluster = Cluster::find(&config, &Environment::default(), true).unwrap().unwrap();
    let (recorder, clock) = (Recorder::default(), Clock::new());
    let watches = Watches::start_within(limits, &cluster, &config, clock, recorder.clone()).unwrap();
    Run { recorder, watches, clock }
}

impl Run {
    pub(super) fn kind(&self, kind: Kind) -> KindReading {
        self.watches.status().readings().find(|reading| reading.kind == kind).unwrap()
    }

    pub(super) fn state(&self) -> WatchesState {
        self.watches.status().state()
    }

    pub(super) fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !is_so(self) {
            let readings: Vec<_> = self.watches.status().readings().collect();
            assert!(began.elapsed() < PATIENCE, "{what}: {readings:#?}");
            thread::sleep(Duration::from_millis(5));
        }
        began.elapsed()
    }

    /// Waits until all that was so at the time of the call is known.
    pub(super) fn wait_for_news(&self, kind: Kind) {
        let now = self.clock.now();
        self.wait("news", |run| run.recorder.record().heard.get(&kind).is_some_and(|heard| *heard >= now));
    }
}
