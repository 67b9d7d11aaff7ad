//! Both ends of every record carry the names that the API server has for their addresses, owners and uids included.

use crate::kubernetes::agent::{Agent, said};
use crate::kubernetes::cluster::{self, Directory, HOST_PORT, NODES, PORT, wait};
use crate::kubernetes::town::{Town, place_of};
use crate::kubernetes::traffic::{Pair, Servers, client, datagrams, length};
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::record::Record;
use mermin_tests::servers::control_plane::{ControlPlane, objects};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

const APPS: [&str; 8] = ["cart", "web", "search", "mail", "pay", "stock", "ship", "tax"];
/// Of the balancer before the service `web`.
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9));
/// IPv4 and UDP, IPv6 and UDP.
const HEADERS: [u64; 2] = [28, 48];

/// 200 pods that are there before the agent comes; every kind of owner but one.
fn before(plane: &ControlPlane) {
    let _ = plane.api().create(&objects::namespace("shop"));
    let mut made = NODES.map(|(name, address)| objects::node(name, &[address], &[])).to_vec();
    made.extend(APPS[..6].iter().map(|app| cluster::deployment(app, 23)));
    made.push(cluster::stateful_set("base", 40));
    made.extend(
        APPS.iter().map(|app| cluster::service(app, if *app == "cart" { "NodePort" } else { "ClusterIP" })),
    );
    made.push(cluster::cron_job("report", 22));
    let _ = plane.api().create_all(&made);
    let _ = plane.kubectl(&["-n", "shop", "create", "job", "--from=cronjob/report", "report-1"]);
    cluster::run_pods(plane, 0, 6 * 23 + 40 + 22);
}

/// 98 pods that come while it watches, and two on their nodes' network.
fn after(plane: &ControlPlane) {
    let mut made: Vec<Value> = APPS[6..].iter().map(|app| cluster::deployment(app, 43)).collect();
    made.extend(["logs", "mesh", "disks", "time", "dns", "scan"].map(cluster::daemon_set));
    let _ = plane.api().create_all(&made);
    cluster::run_pods(plane, 200, 2 * 43 + 6 * 2);
    let _ = plane.api().create_all(&NODES.map(cluster::on_host));
    let mut web = cluster::service("web", "LoadBalancer");
    web["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": BALANCER.to_string() }] } });
    let _ = plane.api().patch(&web, &json!({ "spec": { "type": "LoadBalancer" } }));
    let _ = plane.api().set_status_all([&web].into_iter());
}

/// Everybody asks four others, one of them over IPv6, and what is no pod; every fifth opens a connection too.
fn converse(town: &Town, directory: &Directory) -> Vec<Pair> {
    let addresses = directory.addresses();
    let half = addresses.len() / 2;
    assert_eq!(half, 298, "every pod has two addresses");
    let mut servers = Servers::default();
    for address in &addresses {
        servers.open(town, SocketAddr::new(*address, PORT));
    }
    for (_, address) in NODES {
        let at = SocketAddr::new(address.parse().unwrap(), HOST_PORT);
        servers.add(at, town.node.within(|| UdpSocket::bind(at).unwrap()));
    }
    let services: Vec<SocketAddr> =
        APPS.iter().map(|app| SocketAddr::new(directory.service_address(app), 80)).collect();
    let host = |number: usize| NODES[number % 2].1.parse::<IpAddr>().unwrap();
    let mut pairs = Vec::new();
    for place in 0..half.div_ceil(cluster::CROWD) {
        let here = |address: &&IpAddr| place_of(**address) == place;
        town.inside(place, || {
            for (number, from) in addresses.iter().filter(here).enumerate() {
                let socket = client(*from);
                let family: Vec<_> =
                    addresses.iter().filter(|other| other.is_ipv4() == from.is_ipv4()).collect();
                let others = (1..5).map(|step| *family[(place * 20 + number + step * 61) % half]);
                for to in others.filter(|other| place_of(*other) != place) {
                    pairs.push(servers.talk(&socket, SocketAddr::new(to, PORT)));
                    if number % 5 == 0 {
                        pairs.push(servers.connect(*from, SocketAddr::new(to, PORT)));
                    }
                }
                if from.is_ipv4() {
                    pairs.push(servers.talk(&socket, services[number % services.len()]));
                    pairs.push(servers.talk(&socket, SocketAddr::new(host(number), HOST_PORT)));
                    pairs.push(
                        servers.talk(&socket, SocketAddr::new(host(number), directory.node_port("cart"))),
                    );
                    pairs.push(servers.talk(&socket, SocketAddr::new(BALANCER, 80)));
                    pairs.push(servers.talk(&socket, SocketAddr::new(OUTSIDE, 53)));
                }
            }
        });
    }
    pairs
}

/// Checks both ends of a record.
fn named(record: &Record, directory: &Directory) {
    for side in ["source", "destination"] {
        let expected = directory.names(record, side);
        assert_eq!(said(record, side), expected, "{side} of {:?}", record.0);
        let resolution = if expected.is_empty() { "unknown" } else { "exact" };
        assert_eq!(record.text(&format!("{side}.k8s.resolution")), resolution, "{side} of {:?}", record.0);
    }
    assert_eq!(record.get("enrichment"), None, "{:?}", record.0);
}

#[test]
fn both_ends_of_every_record_are_named_as_the_api_server_has_them() {
    need!(namespaces(), tool("sysctl"), ControlPlane::installed());
    let town = Town::new(15, cluster::CROWD, &NODES.map(|(_, address)| address));
    let plane = ControlPlane::start_in(&town.place()).with_controllers();
    before(&plane);
    let agent = Agent::start(&town, plane.kubeconfig());
    agent.wait_until_ready(true);
    after(&plane);
    // Endpoint slices are the controllers' to write, and the agent's to read.
    let slices = || {
        let slices = cluster::list(&plane, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices");
        let ready = |slice: &Value| slice["endpoints"].as_array().map_or(0, Vec::len);
        (slices.iter().map(ready).sum::<usize>() == 6 * 23 + 2 * 43).then_some(())
    };
    wait("the endpoint slices", slices);
    let directory = Directory::read(&plane);
    let pairs = converse(&town, &directory);
    agent.settle();
    let outcome = agent.end();
    let records = outcome.records();
    records.iter().for_each(|record| named(record, &directory));
    compare(&records, &pairs);
    let metered = outcome.number("/ledger/metered/packets");
    eprintln!(
        "{} records of {} conversations, {metered} packets: all ends named",
        records.len(),
        pairs.len()
    );
}

/// Every conversation is there, with what its sockets sent.
fn compare(records: &[Record], pairs: &[Pair]) {
    let mut found: HashMap<Pair, [u64; 4]> = HashMap::new();
    for record in records {
        let end = |side: &str| {
            let port = record.whole(&format!("{side}.port"))?;
            let address = record.text(&format!("{side}.address")).parse().unwrap();
            Some(SocketAddr::new(address, u16::try_from(port).unwrap()))
        };
        let Some((from, to)) = end("source").zip(end("destination")) else { continue };
        let tcp = record.text("network.transport") == "tcp";
        let sums = found.entry(Pair { from, to, tcp }).or_default();
        let (forward, back) = (record.deltas(false), record.deltas(true));
        for (sum, delta) in sums.iter_mut().zip([forward.packets, forward.bytes, back.packets, back.bytes]) {
            *sum += delta;
        }
    }
    assert_eq!(found.len(), pairs.len(), "conversations in records, and those that were held");
    for pair in pairs {
        let sums = found.get(pair).unwrap_or_else(|| panic!("{pair:?} is in no record"));
        if pair.tcp {
            assert!(sums.iter().all(|sum| *sum > 0), "{pair:?}: {sums:?}");
            continue;
        }
        let bytes = datagrams(pair) * (HEADERS[usize::from(pair.from.is_ipv6())] + length(pair) as u64);
        assert_eq!(sums[..2], [datagrams(pair), bytes], "{pair:?}");
        let answers = [PORT, HOST_PORT].contains(&pair.to.port());
        assert_eq!(sums[2..], if answers { [datagrams(pair), bytes] } else { [0, 0] }, "{pair:?}");
    }
}
