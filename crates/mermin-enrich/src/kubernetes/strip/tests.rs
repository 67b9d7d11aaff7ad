//! Objects as API servers write them, with much that isn't used.

use super::{Stripped, Stripper};
use crate::kubernetes::chosen::AllChosen;
use crate::kubernetes::config::KubernetesConfig;
use crate::kubernetes::object::{
    Backend, Container, ContainerPort, EndpointSlice, Kind, Meta, Node, Object, Owner, OwnerKind, Pod,
    Service, ServicePort,
};
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;
/// 2026-01-02T03:04:05Z.
const NOON: u64 = 1_767_323_045 * SECOND;

fn stripper() -> Stripper {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Stripper::new(AllChosen::new(&KubernetesConfig {
        labels: words(&["app.kubernetes.io/*"]),
        annotations: words(&["team"]),
        namespace_labels: words(&["env"]),
        ..KubernetesConfig::default()
    }))
}

fn strip(kind: Kind, json: &str) -> Stripped {
    stripper().strip(kind, json.as_bytes()).unwrap()
}

fn text(text: &str) -> Arc<str> {
    text.into()
}

fn texts(pairs: &[(&str, &str)]) -> Box<[(Arc<str>, Arc<str>)]> {
    pairs.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn meta(namespace: &str, name: &str, uid: &str) -> Meta {
    let (namespace, name, uid) = (text(namespace), text(name), text(uid));
    Meta { namespace, name, uid, created: Some(NOON), ..Meta::default() }
}

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"cart-7d9-x","generateName":"cart-7d9-",
"namespace":"shop","uid":"p1","resourceVersion":"4711","generation":1,"creationTimestamp":"2026-01-02T03:04:05Z",
"deletionTimestamp":"2026-01-02T03:05:05Z","deletionGracePeriodSeconds":30,
"labels":{"app.kubernetes.io/name":"cart","pod-template-hash":"7d9"},
"annotations":{"team":"a \"b\"","kubectl.kubernetes.io/last-applied-configuration":"{\"x\":\"é\n\"}"},
"ownerReferences":[{"apiVersion":"v1","kind":"Other","name":"no","uid":"no"},{"apiVersion":"apps/v1",
"kind":"ReplicaSet","name":"cart-7d9","uid":"r1","controller":true,"blockOwnerDeletion":true}],
"managedFields":[{"manager":"kubelet","fieldsV1":{"f:metadata":{".":{},"k:{\"a\":\"b\"}":{}}}}]},
"spec":{"volumes":[{"name":"kube-api-access"}],
"initContainers":[{"name":"migrate","image":"m"},{"name":"mesh","restartPolicy":"Always",
"ports":[{"containerPort":15090,"protocol":"TCP"}]}],
"containers":[{"name":"app","image":"a","ports":[{"name":"http","containerPort":8080,"protocol":"TCP"},
{"containerPort":53,"hostPort":1053,"protocol":"UDP"}],"resources":{"limits":{"cpu":"1"}}},{"name":"bare"}],
"nodeName":"n1","tolerations":[{"key":"x","operator":"Exists","tolerationSeconds":300}]},
"status":{"phase":"Running","hostIP":"192.0.2.1","podIP":"10.0.0.7","podIPs":[{"ip":"10.0.0.7"},{"ip":"fd00::7"}],
"startTime":"2026-01-02T03:04:06Z","containerStatuses":[{"name":"app","state":{"running":
{"startedAt":"2026-01-02T03:04:08Z"}},"lastState":{"terminated":{"exitCode":1,"finishedAt":"2026-01-02T03:04:07Z"}}},
{"name":"bare","state":{"waiting":{"reason":"CrashLoopBackOff"}}}],
"initContainerStatuses":[{"name":"mesh","state":{"running":{"startedAt":"2026-01-02T03:04:07Z"}}}],
"qosClass":"Burstable"}}"#;

#[test]
fn of_a_pod_what_records_say_is_kept() {
    let owner = Owner { kind: OwnerKind::ReplicaSet, name: text("cart-7d9"), uid: text("r1") };
    let port = |protocol, port, host_port| ContainerPort { protocol, port, host_port, host_address: None };
    let container = |name, ports: &[_]| Container { name: text(name), ports: ports.to_vec() };
    let expected = Pod {
        meta: Meta {
            deletion_asked: Some(NOON + 30 * SECOND),
            owner: Some(owner),
            labels: texts(&[
                ("k8s.pod.annotation.team", "a \"b\""),
                ("k8s.pod.label.app.kubernetes.io/name", "cart"),
            ]),
            ..meta("shop", "cart-7d9-x", "p1")
        },
        node: Some(text("n1")),
        addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
        host_network: false,
        started: Some(NOON + SECOND),
        running: Some(NOON + 2 * SECOND),
        finished: None,
        is_finished: false,
        containers: vec![
            container("app", &[port(6, 8080, None), port(17, 53, Some(1053))]),
            container("bare", &[]),
            container("mesh", &[port(6, 15090, None)]),
        ],
        has_other_containers: true,
    };
    let stripped = strip(Kind::Pod, POD);
    assert_eq!(stripped.object, Object::Pod(expected));
    assert_eq!(&*stripped.version, "4711");
}

#[test]
fn a_pod_says_when_it_came_to_an_end() {
    let json = r#"{"metadata":{"name":"job-1","namespace":"shop","uid":"p2","resourceVersion":"1","creationTimestamp":null},
        "spec":{"hostNetwork":true,"containers":null},"status":{"phase":"Failed","podIP":"192.0.2.1","containerStatuses":[
        {"name":"a","state":{"terminated":{"exitCode":1,"finishedAt":"2026-01-02T03:04:06Z"}}},
        {"name":"b","state":{"terminated":{"exitCode":0,"finishedAt":"2026-01-02T03:04:09Z"}}},
        {"name":"c","state":{"terminated":{"exitCode":0,"finishedAt":null}}}]}}"#;
    let Object::Pod(pod) = strip(Kind::Pod, json).object else { panic!("a pod") };
    assert_eq!((pod.is_finished, pod.finished), (true, Some(NOON + 4 * SECOND)));
    assert_eq!((pod.host_network, pod.meta.created, pod.node), (true, None, None));
    assert_eq!(pod.addresses, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn of_a_node_its_addresses_and_networks_are_kept() {
    let json = r#"{"metadata":{"name":"n1","uid":"n","resourceVersion":"2","creationTimestamp":"2026-01-02T03:04:05Z"},
        "spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24","fd00:1::/64"]},"status":{"addresses":[
        {"type":"InternalIP","address":"192.0.2.1"},{"type":"ExternalIP","address":"2001:db8::1"},
        {"type":"Hostname","address":"192.0.2.9"}],"images":[{"names":["a","b"],"sizeBytes":1}],"nodeInfo":{"machineID":"m"}}}"#;
    let network = |address: &str, length| (address.parse().unwrap(), length);
    let expected = Node {
        meta: meta("", "n1", "n"),
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        pod_networks: vec![network("10.244.1.0", 24), network("fd00:1::", 64)],
    };
    assert_eq!(strip(Kind::Node, json).object, Object::Node(expected));
}

#[test]
fn of_a_service_its_addresses_and_ports_are_kept() {
    let json = r#"{"metadata":{"name":"cart","namespace":"shop","uid":"s","resourceVersion":"3","creationTimestamp":"2026-01-02T03:04:05Z"},
        "spec":{"ports":[{"name":"dns","protocol":"UDP","port":53,"targetPort":"dns","nodePort":30053},{"protocol":"SCTP","port":9}],
        "selector":{"app":"cart"},"clusterIP":"10.96.0.10","clusterIPs":["10.96.0.10","fd00:96::a"],"type":"LoadBalancer",
        "externalIPs":["192.0.2.7"]},"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1"},{"hostname":"lb.example"}]}}}"#;
    let port = |protocol, port, node_port| ServicePort { protocol, port, node_port };
    let expected = Service {
        meta: meta("shop", "cart", "s"),
        cluster_addresses: vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()],
        external_addresses: vec!["192.0.2.7".parse().unwrap(), "203.0.113.1".parse().unwrap()],
        ports: vec![port(17, 53, Some(30053)), port(132, 9, None)],
    };
    assert_eq!(strip(Kind::Service, json).object, Object::Service(expected));
    let headless = r#"{"metadata":{"name":"h"},"spec":{"clusterIP":"None","clusterIPs":["None"]},"status":{"loadBalancer":{}}}"#;
    let Object::Service(service) = strip(Kind::Service, headless).object else { panic!("a service") };
    assert_eq!((service.cluster_addresses, service.ports), (vec![], vec![]));
}

#[test]
fn of_a_slice_service_ports_and_backends_are_kept() {
    let json = r#"{"metadata":{"name":"cart-x","namespace":"shop","uid":"e","resourceVersion":"4","creationTimestamp":"2026-01-02T03:04:05Z",
        "labels":{"kubernetes.io/service-name":"cart","x":"y"}},"addressType":"IPv4","endpoints":[
        {"addresses":["10.0.0.7"],"conditions":{"ready":true},"targetRef":{"kind":"Pod","namespace":"shop","name":"p","uid":"p1"}},
        {"addresses":["192.0.2.8"]},{"addresses":["name.example"],"targetRef":{"kind":"Other","uid":"o"}}],
        "ports":[{"name":"","port":8080,"protocol":"TCP"},{"name":"all","port":null,"protocol":"UDP"}]}"#;
    let backend = |address: &str, pod: Option<&str>| Backend {
        addresses: vec![address.parse().unwrap()],
        pod: pod.map(text),
    };
    let expected = EndpointSlice {
        meta: meta("shop", "cart-x", "e"),
        service: Some(text("cart")),
        ports: vec![(6, Some(8080)), (17, None)],
        backends: vec![backend("10.0.0.7", Some("p1")), backend("192.0.2.8", None)],
    };
    assert_eq!(strip(Kind::EndpointSlice, json).object, Object::EndpointSlice(expected));
}

#[test]
fn of_owners_and_namespaces_metadata_does() {
    let json = r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"nightly-1","namespace":"shop",
        "uid":"j","resourceVersion":"5","creationTimestamp":"2026-01-02T03:04:05Z","labels":{"env":"not chosen here"},
        "ownerReferences":[{"apiVersion":"batch/v1","kind":"CronJob","name":"nightly","uid":"c","controller":true}]}}"#;
    let owner = Some(Owner { kind: OwnerKind::CronJob, name: text("nightly"), uid: text("c") });
    let expected = Object::Owner(Kind::Job, Meta { owner, ..meta("shop", "nightly-1", "j") });
    assert_eq!(strip(Kind::Job, json).object, expected);
    let json = r#"{"metadata":{"name":"shop","uid":"n","resourceVersion":"6","creationTimestamp":"2026-01-02T03:04:05Z",
        "labels":{"env":"prod","x":"y"},"annotations":null}}"#;
    let labels = texts(&[("k8s.namespace.label.env", "prod")]);
    assert_eq!(
        strip(Kind::Namespace, json).object,
        Object::Namespace(Meta { labels, ..meta("", "shop", "n") })
    );
}

/// What pods have in common is in memory once.
#[test]
fn common_texts_are_shared() {
    let mut stripper = stripper();
    let mut pod = || match stripper.strip(Kind::Pod, POD.as_bytes()).unwrap().object {
        Object::Pod(pod) => pod,
        other => panic!("{other:?}"),
    };
    let (one, other) = (pod(), pod());
    assert!(Arc::ptr_eq(&one.meta.namespace, &other.meta.namespace));
    assert!(Arc::ptr_eq(&one.node.unwrap(), &other.node.unwrap()));
    assert!(Arc::ptr_eq(&one.containers[0].name, &other.containers[0].name));
    assert!(Arc::ptr_eq(&one.meta.labels[0].1, &other.meta.labels[0].1));
    assert!(Arc::ptr_eq(&one.meta.owner.unwrap().uid, &other.meta.owner.unwrap().uid));
}

#[test]
fn what_is_no_object_is_an_error() {
    for json in
        ["{}", "[]", r#"{"metadata":{"name":7}}"#, r#"{"metadata":{"name":"a","creationTimestamp":"noon"}}"#]
    {
        assert!(stripper().strip(Kind::Pod, json.as_bytes()).is_err(), "{json}");
    }
}
