//! Services: their addresses in the cluster, those that others reach them at, and their ports of all nodes.

use super::Directory;
use super::describe::Description;
use super::holder::{Beginning, Body, Claim, Holder, ServiceName, Uid};
use super::life::{End, Life};
use crate::kubernetes::evidence::{SECOND, SKEW};
use crate::kubernetes::index::Place;
use crate::kubernetes::object::{Kind, Service, Time};
use crate::kubernetes::owner::{Owner, Role};
use mermin_flow::KubernetesAttribute;
use std::sync::Arc;

impl Directory {
    pub(super) fn put_service(&mut self, service: Service, now: Time) {
        let uid = Arc::clone(&service.meta.uid);
        let name: ServiceName = (Arc::clone(&service.meta.namespace), Arc::clone(&service.meta.name));
        let known = self.holders.get(&uid);
        if known.is_some_and(|holder| holder.life.deleted.is_some()) {
            return;
        }
        let (is_new, born) = (known.is_none(), known.map(|holder| holder.life.born));
        let had_address = known.map(has_cluster_address);
        let created = service.meta.created.filter(|_| is_new);
        let changed = self.happened(Kind::Service, now, created);
        let made = created.map_or(now, |created| now.min(created + SECOND + SKEW));
        // The API server gives a service its address when it is made; all else may come later.
        let beginning = |place: Place| Beginning {
            possible_from: changed,
            certain_from: if place.is_whole() { made } else { now },
        };
        let has_address = !service.cluster_addresses.is_empty();
        let body = Body::Service(service);
        if let Some(holder) = self.holders.get_mut(&uid) {
            holder.body = body;
        } else {
            let life = Life { born: born.unwrap_or(changed), ..Life::default() };
            let owner = Arc::new(Owner::new(Role::Service));
            let holder = Holder { body, life, holds: Vec::new(), owner, controller: None };
            self.holders.insert(Arc::clone(&uid), holder);
            self.services.insert(name.clone(), Arc::clone(&uid));
        }
        let before = self.holders.get(&uid).map(|holder| Arc::clone(&holder.owner));
        let claims = self.service_claims(&uid);
        let lost = End { not_before: changed, not_after: now };
        self.hold(&uid, &claims, beginning, lost);
        let after = self.holders.get(&uid).map(|holder| Arc::clone(&holder.owner));
        if before != after || had_address != Some(has_address) {
            self.tell_members(&name, changed);
        }
    }

    /// The places that a service has: cluster addresses as a whole; of addresses that it may share, its ports.
    pub(super) fn service_claims(&mut self, uid: &Uid) -> Vec<Claim> {
        let Some(Holder { body: Body::Service(service), owner, .. }) = self.holders.get_mut(uid) else {
            return Vec::new();
        };
        let mut description = Description::default();
        description.add(KubernetesAttribute::NamespaceName, Some(&service.meta.namespace));
        description.add(KubernetesAttribute::ServiceName, Some(&service.meta.name));
        description.add(KubernetesAttribute::ServiceUid, Some(&service.meta.uid));
        description.add_labels(Some(&service.meta));
        description.add_labels(self.namespaces.get(&service.meta.namespace));
        let described = Owner { object: Arc::new(description.finish()), ..Owner::new(Role::Service) };
        if **owner != described {
            *owner = Arc::new(described);
        }
        let of_cluster = service.cluster_addresses.iter().map(|address| Place::address(*address));
        let of_others = service.external_addresses.iter().flat_map(|address| {
            service.ports.iter().map(|port| Place::port(*address, port.protocol, port.port))
        });
        let of_nodes = service.ports.iter();
        let of_nodes = of_nodes.filter_map(|port| Some(Place::node_port(port.protocol, port.node_port?)));
        of_cluster.chain(of_others).chain(of_nodes).map(|place| (place, Arc::clone(owner))).collect()
    }
}

fn has_cluster_address(holder: &Holder) -> bool {
    matches!(&holder.body, Body::Service(service) if !service.cluster_addresses.is_empty())
}
