//! Objects that have addresses, in the directory and in the index, now and for a while after their end.

use super::life::{End, Hold, Life};
use super::{Directory, PAST_MAX};
use crate::kubernetes::evidence::{CAUTION, LINGER};
use crate::kubernetes::index::{Entry, Place, TenureId};
use crate::kubernetes::object::{Kind, Meta, Node, Owner as Controller, Pod, Service, Time};
use crate::kubernetes::owner::Owner;
use std::sync::Arc;

pub(super) type Uid = Arc<str>;

/// Namespace and name.
pub(super) type ServiceName = (Arc<str>, Arc<str>);

/// A place with what is said of its owner there.
pub(super) type Claim = (Place, Arc<Owner>);

/// An object that has addresses.
pub(super) struct Holder {
    pub(super) body: Body,
    pub(super) life: Life,
    pub(super) holds: Vec<Hold>,
    /// What the index says of it.
    pub(super) owner: Arc<Owner>,
    /// Of a pod: the owner of its owner, once it was known. It may be deleted before the pod.
    pub(super) controller: Option<Controller>,
}

pub(super) enum Body {
    Pod(Pod),
    Node(Node),
    Service(Service),
}

impl Body {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pod,
            Self::Node(_) => Kind::Node,
            Self::Service(_) => Kind::Service,
        }
    }

    pub(super) const fn meta(&self) -> &Meta {
        match self {
            Self::Pod(pod) => &pod.meta,
            Self::Node(node) => &node.meta,
            Self::Service(service) => &service.meta,
        }
    }
}

/// A hold that has ended.
pub(super) struct Past {
    ended: Time,
    uid: Uid,
    id: TenureId,
}

/// When a holder can have begun to have a place.
#[derive(Clone, Copy)]
pub(super) struct Beginning {
    pub(super) possible_from: Time,
    pub(super) certain_from: Time,
}

impl Directory {
    /// Gives a holder exactly the places that it claims. One that it has not had begins as told; one that it no longer
    /// claims is `lost`.
    pub(super) fn hold(
        &mut self,
        uid: &Uid,
        claims: &[Claim],
        beginning: impl Fn(Place) -> Beginning,
        lost: End,
    ) {
        let Some(holder) = self.holders.get_mut(uid) else { return };
        let claimed = |place: Place| claims.iter().any(|(wanted, _)| *wanted == place);
        for hold in holder.holds.iter_mut().filter(|hold| hold.lost.is_none() && !claimed(hold.place)) {
            hold.lost = Some(lost);
        }
        for (place, _) in claims {
            if holder.holds.iter().all(|hold| hold.lost.is_some() || hold.place != *place) {
                let id = TenureId(self.next_id);
                self.next_id += 1;
                let Beginning { possible_from, certain_from } = beginning(*place);
                let (place, lost, is_past) = (*place, None, false);
                holder.holds.push(Hold { place, id, possible_from, certain_from, lost, is_past });
            }
        }
        self.publish(uid, claims);
    }

    /// Writes a holder's tenures into the index; those that have ended are past from now on.
    pub(super) fn publish(&mut self, uid: &Uid, claims: &[Claim]) {
        let Some(holder) = self.holders.get_mut(uid) else { return };
        for hold in &mut holder.holds {
            let tenure = hold.tenure(&holder.life);
            let owner = claims.iter().find(|(place, _)| *place == hold.place).map(|(_, owner)| owner);
            let owner = Arc::clone(owner.unwrap_or(&holder.owner));
            self.shared.index.put(Entry { place: hold.place, id: hold.id, tenure, owner });
            if tenure.possible_until != Time::MAX && !hold.is_past {
                hold.is_past = true;
                self.past.push_back(Past { ended: tenure.possible_until, uid: Arc::clone(uid), id: hold.id });
            }
        }
    }

    /// Works out anew what is said of a holder, and tells the index.
    pub(super) fn rewrite(&mut self, uid: &Uid) {
        let Some(holder) = self.holders.get(uid) else { return };
        let claims = match holder.body.kind() {
            Kind::Pod => self.pod_claims(uid),
            Kind::Node => self.node_claims(uid),
            _ => self.service_claims(uid),
        };
        self.publish(uid, &claims);
    }

    pub(super) fn remove_holder(&mut self, uid: &Uid, now: Time) {
        let Some(kind) = self.holders.get(uid).map(|holder| holder.body.kind()) else { return };
        let not_before = self.happened(kind, now, None).saturating_sub(CAUTION);
        let Some(holder) = self.holders.get_mut(uid) else { return };
        // A pod that was deleted before it had finished, or a node, goes on for a while.
        let linger = if kind == Kind::Service || holder.life.finished.is_some() { 0 } else { LINGER };
        let not_after = now.saturating_add(linger);
        holder.life.deleted.get_or_insert(End { not_before, not_after });
        self.rewrite(uid);
        self.drop_if_empty(uid);
    }

    /// Drops what has ended long ago, and the oldest where there is too much.
    pub(super) fn forget(&mut self, now: Time) {
        let memory = self.shared.memory();
        while let Some(past) = self.past.front() {
            let is_old = past.ended.saturating_add(memory) < now;
            if !is_old && self.past.len() <= PAST_MAX {
                break;
            }
            let Some(past) = self.past.pop_front() else { break };
            self.shared.known_since(past.ended.min(now));
            if let Some(holder) = self.holders.get_mut(&past.uid)
                && let Some(at) = holder.holds.iter().position(|hold| hold.id == past.id)
            {
                let hold = holder.holds.swap_remove(at);
                self.shared.index.remove(hold.place, hold.id);
                self.drop_if_empty(&past.uid);
            }
        }
    }

    /// Drops a holder that is gone and has no past.
    fn drop_if_empty(&mut self, uid: &Uid) {
        let is_empty = |holder: &Holder| holder.life.deleted.is_some() && holder.holds.is_empty();
        if !self.holders.get(uid).is_some_and(is_empty) {
            return;
        }
        let Some(holder) = self.holders.remove(uid) else { return };
        match &holder.body {
            Body::Pod(pod) => self.forget_pod(pod),
            Body::Node(node) => {
                if self.nodes.get(&node.meta.name) == Some(uid) {
                    self.nodes.remove(&node.meta.name);
                }
            }
            Body::Service(service) => {
                let name = (Arc::clone(&service.meta.namespace), Arc::clone(&service.meta.name));
                if self.services.get(&name) == Some(uid) {
                    self.services.remove(&name);
                }
            }
        }
    }
}
