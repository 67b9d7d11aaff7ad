//! One conversation out of what four agents saw of a connection: each packet once, hops in order, losses where they were, both
//! tuples.
//!
//! Witnesses: the client's sockets (`ss -ti`) and the counters of what lost the packets.

use super::row_of_hosts::{CLIENT, RowOfHosts, SERVER, SERVICE};
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::Namespace;
use mermin_tests::program::{Program, Running};
use mermin_tests::servers::flink::{self, Job};
use mermin_tests::servers::kafka::{Kafka, Listener};
use mermin_tests::servers::tunnel::Tunnel;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

const CONNECTIONS: u16 = 24;
const FLOWS: &str = "mermin.flows";

/// What `ss -ti` says of a client's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Socket {
    bytes_sent: u64,
    bytes_received: u64,
    segments_out: u64,
    segments_in: u64,
}

/// IPv4 and TCP, without options.
const HEADERS: u64 = 40;
/// Of a SYN: the segment's greatest size and the window's scale.
const SYN_OPTIONS: u64 = 8;

impl Socket {
    /// All packets of the connection, when its end has come: the client's FIN and its acknowledgement are still to come when
    /// `ss` looks.
    fn packets(self) -> [u64; 2] {
        [self.segments_out + 1, self.segments_in + 1]
    }

    /// Their IP bytes.
    fn bytes(self) -> [u64; 2] {
        let [out, back] = self.packets();
        let all = |payload, packets| payload + HEADERS * packets + SYN_OPTIONS;
        // What was received counts the FIN as one.
        [all(self.bytes_sent, out), all(self.bytes_received - 1, back)]
    }
}

/// Sends, reads until the server ends the connection, and keeps its own side open until `looked`.
fn converse(number: u16, done: &Barrier, looked: &Barrier) -> u16 {
    let mut stream = TcpStream::connect(SERVICE).expect("the server listens");
    let port = stream.local_addr().expect("connected").port();
    let (sent, answer) = (20_000 + 5_000 * u32::from(number), 1_000 * u32::from(number));
    stream.write_all(&sent.to_be_bytes()).expect("it is read");
    stream.write_all(&answer.to_be_bytes()).expect("it is read");
    stream.write_all(&vec![0; sent as usize]).expect("it is read");
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).expect("the server answers");
    assert_eq!(received.len(), answer as usize);
    let _ = done.wait();
    let _ = looked.wait();
    port
}

/// Reads what a client sends, answers and ends the connection.
fn answer(mut stream: TcpStream) {
    let mut lengths = [[0; 4]; 2];
    lengths.iter_mut().for_each(|length| stream.read_exact(length).expect("the client sends"));
    let [sent, answer] = lengths.map(u32::from_be_bytes);
    stream.read_exact(&mut vec![0; sent as usize]).expect("the client sends all");
    stream.write_all(&vec![1; answer as usize]).expect("the client reads");
}

fn sockets(client: &Namespace) -> BTreeMap<u16, Socket> {
    let text = client.run("ss -Htinp state close-wait");
    let lines: Vec<&str> = text.lines().collect();
    let of = |pair: &[&str]| {
        let port = pair[0].split_whitespace().find_map(|word| word.strip_prefix(CLIENT)?.strip_prefix(':'));
        let value = |name: &str| {
            let found =
                pair[1].split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
            found.map_or(0, |value| value.parse().expect("a number"))
        };
        let socket = Socket {
            bytes_sent: value("bytes_sent"),
            bytes_received: value("bytes_received"),
            segments_out: value("segs_out"),
            segments_in: value("segs_in"),
        };
        (port.expect("the client's address").parse().expect("a port"), socket)
    };
    lines.chunks_exact(2).map(of).collect()
}

/// All connections at once; what the client's sockets and the wire counted, by the client's port.
fn traffic(row: &RowOfHosts) -> (BTreeMap<u16, Socket>, BTreeMap<u16, u64>) {
    let listener = row.server.within(|| TcpListener::bind(SERVER).expect("it is this host's"));
    let (done, looked) =
        (Barrier::new(usize::from(CONNECTIONS) + 1), Barrier::new(usize::from(CONNECTIONS) + 1));
    row.lose_some();
    thread::scope(|scope| {
        let _ = scope.spawn(|| {
            thread::scope(|scope| {
                for _ in 0..CONNECTIONS {
                    let (stream, _) = listener.accept().expect("a client");
                    let _ = scope.spawn(|| answer(stream));
                }
            });
        });
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                scope.spawn({
                    let (done, looked) = (&done, &looked);
                    move || row.client.within(|| converse(number, done, looked))
                })
            })
            .collect();
        let _ = done.wait();
        let lost = row.lost();
        // The last acknowledgements.
        thread::sleep(Duration::from_millis(500));
        let sockets = sockets(&row.client);
        let _ = looked.wait();
        let ports = clients.into_iter().map(|client| client.join().expect("it is asserted there"));
        assert_eq!(ports.collect::<std::collections::BTreeSet<_>>(), sockets.keys().copied().collect());
        (sockets, lost)
    })
}

/// An agent on a host, which sends its records by way of a tunnel to the broker.
fn agent(host: &Namespace, name: &str, interfaces: &[&str], broker: SocketAddr, conntrack: bool) -> Running {
    let mut program = Program::new("run").args(["--source", "ebpf"]).inside(&host.name);
    for interface in interfaces {
        program = program.args(["-i", interface]);
    }
    let program = program.set(&format!("enrich.conntrack.enabled={conntrack}"));
    program.output(&format!("kafka:{broker}/{FLOWS}")).variable("K8S_NODE_NAME", name).start()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Of a way's hops: where they are, and what was lost in front of each.
fn way(row: &Value, key: &str) -> (Vec<String>, Vec<u64>) {
    let hops = row[key].as_array().expect("a list");
    let place = |hop: &Value| ["node", "interface"].map(|key| text(hop, key).to_owned()).join(" ");
    let lost = |hop: &Value| hop["lost.packets"].as_u64().unwrap_or_default();
    (hops.iter().map(place).collect(), hops.iter().map(lost).collect())
}

const THERE: [&str; 6] = ["client c0", "first f0", "first f1", "second s0", "second s1", "server e0"];
/// What the wire lost is missing here.
const BEHIND_THE_WIRE: usize = 3;

#[test]
fn a_connection_over_four_hosts_is_one_conversation() {
    need!(namespaces(), tool("nft"), tool("ss"), Kafka::installed(), flink::installed());
    one_conversation_each(false, "time and size at one node");
}

#[test]
fn its_two_tuples_are_joined_by_what_the_router_says() {
    need!(namespaces(), tool("nft"), tool("ss"), Kafka::installed(), flink::installed());
    one_conversation_each(true, "conntrack");
}

fn one_conversation_each(conntrack: bool, matched_by: &str) {
    let (row, broker) = (RowOfHosts::new(), Kafka::start());
    for topic in [FLOWS, "mermin.traffic", "mermin.conversations", "mermin.streams.counts"] {
        broker.create_topic(topic, 4, &[]);
    }
    let address = broker.address(Listener::Plain);
    let hosts = [
        (&row.client, "client", &["c0"][..]),
        (&row.first, "first", &["f0", "f1"]),
        (&row.second, "second", &["s0", "s1"]),
        (&row.server, "server", &["e0"]),
    ];
    let _tunnels = hosts.map(|(host, ..)| Tunnel::into(host, address));
    let agents = hosts.map(|(host, name, interfaces)| agent(host, name, interfaces, address, conntrack));
    let (sockets, lost) = traffic(&row);
    // So that ends are seen as what they are.
    thread::sleep(Duration::from_secs(2));
    for agent in agents {
        let outcome = agent.interrupt();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let statistics = outcome.statistics.expect("they were asked for");
        let lost = statistics["ledger"]["lost"].as_object().expect("by reason").values();
        assert_eq!(lost.filter_map(|lost| lost["packets"].as_u64()).sum::<u64>(), 0, "{statistics}");
    }
    Job::over(address).run_to_end();

    let rows: Vec<Value> = broker
        .consume("mermin.conversations")
        .iter()
        .filter_map(|message| message.payload.as_deref())
        .map(|row| serde_json::from_slice(row).expect("JSON"))
        .collect();
    let of_connections: Vec<_> = rows.iter().filter(|row| text(row, "network.transport") == "tcp").collect();
    assert_eq!(of_connections.len(), sockets.len(), "one for each connection");
    assert!(lost.values().sum::<u64>() > 30, "{lost:?}");
    for row in of_connections {
        let port = row["source.port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        let socket = sockets[&port];
        assert_eq!(
            (text(row, "source.address"), text(row, "destination.address"), &row["destination.port"]),
            (CLIENT, SERVICE.0, &SERVICE.1.into())
        );
        let count = |key: &str| row[key].as_u64().expect("a count");
        assert_eq!([count("flow.packets"), count("flow.reverse.packets")], socket.packets(), "{row}");
        assert_eq!([count("flow.bytes"), count("flow.reverse.bytes")], socket.bytes(), "{row}");
        let on_the_wire = lost.get(&port).copied().unwrap_or_default();
        let (there, missing) = way(row, "hops");
        assert_eq!(there, THERE, "{row}");
        let mut expected = [0; 6];
        expected[BEHIND_THE_WIRE] = on_the_wire;
        assert_eq!(missing, expected, "{row}");
        assert_eq!(count("flow.packets.lost"), on_the_wire);
        let back: Vec<_> = THERE.iter().rev().map(|place| (*place).to_owned()).collect();
        assert_eq!(way(row, "reverse.hops"), (back, vec![0; 6]), "{row}");
        let tuples = row["nat.tuples"].as_array().expect("a list");
        let destinations: Vec<_> = tuples
            .iter()
            .map(|tuple| (text(tuple, "destination.address"), tuple["destination.port"].as_u64()))
            .collect();
        assert_eq!(destinations, [(SERVICE.0, Some(SERVICE.1.into())), (SERVER.0, Some(SERVER.1.into()))]);
        assert_eq!(text(row, "nat.matched_by"), matched_by, "{row}");
    }
}
