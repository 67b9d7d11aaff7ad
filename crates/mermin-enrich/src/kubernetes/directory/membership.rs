//! Which pods are backends of which services, by the endpoint slices.
//!
//! A service may have several slices, and a pod may be in two of them: one for each family of addresses, or while it is
//! moved from one to another. It is a backend as long as one has it.

use super::Directory;
use super::holder::{Body, Holder, ServiceName, Uid};
use crate::kubernetes::object::{EndpointSlice, Kind, Time};
use crate::kubernetes::owner::Membership;
use mermin_flow::{KubernetesAttribute, KubernetesObject};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A pod's port among a service's backends.
pub(super) struct Member {
    pub(super) service: ServiceName,
    pub(super) protocol: u8,
    /// `None`: all ports.
    pub(super) port: Option<u16>,
    pub(super) from: Time,
    /// [`Time::MAX`] while a slice has it.
    pub(super) until: Time,
    /// How many slices have it.
    slices: u32,
    /// The service, once it was known, and whether it has an address of its own.
    pub(super) object: Option<(Arc<KubernetesObject>, bool)>,
}

impl Member {
    /// Whether it is of another service than `object`, which has the same name.
    fn is_anothers(&self, object: Option<&(Arc<KubernetesObject>, bool)>) -> bool {
        let uid = |(object, _): &(Arc<KubernetesObject>, bool)| {
            object.get(KubernetesAttribute::ServiceUid).map(Arc::clone)
        };
        self.object.as_ref().is_some_and(|own| uid(own) != object.and_then(uid))
    }

    /// For the index; not before the service is known.
    pub(super) fn membership(&self) -> Option<Membership> {
        let (service, has_address) = self.object.clone()?;
        let (protocol, port, from, until) = (self.protocol, self.port, self.from, self.until);
        Some(Membership { service, has_address, protocol, port, from, until })
    }
}

/// Backends of one slice: pods with protocol and port.
type Backends = BTreeSet<(Uid, u8, Option<u16>)>;

fn backends(slice: &EndpointSlice) -> Backends {
    let pods = slice.backends.iter().filter_map(|backend| backend.pod.as_ref());
    pods.flat_map(|pod| slice.ports.iter().map(|(protocol, port)| (Arc::clone(pod), *protocol, *port)))
        .collect()
}

fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    slice.service.as_ref().map(|name| (Arc::clone(&slice.meta.namespace), Arc::clone(name)))
}

impl Directory {
    pub(super) fn put_slice(&mut self, slice: EndpointSlice, now: Time) {
        let (service, new) = (service_of(&slice), backends(&slice));
        let old = self.slices.insert(Arc::clone(&slice.meta.uid), slice);
        let (old_service, old) = old.as_ref().map(|old| (service_of(old), backends(old))).unwrap_or_default();
        if service != old_service {
            self.leave(old_service.as_ref(), &old, now);
            self.join(service.as_ref(), &new, now);
        } else {
            self.join(service.as_ref(), &new.difference(&old).cloned().collect(), now);
            self.leave(service.as_ref(), &old.difference(&new).cloned().collect(), now);
        }
    }

    pub(super) fn remove_slice(&mut self, uid: &Uid, now: Time) {
        if let Some(slice) = self.slices.remove(uid) {
            self.leave(service_of(&slice).as_ref(), &backends(&slice), now);
        }
    }

    fn join(&mut self, service: Option<&ServiceName>, backends: &Backends, now: Time) {
        let Some(service) = service else { return };
        if backends.is_empty() {
            return;
        }
        let kind = Kind::EndpointSlice;
        let from = match &self.listing[kind as usize] {
            // Since when a pod of the first list is a backend, and whose it was before, nobody tells.
            Some((begun, _)) if self.watches[kind as usize].heard.is_none() => *begun,
            _ => self.happened(kind, now, None),
        };
        let object = self.service_object(service);
        for (pod, protocol, port) in backends {
            let members = self.members.entry(Arc::clone(pod)).or_default();
            let same = |member: &&mut Member| {
                (&member.service, member.protocol, member.port) == (service, *protocol, *port)
                    && (member.object.as_ref().map(|(object, _)| object)
                        == object.as_ref().map(|(object, _)| object))
            };
            match members.iter_mut().filter(same).max_by_key(|member| member.until) {
                Some(member) if member.until >= from => {
                    member.until = Time::MAX;
                    member.slices += 1;
                }
                _ => members.push(Member {
                    service: service.clone(),
                    protocol: *protocol,
                    port: *port,
                    from,
                    until: Time::MAX,
                    slices: 1,
                    object: object.clone(),
                }),
            }
            self.served.entry(service.clone()).or_default().insert(Arc::clone(pod));
        }
        self.rewrite_all(backends);
    }

    fn leave(&mut self, service: Option<&ServiceName>, backends: &Backends, now: Time) {
        let Some(service) = service else { return };
        for (pod, protocol, port) in backends {
            let Some(members) = self.members.get_mut(pod) else { continue };
            let same = |member: &&mut Member| {
                (&member.service, member.protocol, member.port) == (service, *protocol, *port)
                    && member.slices > 0
            };
            if let Some(member) = members.iter_mut().find(same) {
                member.slices -= 1;
                if member.slices == 0 {
                    member.until = now;
                }
            }
            if !self.holders.contains_key(pod) && members.iter().all(|member| member.slices == 0) {
                self.forget_members(pod);
            }
        }
        self.rewrite_all(backends);
    }

    /// Tells pods of a service that is known now, or has changed, at some time since `changed`.
    pub(super) fn tell_members(&mut self, service: &ServiceName, changed: Time) {
        let object = self.service_object(service);
        let pods = self.served.get(service).into_iter().flatten().cloned().collect::<Vec<_>>();
        for pod in &pods {
            let Some(members) = self.members.get_mut(pod) else { continue };
            let mut anew = Vec::new();
            for member in members.iter_mut().filter(|member| member.service == *service && member.slices > 0)
            {
                if member.is_anothers(object.as_ref()) {
                    let service = service.clone();
                    anew.push(Member { service, from: changed, object: object.clone(), ..*member });
                    (member.until, member.slices) = (self.now, 0);
                } else {
                    member.object.clone_from(&object);
                }
            }
            members.append(&mut anew);
            self.rewrite(pod);
        }
    }

    pub(super) fn forget_members(&mut self, pod: &Uid) {
        for member in self.members.remove(pod).unwrap_or_default() {
            if let Some(pods) = self.served.get_mut(&member.service) {
                pods.remove(pod);
                if pods.is_empty() {
                    self.served.remove(&member.service);
                }
            }
        }
    }

    fn service_object(&self, service: &ServiceName) -> Option<(Arc<KubernetesObject>, bool)> {
        match self.services.get(service).and_then(|uid| self.holders.get(uid)) {
            Some(Holder { body: Body::Service(service), owner, .. }) => {
                Some((Arc::clone(&owner.object), !service.cluster_addresses.is_empty()))
            }
            _ => None,
        }
    }

    fn rewrite_all(&mut self, backends: &Backends) {
        let pods: BTreeSet<&Uid> = backends.iter().map(|(pod, ..)| pod).collect();
        pods.into_iter().for_each(|pod| self.rewrite(pod));
    }
}
