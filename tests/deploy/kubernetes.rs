//! The manifests against a real API server: its schema, its admission, its rules for names and fields.

use mermin_tests::need;
use mermin_tests::need::root;
use mermin_tests::servers::control_plane::ControlPlane;
use mermin_tests::servers::control_plane::objects::node;
use serde_json::{Value, json};

fn folder() -> String {
    root().join("deploy/kubernetes").display().to_string()
}

#[test]
fn the_api_server_takes_every_object_and_makes_a_pod_for_each_node() {
    need!(ControlPlane::installed());
    let plane = ControlPlane::start().with_controllers();
    let api = plane.api();
    let apply = ["apply", "--server-side", "--validate=strict", "--kustomize", &folder()];
    // First without effect: nothing there can be asked for by name but the namespace, so that comes first.
    let _ = plane.kubectl(&["apply", "--filename", &format!("{}/namespace.yaml", folder())]);
    let dry = plane.kubectl(&[&apply[..], &["--dry-run=server"]].concat());
    assert_eq!(dry.lines().count(), mermin_tests::manifest::objects("kubernetes").len(), "{dry}");
    let _ = plane.kubectl(&apply);
    let _ = api.create(&node("left", &["192.0.2.10"], &["10.244.1.0/24"]));
    let pods = || api.get("/api/v1/namespaces/mermin/pods").unwrap()["items"].as_array().unwrap().clone();
    let began = std::time::Instant::now();
    while pods().is_empty() {
        assert!(
            began.elapsed().as_secs() < 30,
            "{}",
            plane.kubectl(&["-n", "mermin", "describe", "daemonset"])
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Admission has put in what the manifest names by name: the class's priority, the account.
    let spec = &pods()[0]["spec"];
    assert_eq!(spec["priority"], 2_000_001_000);
    assert_eq!(spec["serviceAccountName"], "mermin");
    assert!(spec["containers"][0].get("securityContext").is_some());
}

#[test]
fn a_wrong_field_is_refused() {
    need!(ControlPlane::installed());
    let plane = ControlPlane::start();
    let objects = mermin_tests::manifest::objects("kubernetes");
    let mut wrong = mermin_tests::manifest::of_kind(&objects, "DaemonSet").clone();
    wrong["metadata"]["namespace"] = json!("default");
    let apply = |object: &Value| {
        plane.try_kubectl(
            &["apply", "--server-side", "--validate=strict", "--dry-run=server", "--filename", "-"],
            &object.to_string(),
        )
    };
    assert!(apply(&wrong).is_ok());
    wrong["spec"]["template"]["spec"]["hostNetworks"] = json!(true);
    assert!(apply(&wrong).unwrap_err().contains("hostNetworks"));
}

/// The agent's container, as `kubectl` reads it from the manifests.
fn container() -> Value {
    let objects = mermin_tests::manifest::objects("kubernetes");
    mermin_tests::manifest::of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]
        .clone()
}

#[test]
fn an_agent_can_say_over_otlp_who_it_is() {
    need!(ControlPlane::installed());
    let container = container();
    let variable = |name: &str| {
        let all = container["env"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    for (name, field) in [
        ("K8S_NODE_NAME", "spec.nodeName"),
        ("K8S_NAMESPACE_NAME", "metadata.namespace"),
        ("K8S_POD_NAME", "metadata.name"),
        ("K8S_POD_UID", "metadata.uid"),
    ] {
        assert_eq!(variable(name)["valueFrom"]["fieldRef"]["fieldPath"], field);
    }
    assert_eq!(variable("K8S_CONTAINER_NAME")["value"], container["name"]);
}

#[test]
fn probes_ask_where_the_agent_listens() {
    need!(ControlPlane::installed());
    let container = container();
    let port = container["ports"].as_array().unwrap().iter().find(|port| port["name"] == "metrics").unwrap();
    let listen =
        container["env"].as_array().unwrap().iter().find(|one| one["name"] == "MERMIN_SERVER__LISTEN");
    assert_eq!(listen.unwrap()["value"], format!("$(NODE_ADDRESS):{}", port["containerPort"]));
    for (probe, path) in
        [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(container[probe]["httpGet"], json!({ "path": path, "port": "metrics" }));
    }
}
