//! A router that translates sees each connection under two tuples, and the records of either name the other.
//!
//! Witnesses: the kernel's own table (`/proc/net/nf_conntrack` of the router), and what the sockets at both ends call each
//! other.

use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::Namespace;
use mermin_tests::program::{Outcome, Program, Running};
use mermin_tests::record::Record;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

const CLIENT: [&str; 2] = ["10.9.1.1", "fd91::1"];
const ROUTER: [&str; 2] = ["10.9.2.254", "fd92::ffff"];
const SERVER: [&str; 2] = ["10.9.2.1", "fd92::1"];
/// Of a service: nobody has them.
const SERVICE: [&str; 2] = ["10.9.9.9", "fd99::9"];
const SERVICE_PORT: u16 = 80;
const SERVER_PORT: u16 = 8_080;

/// Client, router, server in a row.
struct Row {
    client: Namespace,
    router: Namespace,
    server: Namespace,
}

impl Row {
    fn new() -> Self {
        let [client, router, server] = ["nat", "nat", "nat"].map(Namespace::new);
        let row = Self { client, router, server };
        for (end, addresses, name, router) in
            [(&row.client, CLIENT, "c", ["10.9.1.254", "fd91::ffff"]), (&row.server, SERVER, "s", ROUTER)]
        {
            end.ip(&format!("link add eth0 type veth peer name {name} netns {}", row.router.name));
            for (namespace, link, own) in [(end, "eth0", addresses), (&row.router, name, router)] {
                let _ = namespace.run(&format!("sysctl -q -w net.ipv6.conf.{link}.accept_dad=0"));
                let _ = namespace.run(&format!("ethtool -K {link} tso off gso off gro off"));
                namespace.ip(&format!("addr add {}/24 dev {link}", own[0]));
                namespace.ip(&format!("addr add {}/64 dev {link} nodad", own[1]));
                namespace.ip(&format!("link set {link} up"));
            }
            end.ip(&format!("route add default via {}", router[0]));
            end.ip(&format!("-6 route add default via {}", router[1]));
        }
        for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            let _ = row.router.run(&format!("sysctl -q -w {setting}"));
        }
        row.nft("add table inet n");
        row.nft("add chain inet n in { type nat hook prerouting priority dstnat; }");
        row.nft("add chain inet n out { type nat hook postrouting priority srcnat; }");
        row
    }

    fn nft(&self, line: &str) {
        let output = self.router.command("nft").arg(line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The service's address leads to the server's, by TCP and UDP.
    fn serves(&self) {
        for (family, at) in [("ip", 0), ("ip6", 1)] {
            let server = SocketAddr::new(SERVER[at].parse().unwrap(), SERVER_PORT);
            for protocol in ["tcp", "udp"] {
                self.nft(&format!(
                    "add rule inet n in {family} daddr {} {protocol} dport {SERVICE_PORT} dnat {family} to {server}",
                    SERVICE[at]
                ));
            }
        }
    }

    fn hides(&self) {
        self.nft("add rule inet n out oifname s masquerade");
    }

    fn agent(&self) -> Program {
        let program =
            Program::new("run").args(["--source", "ebpf", "-i", "c", "-i", "s"]).inside(&self.router.name);
        program.set("enrich.conntrack.enabled=true")
    }

    /// What the kernel says of the connections of `client`: both tuples, the second one as the answers come.
    fn table(&self, client: SocketAddr) -> Option<[[SocketAddr; 2]; 2]> {
        let table = self.router.run("cat /proc/net/nf_conntrack");
        let tuples = table.lines().map(|line| {
            let all = |key: &str| -> Vec<&str> {
                line.split(' ').filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).collect()
            };
            let (src, dst, sport, dport) = (all("src"), all("dst"), all("sport"), all("dport"));
            let end =
                |address: &str, port: &str| SocketAddr::new(address.parse().unwrap(), port.parse().unwrap());
            (sport.len() == 2).then(|| [0, 1].map(|at| [end(src[at], sport[at]), end(dst[at], dport[at])]))
        });
        tuples.flatten().find(|[orig, _]| orig[0] == client)
    }
}

/// What the ends of one connection call each other.
#[derive(Debug)]
struct Connection {
    protocol: u64,
    /// The client's own name, and what it calls the server.
    before: [SocketAddr; 2],
    /// What the server calls the client, and its own name.
    behind: [SocketAddr; 2],
}

fn tcp(row: &Row, to: SocketAddr) -> Connection {
    let any = SocketAddr::new(if to.is_ipv4() { SERVER[0] } else { SERVER[1] }.parse().unwrap(), SERVER_PORT);
    let listener = row.server.within(|| TcpListener::bind(any).unwrap());
    let mut stream = row.client.within(|| TcpStream::connect(to).unwrap());
    let (mut accepted, peer) = listener.accept().unwrap();
    stream.write_all(b"question").unwrap();
    accepted.read_exact(&mut [0; 8]).unwrap();
    accepted.write_all(b"answer").unwrap();
    stream.read_exact(&mut [0; 6]).unwrap();
    let before = [stream.local_addr().unwrap(), stream.peer_addr().unwrap()];
    row.agrees(before, [peer, accepted.local_addr().unwrap()]);
    Connection { protocol: 6, before, behind: [peer, accepted.local_addr().unwrap()] }
}

fn udp(row: &Row, to: SocketAddr) -> Connection {
    let any = SocketAddr::new(if to.is_ipv4() { SERVER[0] } else { SERVER[1] }.parse().unwrap(), SERVER_PORT);
    let server = row.server.within(|| UdpSocket::bind(any).unwrap());
    let from = SocketAddr::new(if to.is_ipv4() { CLIENT[0] } else { CLIENT[1] }.parse().unwrap(), 0);
    let client = row.client.within(|| UdpSocket::bind(from).unwrap());
    client.connect(to).unwrap();
    client.send(b"question").unwrap();
    let (_, peer) = server.recv_from(&mut [0; 9]).unwrap();
    server.send_to(b"answer", peer).unwrap();
    client.recv(&mut [0; 9]).unwrap();
    let (before, behind) = ([client.local_addr().unwrap(), to], [peer, server.local_addr().unwrap()]);
    row.agrees(before, behind);
    Connection { protocol: 17, before, behind }
}

impl Row {
    /// The kernel's table says the same as the sockets, or the test's own idea is wrong.
    fn agrees(&self, before: [SocketAddr; 2], behind: [SocketAddr; 2]) {
        assert_eq!(self.table(before[0]), Some([before, [behind[1], behind[0]]]));
    }
}

fn ends(record: &Record) -> [SocketAddr; 2] {
    ["source", "destination"].map(|end| {
        let port = u16::try_from(record.count(&format!("{end}.port"))).unwrap();
        SocketAddr::new(record.text(&format!("{end}.address")).parse().unwrap(), port)
    })
}

/// What the record's ends are called in the other tuple, as far as it says that they are called something else.
fn other(record: &Record) -> [Option<SocketAddr>; 2] {
    ["source", "destination"].map(|end| {
        let address = record.get(&format!("{end}.nat.ip"))?;
        let port = record.count(&format!("{end}.nat.port"));
        Some(SocketAddr::new(address.parse().unwrap(), u16::try_from(port).unwrap()))
    })
}

/// The last record of a tuple, of which there is one.
fn of(records: &[Record], protocol: u64, tuple: [SocketAddr; 2]) -> &Record {
    let is = |record: &&Record| {
        record.whole("network.transport.number") == Some(protocol)
            && record.text("flow.event") == "end"
            && record.whole("source.port").is_some()
            && ends(record) == tuple
    };
    let all: Vec<_> = records.iter().filter(is).collect();
    assert_eq!(all.len(), 1, "{protocol} {tuple:?}: {all:?}");
    all[0]
}

/// Both records of a connection name each other's tuple.
fn assert_joined(records: &[Record], connection: &Connection) {
    let Connection { protocol, before, behind } = connection;
    let [first, second] = [before, behind].map(|tuple| of(records, *protocol, *tuple));
    let different = |own: &[SocketAddr; 2], other: &[SocketAddr; 2]| {
        [0, 1].map(|at| (own[at] != other[at]).then_some(other[at]))
    };
    assert_eq!((first.get("flow.nat.stage"), other(first)), (Some("before"), different(before, behind)));
    assert_eq!((second.get("flow.nat.stage"), other(second)), (Some("behind"), different(behind, before)));
    for (one, other) in [(first, second), (second, first)] {
        assert_eq!(one.text("flow.nat.community_id"), other.text("flow.community_id"));
    }
}

fn service(at: usize) -> SocketAddr {
    SocketAddr::new(SERVICE[at].parse().unwrap(), SERVICE_PORT)
}

/// Some time for what the packets before were to be told, and for the agent to have attached.
fn finish(running: Running) -> Outcome {
    thread::sleep(Duration::from_millis(300));
    running.interrupt().kept(0)
}

fn begin(row: &Row) -> Running {
    row.agent().start()
}

#[test]
fn a_services_address_leads_to_the_servers_and_back() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    let row = Row::new();
    row.serves();
    // A start is made at the first packet, before the kernel tells of the connection: it waits.
    let running = row.agent().set("flow.start_records=true").start();
    let connections: Vec<_> =
        [0, 1].into_iter().flat_map(|at| [tcp(&row, service(at)), udp(&row, service(at))]).collect();
    // Past the service, to the server itself.
    let direct = [0, 1].map(|at| tcp(&row, SocketAddr::new(SERVER[at].parse().unwrap(), SERVER_PORT)));
    let records = finish(running).records();
    for connection in &connections {
        assert_ne!(connection.before, connection.behind);
        assert_joined(&records, connection);
    }
    for Connection { before, behind, .. } in &direct {
        assert_eq!(before, behind);
        let record = of(&records, 6, *before);
        assert!(record.0.keys().all(|key| !key.contains(".nat.")), "{record:?}");
    }
    let joined = records.iter().filter(|record| record.get("flow.nat.stage").is_some());
    assert_eq!(joined.count(), 2 * 2 * connections.len(), "a start and an end on each side");
}

#[test]
fn a_client_behind_the_routers_address_is_known_by_its_own() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    let row = Row::new();
    row.serves();
    row.hides();
    let running = begin(&row);
    let connections: Vec<_> =
        [0, 1].into_iter().flat_map(|at| [tcp(&row, service(at)), udp(&row, service(at))]).collect();
    // Only the source is translated.
    let direct = [0, 1].map(|at| tcp(&row, SocketAddr::new(SERVER[at].parse().unwrap(), SERVER_PORT)));
    let records = finish(running).records();
    for connection in connections.iter().chain(&direct) {
        assert_eq!(
            connection.behind[0].ip(),
            ROUTER[usize::from(connection.before[0].is_ipv6())].parse::<std::net::IpAddr>().unwrap()
        );
        assert_joined(&records, connection);
    }
    assert!(direct.iter().all(|connection| connection.before[1] == connection.behind[1]));
}

/// What was there before the agent, and is not told of by an event.
#[test]
fn a_connection_from_before_the_agent_is_known() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    let row = Row::new();
    row.serves();
    let any = SocketAddr::new(SERVER[0].parse().unwrap(), SERVER_PORT);
    let listener = row.server.within(|| TcpListener::bind(any).unwrap());
    let mut stream = row.client.within(|| TcpStream::connect(service(0)).unwrap());
    let (mut accepted, peer) = listener.accept().unwrap();
    let running = begin(&row);
    stream.write_all(b"question").unwrap();
    accepted.read_exact(&mut [0; 8]).unwrap();
    let before = [stream.local_addr().unwrap(), service(0)];
    let connection = Connection { protocol: 6, before, behind: [peer, accepted.local_addr().unwrap()] };
    assert_joined(&finish(running).records(), &connection);
}

/// Opens from a given port, and closes in a way that frees it at once.
fn open(row: &Row, from: SocketAddr, to: SocketAddr) -> TcpStream {
    row.client.within(|| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        bind(&socket, &from).unwrap();
        connect(&socket, &to).unwrap();
        TcpStream::from(socket)
    })
}

/// The same four numbers, again and again, and the router sends them to two servers by turns.
#[test]
fn a_port_that_is_used_again_has_the_server_of_its_time() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    let row = Row::new();
    let ports = [8_081, 8_082];
    row.nft(&format!(
        "add rule inet n in ip daddr {} tcp dport {SERVICE_PORT} dnat ip to {} : numgen inc mod 2 map {{ 0 : {}, 1 : {} }}",
        SERVICE[0], SERVER[0], ports[0], ports[1]
    ));
    let listeners = row.server.within(|| {
        ports.map(|port| {
            let listener = TcpListener::bind((SERVER[0], port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        })
    });
    let running = begin(&row);
    let from: SocketAddr = format!("{}:{}", CLIENT[0], 45_000).parse().unwrap();
    let mut accepted_by = Vec::new();
    // Some that can be told apart for sure, then some as fast as they come.
    for n in 0..26 {
        let mut stream = open(&row, from, service(0));
        // Tells the flows apart: their times are those of the kernel's ticks.
        let sent = vec![0; 400 * (n + 1)];
        stream.write_all(&sent).unwrap();
        let (port, mut accepted) = loop {
            let accepted = ports
                .iter()
                .zip(&listeners)
                .find_map(|(port, listener)| Some((*port, listener.accept().ok()?.0)));
            if let Some(accepted) = accepted {
                break accepted;
            }
            thread::sleep(Duration::from_millis(1));
        };
        accepted.set_nonblocking(false).unwrap();
        accepted.read_exact(&mut sent.clone()).unwrap();
        accepted_by.push(port);
        if n < 6 {
            thread::sleep(Duration::from_millis(400));
        }
        drop(stream);
        // The reset is on its way past the router.
        assert!(accepted.read(&mut [0; 1]).is_err());
        if n < 6 {
            thread::sleep(Duration::from_millis(400));
        }
    }
    assert!(accepted_by.windows(2).all(|two| two[0] != two[1]), "{accepted_by:?}");
    let outcome = finish(running);
    let mut records: Vec<_> = outcome.records();
    records
        .retain(|record| record.whole("source.port") == Some(45_000) && record.text("flow.event") == "end");
    records.sort_by_key(|record| record.count("flow.bytes.total"));
    let (before, behind): (Vec<_>, Vec<_>) =
        records.iter().partition(|record| record.text("destination.address") == SERVICE[0]);
    assert_eq!(before.len(), accepted_by.len(), "each connection is a flow");
    let mut unsaid = 0;
    for (n, (record, port)) in before.iter().zip(&accepted_by).enumerate() {
        match record.whole("destination.nat.port") {
            Some(said) => assert_eq!(said, u64::from(*port), "connection {n}"),
            None => unsaid += 1,
        }
        assert!(n >= 6 || unsaid == 0, "connection {n}");
    }
    println!("{unsaid} of 20 in quick succession unsaid");
    // Behind, each tuple is of the same service every time.
    assert_eq!(behind.len(), accepted_by.len());
    for record in behind {
        assert_eq!(other(record)[1], Some(service(0)));
    }
}

/// What had the tuple before has ended, and nobody translates any more.
#[test]
fn a_port_that_is_used_again_without_translation_has_no_other_tuple() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    let row = Row::new();
    row.hides();
    // Something that needs connections stays, or the kernel would track none any more.
    row.serves();
    let to = SocketAddr::new(SERVER[0].parse().unwrap(), SERVER_PORT);
    let from: SocketAddr = format!("{}:{}", CLIENT[0], 45_001).parse().unwrap();
    let listener = row.server.within(|| TcpListener::bind(to).unwrap());
    let running = begin(&row);
    let peers = [true, false].map(|hides| {
        if !hides {
            row.nft("flush chain inet n out");
        }
        let stream = open(&row, from, to);
        let (mut accepted, peer) = listener.accept().unwrap();
        thread::sleep(Duration::from_millis(400));
        drop(stream);
        assert!(accepted.read(&mut [0; 1]).is_err());
        thread::sleep(Duration::from_millis(400));
        peer
    });
    assert!(peers[0].ip().to_string() == ROUTER[0] && peers[1] == from, "{peers:?}");
    let mut records = finish(running).records();
    records.retain(|record| {
        record.get("source.address") == Some(CLIENT[0]) && record.text("flow.event") == "end"
    });
    records.sort_by(|a, b| a.text("flow.start_time").cmp(b.text("flow.start_time")));
    let others: Vec<_> = records.iter().map(other).collect();
    assert_eq!(others, [[Some(peers[0]), None], [None, None]]);
}

/// Without the right to ask, records are what they are elsewhere.
#[test]
fn without_the_right_to_ask_the_run_goes_on() {
    need!(namespaces(), tool("ethtool"), tool("nft"), tool("setpriv"));
    let row = Row::new();
    row.serves();
    let program = Program::new("run").args(["--source", "af_packet", "-i", "c", "-i", "s"]);
    let program = program.under(&["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]);
    let running = program.inside(&row.router.name).set("enrich.conntrack.enabled=true").start();
    let connection = tcp(&row, service(0));
    let records = finish(running).records();
    for tuple in [connection.before, connection.behind] {
        assert!(of(&records, 6, tuple).get("flow.nat.stage").is_none());
    }
}
