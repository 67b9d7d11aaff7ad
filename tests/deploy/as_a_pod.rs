//! The agent as kubelet would start it: image, arguments, environment, files and rights of the DaemonSet, the account of
//! `rbac.yaml` at a real API server, and the probes.

use mermin_tests::container::Container;
use mermin_tests::manifest::{objects, of_kind};
use mermin_tests::need;
use mermin_tests::need::{root, tool};
use mermin_tests::netns::{LEFT, Net, RIGHT};
use mermin_tests::program::Program;
use mermin_tests::servers::control_plane::ControlPlane;
use mermin_tests::servers::control_plane::objects::{namespace, node};
use mermin_tests::servers::http::{Client, Request};
use mermin_tests::servers::place::Place;
use rustix::process::Signal;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const NODE: &str = "left";
const TOKEN: &str = "of the secret";

/// A container's environment, with what kubelet puts in place of references.
fn environment(container: &Value) -> Vec<(String, String)> {
    let mut environment: Vec<(String, String)> = Vec::new();
    for variable in container["env"].as_array().unwrap() {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("status.podIP") => LEFT.to_owned(),
            Some("spec.nodeName") => NODE.to_owned(),
            Some("metadata.namespace") => "mermin".to_owned(),
            Some("metadata.name") => "mermin-x7k2p".to_owned(),
            Some("metadata.uid") => "5f2a7c31-0d6e-4b7e-9a43-2f1c8e6b9d10".to_owned(),
            Some(other) => panic!("{other}"),
            None => {
                let written = variable["value"].as_str().unwrap().to_owned();
                environment
                    .iter()
                    .fold(written, |text, (name, value)| text.replace(&format!("$({name})"), value))
            }
        };
        environment.push((variable["name"].as_str().unwrap().to_owned(), value));
    }
    environment
}

#[test]
fn starts_is_probed_captures_and_ends() {
    need!(ControlPlane::installed(), Container::possible(), tool("ping"));
    let net = Net::new("pod", false);
    let place = Place::Namespace(net.left.name.clone());
    let plane = ControlPlane::start_in(&place);
    let _ = plane.api().create_all(&[namespace("mermin"), node(NODE, &[LEFT], &["10.244.1.0/24"])]);
    let _ = plane.kubectl(&[
        "apply",
        "--filename",
        &root().join("deploy/kubernetes/rbac.yaml").display().to_string(),
    ]);
    let manifests = objects("kubernetes");
    let pod = &of_kind(&manifests, "DaemonSet")["spec"]["template"]["spec"];
    let image = &pod["containers"][0];
    let name = pod["serviceAccountName"].as_str().unwrap();
    let mounts = image["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().all(|mount| mount.get("subPath").is_none()), "it would never change");
    let account = plane.mounted_account("mermin", &plane.existing_account("mermin", name).token);

    let container = Container::of(pod, image)
        .on_node(&net.left.name)
        .mounting(&account, Path::new("/var/run/secrets/kubernetes.io/serviceaccount"), false)
        .with_file(
            "/etc/mermin/config/mermin.yaml",
            of_kind(&manifests, "ConfigMap")["data"]["mermin.yaml"].as_str().unwrap(),
        )
        .with_file("/etc/mermin/server/token", TOKEN);
    let arguments = image["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    let mut program = Program::new("run").args(arguments.skip(1)).contained(container);
    let (_, port) =
        plane.url().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
    let given = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", &port)];
    for (name, value) in
        given.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().chain(environment(image))
    {
        program = program.variable(&name, &value);
    }
    let running = program.start();

    let address = SocketAddr::new(
        LEFT.parse().unwrap(),
        u16::try_from(image["ports"][0]["containerPort"].as_u64().unwrap()).unwrap(),
    );
    let stranger = Client::plain(&place, address);
    let known = Client { authorization: Some(format!("Bearer {TOKEN}")), ..stranger.clone() };
    let status =
        |client: &Client, path: &str| client.send(Request::get(path)).map(|response| response.status);
    let began = Instant::now();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = image[probe]["httpGet"]["path"].as_str().unwrap();
        while status(&stranger, path) != Ok(200) {
            let why = known.send(Request::get(path)).map(|response| response.text());
            assert!(began.elapsed() < Duration::from_secs(30), "{path}: {why:?}: {}", running.stderr());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert_eq!(status(&stranger, "/metrics"), Ok(401));
    let metrics = known.send(Request::get("/metrics")).unwrap().text();
    for line in ["mermin_interfaces_attached 1", "mermin_kubernetes_objects{kind=\"nodes\"} 1"] {
        assert!(metrics.lines().any(|there| there == line), "{line}: {metrics}");
    }

    let _ = net.left.run(&format!("ping -c 3 -i 0.2 -q {RIGHT}"));
    running.signal(Signal::INT);
    let outcome = running.wait(Duration::from_secs(30)).kept(0);
    let records = outcome.records();
    let echoes = records.iter().filter(|record| record.get("network.transport") == Some("icmp"));
    // Sent by the node itself: its name comes from the API server, by the account's rights.
    let named: Vec<_> = echoes.clone().map(|record| record.get("source.k8s.node.name")).collect();
    assert_eq!(named, [Some(NODE)], "{}", outcome.stdout);
    let echoes: Vec<_> =
        echoes.map(|record| (record.deltas(false).packets, record.deltas(true).packets)).collect();
    assert_eq!(echoes, [(3, 3)], "{}", outcome.stdout);
}
