//! What enrichment adds to a record: who the ends are, which way the flow runs as seen from this node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What enrichment knows of one end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The name that the configuration gives to its network.
    pub name: Option<Arc<str>>,
    /// What Kubernetes says of it; `None` where Kubernetes isn't asked.
    pub kubernetes: Option<KubernetesEnd>,
}

/// What enrichment knows of a record as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enrichment {
    /// Which way the flow runs, as seen from this node; `None` where nothing tells.
    pub direction: Option<FlowDirection>,
    /// The identities are of this age: what they come from has not been heard from since. `None` while it answers.
    pub degraded: Option<Duration>,
    /// Nobody was asked, because processor time was short: the ends have no names.
    pub omitted: bool,
}

impl Enrichment {
    /// The value of `enrichment`.
    #[must_use]
    pub const fn note(&self) -> Option<&'static str> {
        match self {
            Self { omitted: true, .. } => Some("omitted"),
            Self { degraded: Some(_), .. } => Some("degraded"),
            _ => None,
        }
    }
}

/// Which way a flow runs, from source to destination, as seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowDirection {
    /// From elsewhere to an end on this node.
    Inbound,
    /// From an end on this node to elsewhere.
    Outbound,
    /// Between two ends on this node.
    WithinNode,
    /// Between two ends elsewhere: this node forwards.
    Transit,
}

impl FlowDirection {
    /// The value of `flow.direction`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::WithinNode => "within node",
            Self::Transit => "transit",
        }
    }

    /// The value of OpenTelemetry's `network.io.direction`, which knows two.
    #[must_use]
    pub const fn network_io(self) -> Option<&'static str> {
        match self {
            Self::Inbound => Some("receive"),
            Self::Outbound => Some("transmit"),
            Self::WithinNode | Self::Transit => None,
        }
    }
}

/// Whether an address had one owner at the time of the flow's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// One.
    Exact,
    /// Two or more, or it can't be told which; only what they have in common is said.
    Ambiguous,
    /// None that is known.
    Unknown,
}

impl Resolution {
    /// The value of `source.k8s.resolution`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Ambiguous => "ambiguous",
            Self::Unknown => "unknown",
        }
    }
}

/// What Kubernetes knows of one end of a flow, at the time of its packets.
#[derive(Clone, PartialEq, Eq)]
pub struct KubernetesEnd {
    /// Whether the owner of the address is known.
    pub resolution: Resolution,
    /// That owner: a pod, a node or a service.
    pub object: Option<Arc<KubernetesObject>>,
    /// The pod's container that has the port; the only one, where a pod has one.
    pub container: Option<Arc<str>>,
    /// The service whose backend, or whose port on all nodes, this address and port are, where that is one; `None` where
    /// the owner is a service.
    pub service: Option<Arc<KubernetesObject>>,
}

impl KubernetesEnd {
    /// Of an address that nobody is known to own.
    pub const UNKNOWN: Self =
        Self { resolution: Resolution::Unknown, object: None, container: None, service: None };

    /// All attributes but the resolution and the labels, in the order of [`KubernetesAttribute`].
    pub fn attributes(&self) -> impl Iterator<Item = (KubernetesAttribute, &Arc<str>)> {
        use KubernetesAttribute::{ContainerName, NamespaceName, ServiceName};
        let own = self.object.as_deref().map_or(&[][..], |object| &object.attributes);
        let (before, after) = own.split_at(own.partition_point(|(attribute, _)| *attribute < ContainerName));
        let service = self.service.as_deref().map_or(&[][..], |service| &service.attributes);
        // A pod is in the namespace of its services; a node, whose port is one's, is in none.
        let without = own.first().is_none_or(|(attribute, _)| *attribute != NamespaceName);
        let namespace = service.iter().filter(move |(attribute, _)| without && *attribute == NamespaceName);
        let service = service.iter().filter(|(attribute, _)| *attribute >= ServiceName);
        let container = self.container.iter().map(|name| (ContainerName, name));
        namespace
            .chain(before)
            .map(|(attribute, value)| (*attribute, value))
            .chain(container)
            .chain(after.iter().chain(service).map(|(attribute, value)| (*attribute, value)))
    }

    /// Chosen labels and annotations: names without `source.` or `destination.`, values.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.object.iter().flat_map(|object| &object.labels);
        labels.map(|(name, value)| (&**name, &**value))
    }
}

/// As a debugger wants to see it: objects by their names.
impl fmt::Debug for KubernetesEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attributes = |object: &Option<Arc<KubernetesObject>>| {
            object.as_ref().map(|object| format!("{:?}", object.attributes))
        };
        f.debug_struct("KubernetesEnd")
            .field("resolution", &self.resolution)
            .field("object", &attributes(&self.object))
            .field("container", &self.container)
            .field("service", &attributes(&self.service))
            .finish()
    }
}

/// What an object of Kubernetes adds to a record: its own names and its owners', ready to be written. Shared by all
/// records that name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesObject {
    /// In the order of [`KubernetesAttribute`], each at most once. Without the container's name, which depends on the
    /// flow; a pod's without its services'.
    pub attributes: Box<[(KubernetesAttribute, Arc<str>)]>,
    /// Chosen labels and annotations: the attribute's name without `source.` or `destination.`, for example
    /// `k8s.pod.label.app`; sorted by it.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
}

impl KubernetesObject {
    /// The value of an attribute.
    #[must_use]
    pub fn get(&self, attribute: KubernetesAttribute) -> Option<&Arc<str>> {
        self.attributes.iter().find(|(known, _)| *known == attribute).map(|(_, value)| value)
    }
}

macro_rules! attributes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The `k8s.…` attributes of one end, with OpenTelemetry's names, in the order in which a record has them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum KubernetesAttribute {
            $($(#[$doc])* $variant,)*
        }

        impl KubernetesAttribute {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name without `source.` or `destination.`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

attributes! {
    /// Namespace.
    NamespaceName = "k8s.namespace.name",
    /// Pod.
    PodName = "k8s.pod.name",
    /// Pod's uid.
    PodUid = "k8s.pod.uid",
    /// Container; not in [`KubernetesObject`], it depends on the flow.
    ContainerName = "k8s.container.name",
    /// The node itself, or the node that the pod runs on.
    NodeName = "k8s.node.name",
    /// The node's uid.
    NodeUid = "k8s.node.uid",
    /// Owner, or owner's owner.
    DeploymentName = "k8s.deployment.name",
    /// Its uid.
    DeploymentUid = "k8s.deployment.uid",
    /// Owner.
    ReplicaSetName = "k8s.replicaset.name",
    /// Its uid.
    ReplicaSetUid = "k8s.replicaset.uid",
    /// Owner.
    StatefulSetName = "k8s.statefulset.name",
    /// Its uid.
    StatefulSetUid = "k8s.statefulset.uid",
    /// Owner.
    DaemonSetName = "k8s.daemonset.name",
    /// Its uid.
    DaemonSetUid = "k8s.daemonset.uid",
    /// Owner.
    JobName = "k8s.job.name",
    /// Its uid.
    JobUid = "k8s.job.uid",
    /// Owner's owner.
    CronJobName = "k8s.cronjob.name",
    /// Its uid.
    CronJobUid = "k8s.cronjob.uid",
    /// The service whose address this is, or the one service whose backend this address and port are.
    ServiceName = "k8s.service.name",
    /// Its uid.
    ServiceUid = "k8s.service.uid",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_reference() {
        use FlowDirection::{Inbound, Outbound, Transit, WithinNode};
        let all = [Inbound, Outbound, WithinNode, Transit];
        assert_eq!(all.map(FlowDirection::name), ["inbound", "outbound", "within node", "transit"]);
        assert_eq!(all.map(FlowDirection::network_io), [Some("receive"), Some("transmit"), None, None]);
        let all = [Resolution::Exact, Resolution::Ambiguous, Resolution::Unknown];
        assert_eq!(all.map(Resolution::name), ["exact", "ambiguous", "unknown"]);
    }

    #[test]
    fn an_objects_attributes_are_found_by_name() {
        let object = KubernetesObject {
            attributes: Box::new([
                (KubernetesAttribute::NamespaceName, "shop".into()),
                (KubernetesAttribute::PodName, "cart-0".into()),
            ]),
            labels: Box::default(),
        };
        assert_eq!(object.get(KubernetesAttribute::PodName).map(AsRef::as_ref), Some("cart-0"));
        assert_eq!(object.get(KubernetesAttribute::PodUid), None);
    }

    #[test]
    fn an_ends_attributes_are_those_of_all_its_parts_in_order() {
        use KubernetesAttribute::{ContainerName, NamespaceName, NodeName, PodName, ServiceName, ServiceUid};
        let object = |attributes: &[(KubernetesAttribute, &str)]| {
            let attributes = attributes.iter().map(|(attribute, value)| (*attribute, Arc::from(*value)));
            Some(Arc::new(KubernetesObject { attributes: attributes.collect(), labels: Box::default() }))
        };
        let end = KubernetesEnd {
            resolution: Resolution::Exact,
            object: object(&[(NamespaceName, "shop"), (PodName, "cart-0"), (NodeName, "n1")]),
            container: Some("app".into()),
            service: object(&[(NamespaceName, "shop"), (ServiceName, "cart"), (ServiceUid, "u")]),
        };
        let names: Vec<_> = end.attributes().map(|(attribute, value)| (attribute, &**value)).collect();
        let expected = [
            (NamespaceName, "shop"),
            (PodName, "cart-0"),
            (ContainerName, "app"),
            (NodeName, "n1"),
            (ServiceName, "cart"),
            (ServiceUid, "u"),
        ];
        assert_eq!(names, expected);
        assert!(names.is_sorted());
        let node_port = KubernetesEnd { object: object(&[(NodeName, "n1")]), container: None, ..end };
        let names: Vec<_> = node_port.attributes().map(|(attribute, value)| (attribute, &**value)).collect();
        let expected = [(NamespaceName, "shop"), (NodeName, "n1"), (ServiceName, "cart"), (ServiceUid, "u")];
        assert_eq!(names, expected);
        assert_eq!(KubernetesEnd::UNKNOWN.attributes().count(), 0);
    }

    /// Ends are moved with every record.
    #[test]
    fn an_end_stays_small() {
        assert!(size_of::<Identity>() <= 56, "{}", size_of::<Identity>());
    }
}
