//! The Kubernetes control plane.

use crate::is_there;
use mermin_tests::need;
use mermin_tests::netns::Namespace;
use mermin_tests::servers::control_plane::objects::{namespace, node, pod};
use mermin_tests::servers::control_plane::{ControlPlane, objects};
use mermin_tests::servers::http::Request;
use mermin_tests::servers::place::Place;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Waits for what the servers do by themselves.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().unwrap()
}

#[test]
fn makes_300_pods_with_addresses_and_ends_with_its_owner() {
    need!(ControlPlane::installed());
    let plane = ControlPlane::start();
    let api = plane.api();
    let _ = api.create_all(&[
        namespace("shop"),
        node("left", &["192.0.2.10", "2001:db8::10"], &["10.244.1.0/24", "fd44:1::/64"]),
    ]);
    let made = Instant::now();
    let pod = |number: usize| {
        let addresses =
            [format!("10.244.{}.{}", number / 250, number % 250 + 1), format!("fd44:1::{number:x}")];
        pod("shop", &format!("pod-{number}"), "left", &[&addresses[0], &addresses[1]])
    };
    let pods = api.create_all(&Vec::from_iter((0..300).map(pod)));
    println!("300 pods in {} ms", made.elapsed().as_millis());
    assert!(pods.iter().all(|pod| pod["status"]["podIPs"][1]["ip"].is_string()), "{}", pods[0]);
    let on_node = "/api/v1/pods?fieldSelector=spec.nodeName%3Dleft,status.phase%3DRunning";
    assert_eq!(items(&api.get(on_node).unwrap()).len(), 300);
    api.delete_all(&pods);
    assert_eq!(items(&api.get("/api/v1/namespaces/shop/pods").unwrap()).len(), 0);
    assert!(plane.kubectl(&["get", "nodes"]).contains("left   Ready"));
    let id = plane.api_server().id();
    let folder = plane.kubeconfig().to_owned();
    assert!(is_there(id) && folder.exists());
    drop(plane);
    assert!(!is_there(id) && !folder.exists());
}

#[test]
fn controllers_follow_deployments_and_services() {
    need!(ControlPlane::installed());
    let plane = ControlPlane::start().with_controllers();
    let api = plane.api();
    let template = json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "nodeName": "left", "containers": [{ "name": "main", "image": "none" }] },
    });
    let _ = api.create_all(&[
        node("left", &["192.0.2.10"], &["10.244.1.0/24"]),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
            "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "template": template },
        }),
    ]);
    let service = api.create(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": {
            "selector": { "app": "web" }, "ports": [{ "port": 80 }], "ipFamilyPolicy": "RequireDualStack",
        },
    }));
    assert_eq!(service["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    let pods = || items(&api.get("/api/v1/namespaces/default/pods").unwrap()).to_vec();
    eventually("three pods", || pods().len() == 3);
    let mut running = pods();
    for (number, pod) in running.iter_mut().enumerate() {
        // Lists leave out what their items are.
        (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
        pod["status"] = objects::running(&[&format!("10.244.1.{}", number + 1)]);
        assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");
    }
    api.set_status_all(running.iter());
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=\
                  kubernetes.io/service-name%3Dweb";
    eventually("three ready endpoints", || {
        let slices = api.get(slices).unwrap();
        let endpoints =
            items(&slices).iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count() == 3
    });
}

#[test]
fn the_api_server_is_killed_hung_and_started_again() {
    need!(ControlPlane::installed());
    let mut plane = ControlPlane::start();
    let api = plane.api();
    let _ = api.create(&namespace("kept"));
    plane.kill_api_server();
    assert!(api.get("/api/v1/namespaces/kept").is_none());
    let url = plane.url();
    plane.restart_api_server();
    assert_eq!(plane.url(), url);
    assert!(api.get("/api/v1/namespaces/kept").is_some());
    plane.hang_api_server();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| api.get("/api/v1/namespaces/kept").is_some());
        std::thread::sleep(Duration::from_secs(1));
        assert!(!asked.is_finished(), "a hung server answers nothing");
        plane.resume_api_server();
        assert!(asked.join().unwrap());
    });
}

#[test]
fn rights_are_what_the_role_says() {
    need!(ControlPlane::installed());
    let plane = ControlPlane::start();
    let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] }]);
    let account = plane.account("default", "agent", &rules);
    let api = plane.api_as(&account);
    let status = |path: &str| api.send(Request::get(path)).unwrap().status;
    eventually("the role is known", || status("/api/v1/pods") == 200);
    assert_eq!(status("/api/v1/nodes"), 403);
    let kubeconfig = account.kubeconfig.to_str().unwrap();
    let with = |words: &[&str]| plane.try_kubectl(&[&["--kubeconfig", kubeconfig][..], words].concat(), "");
    assert!(with(&["get", "pods", "-A"]).is_ok());
    assert!(with(&["get", "nodes"]).unwrap_err().contains("forbidden"));
    plane.set_rules(&account, &json!([]));
    eventually("the right is gone", || status("/api/v1/pods") == 403);
    let mounted = plane.mounted_account("default", &account.token);
    assert_eq!(std::fs::read_to_string(mounted.join("namespace")).unwrap(), "default");
}

#[test]
fn runs_in_a_network_namespace() {
    need!(ControlPlane::installed(), need::namespaces());
    let inside = Namespace::new("plane");
    let plane = ControlPlane::start_in(&Place::Namespace(inside.name.clone()));
    assert!(plane.api().get("/api/v1/namespaces/default").is_some());
    assert!(plane.kubectl(&["get", "namespaces"]).contains("default"));
    let (_, address) = plane.url().split_once("://").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(std::net::TcpStream::connect(address).is_err(), "it is not here");
}
