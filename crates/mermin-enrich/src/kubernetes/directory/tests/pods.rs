//! Whose an address is.

use super::*;

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

/// Flows with longer timeouts ask of times that lie further back.
#[test]
fn what_has_ended_is_remembered_for_as_long_as_flows_may_ask() {
    let mut cluster = Cluster::new();
    let (old, new) = (pod("old", &["10.1.0.1"]), pod("new", &["10.1.0.1"]));
    cluster.applied(Object::Pod(old.clone()));
    cluster.later(100);
    cluster.tell(Change::Deleted(Object::Pod(old)));
    cluster.later(60);
    cluster.applied(Object::Pod(new));
    cluster.shared.remember(Duration::from_secs(1_000));
    cluster.later(300);
    assert_eq!(cluster.names("10.1.0.1", 80, 400), "exact shop old n1");
    // Flows with the timeouts before are still asked about.
    cluster.shared.remember(Duration::from_secs(1));
    cluster.later(300);
    assert_eq!(cluster.names("10.1.0.1", 80, 700), "exact shop old n1");
    cluster.later(600);
    assert!(cluster.directory.past.is_empty());
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
