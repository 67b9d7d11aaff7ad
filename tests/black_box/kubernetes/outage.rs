//! The API server dies, hangs and refuses while pods talk: no packet is lost, no name is wrong, and all comes back.

use crate::kubernetes::agent::{Agent, said};
use crate::kubernetes::cluster::{Directory, NODES, PORT, wait};
use crate::kubernetes::town::{Town, address};
use crate::kubernetes::traffic::{Pair, Servers, client, datagrams, length};
use mermin_tests::manifest;
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::program::Outcome;
use mermin_tests::record::Record;
use mermin_tests::servers::control_plane::rights::Account;
use mermin_tests::servers::control_plane::{ControlPlane, objects};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PLACES: usize = 4;
/// Pods that are there from the beginning, in each place.
const OLD: usize = 5;
/// One more after each trouble.
const TROUBLES: usize = 4;

fn pod(place: usize, number: usize) -> Value {
    let address = address(place, number).to_string();
    objects::pod("shop", &format!("pod-{place}-{number}"), NODES[place % 2].0, &[&address])
}

/// A conversation every 50 ms between those who are always there, until it is done.
fn chatter(town: &Town, servers: &Servers, done: &AtomicBool) -> Vec<Pair> {
    let (mut pairs, mut number) = (Vec::new(), 0);
    while !done.load(Ordering::Acquire) {
        // Never within one place: that would cross no link.
        let from = IpAddr::V4(address(number % PLACES, number / PLACES % OLD));
        let to = IpAddr::V4(address((number + 1 + number / 7 % (PLACES - 1)) % PLACES, number / 3 % OLD));
        number += 1;
        let socket = town.at(from, || client(from));
        pairs.push(servers.talk(&socket, SocketAddr::new(to, PORT)));
        std::thread::sleep(Duration::from_millis(50));
    }
    pairs
}

/// The plane, the agent, and what befalls them.
struct Trouble<'a> {
    plane: ControlPlane,
    account: Account,
    rules: Value,
    agent: &'a Agent,
    /// Pods that came after troubles.
    new: usize,
}

impl Trouble<'_> {
    /// Waits until readiness is back and a pod that is made now has a name; from the moment that it could be.
    fn is_over(&mut self, what: &str, town: &Town, servers: &Servers, began: Instant) -> Vec<Pair> {
        self.agent.wait_until_ready(true);
        let ready = began.elapsed();
        let number = OLD + self.new;
        self.new += 1;
        let made = self.plane.api().create(&pod(0, number));
        let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
        let from = IpAddr::V4(address(0, number));
        let mut pairs = Vec::new();
        wait("a record with the new pod's name", || {
            let to = SocketAddr::new(IpAddr::V4(address(1, 0)), PORT + 1);
            pairs.push(servers.talk(&town.at(from, || client(from)), to));
            std::thread::sleep(Duration::from_millis(200));
            self.agent.running.stdout().contains(&uid).then_some(())
        });
        eprintln!(
            "{what}: ready again after {ready:.1?}, a new pod in a record after {:.1?}",
            began.elapsed()
        );
        pairs
    }
}

#[test]
fn no_packet_is_lost_and_no_name_wrong_whatever_the_api_server_does() {
    need!(namespaces(), tool("sysctl"), ControlPlane::installed());
    let town = Town::new(PLACES, OLD + TROUBLES, &NODES.map(|(_, address)| address));
    let plane = ControlPlane::start_in(&town.place());
    let _ = plane.api().create(&objects::namespace("shop"));
    let mut made = NODES.map(|(name, address)| objects::node(name, &[address], &[])).to_vec();
    made.extend((0..PLACES * OLD).map(|number| pod(number % PLACES, number / PLACES)));
    let _ = plane.api().create_all(&made);
    let rules = manifest::of_kind(&manifest::objects("kubernetes"), "ClusterRole")["rules"].clone();
    let account = plane.account("shop", "mermin", &rules);
    let agent = Agent::start(&town, &account.kubeconfig);
    agent.wait_until_ready(true);

    let mut servers = Servers::default();
    for number in 0..PLACES * OLD {
        let at = IpAddr::V4(address(number % PLACES, number / PLACES));
        servers.open(&town, SocketAddr::new(at, PORT));
    }
    let (done, mut trouble) =
        (AtomicBool::new(false), Trouble { plane, account, rules, agent: &agent, new: 0 });
    let pairs = std::thread::scope(|scope| {
        let talking = scope.spawn(|| chatter(&town, &servers, &done));
        let mut pairs = happen(&mut trouble, &town, &servers);
        done.store(true, Ordering::Release);
        pairs.extend(talking.join().unwrap());
        pairs
    });
    let directory = Directory::read(&trouble.plane);
    agent.settle();
    let said = agent.running.stderr();
    assert!(said.contains("may not list and watch pods"), "the log names the right that is missing: {said}");
    let outcome = agent.end();
    is_whole(&outcome, &pairs);
    is_true(&outcome.records(), &directory);
}

/// One trouble after the other.
fn happen(trouble: &mut Trouble<'_>, town: &Town, servers: &Servers) -> Vec<Pair> {
    let mut pairs = Vec::new();
    trouble.plane.kill_api_server();
    trouble.agent.wait_until_ready(false);
    // Records of this time are to be seen.
    wait("a record that says so", || trouble.agent.running.stdout().contains("degraded").then_some(()));
    trouble.plane.restart_api_server();
    pairs.extend(trouble.is_over("killed", town, servers, Instant::now()));

    trouble.plane.hang_api_server();
    trouble.agent.wait_until_ready(false);
    trouble.plane.resume_api_server();
    pairs.extend(trouble.is_over("hung", town, servers, Instant::now()));

    // Watches that are open go on: they end with the server.
    let fewer: Vec<Value> = trouble.rules.as_array().unwrap().clone();
    let fewer: Vec<Value> = fewer.into_iter().filter(|rule| rule["resources"] != json!(["pods"])).collect();
    trouble.plane.set_rules(&trouble.account, &json!(fewer));
    trouble.plane.restart_api_server();
    trouble.agent.wait_until_ready(false);
    wait("a word about the right", || {
        trouble.agent.running.stderr().contains("may not list and watch pods").then_some(())
    });
    trouble.plane.set_rules(&trouble.account, &trouble.rules);
    pairs.extend(trouble.is_over("a right taken", town, servers, Instant::now()));

    trouble.plane.compact();
    trouble.plane.restart_api_server();
    pairs.extend(trouble.is_over("restarted over a compacted store", town, servers, Instant::now()));
    pairs
}

/// Every datagram is in a record and in the books, once.
fn is_whole(outcome: &Outcome, pairs: &[Pair]) {
    let mut found: HashMap<(SocketAddr, SocketAddr), [u64; 2]> = HashMap::new();
    let records = outcome.records();
    for record in records.iter().filter(|record| record.text("network.transport") == "udp") {
        let end = |side: &str| {
            let address = record.text(&format!("{side}.address")).parse().unwrap();
            SocketAddr::new(address, u16::try_from(record.count(&format!("{side}.port"))).unwrap())
        };
        let sums = found.entry((end("source"), end("destination"))).or_default();
        sums[0] += record.deltas(false).packets + record.deltas(true).packets;
        sums[1] += record.deltas(false).bytes + record.deltas(true).bytes;
    }
    let mut sent: HashMap<(SocketAddr, SocketAddr), [u64; 2]> = HashMap::new();
    for pair in pairs {
        let packets = datagrams(pair) * if pair.to.port() == PORT { 2 } else { 1 };
        let sums = sent.entry((pair.from, pair.to)).or_default();
        sums[0] += packets;
        sums[1] += packets * (28 + length(pair) as u64);
    }
    assert_eq!(found, sent, "what records say, and what the sockets sent");
    let number = |path: &str| outcome.number(&format!("/ledger/{path}/packets"));
    let sum = |reverse| records.iter().map(|record| record.deltas(reverse).packets).sum::<u64>();
    assert_eq!(number("metered"), sum(false) + sum(true));
    let lost = outcome.statistics()["ledger"]["lost"].as_object().unwrap();
    assert!(lost.values().all(|term| term["buffers"] == 0), "{lost:?}");
}

/// No record says anything that isn't so; what is exact is complete.
fn is_true(records: &[Record], directory: &Directory) {
    let (mut exact, mut degraded) = (0, 0);
    for record in records {
        let is_degraded = record.get("enrichment") == Some("degraded");
        for side in ["source", "destination"] {
            let (names, expected) = (said(record, side), directory.names(record, side));
            assert!(names.iter().all(|(key, name)| expected.get(key) == Some(name)), "{side}: {record:?}");
            if record.text(&format!("{side}.k8s.resolution")) == "exact" {
                assert_eq!(names, expected, "{side}: {record:?}");
                exact += usize::from(!is_degraded);
            }
        }
        degraded += usize::from(is_degraded);
        assert_eq!(record.get("enrichment").is_some(), record.0.contains_key("enrichment_age"), "{record:?}");
    }
    let sound = records.len() - degraded;
    eprintln!("{degraded} records degraded; of the {sound} others {exact} ends exact");
    assert!(degraded > 0, "the outages left no trace");
    // How long outages last, and so how many are degraded, is the machine's affair.
    assert!(sound > 0 && exact > sound, "hardly anything was named");
}
