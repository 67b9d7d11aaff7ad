//! Nodes: their addresses, and which of them this one is.

use super::Directory;
use super::describe::Description;
use super::holder::{Beginning, Body, Claim, Holder, Uid};
use super::life::{End, Life};
use crate::kubernetes::index::Place;
use crate::kubernetes::object::{Kind, Node, Time};
use crate::kubernetes::owner::{Owner, Role};
use mermin_flow::KubernetesAttribute;
use std::sync::Arc;

impl Directory {
    pub(super) fn put_node(&mut self, node: Node, now: Time) {
        let (uid, name) = (Arc::clone(&node.meta.uid), Arc::clone(&node.meta.name));
        let known = self.holders.get(&uid);
        if known.is_some_and(|holder| holder.life.deleted.is_some()) {
            return;
        }
        let before = known.and_then(|holder| match &holder.body {
            Body::Node(before) => Some(before.addresses.clone()),
            _ => None,
        });
        let has_changed = before.as_ref() != Some(&node.addresses);
        let created = node.meta.created.filter(|_| before.is_none());
        let changed = if has_changed { self.happened(Kind::Node, now, created) } else { now };
        self.shared.notice_node(&node);
        let owner = Arc::new(describe(&node));
        let body = Body::Node(node);
        if let Some(holder) = self.holders.get_mut(&uid) {
            (holder.body, holder.owner) = (body, owner);
        } else {
            let life = Life { born: changed, ..Life::default() };
            let holder = Holder { body, life, holds: Vec::new(), owner, controller: None };
            self.holders.insert(Arc::clone(&uid), holder);
            self.nodes.insert(Arc::clone(&name), Arc::clone(&uid));
        }
        let claims = self.node_claims(&uid);
        let lost = End { not_before: changed, not_after: now };
        // It may have got some of them after it was made.
        self.hold(&uid, &claims, |_| Beginning { possible_from: changed, certain_from: now }, lost);
        if has_changed {
            // Its pods name it, and have ports of its addresses.
            for pod in self.placed.get(&name).cloned().unwrap_or_default() {
                let claims = self.pod_claims(&pod);
                let born = self.holders.get(&pod).map_or(0, |holder| holder.life.born);
                let beginning = Beginning { possible_from: born, certain_from: now };
                self.hold(&pod, &claims, |_| beginning, lost);
            }
        }
    }

    pub(super) fn node_claims(&self, uid: &Uid) -> Vec<Claim> {
        match self.holders.get(uid) {
            Some(Holder { body: Body::Node(node), owner, .. }) => {
                node.addresses.iter().map(|address| (Place::address(*address), Arc::clone(owner))).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn describe(node: &Node) -> Owner {
    let mut description = Description::default();
    description.add(KubernetesAttribute::NodeName, Some(&node.meta.name));
    description.add(KubernetesAttribute::NodeUid, Some(&node.meta.uid));
    description.add_labels(Some(&node.meta));
    Owner {
        object: Arc::new(description.finish()),
        node: Some(Arc::clone(&node.meta.name)),
        ..Owner::new(Role::Node)
    }
}
