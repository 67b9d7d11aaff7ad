//! What is kept of the cluster's objects: stripped on arrival, so that memory follows what records can say.
//!
//! The watches make these and hand them on as [`Change`]s; the directory keeps them and answers lookups.

pub(crate) use crate::clock::Time;
use std::net::IpAddr;
use std::sync::Arc;

/// Kinds of objects that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pods.
    Pod,
    /// Nodes.
    Node,
    /// Services.
    Service,
    /// Endpoint slices.
    EndpointSlice,
    /// Namespaces, for their labels.
    Namespace,
    /// Replica sets, for the deployments that own them.
    ReplicaSet,
    /// Jobs, for the cron jobs that own them.
    Job,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Pod,
        Self::Node,
        Self::Service,
        Self::EndpointSlice,
        Self::Namespace,
        Self::ReplicaSet,
        Self::Job,
    ];

    /// The resource's name in the API, plural: as in RBAC rules.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Node => "nodes",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::Namespace => "namespaces",
            Self::ReplicaSet => "replicasets",
            Self::Job => "jobs",
        }
    }

    /// The resource's API group; empty for the core group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::Pod | Self::Node | Self::Service | Self::Namespace => "",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::ReplicaSet => "apps",
            Self::Job => "batch",
        }
    }
}

/// What happened to the objects of one kind, in the order in which the API server tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A list of all objects begins (first contact, or after the watch could not be resumed).
    ListBegins(Kind),
    /// One of the objects in that list.
    Listed(Object),
    /// The list is complete: objects of the kind that were known before and were not listed are gone. When they went is
    /// not known: at some time since the kind was last heard of.
    ListEnds(Kind),
    /// Made or changed.
    Applied(Object),
    /// Deleted.
    Deleted(Object),
    /// The API server was heard of for this kind and has nothing more to tell: up to now all is known. Told at least
    /// every second or two while that is so, also when nothing changes (a bookmark, a probe that was answered): records
    /// wait for it.
    Heard(Kind),
    /// The watch broke, or nobody answers: what is told from here to the next `Heard` may have happened at any time
    /// since the last one.
    Interrupted(Kind),
    /// The same, and there is no right to watch the kind: nothing is told of it until there is.
    Forbidden(Kind),
}

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Pod(Pod),
    Node(Node),
    Service(Service),
    EndpointSlice(EndpointSlice),
    Namespace(Meta),
    /// A replica set or a job: an owner that may itself be owned.
    Owner(Kind, Meta),
}

impl Object {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pod,
            Self::Node(_) => Kind::Node,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Namespace(_) => Kind::Namespace,
            Self::Owner(kind, _) => *kind,
        }
    }

    pub(crate) const fn meta(&self) -> &Meta {
        match self {
            Self::Pod(Pod { meta, .. })
            | Self::Node(Node { meta, .. })
            | Self::Service(Service { meta, .. })
            | Self::EndpointSlice(EndpointSlice { meta, .. })
            | Self::Namespace(meta)
            | Self::Owner(_, meta) => meta,
        }
    }
}

/// What all objects have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Empty for kinds that aren't namespaced.
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) uid: Arc<str>,
    /// `metadata.creationTimestamp`: whole seconds.
    pub(crate) created: Option<Time>,
    /// `metadata.deletionTimestamp` less the grace period: when its deletion was asked for. Whole seconds.
    pub(crate) deletion_asked: Option<Time>,
    /// The owner that controls it.
    pub(crate) owner: Option<Owner>,
    /// Chosen labels, as attributes without `source.`: (`k8s.pod.label.app`, value), sorted.
    pub(crate) labels: Box<[(Arc<str>, Arc<str>)]>,
}

/// The controlling owner of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) kind: OwnerKind,
    pub(crate) name: Arc<str>,
    pub(crate) uid: Arc<str>,
}

/// Kinds of owners that records name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OwnerKind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) meta: Meta,
    pub(crate) node: Option<Arc<str>>,
    /// `status.podIPs`; of a host-network pod the node's.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host_network: bool,
    /// `status.startTime`: when the kubelet took the pod on, before it had an address. Whole seconds.
    pub(crate) started: Option<Time>,
    /// Since when one of its containers runs (`state.running.startedAt`, the earliest): it had its address then. Whole
    /// seconds.
    pub(crate) running: Option<Time>,
    /// When it came to an end (phase `Succeeded` or `Failed`): the latest end of its containers, as far as they say.
    /// Whole seconds. Its addresses may belong to others from then on.
    pub(crate) finished: Option<Time>,
    /// Whether it has come to an end.
    pub(crate) is_finished: bool,
    pub(crate) containers: Vec<Container>,
    /// Whether it has others beside these: init containers that end, or ephemeral ones.
    pub(crate) has_other_containers: bool,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) name: Arc<str>,
    /// `containerPort`, and `hostPort` where one is set: protocol number and port. With host network both are the same.
    pub(crate) ports: Vec<ContainerPort>,
}

/// A port that a container declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContainerPort {
    /// IANA protocol number: 6, 17 or 132.
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) host_port: Option<u16>,
    /// The one address of the node that `host_port` is of; `None`: all.
    pub(crate) host_address: Option<IpAddr>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) meta: Meta,
    /// `InternalIP` and `ExternalIP` addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, as addresses with prefix lengths.
    pub(crate) pod_networks: Vec<(IpAddr, u8)>,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) meta: Meta,
    /// `spec.clusterIPs`, without `None`.
    pub(crate) cluster_addresses: Vec<IpAddr>,
    /// `spec.externalIPs` and `status.loadBalancer.ingress[].ip`.
    pub(crate) external_addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<ServicePort>,
}

/// A port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// IANA protocol number.
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

/// An endpoint slice: some backends of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndpointSlice {
    pub(crate) meta: Meta,
    /// The service's name, in the same namespace (label `kubernetes.io/service-name`).
    pub(crate) service: Option<Arc<str>>,
    /// Protocol number and port; a port without number stands for all ports.
    pub(crate) ports: Vec<(u8, Option<u16>)>,
    pub(crate) backends: Vec<Backend>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) addresses: Vec<IpAddr>,
    /// The uid of the pod that it is (`targetRef`), if it is one: an address alone may be another pod's by now.
    pub(crate) pod: Option<Arc<str>>,
}
