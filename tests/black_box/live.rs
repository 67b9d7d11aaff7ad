//! Live capture on a network of the tests' own: what records say equals what others counted.

use mermin_tests::need;
use mermin_tests::need::{namespaces, root, tool};
use mermin_tests::netns::{Background, LEFT, LEFT6, Namespace, Net, RIGHT, RIGHT6};
use mermin_tests::program::{Outcome, Program, Running};
use mermin_tests::record::by_tuple;
use mermin_tests::tshark::witness;
use mermin_tests::tuple::{Table, differences};
use mermin_tests::witness::{interface, ip_received};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::time::{Duration, Instant};

const PORT: u16 = 8077;

pub(crate) fn traffic(words: &str) -> String {
    format!("python3 {} {words}", root().join("tests/traffic.py").display())
}

/// Captures on `device` with timeouts that end nothing before the test does.
pub(crate) fn capture(namespace: &Namespace, device: &str, source: &str) -> Running {
    capture_in(namespace, device, source, "aggregate")
}

/// The same in a mode of eBPF.
pub(crate) fn capture_in(namespace: &Namespace, device: &str, source: &str, mode: &str) -> Running {
    let mut program = Program::new("run").args(["-i", device, "--source", source]).inside(&namespace.name);
    program = program.set(&format!("capture.mode={mode}"));
    for key in ["idle", "udp", "icmp", "tcp_fin", "tcp_rst", "active"] {
        program = program.set(&format!("flow.{key}_timeout=10m"));
    }
    program.start()
}

/// tcpdump on a device, writing to `file`; returns when it captures.
pub(crate) fn dump(namespace: &Namespace, device: &str, file: &Path) -> Background {
    let line =
        format!("tcpdump -i {device} -s 128 -B 65536 --immediate-mode -U -n -Z root -w {}", file.display());
    let dump = namespace.start(&line);
    let started = Instant::now();
    while std::fs::metadata(file).map_or(0, |data| data.len()) < 24 {
        assert!(started.elapsed() < Duration::from_secs(10), "tcpdump does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    dump
}

/// Ends tcpdump once it has written all that it was given: at a signal it leaves the rest in its ring.
pub(crate) fn finish(mut dump: Background, file: &Path) {
    let length = || std::fs::metadata(file).unwrap().len();
    let (mut seen, mut since) = (length(), Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(20));
        if length() != seen {
            (seen, since) = (length(), Instant::now());
        }
    }
    let id = i32::try_from(dump.0.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(id, Signal::INT).unwrap();
    dump.0.wait().unwrap();
}

fn traffic_of_all_kinds(net: &Net) {
    let _server = net.right.serve(&traffic(&format!("serve {PORT}")), PORT);
    for address in [RIGHT, RIGHT6] {
        let _ = net.left.run(&format!("ping -q -c 20 -i 0.01 {address}"));
        let _ = net.left.run(&traffic(&format!("connect {address} {PORT} 50")));
        let _ = net.left.run(&traffic(&format!("datagrams {address} 9999 300")));
        for kind in ["-n 20M", "-n 20M -R", "-u -b 50M -n 2M"] {
            iperf(net, address, kind);
        }
    }
}

/// One run of iperf3 from left to right, with a server of its own: one that has just served calls itself busy.
pub(crate) fn iperf(net: &Net, address: &str, kind: &str) {
    let mut server = net.right.serve("iperf3 -s -1 -p 8078", 8078);
    let _ = net.left.run(&format!("iperf3 -c {address} -p 8078 {kind}"));
    server.0.wait().unwrap();
}

/// What the records and tcpdump on the same device say, without what isn't IP.
fn equals_the_dump(outcome: &Outcome, file: &Path) -> Table {
    let expected = witness(file).expect("tshark reads tcpdump's file").table;
    let table = by_tuple(&outcome.records());
    let wrong = differences(&expected, &table);
    assert!(
        wrong.is_empty(),
        "{} of {} tuples differ: {:#?}",
        wrong.len(),
        expected.len(),
        &wrong[..wrong.len().min(5)]
    );
    table
}

pub(crate) fn nothing_lost(outcome: &Outcome) {
    let lost = &outcome.statistics()["ledger"]["lost"];
    let packets: u64 = lost.as_object().unwrap().values().filter_map(|part| part["packets"].as_u64()).sum();
    assert_eq!(packets, 0, "{lost}");
}

fn exact_without_offloads(source: &str, mode: &str) {
    let net = Net::new("exact", false);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("left.pcap");
    let dump = dump(&net.left, "left", &file);
    let before = interface(&net.left, "left");
    let running = capture_in(&net.left, "left", source, mode);
    let first = interface(&net.left, "left");
    assert_eq!(before, first, "the network is not quiet: what came between is no fault of anyone");
    traffic_of_all_kinds(&net);
    let outcome = running.interrupt().kept(0);
    finish(dump, &file);
    nothing_lost(&outcome);
    let table = equals_the_dump(&outcome, &file);
    let after = interface(&net.left, "left");
    let frames = after.received + after.sent - first.received - first.sent;
    assert_eq!(outcome.number("/packets_processed"), frames, "frames that the interface counted");
    let echo: Vec<_> = table
        .iter()
        .filter(|(tuple, _)| {
            [1, 58].contains(&tuple.protocol) && [8, 0, 128, 129].contains(&tuple.ports.unwrap_or_default().0)
        })
        .collect();
    assert_eq!(echo.len(), 4, "{echo:?}");
    assert!(echo.iter().all(|(_, counts)| counts.packets == 20), "{echo:?}");
    for record in
        outcome.records().iter().filter(|record| record.whole("destination.port") == Some(PORT.into()))
    {
        assert_eq!(record.text("flow.initiator"), "syn");
    }
}

#[test]
fn ebpf_equals_tcpdump_without_offloads() {
    need!(
        namespaces(),
        tool("tcpdump"),
        tool("tshark"),
        tool("iperf3"),
        tool("ethtool"),
        tool("ping"),
        tool("python3")
    );
    exact_without_offloads("ebpf", "aggregate");
    exact_without_offloads("ebpf", "packet");
}

#[test]
fn af_packet_equals_tcpdump_without_offloads() {
    need!(
        namespaces(),
        tool("tcpdump"),
        tool("tshark"),
        tool("iperf3"),
        tool("ethtool"),
        tool("ping"),
        tool("python3")
    );
    exact_without_offloads("af_packet", "packet");
}

fn exact_with_offloads(source: &str, mode: &str) {
    let net = Net::new("bulk", true);
    let running = capture_in(&net.left, "left", source, mode);
    let before = (ip_received(&net.left), ip_received(&net.right));
    iperf(&net, RIGHT, "-n 200M");
    iperf(&net, RIGHT, "-n 200M -R");
    let after = (ip_received(&net.left), ip_received(&net.right));
    let outcome = running.interrupt().kept(0);
    nothing_lost(&outcome);
    let table = by_tuple(&outcome.records());
    for (sender, before, after) in [(LEFT, before.1, after.1), (RIGHT, before.0, after.0)] {
        let sent: Vec<_> = table.iter().filter(|(tuple, _)| tuple.source.to_string() == sender).collect();
        let packets: u64 = sent.iter().map(|(_, counts)| counts.packets).sum();
        let bytes: u64 = sent.iter().map(|(_, counts)| counts.bytes).sum();
        let frame_bytes: u64 = sent.iter().map(|(_, counts)| counts.frame_bytes).sum();
        let received = after.packets - before.packets;
        assert_eq!(packets, received, "wire packets from {sender}, by the receiver's IpExtIn…Pkts");
        // A merged buffer counts its headers once: 20 bytes IP, 32 TCP with timestamps.
        let merged = received - (after.buffers - before.buffers);
        assert!(merged > 100 || sender == LEFT, "offloads are on, yet nothing was merged");
        assert_eq!(bytes, after.bytes - before.bytes + merged * 52, "IP bytes from {sender}");
        assert_eq!(frame_bytes, bytes + 14 * packets, "frame bytes from {sender}");
    }
}

#[test]
fn ebpf_counts_wire_packets_with_offloads() {
    need!(namespaces(), tool("iperf3"), tool("ethtool"));
    exact_with_offloads("ebpf", "aggregate");
    exact_with_offloads("ebpf", "packet");
}

#[test]
fn af_packet_counts_wire_packets_with_offloads() {
    need!(namespaces(), tool("iperf3"), tool("ethtool"));
    exact_with_offloads("af_packet", "packet");
}

#[test]
fn two_thousand_connections_have_the_right_initiator() {
    need!(namespaces(), tool("tcpdump"), tool("tshark"), tool("python3"), tool("ethtool"));
    for (from_left, client, server) in [(true, LEFT, RIGHT), (false, RIGHT6, LEFT6)] {
        let net = Net::new("many", false);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("left.pcap");
        let (caller, called) = if from_left { (&net.left, &net.right) } else { (&net.right, &net.left) };
        let _server = called.serve(&traffic(&format!("serve {PORT}")), PORT);
        let dump = dump(&net.left, "left", &file);
        let running = capture(&net.left, "left", "ebpf");
        let _ = caller.run(&traffic(&format!("connect {server} {PORT} 2000")));
        let outcome = running.interrupt().kept(0);
        finish(dump, &file);
        equals_the_dump(&outcome, &file);
        let records = outcome.records();
        let flows: Vec<_> =
            records.iter().filter(|record| record.whole("network.transport.number") == Some(6)).collect();
        assert_eq!(flows.len(), 2000);
        for record in flows {
            assert_eq!((record.text("source.address"), record.text("destination.address")), (client, server));
            assert_eq!(record.whole("destination.port"), Some(PORT.into()));
        }
    }
}
