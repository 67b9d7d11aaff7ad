//! What the index says of an owner: ready to be put into a record.
//!
//! An owner is never changed: when something new is learned of it, another takes its place in the index.

use crate::kubernetes::object::{Container, Time};
use crate::kubernetes::tenure::Span;
use mermin_flow::KubernetesObject;
use std::sync::Arc;

/// What kind of owner it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Pod,
    Node,
    Service,
}

/// Someone who has an address, or a port of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) role: Role,
    pub(crate) object: Arc<KubernetesObject>,
    /// The node that it is or runs on.
    pub(crate) node: Option<Arc<str>>,
    pub(crate) containers: Containers,
    /// The services whose backend it is, now or earlier.
    pub(crate) services: Box<[Membership]>,
}

/// How a container is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Containers {
    /// There is none, or nothing tells which.
    None,
    /// There is one.
    Only(Arc<str>),
    /// By protocol and port.
    ByPort(Box<[(u8, u16, Arc<str>)]>),
}

impl Containers {
    /// Of a pod's containers; `others`: that it has more, of which nothing else is known.
    pub(crate) fn of(containers: &[Container], others: bool) -> Self {
        match containers {
            [] => Self::None,
            [only] if !others => Self::Only(Arc::clone(&only.name)),
            several => Self::ByPort(
                several
                    .iter()
                    .flat_map(|container| {
                        let ports = container.ports.iter();
                        ports.map(|port| (port.protocol, port.port, Arc::clone(&container.name)))
                    })
                    .collect(),
            ),
        }
    }

    /// The container that has a port.
    pub(crate) fn at(&self, protocol: u8, port: Option<u16>) -> Option<&Arc<str>> {
        match self {
            Self::None => None,
            Self::Only(name) => Some(name),
            Self::ByPort(ports) => {
                let port = port?;
                ports.iter().find(|known| (known.0, known.1) == (protocol, port)).map(|known| &known.2)
            }
        }
    }
}

/// A pod's port among the backends of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The service's uid, or its namespace and name while it is not known.
    pub(crate) service: Arc<KubernetesObject>,
    /// Whether the service has an address of its own.
    pub(crate) has_address: bool,
    pub(crate) protocol: u8,
    /// `None`: all ports.
    pub(crate) port: Option<u16>,
    pub(crate) from: Time,
    pub(crate) until: Time,
}

impl Owner {
    /// Of whom nothing is known but what it is.
    pub(crate) fn new(role: Role) -> Self {
        let (object, containers) = (Arc::default(), Containers::None);
        Self { role, object, node: None, containers, services: Box::default() }
    }

    /// The one service whose backend this port was. A service with an address goes before headless ones: a stateful
    /// set often has one of each over the same pods.
    pub(crate) fn service(
        &self,
        protocol: u8,
        port: Option<u16>,
        span: Span,
    ) -> Option<&Arc<KubernetesObject>> {
        let port = port?;
        let fits = |member: &&Membership| {
            member.protocol == protocol
                && member.port.is_none_or(|known| known == port)
                && span.within(member.from, member.until).is_some()
        };
        let the_one = |has_address: bool| {
            let mut found =
                self.services.iter().filter(fits).filter(|member| member.has_address == has_address);
            let first = found.next();
            (first, found.any(|other| Some(&other.service) != first.map(|member| &member.service)))
        };
        match the_one(true) {
            (Some(member), false) => Some(&member.service),
            (Some(_), true) => None,
            (None, _) => match the_one(false) {
                (Some(member), false) => Some(&member.service),
                _ => None,
            },
        }
    }
}
