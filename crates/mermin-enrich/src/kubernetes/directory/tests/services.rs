//! Services and their backends.

use super::*;

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
