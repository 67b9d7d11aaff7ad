//! What is known of the cluster: the one writer of the index.
//!
//! The thread that watches the API server tells every [`Change`]; the directory keeps the objects, works out who may have
//! had which address from when to when, and writes that into the index. Owners that are told of late (a pod's replica
//! set, its node, a service) change what is said of those that depend on them.
//!
//! Those that are gone stay for as long as records may ask for them, and no more than [`PAST_MAX`] of them.

mod describe;
mod holder;
mod life;
mod membership;
mod nodes;
mod pods;
mod services;
#[cfg(test)]
mod tests;

use crate::kubernetes::evidence::{Punctuality, Watch};
use crate::kubernetes::object::{Change, EndpointSlice, Kind, Meta, Object, Time};
use crate::kubernetes::shared::Shared;
use crate::kubernetes::sink::ChangeSink;
use holder::{Holder, Past, ServiceName, Uid};
use membership::Member;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Ended holds that are kept at most, about 1 KiB each with their owners. If there are more, the oldest are forgotten
/// early, and records of their time are answered only with owners that were certain then.
pub(crate) const PAST_MAX: usize = 16_384;

/// All that is known, and the ways to find it.
pub(crate) struct Directory {
    shared: Arc<Shared>,
    /// Pods, nodes and services.
    holders: HashMap<Uid, Holder>,
    /// Ended holds, about in the order of their ends.
    past: VecDeque<Past>,
    next_id: u64,
    /// Replica sets and jobs.
    owners: HashMap<Uid, (Kind, Meta)>,
    /// By name.
    namespaces: HashMap<Arc<str>, Meta>,
    slices: HashMap<Uid, EndpointSlice>,
    /// What the slices say of pods, by the pod's uid.
    members: HashMap<Uid, Vec<Member>>,
    /// The service that has a name now.
    services: HashMap<ServiceName, Uid>,
    /// The node that has a name now.
    nodes: HashMap<Arc<str>, Uid>,
    /// Pods by the uid of their owner.
    owned: HashMap<Uid, Vec<Uid>>,
    /// Pods by the name of their node.
    placed: HashMap<Arc<str>, Vec<Uid>>,
    /// Pods by the service whose backends they are or were.
    served: HashMap<ServiceName, HashSet<Uid>>,
    watches: [Watch; Kind::ALL.len()],
    /// Since when a list is being told, and the uids in it.
    listing: [Option<(Time, HashSet<Uid>)>; Kind::ALL.len()],
    punctuality: Punctuality,
    /// When something was told last.
    now: Time,
}

impl Directory {
    /// An empty one, which keeps ended holds for `memory` at least.
    pub(crate) fn new(shared: Arc<Shared>, memory: Duration) -> Self {
        shared.remember(memory);
        Self {
            shared,
            holders: HashMap::new(),
            past: VecDeque::new(),
            next_id: 0,
            owners: HashMap::new(),
            namespaces: HashMap::new(),
            slices: HashMap::new(),
            members: HashMap::new(),
            services: HashMap::new(),
            nodes: HashMap::new(),
            owned: HashMap::new(),
            placed: HashMap::new(),
            served: HashMap::new(),
            watches: [Watch { heard: None, is_broken: true }; Kind::ALL.len()],
            listing: [const { None }; Kind::ALL.len()],
            punctuality: Punctuality::default(),
            now: 0,
        }
    }

    /// Takes in what the watches tell; `now` is when they did, ns since 1970.
    pub(crate) fn apply(&mut self, change: Change, now: Time) {
        self.now = now;
        match change {
            Change::ListBegins(kind) => {
                self.watches[kind as usize].is_broken = true;
                self.listing[kind as usize] = Some((now, HashSet::new()));
            }
            Change::Listed(object) => {
                let (kind, uid) = (object.kind(), Arc::clone(&object.meta().uid));
                self.put(object, now);
                if let Some((_, listed)) = &mut self.listing[kind as usize] {
                    listed.insert(uid);
                }
            }
            Change::ListEnds(kind) => self.end_list(kind, now),
            Change::Applied(object) => self.put(object, now),
            Change::Deleted(object) => {
                let (kind, uid) = (object.kind(), Arc::clone(&object.meta().uid));
                self.put(object, now);
                self.remove(kind, &uid, now);
            }
            Change::Heard(kind) => self.heard(kind, now),
            Change::Interrupted(kind) => self.watches[kind as usize].is_broken = true,
            Change::Forbidden(kind) => {
                self.watches[kind as usize].is_broken = true;
                self.shared.forbidden(kind);
            }
        }
    }

    /// Whether what `kind`'s watch tells now may have happened long ago.
    fn is_behind(&self, kind: Kind, now: Time) -> bool {
        self.watches[kind as usize].is_behind(now)
    }

    fn heard(&mut self, kind: Kind, now: Time) {
        // A list that is being told is no news of the present.
        if self.listing[kind as usize].is_none() {
            self.watches[kind as usize] = Watch { heard: Some(now), is_broken: false };
            self.shared.heard(kind, now);
        }
        self.forget(now);
    }

    /// What was known and is in no list any more is gone.
    fn end_list(&mut self, kind: Kind, now: Time) {
        let Some((begun, listed)) = self.listing[kind as usize].take() else { return };
        let known: Vec<Uid> = match kind {
            Kind::Pod | Kind::Node | Kind::Service => {
                let living = self.holders.iter().filter(|(_, holder)| holder.life.deleted.is_none());
                let of_kind = living.filter(|(_, holder)| holder.body.kind() == kind);
                of_kind.map(|(uid, _)| Arc::clone(uid)).collect()
            }
            Kind::EndpointSlice => self.slices.keys().cloned().collect(),
            Kind::Namespace => self.namespaces.values().map(|meta| Arc::clone(&meta.uid)).collect(),
            Kind::ReplicaSet | Kind::Job => {
                let of_kind = self.owners.iter().filter(|(_, (known, _))| *known == kind);
                of_kind.map(|(uid, _)| Arc::clone(uid)).collect()
            }
        };
        for uid in known.into_iter().filter(|uid| !listed.contains(uid)) {
            self.remove(kind, &uid, now);
        }
        if kind == Kind::Pod {
            // Pods may have come and gone unnoticed.
            self.shared.known_since(now);
        }
        // The list is of a moment after it was begun; what happened since comes next.
        self.watches[kind as usize] = Watch { heard: Some(begun), is_broken: true };
        self.shared.heard(kind, begun);
        self.forget(now);
    }

    fn put(&mut self, object: Object, now: Time) {
        match object {
            Object::Pod(pod) => self.put_pod(pod, now),
            Object::Node(node) => self.put_node(node, now),
            Object::Service(service) => self.put_service(service, now),
            Object::EndpointSlice(slice) => self.put_slice(slice, now),
            Object::Namespace(meta) => self.put_namespace(meta),
            Object::Owner(kind, meta) => self.put_owner(kind, meta),
        }
    }

    fn remove(&mut self, kind: Kind, uid: &Uid, now: Time) {
        match kind {
            Kind::Pod | Kind::Node | Kind::Service => self.remove_holder(uid, now),
            Kind::EndpointSlice => self.remove_slice(uid, now),
            Kind::Namespace => self.namespaces.retain(|_, meta| meta.uid != *uid),
            // Pods remember the owner of their owner.
            Kind::ReplicaSet | Kind::Job => drop(self.owners.remove(uid)),
        }
    }

    /// The earliest time at which what `kind`'s watch tells now, stamped `stamp`, can have happened.
    fn happened(&mut self, kind: Kind, now: Time, stamp: Option<Time>) -> Time {
        self.watches[kind as usize].happened(&mut self.punctuality, now, stamp)
    }

    fn put_namespace(&mut self, meta: Meta) {
        let (name, labels) = (Arc::clone(&meta.name), meta.labels.clone());
        let before = self.namespaces.insert(Arc::clone(&name), meta);
        if before.map(|meta| meta.labels).unwrap_or_default() != labels {
            let inside = self.holders.iter().filter(|(_, holder)| holder.body.meta().namespace == name);
            let inside: Vec<_> = inside.map(|(uid, _)| Arc::clone(uid)).collect();
            inside.iter().for_each(|uid| self.rewrite(uid));
        }
    }

    fn put_owner(&mut self, kind: Kind, meta: Meta) {
        let (uid, owner) = (Arc::clone(&meta.uid), meta.owner.clone());
        let before = self.owners.insert(Arc::clone(&uid), (kind, meta));
        if before.and_then(|(_, meta)| meta.owner) != owner
            && let Some(pods) = self.owned.get(&uid).cloned()
        {
            pods.iter().for_each(|pod| self.rewrite(pod));
        }
    }
}

impl ChangeSink for Directory {
    fn change(&mut self, change: Change, at: Time) {
        self.apply(change, at);
    }

    /// Each change has been in the index since it was told.
    fn settle(&mut self) {}
}
