//! What is told, and what is then answered.

use super::Directory;
use crate::host::HostAddresses;
use crate::kubernetes::clock::Clock;
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

#[test]
fn owners_that_are_told_of_late_are_named() {
    let mut cluster = Cluster::new();
    let mut replica = pod("web-1-a", &["10.1.0.1", "fd00::1"]);
    replica.meta.owner = owner(OwnerKind::ReplicaSet, "web-1");
    cluster.applied(Object::Pod(replica.clone()));
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.1", 80, 6), "exact shop web-1-a n1 web-1");
    let set = Meta { owner: owner(OwnerKind::Deployment, "web"), ..meta("web-1") };
    cluster.applied(Object::Owner(Kind::ReplicaSet, set.clone()));
    assert_eq!(cluster.names("fd00::1", 80, 6), "exact shop web-1-a n1 web web-1");
    assert_eq!(cluster.names("::ffff:10.1.0.1", 80, 6), "exact shop web-1-a n1 web web-1");
    let end = cluster.ask("10.1.0.1", 80, 6).end;
    assert_eq!(end.object.unwrap().get(A::DeploymentUid).map(AsRef::as_ref), Some("uid of web"));
    // The set goes first; its pod has not forgotten whose it was.
    cluster.tell(Change::Deleted(Object::Owner(Kind::ReplicaSet, set)));
    replica.meta.deletion_asked = Some(cluster.now);
    cluster.applied(Object::Pod(replica));
    assert_eq!(cluster.names("10.1.0.1", 80, 6), "exact shop web-1-a n1 web web-1");
    cluster.applied(node("n1", &["192.0.2.1"]));
    let end = cluster.ask("10.1.0.1", 80, 6).end;
    assert_eq!(end.object.unwrap().get(A::NodeUid).map(AsRef::as_ref), Some("uid of n1"));
}

#[test]
fn ports_of_a_node_belong_to_its_pods_and_else_to_the_node() {
    let mut cluster = Cluster::new();
    cluster.applied(node("n1", &["192.0.2.1"]));
    cluster.applied(node("n2", &["192.0.2.2"]));
    let mut agent = pod("agent", &["192.0.2.1"]);
    agent.host_network = true;
    agent.containers =
        vec![container("main", &[(9_100, Some(9_100))]), container("side", &[(9_200, Some(9_200))])];
    cluster.applied(Object::Pod(agent));
    let mut proxy = pod("proxy", &["10.1.0.9"]);
    proxy.containers = vec![container("a", &[(8_080, Some(80))]), container("b", &[])];
    cluster.applied(Object::Pod(proxy));
    let ports = vec![ServicePort { protocol: TCP, port: 443, node_port: Some(30_443) }];
    cluster.applied(Object::Service(Service { meta: meta("shop"), ports, ..Service::default() }));
    cluster.later(10);
    assert_eq!(cluster.names("192.0.2.1", 9_200, 6), "exact shop agent side n1");
    assert_eq!(cluster.names("192.0.2.1", 22, 6), "exact n1");
    assert_eq!(cluster.names("192.0.2.2", 9_200, 6), "exact n2");
    assert_eq!(cluster.names("192.0.2.1", 80, 6), "exact shop proxy a n1");
    assert_eq!(cluster.names("10.1.0.9", 8_080, 6), "exact shop proxy a n1");
    assert_eq!(cluster.names("10.1.0.9", 99, 6), "exact shop proxy n1");
    assert_eq!(cluster.names("192.0.2.2", 30_443, 6), "exact shop n2 shop");
    assert_eq!(cluster.ask("192.0.2.1", 22, 6).location, Location::Here);
    assert_eq!(cluster.ask("192.0.2.2", 22, 6).location, Location::Elsewhere);
    assert_eq!(cluster.ask("198.51.100.1", 22, 6).location, Location::Unknown);
}

#[test]
fn a_port_of_one_of_a_nodes_addresses_is_of_no_other() {
    let mut cluster = Cluster::new();
    cluster.applied(node("n1", &["192.0.2.1", "192.0.2.2"]));
    let mut proxy = pod("proxy", &["10.1.0.9"]);
    proxy.containers = vec![container("a", &[(8_080, Some(80)), (8_081, Some(81))])];
    proxy.containers[0].ports[0].host_address = Some(address("192.0.2.2"));
    proxy.containers[0].ports[1].host_address = Some(address("127.0.0.1"));
    cluster.applied(Object::Pod(proxy));
    cluster.later(10);
    assert_eq!(cluster.names("192.0.2.1", 80, 6), "exact n1");
    assert_eq!(cluster.names("192.0.2.2", 80, 6), "exact shop proxy a n1");
    assert_eq!(cluster.names("192.0.2.2", 81, 6), "exact n1");
    assert_eq!(cluster.names("127.0.0.1", 81, 6), "unknown ");
}

#[test]
fn an_only_container_is_named_where_no_other_can_have_run() {
    let mut cluster = Cluster::new();
    let containers = || vec![container("main", &[(8_080, None)])];
    let one = Pod { containers: containers(), ..pod("one", &["10.1.0.1"]) };
    let two = Pod { containers: containers(), has_other_containers: true, ..pod("two", &["10.1.0.2"]) };
    cluster.applied(Object::Pod(one));
    cluster.applied(Object::Pod(two));
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.1", 40_000, 6), "exact shop one main n1");
    assert_eq!(cluster.names("10.1.0.2", 8_080, 6), "exact shop two main n1");
    assert_eq!(cluster.names("10.1.0.2", 40_000, 6), "exact shop two n1");
}

#[test]
fn an_address_that_takes_the_place_of_another_was_not_there_before() {
    let mut cluster = Cluster::new();
    let running = Some(cluster.now);
    cluster.applied(Object::Pod(Pod { running, ..pod("moves", &["10.1.0.1"]) }));
    cluster.later(60);
    cluster.applied(Object::Pod(Pod { running, ..pod("moves", &["10.1.0.2"]) }));
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.2", 80, 6), "exact shop moves n1");
    assert_eq!(cluster.names("10.1.0.2", 80, 30), "unknown ");
    assert_eq!(cluster.names("10.1.0.1", 80, 30), "exact shop moves n1");
}

#[test]
fn what_happened_while_a_list_was_on_its_way_is_no_news_of_the_present() {
    let mut cluster = Cluster::new();
    let old = pod("old", &["10.1.0.1"]);
    cluster.applied(Object::Pod(old.clone()));
    cluster.later(60);
    cluster.tell(Change::ListBegins(Kind::Pod));
    cluster.tell(Change::Listed(Object::Pod(old.clone())));
    // The list takes its time; meanwhile the address changes hands.
    cluster.now += 20 * SECOND;
    cluster.tell(Change::ListEnds(Kind::Pod));
    assert!(cluster.shared.horizon().known.pods_until < cluster.now - 20 * SECOND);
    cluster.tell(Change::Deleted(Object::Pod(old)));
    cluster.later(60);
    assert_eq!(cluster.names("10.1.0.1", 80, 70), "ambiguous ");
}

#[test]
fn an_owner_that_is_let_go_of_has_no_owner_any_more() {
    let mut cluster = Cluster::new();
    let mut replica = pod("web-1-a", &["10.1.0.1"]);
    replica.meta.owner = owner(OwnerKind::ReplicaSet, "web-1");
    let set = Meta { owner: owner(OwnerKind::Deployment, "web"), ..meta("web-1") };
    cluster.applied(Object::Owner(Kind::ReplicaSet, set.clone()));
    cluster.applied(Object::Pod(replica));
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.1", 80, 6), "exact shop web-1-a n1 web web-1");
    cluster.applied(Object::Owner(Kind::ReplicaSet, Meta { owner: None, ..set }));
    assert_eq!(cluster.names("10.1.0.1", 80, 6), "exact shop web-1-a n1 web-1");
}

#[test]
fn a_pod_that_is_adopted_is_its_new_owners() {
    let mut cluster = Cluster::new();
    let set = |of: &str, name: &str| {
        Object::Owner(Kind::ReplicaSet, Meta { owner: owner(OwnerKind::Deployment, of), ..meta(name) })
    };
    let of = |kind, name: &str| Pod {
        meta: Meta { owner: owner(kind, name), ..meta("web-1-a") },
        ..pod("web-1-a", &["10.1.0.1"])
    };
    cluster.applied(set("web", "web-1"));
    cluster.applied(Object::Pod(of(OwnerKind::ReplicaSet, "web-1")));
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.1", 80, 6), "exact shop web-1-a n1 web web-1");
    cluster.applied(Object::Pod(of(OwnerKind::StatefulSet, "state")));
    assert_eq!(cluster.names("10.1.0.1", 80, 6), "exact shop web-1-a n1 state");
    // What is told late of its new owner reaches it, and what is told of the old one doesn't.
    cluster.applied(Object::Pod(of(OwnerKind::ReplicaSet, "web-2")));
    cluster.applied(set("web-next", "web-2"));
    assert_eq!(cluster.names("10.1.0.1", 80, 6), "exact shop web-1-a n1 web-next web-2");
    assert_eq!(cluster.directory.owned.keys().map(AsRef::as_ref).collect::<Vec<_>>(), ["uid of web-2"]);
    cluster.applied(Object::Pod(pod("web-1-a", &["10.1.0.1"])));
    assert_eq!(cluster.names("10.1.0.1", 80, 6), "exact shop web-1-a n1");
    assert!(cluster.directory.owned.is_empty());
}

fn slice(name: &str, service: &str, pods: &[&str]) -> Object {
    let uid = |pod: &&str| Some(format!("uid of {pod}").into());
    let backends = pods.iter().map(|pod| Backend { addresses: Vec::new(), pod: uid(pod) }).collect();
    let (meta, ports) = (meta(name), vec![(TCP, Some(8_080))]);
    Object::EndpointSlice(EndpointSlice { meta, service: Some(service.into()), ports, backends })
}

#[test]
fn a_service_is_named_at_its_addresses_and_beside_its_backends() {
    let mut cluster = Cluster::new();
    // The slice comes before the pod and the service.
    cluster.applied(slice("cart-x", "cart", &["cart-0"]));
    cluster.applied(Object::Pod(pod("cart-0", &["10.1.0.1"])));
    let service = |name: &str, addresses: &[&str]| {
        let cluster_addresses = addresses.iter().map(|text| address(text)).collect();
        let external_addresses = vec![address("203.0.113.5")];
        let ports = vec![ServicePort { protocol: TCP, port: 80, node_port: None }];
        Object::Service(Service { meta: meta(name), cluster_addresses, external_addresses, ports })
    };
    cluster.applied(service("cart", &["10.96.0.1", "fd00:96::1"]));
    cluster.later(10);
    assert_eq!(cluster.names("10.96.0.1", 80, 6), "exact shop cart");
    assert_eq!(cluster.names("fd00:96::1", 1, 6), "exact shop cart");
    assert_eq!(cluster.names("203.0.113.5", 80, 6), "exact shop cart");
    assert_eq!(cluster.names("203.0.113.5", 81, 6), "unknown ");
    assert_eq!(cluster.names("10.1.0.1", 8_080, 6), "exact shop cart-0 n1 cart");
    assert_eq!(cluster.names("10.1.0.1", 9_090, 6), "exact shop cart-0 n1");
    // A headless service over the same pods does not hide it; a second one with an address does.
    cluster.applied(slice("headless-x", "headless", &["cart-0"]));
    cluster.applied(service("headless", &[]));
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.1", 8_080, 6), "exact shop cart-0 n1 cart");
    cluster.applied(slice("other-x", "other", &["cart-0"]));
    cluster.applied(service("other", &["10.96.0.2"]));
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.1", 8_080, 6), "exact shop cart-0 n1");
    // When the other one is left again, it counts for its time and no longer.
    cluster.applied(slice("other-x", "other", &[]));
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.1", 8_080, 6), "exact shop cart-0 n1 cart");
    assert_eq!(cluster.names("10.1.0.1", 8_080, 16), "exact shop cart-0 n1");
}

fn service(name: &str, uid: &str, created: Time) -> Service {
    let ports = vec![ServicePort { protocol: TCP, port: 80, node_port: None }];
    let meta = Meta { uid: uid.into(), created: Some(created), ..meta(name) };
    Service { meta, cluster_addresses: vec![address("10.96.0.1")], ports, ..Service::default() }
}

#[test]
fn a_service_that_is_made_again_is_not_named_before() {
    let mut cluster = Cluster::new();
    cluster.applied(slice("cart-x", "cart", &["cart-0"]));
    let created = Some(cluster.now);
    cluster.applied(Object::Pod(Pod {
        meta: Meta { created, ..meta("cart-0") },
        ..pod("cart-0", &["10.1.0.1"])
    }));
    let old = Object::Service(service("cart", "old", cluster.now));
    cluster.applied(old.clone());
    cluster.later(20);
    cluster.tell(Change::Deleted(old));
    cluster.later(2);
    cluster.applied(Object::Service(service("cart", "new", cluster.now)));
    cluster.later(10);
    let uid = |cluster: &Cluster, ago| {
        let service = cluster.ask("10.1.0.1", 8_080, ago).end.service;
        service.and_then(|service| service.get(A::ServiceUid).cloned())
    };
    // The old one's slice is still there, and then the new one's takes its place.
    assert_eq!(uid(&cluster, 20).as_deref(), Some("old"));
    assert_eq!(uid(&cluster, 6).as_deref(), Some("new"));
    cluster.applied(slice("cart-y", "cart", &["cart-0"]));
    cluster.tell(Change::Deleted(slice("cart-x", "cart", &["cart-0"])));
    cluster.later(10);
    assert_eq!(uid(&cluster, 30).as_deref(), Some("old"));
    assert_eq!(uid(&cluster, 6).as_deref(), Some("new"));
    cluster.tell(Change::Deleted(slice("cart-y", "cart", &["cart-0"])));
    cluster.later(10);
    assert_eq!(uid(&cluster, 6), None);
}

/// Whose backend it was before that, nobody tells.
#[test]
fn a_backend_is_a_services_from_the_first_list_on() {
    let shared = Arc::new(Shared::new(
        (Kind::ALL.to_vec(), Scope::Cluster),
        Some("n1"),
        HostAddresses::fixed([]),
        NOON,
    ));
    let directory = Directory::new(Arc::clone(&shared), Duration::from_secs(100));
    let mut cluster = Cluster { directory, shared, now: NOON };
    let running = Some(NOON - 60 * SECOND);
    let objects = [
        slice("cart-x", "cart", &["cart-0"]),
        Object::Pod(Pod {
            meta: Meta { created: running, ..meta("cart-0") },
            running,
            ..pod("cart-0", &["10.1.0.1"])
        }),
        Object::Service(service("cart", "uid of cart", NOON)),
    ];
    for kind in Kind::ALL {
        cluster.tell(Change::ListBegins(kind));
        for object in objects.iter().filter(|object| object.kind() == kind) {
            cluster.tell(Change::Listed(object.clone()));
        }
        cluster.now += SECOND;
        cluster.tell(Change::ListEnds(kind));
    }
    let ago = Kind::ALL.len() as u64 + 10;
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.1", 8_080, 6), "exact shop cart-0 n1 cart");
    assert_eq!(cluster.names("10.1.0.1", 8_080, ago + 10), "exact shop cart-0 n1");
}

#[test]
fn two_possible_owners_are_said_to_be_two_and_what_they_share_is_said() {
    let mut cluster = Cluster::new();
    let (mut old, new) = (pod("old", &["10.1.0.1"]), pod("new", &[]));
    cluster.applied(Object::Pod(old.clone()));
    cluster.applied(Object::Pod(new));
    cluster.later(100);
    old.meta.deletion_asked = Some(cluster.now);
    cluster.applied(Object::Pod(old.clone()));
    cluster.later(4);
    cluster.tell(Change::Deleted(Object::Pod(old)));
    cluster.applied(Object::Pod(pod("new", &["10.1.0.1"])));
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.1", 80, 20), "exact shop old n1");
    assert_eq!(cluster.names("10.1.0.1", 80, 12), "ambiguous shop n1");
    assert_eq!(cluster.names("10.1.0.1", 80, 6), "exact shop new n1");
    // Nobody can know yet who has it now.
    assert_eq!(cluster.names("10.1.0.1", 80, 0), "ambiguous ");
    // What has ended is forgotten in time.
    cluster.later(200);
    // `new` was there, without an address for all that is known.
    assert_eq!(cluster.names("10.1.0.1", 80, 214), "ambiguous ");
    assert!(cluster.directory.past.is_empty() && cluster.directory.holders.len() == 1);
}

/// What is told first isn't what happened first: the third owner is about to end, and the second one's end isn't told yet.
#[test]
fn an_end_that_is_not_told_yet_is_not_later_than_others() {
    let mut cluster = Cluster::new();
    // Stamps of the time at which it is told: the watch keeps up.
    let meta = |name: &str, now| Meta { created: Some(now), ..meta(name) };
    let with = |meta: &Meta, addresses| Pod { meta: meta.clone(), ..pod("", addresses) };
    let old = meta("old", cluster.now);
    cluster.applied(Object::Pod(with(&old, &["10.1.0.1"])));
    let second = meta("second", cluster.now);
    cluster.applied(Object::Pod(with(&second, &[])));
    cluster.later(100);
    cluster.tell(Change::Deleted(Object::Pod(with(&old, &["10.1.0.1"]))));
    cluster.later(2);
    cluster.applied(Object::Pod(with(&second, &["10.1.0.1"])));
    let mut third = meta("third", cluster.now);
    cluster.applied(Object::Pod(with(&third, &[])));
    cluster.later(9);
    cluster.applied(Object::Pod(with(&third, &["10.1.0.1"])));
    cluster.later(1);
    third.deletion_asked = Some(cluster.now);
    cluster.applied(Object::Pod(with(&third, &["10.1.0.1"])));
    assert_eq!(cluster.names("10.1.0.1", 80, 11), "ambiguous shop n1");
    cluster.tell(Change::Deleted(Object::Pod(with(&second, &["10.1.0.1"]))));
    assert_eq!(cluster.names("10.1.0.1", 80, 11), "ambiguous shop n1");
}

#[test]
fn what_a_list_leaves_out_has_gone_at_some_time_since_it_was_heard_of() {
    let mut cluster = Cluster::new();
    cluster.applied(Object::Pod(pod("stays", &["10.1.0.1"])));
    cluster.applied(Object::Pod(pod("goes", &["10.1.0.2"])));
    cluster.later(20);
    cluster.tell(Change::Interrupted(Kind::Pod));
    cluster.now += 30 * SECOND;
    cluster.tell(Change::ListBegins(Kind::Pod));
    cluster.tell(Change::Listed(Object::Pod(pod("stays", &["10.1.0.1"]))));
    let came = Pod {
        meta: Meta { created: Some(cluster.now - 20 * SECOND), ..meta("came") },
        ..pod("came", &["10.1.0.2"])
    };
    cluster.tell(Change::Listed(Object::Pod(came)));
    cluster.tell(Change::ListEnds(Kind::Pod));
    cluster.later(10);
    assert_eq!(cluster.names("10.1.0.1", 80, 20), "exact shop stays n1");
    assert_eq!(cluster.names("10.1.0.2", 80, 45), "exact shop goes n1");
    // Between them anybody may have had it, also somebody who came and went.
    assert_eq!(cluster.names("10.1.0.2", 80, 25), "ambiguous ");
    assert_eq!(cluster.names("10.1.0.2", 80, 6), "exact shop came n1");
}

/// Somebody on another node may have the address before and after a pod of this one, and nobody tells.
#[test]
fn of_one_node_alone_only_who_certainly_had_an_address_is_named() {
    for (scope, unsure) in [(Scope::Cluster, "exact shop web n1"), (Scope::Node, "ambiguous ")] {
        let mut cluster = Cluster::with(scope);
        cluster.applied(node("n1", &["192.0.2.1"]));
        let mut web = Pod { containers: vec![container("main", &[(80, Some(8_080))])], ..pod("web", &[]) };
        cluster.applied(Object::Pod(web.clone()));
        cluster.later(4);
        web.addresses = vec![address("10.1.0.1")];
        cluster.applied(Object::Pod(web.clone()));
        cluster.later(10);
        let told = 10;
        web.meta.deletion_asked = Some(cluster.now);
        cluster.applied(Object::Pod(web.clone()));
        cluster.later(20);
        cluster.tell(Change::Deleted(Object::Pod(web)));
        cluster.later(10);
        let (told, asked) = (told + 30, 30);
        let exact = "exact shop web main n1";
        let unsure = unsure.replace("web", "web main");
        assert_eq!(cluster.names("10.1.0.1", 80, told + 1), unsure, "before its address was told of");
        assert_eq!(cluster.names("10.1.0.1", 80, told - 1), exact);
        assert_eq!(cluster.names("10.1.0.1", 80, asked + 1), exact);
        assert_eq!(cluster.names("10.1.0.1", 80, asked - 1), unsure, "it is ending");
        assert_eq!(cluster.names("10.1.0.1", 80, 6), unsure, "it was deleted by force");
        assert_eq!(cluster.names("192.0.2.1", 8_080, told - 1), exact, "a port of this node");
        assert_eq!(cluster.names("192.0.2.1", 22, 6), "exact n1");
    }
}

#[test]
fn labels_of_the_namespace_are_those_of_now() {
    let mut cluster = Cluster::new();
    cluster.applied(Object::Pod(pod("a", &["10.1.0.1"])));
    let labels = Box::new([("k8s.namespace.label.team".into(), "red".into())]);
    cluster.applied(Object::Namespace(Meta { labels, namespace: "".into(), ..meta("shop") }));
    cluster.later(10);
    let end = cluster.ask("10.1.0.1", 80, 6).end;
    assert_eq!(end.labels().collect::<Vec<_>>(), [("k8s.namespace.label.team", "red")]);
}

#[test]
fn an_answer_is_held_for_as_long_as_the_cluster_is_not_known() {
    let mut cluster = Cluster::new();
    let until = |cluster: &Cluster| cluster.shared.known_until(cluster.now);
    assert_eq!(until(&cluster), cluster.now - SETTLE);
    let heard = cluster.now;
    cluster.now += 30 * SECOND;
    assert_eq!(until(&cluster), heard - SETTLE);
    let horizon = cluster.shared.horizon();
    assert_eq!(cluster.shared.silence(&horizon, cluster.now), Some(30 * SECOND));
    cluster.later(1);
    assert_eq!(cluster.shared.silence(&cluster.shared.horizon(), cluster.now), None);
    assert_eq!(cluster.ask("10.9.9.9", 1, 6).end.resolution, Resolution::Unknown);
}

/// Records as flow tables cut them.
#[derive(Default)]
struct Records(Vec<FlowRecord>);

impl RecordSink for Records {
    fn record(&mut self, record: FlowRecord) {
        self.0.push(record);
    }
}

/// A packet from 10.1.0.1 to 10.1.0.2.
fn packet(at: Time) -> Observation {
    let word = |last| u64::from(u32::from_ne_bytes([10, 1, 0, last]));
    Observation {
        addresses: [word(1), 0, word(2), 0],
        ports: [40_000_u16.to_be(), 53_u16.to_be()],
        port_form: PortForm::Ports,
        protocol: 17,
        packets: 1,
        buffers: 1,
        start: at,
        end: at,
        watermark: at,
        ..Observation::EMPTY
    }
}

#[test]
fn a_flow_has_its_names_for_as_long_as_it_lasts() {
    let mut cluster = Cluster::new();
    let config = FlowConfig::default();
    let (mut meter, mut records) = (Meter::new(&config, ""), Records::default());
    let identity = cluster.identity();
    cluster.applied(Object::Pod(pod("client", &[])));
    cluster.applied(Object::Pod(pod("old", &["10.1.0.2"])));
    cluster.later(2);
    // The first packet comes before the API server knows the address.
    meter.observe(&[packet(cluster.now - SECOND)], &mut records);
    cluster.applied(Object::Pod(pod("client", &["10.1.0.1"])));
    let mut names = Vec::new();
    for step in 0..60 {
        // Others come and go, and are forgotten; the server moves to another pod.
        let other = pod(&format!("other-{step}"), &["10.2.0.1"]);
        cluster.applied(Object::Pod(other.clone()));
        cluster.later(10);
        cluster.tell(Change::Deleted(Object::Pod(other)));
        match step {
            20 => cluster.tell(Change::Deleted(Object::Pod(pod("old", &["10.1.0.2"])))),
            25 => cluster.applied(Object::Pod(pod("new", &["10.1.0.2"]))),
            _ => {}
        }
        meter.observe(&[packet(cluster.now - 6 * SECOND)], &mut records);
        for mut record in records.0.drain(..) {
            identity.enrich_at(&mut record, || cluster.now);
            names.push([record.source, record.destination].map(|end| {
                let end = end.identity.kubernetes.unwrap();
                let name = end.object.as_ref().and_then(|object| object.get(A::PodName)).cloned();
                (end.resolution, name.as_deref().unwrap_or_default().to_owned())
            }));
        }
    }
    let exact = |name: &str| (Resolution::Exact, name.to_owned());
    assert_eq!(names.len(), 9, "{names:?}");
    assert!(names.iter().all(|[client, _]| *client == exact("client")), "{names:?}");
    assert!(names[..3].iter().all(|[_, server]| *server == exact("old")), "{names:?}");
    assert!(names[5..].iter().all(|[_, server]| *server == exact("new")), "{names:?}");
}

/// The flow goes on while its server's address moves, and what it had to report by then comes later.
#[test]
fn a_record_that_was_put_off_names_nobody_who_had_the_address_for_a_part_of_it() {
    let mut cluster = Cluster::new();
    let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
    cluster.applied(Object::Pod(pod("client", &["10.1.0.1"])));
    let (old, new) = (pod("old", &["10.1.0.2"]), pod("new", &[]));
    cluster.applied(Object::Pod(old.clone()));
    cluster.applied(Object::Pod(new));
    cluster.later(20);
    let began = cluster.now;
    let mut names = Vec::new();
    for at in (0..=420).step_by(10) {
        if at == 100 {
            cluster.tell(Change::Deleted(Object::Pod(old.clone())));
            cluster.applied(Object::Pod(pod("new", &["10.1.0.2"])));
        }
        cluster.later(10);
        // The interval in which the address moves is left out, and the next one.
        meter.postpone_updates((100..200).contains(&at));
        meter.observe(&[packet(began + at * SECOND)], &mut records);
        for mut record in records.0.drain(..) {
            cluster.identity().enrich_at(&mut record, || cluster.now);
            let end = record.destination.identity.kubernetes.unwrap();
            let name = end.object.as_ref().and_then(|object| object.get(A::PodName)).cloned();
            let last = (record.end_time - began) / SECOND;
            names.push((last, end.resolution, name.as_deref().unwrap_or_default().to_owned()));
        }
    }
    let exact = |last, name: &str| (last, Resolution::Exact, name.to_owned());
    let expected = [
        exact(50, "old"),
        (230, Resolution::Ambiguous, String::new()),
        exact(290, "new"),
        exact(350, "new"),
        exact(410, "new"),
    ];
    assert_eq!(names, expected);
}

#[test]
fn who_has_an_address_goes_before_whose_network_it_is_in() {
    let mut cluster = Cluster::new();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let meta = Meta { namespace: "".into(), ..meta("n1") };
    let pod_networks = vec![(address("10.1.0.0"), 16)];
    let addresses = vec![address("192.0.2.1")];
    cluster.applied(Object::Node(Node { meta, addresses, pod_networks }));
    cluster.applied(Object::Pod(Pod { node: Some("n2".into()), ..pod("far", &["10.1.0.2"]) }));
    cluster.later(10);
    let identity = cluster.identity();
    let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
    meter.observe(&[packet(cluster.now - 6 * SECOND)], &mut records);
    meter.finish(cluster.now, &mut records);
    let mut record = records.0.pop().unwrap();
    identity.enrich_at(&mut record, || cluster.now);
    assert_eq!(record.enrichment.direction, Some(FlowDirection::Outbound));
}

#[test]
fn a_kind_that_is_forbidden_is_not_waited_for() {
    let mut cluster = Cluster::new();
    cluster.tell(Change::Forbidden(Kind::Service));
    let at = cluster.now;
    for _ in 0..10 {
        cluster.now += SECOND;
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Service) {
            cluster.tell(Change::Heard(kind));
        }
    }
    assert_eq!(cluster.shared.known_until(cluster.now), cluster.now - SETTLE);
    assert_eq!(cluster.shared.silence(&cluster.shared.horizon(), cluster.now), None);
    assert!(cluster.shared.horizon().known.services_until < at);
    cluster.tell(Change::Heard(Kind::Service));
    cluster.later(1);
    assert!(cluster.shared.horizon().known.services_until > at);
    let back = cluster.now;
    cluster.now += 10 * SECOND;
    cluster.tell(Change::Heard(Kind::Pod));
    cluster.tell(Change::Heard(Kind::Node));
    assert_eq!(cluster.shared.known_until(cluster.now), back - SETTLE, "it is waited for again");
}

/// Nobody waits for them either, but records say that what they know is old.
#[test]
fn names_of_pods_grow_old_when_the_right_to_watch_them_is_gone() {
    let mut cluster = Cluster::new();
    cluster.applied(Object::Pod(pod("web", &["10.1.0.1"])));
    cluster.later(10);
    cluster.tell(Change::Forbidden(Kind::Pod));
    for _ in 0..10 {
        cluster.now += SECOND;
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Pod) {
            cluster.tell(Change::Heard(kind));
        }
    }
    assert_eq!(cluster.shared.known_until(cluster.now), cluster.now - SETTLE);
    let identity = cluster.identity();
    let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
    meter.observe(&[packet(cluster.now - 6 * SECOND)], &mut records);
    meter.finish(cluster.now, &mut records);
    let mut record = records.0.pop().unwrap();
    identity.enrich_at(&mut record, || cluster.now);
    assert_eq!(record.enrichment.degraded, Some(Duration::from_secs(10)));
    let end = record.source.identity.kubernetes.unwrap();
    let name = end.object.as_ref().and_then(|object| object.get(A::PodName)).cloned();
    assert_eq!((end.resolution, name.as_deref()), (Resolution::Ambiguous, Some("web")));
}
