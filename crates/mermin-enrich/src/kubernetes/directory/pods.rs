//! Pods: their addresses, the ports that they have of their node's, and the chain of their owners.

use super::Directory;
use super::describe::Description;
use super::holder::{Beginning, Body, Claim, Holder, Uid};
use super::life::{End, Life};
use crate::kubernetes::evidence::{CAUTION, SECOND, SETTLE, SKEW};
use crate::kubernetes::index::Place;
use crate::kubernetes::object::{Kind, Pod, Time};
use crate::kubernetes::owner::{Containers, Owner, Role};
use mermin_flow::KubernetesAttribute;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

impl Directory {
    pub(super) fn put_pod(&mut self, pod: Pod, now: Time) {
        let uid = Arc::clone(&pod.meta.uid);
        let Some((life, is_placed_now)) = self.live(&pod, now) else { return };
        let lost = End {
            not_before: life.certain_until().min(self.pods_heard(now).saturating_sub(SETTLE)),
            not_after: now,
        };
        let (node, owner) = (pod.node.clone(), pod.meta.owner.as_ref().map(|owner| Arc::clone(&owner.uid)));
        let running = pod.running;
        let body = Body::Pod(pod);
        self.adopt(&uid, owner);
        if let Some(holder) = self.holders.get_mut(&uid) {
            (holder.body, holder.life) = (body, life);
        } else {
            let owner = Arc::new(Owner::new(Role::Pod));
            let holder = Holder { body, life, holds: Vec::new(), owner, controller: None };
            self.holders.insert(Arc::clone(&uid), holder);
        }
        if let Some(node) = node.filter(|_| is_placed_now) {
            self.placed.entry(node).or_default().push(Arc::clone(&uid));
        }
        let claims = self.pod_claims(&uid);
        let beginning = self.beginning(&uid, running, &claims, now);
        self.hold(&uid, &claims, |_| beginning, lost);
    }

    /// Notes a pod's owner, which may be another than it was: pods are let go of and adopted by their labels.
    fn adopt(&mut self, pod: &Uid, owner: Option<Uid>) {
        let holder = self.holders.get_mut(pod);
        let before = holder.as_ref().and_then(|holder| holder.body.meta().owner.as_ref());
        let before = before.map(|owner| Arc::clone(&owner.uid));
        if before == owner {
            return;
        }
        if let Some(holder) = holder {
            holder.controller = None;
        }
        if let Some(before) = before {
            take_out(&mut self.owned, &before, pod);
        }
        if let Some(owner) = owner {
            self.owned.entry(owner).or_default().push(Arc::clone(pod));
        }
    }

    /// What is known of a pod's life with what is told of it now, and whether it has a node for the first time; `None`
    /// of one that is gone.
    fn live(&mut self, pod: &Pod, now: Time) -> Option<(Life, bool)> {
        let known = self.holders.get(&pod.meta.uid);
        let before = known.and_then(|holder| match &holder.body {
            Body::Pod(before) => {
                Some((holder.life, before.node.is_some(), before.meta.deletion_asked.is_some()))
            }
            _ => None,
        });
        let (mut life, was_placed, was_asked) = before.unwrap_or_default();
        if life.deleted.is_some() {
            return None;
        }
        let is_placed_now = pod.node.is_some() && !was_placed;
        if before.is_none() {
            life.born = self.happened(Kind::Pod, now, pod.meta.created);
        } else if is_placed_now {
            // Nobody gives an address to a pod without a node.
            life.born = life.born.max(self.happened(Kind::Pod, now, None));
        }
        let started = pod.started.map_or(0, |started| started.saturating_sub(SKEW));
        life.born = life.born.max(started).min(now);
        if pod.meta.deletion_asked.is_some() && !was_asked {
            let asked = self.happened(Kind::Pod, now, pod.meta.deletion_asked);
            life.asked = Some(asked.saturating_sub(CAUTION));
        }
        if pod.is_finished {
            life.finish(now, pod.finished, !self.is_behind(Kind::Pod, now));
        }
        Some((life, is_placed_now))
    }

    /// When the pod can have got a place that it is told to have now, and had not before.
    fn beginning(&self, uid: &Uid, running: Option<Time>, claims: &[Claim], now: Time) -> Beginning {
        let (holds, born) =
            self.holders.get(uid).map_or((&[][..], 0), |holder| (&holder.holds, holder.life.born));
        let is_kept = |place: Place| claims.iter().any(|(claimed, _)| *claimed == place);
        if holds.iter().any(|hold| hold.lost.is_some() || !is_kept(hold.place)) {
            // Not its first; how long it has had this one, its status doesn't tell.
            let possible_from = born.max(self.pods_heard(now).saturating_sub(SETTLE));
            return Beginning { possible_from, certain_from: now };
        }
        let running = running.map_or(now, |running| running + SECOND + SKEW);
        Beginning { possible_from: born, certain_from: now.min(running) }
    }

    /// Up to when all was known of pods before what is told now.
    fn pods_heard(&self, now: Time) -> Time {
        let heard = self.watches[Kind::Pod as usize].heard;
        if self.is_behind(Kind::Pod, now) { heard.unwrap_or_default() } else { now }
    }

    pub(super) fn forget_pod(&mut self, pod: &Pod) {
        let uid = &pod.meta.uid;
        if let Some(owner) = &pod.meta.owner {
            take_out(&mut self.owned, &owner.uid, uid);
        }
        if let Some(node) = &pod.node {
            take_out(&mut self.placed, node, uid);
        }
        self.forget_members(uid);
    }

    /// The places that a pod has, each with what is said of the pod there. Also makes that its `owner`.
    pub(super) fn pod_claims(&mut self, uid: &Uid) -> Vec<Claim> {
        let Some(owner) = self.describe_pod(uid) else { return Vec::new() };
        let Some(holder) = self.holders.get_mut(uid) else { return Vec::new() };
        let owner = if *holder.owner == owner { Arc::clone(&holder.owner) } else { Arc::new(owner) };
        holder.owner = Arc::clone(&owner);
        let Some(Holder { body: Body::Pod(pod), .. }) = self.holders.get(uid) else { return Vec::new() };
        if pod.host_network {
            let ports = pod.containers.iter().flat_map(|container| &container.ports);
            let ports = ports.flat_map(|port| pod.addresses.iter().map(move |at| (*at, port)));
            return ports
                .map(|(at, port)| (Place::port(at, port.protocol, port.port), Arc::clone(&owner)))
                .collect();
        }
        let own = pod.addresses.iter().map(|address| (Place::address(*address), Arc::clone(&owner)));
        let mut claims: Vec<Claim> = own.collect();
        if !pod.addresses.is_empty() {
            add_host_ports(pod, &owner, self.node_addresses(pod), &mut claims);
        }
        claims
    }

    fn node_addresses(&self, pod: &Pod) -> &[IpAddr] {
        let node = pod.node.as_ref().and_then(|name| self.nodes.get(name));
        match node.and_then(|uid| self.holders.get(uid)).map(|holder| &holder.body) {
            Some(Body::Node(node)) => &node.addresses,
            _ => &[],
        }
    }

    fn describe_pod(&mut self, uid: &Uid) -> Option<Owner> {
        use KubernetesAttribute as A;
        let holder = self.holders.get_mut(uid)?;
        let Body::Pod(pod) = &holder.body else { return None };
        let mut description = Description::default();
        description.add(A::NamespaceName, Some(&pod.meta.namespace));
        description.add(A::PodName, Some(&pod.meta.name));
        description.add(A::PodUid, Some(&pod.meta.uid));
        description.add(A::NodeName, pod.node.as_ref());
        description.add(A::NodeUid, pod.node.as_ref().and_then(|name| self.nodes.get(name)));
        if let Some(owner) = &pod.meta.owner {
            description.add_owner(owner);
            if let Some((_, meta)) = self.owners.get(&owner.uid) {
                holder.controller.clone_from(&meta.owner);
            }
            if let Some(above) = &holder.controller {
                description.add_owner(above);
            }
        }
        description.add_labels(Some(&pod.meta));
        description.add_labels(self.namespaces.get(&pod.meta.namespace));
        let (mut members, memory) = (self.members.get_mut(uid), self.shared.memory());
        if let Some(members) = &mut members {
            members.retain(|member| member.until.saturating_add(memory) >= self.now);
        }
        let members = members.into_iter().flat_map(|members| members.iter());
        Some(Owner {
            role: Role::Pod,
            object: Arc::new(description.finish()),
            node: pod.node.clone(),
            containers: Containers::of(&pod.containers, pod.has_other_containers),
            services: members.filter_map(super::Member::membership).collect(),
        })
    }
}

/// The ports of the node that are forwarded to a pod: there, the container is known.
fn add_host_ports(pod: &Pod, owner: &Owner, addresses: &[IpAddr], claims: &mut Vec<Claim>) {
    for container in &pod.containers {
        for port in &container.ports {
            let Some(host_port) = port.host_port else { continue };
            let containers = Containers::Only(Arc::clone(&container.name));
            let owner = Arc::new(Owner { containers, services: Box::default(), ..owner.clone() });
            let place = |at: &IpAddr| Place::port(*at, port.protocol, host_port);
            let addresses = port.host_address.as_ref().map_or(addresses, std::slice::from_ref);
            // Every node has the loopback addresses.
            let addresses = addresses.iter().filter(|at| !at.is_loopback());
            claims.extend(addresses.map(|at| (place(at), Arc::clone(&owner))));
        }
    }
}

fn take_out(map: &mut HashMap<Arc<str>, Vec<Uid>>, key: &Arc<str>, uid: &Uid) {
    if let Some(list) = map.get_mut(key) {
        list.retain(|other| other != uid);
        if list.is_empty() {
            map.remove(key);
        }
    }
}
