//! Packets that cross a host are seen several times and count once; where they were lost shows in the hops.
//!
//! Witnesses: what the sender sent, what the receiver's socket was given, and the counters of the links.

use crate::live::nothing_lost;
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::Namespace;
use mermin_tests::program::Program;
use mermin_tests::record::Record;
use mermin_tests::witness::interface;
use rustix::net::sockopt;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const PORT: u16 = 9_000;
const SENT: u64 = 1_000;

/// Ways to see packets: the mode of capture.
const MODES: [&str; 2] = ["aggregate", "packet"];

fn namespace() -> Namespace {
    let namespace = Namespace::new("hops");
    for setting in
        ["net.ipv6.conf.all.disable_ipv6=1", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0"]
    {
        let _ = namespace.run(&format!("sysctl -q -w {setting}"));
    }
    let _ = namespace.run("sysctl -q -w net.ipv4.conf.default.rp_filter=0");
    namespace
}

/// A link between two namespaces, each end with an address or none; both up.
fn link(one: (&Namespace, &str, &str), other: (&Namespace, &str, &str)) {
    one.0.ip(&format!("link add {} type veth peer name {} netns {}", one.1, other.1, other.0.name));
    for (namespace, name, address) in [one, other] {
        let _ = namespace.run(&format!("ethtool -K {name} tso off gso off gro off"));
        if !address.is_empty() {
            namespace.ip(&format!("addr add {address} dev {name}"));
        }
        namespace.ip(&format!("link set {name} up"));
    }
}

fn bridge(node: &Namespace, name: &str, ports: &[&str]) {
    node.ip(&format!("link add {name} type bridge"));
    for port in ports {
        node.ip(&format!("link set {port} master {name}"));
    }
    node.ip(&format!("link set {name} up"));
}

/// Drops one in so many packets to the test's port that come in by a link, ahead of bridge and router.
fn drop_some(node: &Namespace, link: &str, one_in: u64) {
    for line in [
        "add table netdev lossy".to_owned(),
        format!("add chain netdev lossy in {{ type filter hook ingress device {link} priority 0; }}"),
        format!("add rule netdev lossy in udp dport {PORT} numgen inc mod {one_in} == 0 drop"),
    ] {
        nft(node, &line);
    }
}

fn nft(namespace: &Namespace, line: &str) {
    let output = namespace.command("nft").arg(line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Packets of one flow leave by the first and the second link by turns, each with a gateway.
fn by_two_ways(namespace: &Namespace, to: &str, ways: [(&str, &str); 2]) {
    for (mark, (link, gateway)) in (1..).zip(ways) {
        namespace.ip(&format!("route add {to} via {gateway} dev {link} table {}", 100 + mark));
        namespace.ip(&format!("rule add fwmark {mark} lookup {}", 100 + mark));
    }
    nft(namespace, "add table ip ways");
    nft(namespace, "add chain ip ways out { type route hook output priority mangle; }");
    nft(namespace, "add rule ip ways out ip protocol udp meta mark set numgen inc mod 2 offset 1");
}

/// Sends so many datagrams within half a second, so that epochs end meanwhile; how many were received.
fn send((from, own): (&Namespace, &str), (to, address): (&Namespace, &str)) -> u64 {
    let receiver = to.within(|| UdpSocket::bind((address, PORT)).unwrap());
    // All of them, where the receiver has to wait for a CPU.
    sockopt::set_socket_recv_buffer_size_force(&receiver, 4 << 20).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let all_sent = AtomicBool::new(false);
    let receive = || {
        let mut received = 0;
        loop {
            let rest = all_sent.load(Ordering::Acquire);
            let Ok((_, from)) = receiver.recv_from(&mut [0; 64]) else {
                if rest {
                    return received;
                }
                continue;
            };
            received += 1;
            // Every tenth has an answer.
            if received % 10 == 0 {
                receiver.send_to(&[1; 32], from).unwrap();
            }
        }
    };
    thread::scope(|scope| {
        let receiving = scope.spawn(receive);
        from.within(|| {
            let socket = UdpSocket::bind((own, 0)).unwrap();
            for number in 0..SENT {
                socket.send_to(&[0; 32], (address, PORT)).unwrap();
                if number % 10 == 9 {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        all_sent.store(true, Ordering::Release);
        receiving.join().unwrap()
    })
}

/// What the agent says of the flow that runs while it captures on these interfaces.
fn capture(node: &Namespace, interfaces: &[&str], mode: &str, run: impl FnOnce() -> u64) -> (Record, u64) {
    let mut program = Program::new("run").args(["--source", "ebpf"]).inside(&node.name);
    for interface in interfaces {
        program = program.args(["-i", interface]);
    }
    let program = program.set(&format!("capture.mode={mode}"));
    let running =
        program.set("capture.drain_interval_min=50ms").set("capture.drain_interval_max=100ms").start();
    let received = run();
    let outcome = running.interrupt().kept(0);
    nothing_lost(&outcome);
    let to_port = |record: &&Record| record.whole("destination.port") == Some(PORT.into());
    let records: Vec<_> = outcome.records();
    let mut of_flow = records.iter().filter(to_port);
    let record = of_flow.next().expect("a flow").clone();
    assert!(of_flow.next().is_none(), "one flow, one record");
    let all =
        records.iter().flat_map(|record| ["flow.hops", "flow.reverse.hops"].map(|name| hops(record, name)));
    let not_counted: u64 = all.flatten().filter(|hop| !hop.2).map(|hop| hop.3).sum();
    assert_eq!(
        outcome.number("/ledger/secondary/packets"),
        not_counted,
        "secondary is what hops say that count nothing"
    );
    (record, received)
}

/// Interface, hook, counted, packets.
type Hop = (String, String, bool, u64);

fn hops(record: &Record, name: &str) -> Vec<Hop> {
    let hops = record.0.get(name).and_then(|hops| hops.as_array()).cloned().unwrap_or_default();
    let hop = |hop: &serde_json::Value| {
        let text = |key: &str| hop[key].as_str().unwrap().to_owned();
        (text("interface"), text("hook"), hop["counted"].as_bool().unwrap(), hop["packets"].as_u64().unwrap())
    };
    hops.iter().map(hop).collect()
}

fn hop(interface: &str, hook: &str, counted: bool, packets: u64) -> Hop {
    (interface.to_owned(), hook.to_owned(), counted, packets)
}

fn totals(record: &Record) -> [u64; 2] {
    [record.count("flow.packets.total"), record.count("flow.reverse.packets.total")]
}

#[test]
fn a_packet_that_is_dropped_between_veth_and_bridge_shows_in_the_hops() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    for mode in MODES {
        let [node, a, b] = [namespace(), namespace(), namespace()];
        link((&node, "va", ""), (&a, "eth0", "10.9.0.1/24"));
        link((&node, "vb", ""), (&b, "eth0", "10.9.0.2/24"));
        bridge(&node, "br0", &["va", "vb"]);
        drop_some(&node, "va", 4);
        let run = || send((&a, "10.9.0.1"), (&b, "10.9.0.2"));
        let (record, received) = capture(&node, &["va", "vb", "br0"], mode, run);
        assert_eq!(received, SENT - SENT / 4, "{mode}");
        assert_eq!(totals(&record), [SENT, received / 10]);
        let forward = [hop("va", "ingress", true, SENT), hop("vb", "egress", false, received)];
        assert_eq!(hops(&record, "flow.hops"), forward, "{mode}");
        let answers = received / 10;
        let reverse = [hop("vb", "ingress", true, answers), hop("va", "egress", false, answers)];
        assert_eq!(hops(&record, "flow.reverse.hops"), reverse, "{mode}");
        assert!(interface(&node, "vb").sent >= received);
    }
}

#[test]
fn a_bridges_own_address_is_reached_by_way_of_port_and_bridge() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    for mode in MODES {
        let [node, a] = [namespace(), namespace()];
        link((&node, "va", ""), (&a, "eth0", "10.9.0.1/24"));
        bridge(&node, "br0", &["va"]);
        node.ip("addr add 10.9.0.9/24 dev br0");
        let run = || send((&a, "10.9.0.1"), (&node, "10.9.0.9"));
        let (record, received) = capture(&node, &["va", "br0"], mode, run);
        assert_eq!((received, totals(&record)), (SENT, [SENT, SENT / 10]));
        let forward = [hop("va", "ingress", true, SENT), hop("br0", "ingress", false, SENT)];
        assert_eq!(hops(&record, "flow.hops"), forward, "{mode}");
        let reverse = [hop("br0", "egress", true, SENT / 10), hop("va", "egress", false, SENT / 10)];
        assert_eq!(hops(&record, "flow.reverse.hops"), reverse, "{mode}");
    }
}

#[test]
fn on_loopback_egress_comes_first() {
    need!(namespaces(), tool("ethtool"));
    for mode in MODES {
        let node = namespace();
        let run = || send((&node, "127.0.0.1"), (&node, "127.0.0.9"));
        let (record, received) = capture(&node, &["lo"], mode, run);
        assert_eq!((received, totals(&record)), (SENT, [SENT, SENT / 10]));
        let forward = [hop("lo", "egress", true, SENT), hop("lo", "ingress", false, SENT)];
        assert_eq!(hops(&record, "flow.hops"), forward, "{mode}");
    }
}

/// Requests come in by both uplinks by turns and answers leave by both by turns, with the node as the end and as a router.
#[test]
fn packets_of_two_uplinks_add_up() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    for mode in MODES {
        for routed in [false, true] {
            let [far, node, pod] = [namespace(), namespace(), namespace()];
            link((&far, "f1", "10.9.1.1/24"), (&node, "u1", "10.9.1.2/24"));
            link((&far, "f2", "10.9.2.1/24"), (&node, "u2", "10.9.2.2/24"));
            link((&node, "vp", "10.9.3.1/24"), (&pod, "eth0", "10.9.3.2/24"));
            far.ip("addr add 10.9.9.1/32 dev lo");
            node.ip("route add 10.9.9.1/32 via 10.9.1.1");
            pod.ip("route add default via 10.9.3.1");
            far.ip("route add 10.9.3.0/24 via 10.9.1.2");
            by_two_ways(&far, "10.9.3.0/24", [("f1", "10.9.1.2"), ("f2", "10.9.2.2")]);
            by_two_ways(&node, "10.9.9.1/32", [("u1", "10.9.1.1"), ("u2", "10.9.2.1")]);
            let (server, address) = if routed { (&pod, "10.9.3.2") } else { (&node, "10.9.3.1") };
            let run = || send((&far, "10.9.9.1"), (server, address));
            let (record, received) = capture(&node, &["u1", "u2", "vp"], mode, run);
            assert_eq!((received, totals(&record)), (SENT, [SENT, SENT / 10]), "{mode} {routed}");
            let half = SENT / 2;
            let mut forward = vec![hop("u1", "ingress", true, half), hop("u2", "ingress", true, half)];
            if routed {
                forward.push(hop("vp", "egress", false, SENT));
            }
            let mut seen = hops(&record, "flow.hops");
            seen.sort_by(|a, b| (b.2, &a.0).cmp(&(a.2, &b.0)));
            assert_eq!(seen, forward, "{mode} {routed}");
            if !routed {
                let mut seen = hops(&record, "flow.reverse.hops");
                seen.sort();
                let fifty = SENT / 20;
                assert_eq!(seen, [hop("u1", "egress", true, fifty), hop("u2", "egress", true, fifty)]);
            }
        }
    }
}

/// Each direction has a link of its own.
#[test]
fn requests_and_answers_that_take_different_links_are_one_flow() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    for mode in MODES {
        let [far, node] = [namespace(), namespace()];
        link((&far, "f1", "10.9.1.1/24"), (&node, "u1", "10.9.1.2/24"));
        link((&far, "f2", "10.9.2.1/24"), (&node, "u2", "10.9.2.2/24"));
        far.ip("addr add 10.9.9.1/32 dev lo");
        node.ip("addr add 10.9.8.1/32 dev lo");
        far.ip("route add 10.9.8.1/32 via 10.9.1.2");
        node.ip("route add 10.9.9.1/32 via 10.9.2.1");
        let run = || send((&far, "10.9.9.1"), (&node, "10.9.8.1"));
        let (record, received) = capture(&node, &["u1", "u2"], mode, run);
        assert_eq!((received, totals(&record)), (SENT, [SENT, SENT / 10]), "{mode}");
        assert_eq!(hops(&record, "flow.hops"), [], "one point each");
    }
}

/// Two pods, and a firewall between them in a third, of which the node has a link on either side.
struct Guarded {
    node: Namespace,
    a: Namespace,
    b: Namespace,
    _firewall: Namespace,
    /// Of the second pod.
    address: &'static str,
}

impl Guarded {
    const LINKS: [&str; 4] = ["va", "w1", "w2", "vb"];

    fn new(routes: bool) -> Self {
        let [node, a, firewall, b] = [namespace(), namespace(), namespace(), namespace()];
        let of = |address: &'static str| if routes { address } else { "" };
        link((&node, "va", ""), (&a, "eth0", "10.9.0.1/24"));
        link((&node, "w1", ""), (&firewall, "in", of("10.9.0.9/24")));
        link((&node, "w2", ""), (&firewall, "out", of("10.9.5.9/24")));
        let address = if routes { "10.9.5.2" } else { "10.9.0.2" };
        link((&node, "vb", ""), (&b, "eth0", if routes { "10.9.5.2/24" } else { "10.9.0.2/24" }));
        bridge(&node, "br1", &["va", "w1"]);
        bridge(&node, "br2", &["w2", "vb"]);
        if routes {
            a.ip("route add 10.9.5.0/24 via 10.9.0.9");
            b.ip("route add 10.9.0.0/24 via 10.9.5.9");
        } else {
            bridge(&firewall, "br0", &["in", "out"]);
        }
        Self { node, a, b, _firewall: firewall, address }
    }
}

/// What is bridged through the firewall, and what it routes, comes back by another link.
#[test]
fn what_goes_through_a_pod_and_back_counts_once() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    for mode in MODES {
        for routes in [false, true] {
            let net = Guarded::new(routes);
            let run = || send((&net.a, "10.9.0.1"), (&net.b, net.address));
            let (record, received) = capture(&net.node, &Guarded::LINKS, mode, run);
            assert_eq!((received, totals(&record)), (SENT, [SENT, SENT / 10]), "{mode} {routes}");
            let counted: Vec<_> = hops(&record, "flow.hops").into_iter().filter(|hop| hop.2).collect();
            assert_eq!(counted, [hop("va", "ingress", true, SENT)]);
            assert!(hops(&record, "flow.hops").iter().all(|hop| hop.3 == SENT), "{record:?}");
            assert_eq!(hops(&record, "flow.hops").len(), 4);
        }
    }
}

/// Flows of [`many_flows_through_a_pod_and_back_count_once`], and packets of each.
const FLOWS: u64 = 400;
const EACH: u64 = 20;

/// Far more flows than slots push each other's sums out, and a packet socket reads link by link: points come in any order.
#[test]
fn many_flows_through_a_pod_and_back_count_once() {
    need!(namespaces(), tool("ethtool"), tool("nft"));
    for (source, settings) in [
        ("ebpf", &["capture.mode=aggregate", "capture.kernel_slots=16"][..]),
        ("ebpf", &["capture.mode=aggregate", "capture.kernel_table=hash"]),
        ("ebpf", &["capture.mode=packet"]),
        ("af_packet", &[]),
    ] {
        for routes in [false, true] {
            let net = Guarded::new(routes);
            let mut program = Program::new("run").args(["--source", source]).inside(&net.node.name);
            for link in Guarded::LINKS {
                program = program.args(["-i", link]);
            }
            for setting in settings {
                program = program.set(setting);
            }
            let running = program.start();
            let server = net.b.within(|| UdpSocket::bind((net.address, PORT)).unwrap());
            server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let echo = thread::spawn(move || {
                let mut echoed = 0;
                while let Ok((length, from)) = server.recv_from(&mut [0; 64]) {
                    assert_eq!(server.send_to(&[1; 32], from).unwrap(), length);
                    echoed += 1;
                }
                echoed
            });
            net.a.within(|| {
                let sockets: Vec<_> = (0..FLOWS).map(|_| UdpSocket::bind(("10.9.0.1", 0)).unwrap()).collect();
                for _ in 0..EACH {
                    // The server's socket has room for so many.
                    for sockets in sockets.chunks(40) {
                        for socket in sockets {
                            socket.send_to(&[0; 32], (net.address, PORT)).unwrap();
                        }
                        thread::sleep(Duration::from_millis(3));
                    }
                }
            });
            let echoed: u64 = echo.join().unwrap();
            let outcome = running.interrupt().kept(0);
            nothing_lost(&outcome);
            let of_test = |record: &&Record| record.whole("network.transport.number") == Some(17);
            let records = outcome.records();
            let (mut flows, mut answers) = (0, 0);
            for record in records.iter().filter(of_test) {
                let [forward, reverse] = totals(record);
                // A server that is slow may have lost some of them.
                assert!(forward == EACH && reverse <= EACH, "{source} {settings:?} {routes}: {record:?}");
                assert_eq!(record.whole("destination.port"), Some(PORT.into()));
                (flows, answers) = (flows + 1, answers + reverse);
            }
            assert_eq!((flows, answers), (FLOWS, echoed), "{source} {settings:?} {routes}");
        }
    }
}
