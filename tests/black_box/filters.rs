//! What rules leave out is in no record, and stands in the books under its rule.

use crate::live::nothing_lost;
use mermin_tests::capture_file::{EPOCH, SECOND, pcap};
use mermin_tests::frame::{Ends, Segment, ethernet, tcp, udp};
use mermin_tests::need;
use mermin_tests::need::namespaces;
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::{Outcome, Program};
use std::collections::BTreeMap;
use std::net::UdpSocket;

const RULES: &str = "\
capture:
  filters:
  - name: no_dns
    action: exclude
    match: {ports: [53], protocols: [udp]}
  - name: probes
    action: exclude
    match: {destination_ports: [9000-9009]}
  - name: ours
    action: include
    match: {networks: [10.0.0.0/8]}
";

fn with_rules(program: Program) -> Program {
    let file = program.folder().join("rules.yaml");
    std::fs::write(&file, RULES).expect("a file");
    program.arg("--config").arg(file)
}

/// Packets of records by destination port.
fn by_port(outcome: &Outcome) -> BTreeMap<u64, u64> {
    let mut packets = BTreeMap::new();
    for record in outcome.records() {
        let port = record.whole("destination.port").unwrap_or_default();
        *packets.entry(port).or_default() += record.count("flow.packets.delta");
    }
    packets
}

fn filtered(outcome: &Outcome, rule: &str) -> u64 {
    outcome.number(&format!("/ledger/filtered/{rule}/packets"))
}

#[test]
fn a_replay_leaves_out_what_rules_exclude() {
    let mut frames = Vec::new();
    for n in 0..60 {
        let query = udp(Ends::new("10.0.0.1:40000", "10.0.0.53:53"), b"query");
        let probe = tcp(Ends::new("10.0.0.1:40001", "10.0.0.2:9009"), Segment::default(), &[]);
        let web = tcp(Ends::new("10.0.0.1:40002", "10.0.0.2:443"), Segment::default(), b"data");
        let alien = udp(Ends::new("192.0.2.1:40003", "198.51.100.1:9010"), b"data");
        let mut of = |datagram: &[u8]| frames.push((EPOCH + n * SECOND / 10, ethernet(datagram)));
        of(&query);
        of(&web);
        if n % 2 == 0 {
            of(&probe);
        }
        if n % 3 == 0 {
            of(&alien);
        }
    }
    let program = with_rules(Program::new("replay"));
    let file = program.folder().join("capture.pcap");
    std::fs::write(&file, pcap(&frames)).expect("a file");
    let outcome = program.arg(file).run().kept(0);
    assert_eq!(by_port(&outcome), [(443, 60)].into());
    let counts = ["no_dns", "probes", "no_rule"].map(|rule| filtered(&outcome, rule));
    assert_eq!(counts, [60, 30, 20]);
    assert_eq!(outcome.number("/ledger/seen/packets"), 170);
    assert_eq!(outcome.number("/packets_processed"), 170);
    assert!(outcome.stderr.contains("+ filtered, no_dns"), "{}", outcome.stderr);
}

/// By eBPF in both modes, and by AF_PACKET.
#[test]
fn a_live_run_leaves_out_what_rules_exclude() {
    need!(namespaces());
    for setting in ["capture.mode=aggregate", "capture.mode=packet", "capture.source=af_packet"] {
        let net = Net::new("filter", false);
        let running =
            with_rules(Program::new("run").args(["-i", "left"]).inside(&net.left.name).set(setting)).start();
        net.left.within(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            for (port, packets) in [(53, 300), (9_005, 200), (9_999, 100)] {
                for _ in 0..packets {
                    // Answers that nobody listens there come back as errors of later calls.
                    while socket.send_to(&[7; 100], (RIGHT, port)).is_err() {}
                }
            }
        });
        let outcome = running.interrupt().kept(0);
        nothing_lost(&outcome);
        let packets = by_port(&outcome);
        let of = |port| packets.get(&port).copied();
        assert_eq!([of(53), of(9_005), of(9_999)], [None, None, Some(100)], "{setting}");
        let counts = ["no_dns", "probes"].map(|rule| filtered(&outcome, rule));
        assert_eq!(counts, [300, 200], "{setting}");
    }
}
