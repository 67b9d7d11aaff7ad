//! The agent as kubelet would start it: image, arguments, environment, files and rights of the DaemonSet, the account of
//! `rbac.yaml` at a real API server, and the probes.

use crate::kubelet::{ACCOUNT, Given, NODE, environment, service, with_volumes};
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
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const TOKEN: &str = "of the secret";

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
    let account = plane.mounted_account("mermin", &plane.existing_account("mermin", name).token);

    let container =
        Container::of(pod, image).on_node(&net.left.name).mounting(&account, Path::new(ACCOUNT), false);
    let given = Given { secrets: &[("mermin-server", "token", TOKEN)], folders: &[] };
    let container = with_volumes(container, pod, &manifests, given);
    let arguments = image["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    let mut program = Program::new("run").args(arguments.skip(1)).contained(container);
    for (name, value) in service(&plane).into_iter().chain(environment(image, &manifests)) {
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
