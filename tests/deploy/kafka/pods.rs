//! Pods of the fleet, one after the other on a node, with a real API server and a broker that wants TLS and a password.

use super::{TOKEN, fleet, objects_of, pod};
use crate::kubelet::{ACCOUNT, Given, NODE, environment, service, with_volumes};
use mermin_tests::container::Container;
use mermin_tests::manifest::of_kind;
use mermin_tests::need;
use mermin_tests::need::{root, tool};
use mermin_tests::netns::{LEFT, Net, RIGHT};
use mermin_tests::program::{Outcome, Program, Running};
use mermin_tests::servers::control_plane::ControlPlane;
use mermin_tests::servers::control_plane::objects::{namespace, node};
use mermin_tests::servers::folder::Folder;
use mermin_tests::servers::http::{Client, Request};
use mermin_tests::servers::kafka::{Kafka, Listener, PASSWORD, USER};
use mermin_tests::servers::place::Place;
use rustix::process::Signal;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TOPIC: &str = "mermin.flows";

/// A node; API server and broker are in its network.
struct Node {
    net: Net,
    plane: ControlPlane,
    broker: Kafka,
    objects: Vec<Value>,
    /// The folder of the node that pods have for their state.
    state: Folder,
}

impl Node {
    fn start() -> Self {
        let net = Net::new("fleet", false);
        let place = Place::Namespace(net.left.name.clone());
        let plane = ControlPlane::start_in(&place);
        let _ = plane.api().create_all(&[namespace("mermin"), node(NODE, &[LEFT], &["10.244.1.0/24"])]);
        let rights = root().join("deploy/kubernetes/rbac.yaml").display().to_string();
        let _ = plane.kubectl(&["apply", "--filename", &rights]);
        let broker = Kafka::start_with(&place, &[]);
        broker.create_topic(TOPIC, 4, &[]);
        let brokers = format!("[{}]", broker.address(Listener::Password));
        let more = format!(
            "        MERMIN_EXPORT__KAFKA__SASL__USERNAME: {USER}\n        MERMIN_EXPORT__KAFKA__ENCODING: json\n"
        );
        let objects = objects_of(&fleet(&brokers, &more));
        Self { net, plane, broker, objects, state: Folder::new() }
    }

    fn account(&self) -> PathBuf {
        let name = pod(&self.objects)["serviceAccountName"].as_str().unwrap();
        self.plane.mounted_account("mermin", &self.plane.existing_account("mermin", name).token)
    }

    /// The next pod.
    fn start_pod(&self, password: &str) -> Running {
        let spec = pod(&self.objects);
        let image = &spec["containers"][0];
        let authority = std::fs::read_to_string(self.broker.authority()).unwrap();
        let secrets = [
            ("mermin-server", "token", TOKEN),
            ("mermin-kafka", "ca.crt", &authority),
            ("mermin-kafka", "password", password),
        ];
        let given = Given { secrets: &secrets, folders: &[("/var/lib/mermin", self.state.path())] };
        let container = Container::of(spec, image).on_node(&self.net.left.name).mounting(
            &self.account(),
            Path::new(ACCOUNT),
            false,
        );
        let container = with_volumes(container, spec, &self.objects, given);
        let arguments = image["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        let mut program =
            Program::new("run").outputs_as_configured().args(arguments.skip(1)).contained(container);
        for (name, value) in service(&self.plane).into_iter().chain(environment(image, &self.objects)) {
            program = program.variable(&name, &value);
        }
        program.start()
    }

    /// Waits until the pod is ready, or is not because of its output, and says why.
    fn wait_for_ready(&self, running: &Running, ready: bool, at_most: Duration) -> String {
        let port = &pod(&self.objects)["containers"][0]["ports"][0]["containerPort"];
        let address = SocketAddr::new(LEFT.parse().unwrap(), port.as_u64().unwrap().try_into().unwrap());
        let client = Client {
            authorization: Some(format!("Bearer {TOKEN}")),
            ..Client::plain(&Place::Namespace(self.net.left.name.clone()), address)
        };
        let began = Instant::now();
        loop {
            if let Ok(answer) = client.send(Request::get("/readyz")) {
                let told: Value = serde_json::from_slice(&answer.body).unwrap();
                let output =
                    told["checks"].as_array().unwrap().iter().find(|one| one["check"] == "output kafka");
                let output = output.unwrap();
                if (answer.status == 200, &output["ok"]) == (ready, &ready.into()) {
                    return output["detail"].as_str().unwrap().to_owned();
                }
            }
            assert!(began.elapsed() < at_most, "not {ready} after {at_most:?}: {}", running.stderr());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// For how long a pod has to be ready until the next one is replaced.
    fn min_ready(&self) -> Duration {
        Duration::from_secs(of_kind(&self.objects, "DaemonSet")["spec"]["minReadySeconds"].as_u64().unwrap())
    }

    /// Packets, there and back, of each record of pings in the topic.
    fn pings(&self) -> Vec<(u64, u64)> {
        let messages = self.broker.consume(TOPIC);
        let mut pings = Vec::new();
        for message in &messages {
            assert_eq!(message.header("node"), Some(NODE), "{message:?}");
            let record: Value = serde_json::from_slice(message.payload.as_ref().unwrap()).unwrap();
            if record["network.transport"] == "icmp" {
                assert_eq!(record["source.k8s.node.name"], NODE, "{record}");
                let count = |key: &str| record[key].as_u64().unwrap();
                pings.push((count("flow.packets.delta"), count("flow.reverse.packets.delta")));
            }
        }
        pings
    }

    fn ping(&self, count: u32) {
        let _ = self.net.left.run(&format!("ping -c {count} -i 0.2 -q {RIGHT}"));
    }
}

/// Ends a pod as kubelet does; it ends well within the time that it has.
fn end(running: Running, objects: &[Value]) -> Outcome {
    let grace = pod(objects)["terminationGracePeriodSeconds"].as_u64().unwrap();
    running.signal(Signal::TERM);
    let outcome = running.wait(Duration::from_secs(grace)).kept_books(0);
    assert_eq!(outcome.stdout, "", "records are in the topic alone");
    outcome
}

fn possible() -> Result<(), String> {
    ControlPlane::installed()?;
    Kafka::installed()?;
    Container::possible()?;
    tool("ping").map(drop)
}

#[test]
fn a_pod_writes_to_the_topic_and_the_next_one_sends_what_it_could_not() {
    need!(possible());
    let mut node = Node::start();
    let first = node.start_pod(PASSWORD);
    let _ = node.wait_for_ready(&first, true, Duration::from_secs(30));
    node.ping(3);
    let _ = end(first, &node.objects);
    assert_eq!(node.pings(), [(3, 3)]);

    node.broker.kill();
    let second = node.start_pod(PASSWORD);
    node.ping(4);
    // Until then a DaemonSet's controller would go on to the next node.
    let _ = node.wait_for_ready(&second, false, node.min_ready());
    let left = end(second, &node.objects);
    let spooled = left.number("/outputs/kafka/spooled/records");
    assert!(spooled > 0, "{}", left.statistics()["outputs"]);
    node.broker.restart();
    let third = node.start_pod(PASSWORD);
    let _ = node.wait_for_ready(&third, true, Duration::from_secs(30));
    let began = Instant::now();
    while node.pings().len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", third.stderr());
    }
    assert_eq!(end(third, &node.objects).number("/outputs/kafka/recovered/records"), spooled);
    let mut pings = node.pings();
    pings.sort_unstable();
    assert_eq!(pings, [(3, 3), (4, 4)]);
}

#[test]
fn a_pod_that_the_broker_does_not_let_in_is_not_ready_before_a_roll_out_goes_on() {
    need!(possible());
    let node = Node::start();
    let running = node.start_pod("guessed");
    let _ = node.wait_for_ready(&running, true, Duration::from_secs(30));
    node.ping(3);
    let why = node.wait_for_ready(&running, false, node.min_ready());
    assert!(why.contains("brokers refuse the login") && !why.contains("guessed"), "{why}");
}
