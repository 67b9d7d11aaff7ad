//! What is told, and what is then answered.

use super::Directory;
use crate::clock::Clock;
use crate::host::HostAddresses;
use crate::kubernetes::config::Scope;
use crate::kubernetes::evidence::{SECOND, SETTLE};
use crate::kubernetes::identity::IdentityByAddress;
use crate::kubernetes::object::{
    Backend, Change, Container, ContainerPort, EndpointSlice, Kind, Meta, Node, Object, Owner, OwnerKind,
    Pod, Service, ServicePort, Time,
};
use crate::kubernetes::resolve::{Answer, Location, Question, resolve};
use crate::kubernetes::shared::Shared;
use crate::kubernetes::tenure::Span;
use mermin_flow::{
    FlowConfig, FlowDirection, FlowRecord, KubernetesAttribute as A, Meter, Observation, PortForm,
    RecordSink, Resolution,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

mod pods;
mod records;
mod services;

const NOON: Time = 1_700_000_000 * SECOND;
const TCP: u8 = 6;

/// A directory whose kinds have all been listed, empty, long ago.
struct Cluster {
    directory: Directory,
    shared: Arc<Shared>,
    now: Time,
}

fn meta(name: &str) -> Meta {
    Meta {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid of {name}").into(),
        created: Some(NOON),
        ..Meta::default()
    }
}

fn owner(kind: OwnerKind, name: &str) -> Option<Owner> {
    Some(Owner { kind, name: name.into(), uid: format!("uid of {name}").into() })
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(name: &str, addresses: &[&str]) -> Pod {
    let addresses = addresses.iter().map(|text| address(text)).collect();
    Pod { meta: meta(name), node: Some("n1".into()), addresses, ..Pod::default() }
}

fn container(name: &str, ports: &[(u16, Option<u16>)]) -> Container {
    let ports = ports.iter().map(|(port, host_port)| ContainerPort {
        protocol: TCP,
        port: *port,
        host_port: *host_port,
        host_address: None,
    });
    Container { name: name.into(), ports: ports.collect() }
}

fn node(name: &str, addresses: &[&str]) -> Object {
    let addresses = addresses.iter().map(|text| address(text)).collect();
    let meta = Meta { namespace: "".into(), ..meta(name) };
    Object::Node(Node { meta, addresses, pod_networks: Vec::new() })
}

impl Cluster {
    fn new() -> Self {
        Self::with(Scope::Cluster)
    }

    fn with(scope: Scope) -> Self {
        let watched = (Kind::ALL.to_vec(), scope);
        let shared = Arc::new(Shared::new(watched, Some("n1"), HostAddresses::fixed([]), NOON));
        let directory = Directory::new(Arc::clone(&shared), Duration::from_secs(100));
        let mut cluster = Self { directory, shared, now: NOON };
        for kind in Kind::ALL {
            cluster.tell(Change::ListBegins(kind));
            cluster.tell(Change::ListEnds(kind));
        }
        cluster.later(60);
        cluster
    }

    fn tell(&mut self, change: Change) {
        self.directory.apply(change, self.now);
    }

    fn applied(&mut self, object: Object) {
        self.tell(Change::Applied(object));
    }

    /// Time passes, and all kinds are heard of every second.
    fn later(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += SECOND;
            Kind::ALL.into_iter().for_each(|kind| self.tell(Change::Heard(kind)));
        }
    }

    fn identity(&self) -> IdentityByAddress {
        IdentityByAddress::new(Arc::clone(&self.shared), Clock::new(), Duration::ZERO)
    }

    /// Who has an end, `ago` seconds ago.
    fn ask(&self, end: &str, port: u16, ago: u64) -> Answer {
        let at = self.now - ago * SECOND;
        let span = Span { first: at, last: at };
        let question = Question { address: address(end), protocol: TCP, port: Some(port), span };
        resolve(&self.shared.index, &question, &self.shared.horizon().known, Some("n1"))
    }

    /// The same as text: resolution and names.
    fn names(&self, end: &str, port: u16, ago: u64) -> String {
        let end = self.ask(end, port, ago).end;
        let named = end.attributes().filter(|(attribute, _)| attribute.name().ends_with(".name"));
        let names: Vec<_> = named.map(|(_, name)| &**name).collect();
        format!("{} {}", end.resolution.name(), names.join(" "))
    }
}
