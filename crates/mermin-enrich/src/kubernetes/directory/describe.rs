//! From an object and its owners to what a record says.

use crate::kubernetes::object::{Meta, Owner, OwnerKind};
use mermin_flow::{KubernetesAttribute, KubernetesObject};
use std::sync::Arc;

/// Attributes of one object, in any order.
#[derive(Default)]
pub(crate) struct Description {
    attributes: Vec<(KubernetesAttribute, Arc<str>)>,
    labels: Vec<(Arc<str>, Arc<str>)>,
}

impl Description {
    /// Adds an attribute, where there is a value.
    pub(crate) fn add(&mut self, attribute: KubernetesAttribute, value: Option<&Arc<str>>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.attributes.push((attribute, Arc::clone(value)));
        }
    }

    /// Adds an owner's name and uid.
    pub(crate) fn add_owner(&mut self, owner: &Owner) {
        use KubernetesAttribute as A;
        let (name, uid) = match owner.kind {
            OwnerKind::Deployment => (A::DeploymentName, A::DeploymentUid),
            OwnerKind::ReplicaSet => (A::ReplicaSetName, A::ReplicaSetUid),
            OwnerKind::StatefulSet => (A::StatefulSetName, A::StatefulSetUid),
            OwnerKind::DaemonSet => (A::DaemonSetName, A::DaemonSetUid),
            OwnerKind::Job => (A::JobName, A::JobUid),
            OwnerKind::CronJob => (A::CronJobName, A::CronJobUid),
        };
        self.add(name, Some(&owner.name));
        self.add(uid, Some(&owner.uid));
    }

    /// Adds chosen labels of an object.
    pub(crate) fn add_labels(&mut self, meta: Option<&Meta>) {
        self.labels.extend(meta.iter().flat_map(|meta| meta.labels.iter().cloned()));
    }

    pub(crate) fn finish(mut self) -> KubernetesObject {
        self.attributes.sort_by_key(|(attribute, _)| *attribute);
        self.attributes.dedup_by_key(|(attribute, _)| *attribute);
        self.labels.sort();
        KubernetesObject { attributes: self.attributes.into(), labels: self.labels.into() }
    }
}
