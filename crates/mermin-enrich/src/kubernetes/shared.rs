//! What the directory writes and enrichment workers read.

use crate::host::HostAddresses;
use crate::kubernetes::config::Scope;
use crate::kubernetes::evidence::{LAG, SECOND, SETTLE};
use crate::kubernetes::index::Index;
use crate::kubernetes::object::{Kind, Node, Time};
use crate::kubernetes::resolve::Known;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long after the first kind records may wait for the others' first lists: one may be forbidden for good.
const FIRST_LISTS: Time = 10 * SECOND;
/// How long the API server may be silent before records say so.
const SILENCE: Time = 5 * SECOND;

/// The kinds whose objects have addresses.
const HOLDERS: [Kind; 3] = [Kind::Pod, Kind::Node, Kind::Service];

/// The index, and how far it can be trusted.
pub(crate) struct Shared {
    pub(crate) index: Index,
    /// The kinds that are watched, and of which nodes pods are.
    watched: Vec<Kind>,
    scope: Scope,
    /// When each kind was heard of last; 0: never.
    heard: [AtomicU64; Kind::ALL.len()],
    /// The kinds for which there is no right: nothing will be heard of them, and nobody waits for it.
    forbidden: [AtomicBool; Kind::ALL.len()],
    /// Before this, pods may be missing; [`Time::MAX`] before the first list.
    since: AtomicU64,
    this_node: ArcSwap<ThisNode>,
    host: Arc<HostAddresses>,
    begun: Time,
    /// How long ended holds are kept.
    memory: AtomicU64,
}

/// The node that this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThisNode {
    pub(crate) name: Option<Arc<str>>,
    /// Whether the configuration says so.
    is_given: bool,
    /// The addresses of pods on it, also of those that nobody has told of yet.
    pub(crate) pod_networks: Vec<IpNet>,
}

/// How far the cluster is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Horizon {
    pub(crate) known: Known,
    /// When all that names owners was heard of last.
    pub(crate) heard: Time,
}

impl Shared {
    /// Nothing is known. `node` is this node's name; without it the node is found by the host's addresses.
    pub(crate) fn new(
        (watched, scope): (Vec<Kind>, Scope),
        node: Option<&str>,
        host: Arc<HostAddresses>,
        now: Time,
    ) -> Self {
        let this_node =
            ThisNode { name: node.map(Arc::from), is_given: node.is_some(), pod_networks: Vec::new() };
        Self {
            index: Index::default(),
            watched,
            scope,
            heard: Default::default(),
            forbidden: Default::default(),
            since: AtomicU64::new(Time::MAX),
            this_node: ArcSwap::from_pointee(this_node),
            host,
            begun: now,
            memory: AtomicU64::new(0),
        }
    }

    /// Ended holds are kept for so long at least, from now on.
    pub(crate) fn remember(&self, at_least: Duration) {
        self.memory.fetch_max(at_least.as_nanos() as Time, Ordering::Relaxed);
    }

    /// How long ended holds are kept.
    pub(crate) fn memory(&self) -> Time {
        self.memory.load(Ordering::Relaxed)
    }

    /// All was known of `kind` at `now`.
    pub(crate) fn heard(&self, kind: Kind, now: Time) {
        self.heard[kind as usize].fetch_max(now, Ordering::Release);
        self.forbidden[kind as usize].store(false, Ordering::Release);
    }

    /// There is no right to watch `kind`, until it is heard of again.
    pub(crate) fn forbidden(&self, kind: Kind) {
        self.forbidden[kind as usize].store(true, Ordering::Release);
    }

    /// Whether pods are known, or will be.
    pub(crate) fn lists_pods(&self) -> bool {
        self.watched.contains(&Kind::Pod) && !self.is_forbidden(Kind::Pod)
    }

    fn is_forbidden(&self, kind: Kind) -> bool {
        self.forbidden[kind as usize].load(Ordering::Acquire)
    }

    /// Before `time`, owners may be missing.
    pub(crate) fn known_since(&self, time: Time) {
        let later = |since| if since == Time::MAX { Some(time) } else { (since < time).then_some(time) };
        // Only the directory writes.
        let _ = self.since.fetch_update(Ordering::Release, Ordering::Relaxed, later);
    }

    /// Looks whether `node` is this one.
    pub(crate) fn notice_node(&self, node: &Node) {
        let known = self.this_node.load();
        let is_this = match &known.name {
            Some(name) => *name == node.meta.name,
            None => node.addresses.iter().any(|address| self.host.has(*address)),
        };
        if !is_this || known.is_given && known.name.as_ref() != Some(&node.meta.name) {
            return;
        }
        let networks = node.pod_networks.iter();
        let pod_networks =
            networks.filter_map(|(address, length)| IpNet::new(*address, *length).ok()).collect();
        let this =
            ThisNode { name: Some(Arc::clone(&node.meta.name)), is_given: known.is_given, pod_networks };
        if **known != this {
            self.this_node.store(Arc::new(this));
        }
    }

    pub(crate) fn this_node(&self) -> arc_swap::Guard<Arc<ThisNode>> {
        self.this_node.load()
    }

    /// Whether `address` is one of this host's.
    pub(crate) fn is_host(&self, address: IpAddr) -> bool {
        self.host.has(address)
    }

    fn heard_of(&self, kind: Kind) -> Time {
        self.heard[kind as usize].load(Ordering::Acquire)
    }

    /// When the last of these kinds was heard of last, but for those that never were; 0 where none was.
    fn heard_of_all(&self, kinds: impl Iterator<Item = Kind>) -> Time {
        kinds.map(|kind| self.heard_of(kind)).filter(|heard| *heard > 0).min().unwrap_or_default()
    }

    /// How far the cluster is known now.
    pub(crate) fn horizon(&self) -> Horizon {
        let told = |kind: &Kind| !self.is_forbidden(*kind);
        let pods = self.heard_of(Kind::Pod);
        let rest = self.heard_of_all(HOLDERS[1..].iter().copied().filter(told));
        // What was known of a kind before its right was taken away grows old.
        let until =
            |kind| if self.is_forbidden(kind) { self.heard_of(kind) } else { rest }.saturating_sub(LAG);
        let known = Known {
            since: self.since.load(Ordering::Acquire),
            pods_until: pods.saturating_sub(SETTLE),
            nodes_until: until(Kind::Node),
            services_until: until(Kind::Service),
            scope: self.scope,
            last_known: false,
        };
        // Without a right to watch pods any more, what is known of nearly all ends is old.
        let heard = HOLDERS.into_iter().filter(|kind| *kind == Kind::Pod || told(kind));
        Horizon { known, heard: self.heard_of_all(heard) }
    }

    /// How long nothing was heard of what names owners, if that is long.
    pub(crate) fn silence(&self, horizon: &Horizon, now: Time) -> Option<Time> {
        let since = if horizon.heard == 0 { self.begun } else { horizon.heard };
        Some(now.saturating_sub(since)).filter(|silence| *silence >= SILENCE)
    }

    /// Up to when all will be known that can be.
    pub(crate) fn known_until(&self, now: Time) -> Time {
        let watched = self.watched.iter().filter(|kind| !self.is_forbidden(**kind));
        let heard = watched.map(|kind| self.heard_of(*kind));
        let first = heard.clone().filter(|heard| *heard > 0).min();
        let is_complete = heard.clone().all(|heard| heard > 0);
        if heard.clone().next().is_none() {
            return now;
        }
        let Some(first) = first else { return 0 };
        if !is_complete && now < first.max(self.begun) + FIRST_LISTS && now < self.begun + 2 * FIRST_LISTS {
            return 0;
        }
        let told = HOLDERS.into_iter().filter(|kind| !self.is_forbidden(*kind));
        self.heard_of_all(told).saturating_sub(SETTLE)
    }
}
