//! Every packet of several senders, each on a CPU of its own, is counted once and in its own flow, while the kernel's sums are
//! drained as often as that is possible.

use crate::live::{nothing_lost, traffic};
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::Program;
use mermin_tests::witness::{interface, ip_received};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

const SENDERS: u64 = 2;

/// Packets and IP bytes of a flow: sender's port, index of the destination.
type Counts = HashMap<(u64, u64), (u64, u64)>;

/// What follows `key` in a line of JSON.
fn field<'l>(line: &'l str, key: &str) -> &'l str {
    let (_, from) = line.split_once(key).expect("it is in every record");
    from.split([',', '"', '}']).next().unwrap_or_default()
}

fn number(line: &str, key: &str) -> u64 {
    field(line, key).parse().expect("a number")
}

/// Of all records to the flood's addresses, without parsing hundreds of thousands as a whole.
fn recorded(file: &Path) -> Counts {
    let mut counts = Counts::new();
    for line in BufReader::new(File::open(file).unwrap()).lines() {
        let line = line.unwrap();
        let Some(address) = field(&line, r#""destination.address":""#).strip_prefix("10.78.") else {
            continue;
        };
        let (high, low) = address.split_once('.').expect("an IPv4 address");
        let port = number(&line, r#""destination.port":"#) - 9_000;
        let index = port << 16 | high.parse::<u64>().unwrap() << 8 | low.parse::<u64>().unwrap();
        let sum = counts.entry((number(&line, r#""source.port":"#), index)).or_default();
        sum.0 += number(&line, r#""flow.packets.delta":"#);
        sum.1 += number(&line, r#""flow.bytes.delta":"#);
    }
    counts
}

/// `packets` in all, to `flows` in all; so many segments in each buffer.
fn exact(packets: u64, flows: u64, segments: u64, table: &str) {
    let title = format!("{packets} packets, {flows} flows, {segments} segments, {table}");
    let net = Net::new("flood", segments > 1);
    net.left.ip(&format!("route add 10.78.0.0/16 via {RIGHT}"));
    let _ = net.left.run(&format!("ping -q -c 1 {RIGHT}"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records");
    let mut program = Program::new("run").args(["-i", "left", "--source", "ebpf"]).inside(&net.left.name);
    program = program.output(&format!("json:{}", file.display()));
    for setting in ["drain_interval_min=1ms", "drain_interval_max=1ms", "mode=aggregate"] {
        program = program.set(&format!("capture.{setting}"));
    }
    program = program.set(&format!("capture.kernel_table={table}")).set("flow.table_capacity=500000");
    // One record a flow, at the end, when outputs are waited for.
    program = program
        .set("flow.udp_timeout=1h")
        .set("flow.active_timeout=1h")
        .set("capture.kernel_hash_flows=65536");
    let running = program.start();
    let (sent, received) = (interface(&net.left, "left").sent, ip_received(&net.right).packets);
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (packets, flows) = (packets / SENDERS, flows / SENDERS);
            let flood = format!("flood {sender} {sender} {packets} {flows} {segments}");
            net.left.start(&traffic(&flood))
        })
        .collect();
    for mut sender in senders {
        assert!(sender.0.wait().unwrap().success(), "{title}");
    }
    // Two witnesses beside the senders: buffers at this end, wire packets at the other.
    let buffers = interface(&net.left, "left").sent - sent;
    assert!((packets / segments..packets / segments + 100).contains(&buffers), "{title}: {buffers} sent");
    let wire = ip_received(&net.right).packets - received;
    assert!((packets..packets + 100).contains(&wire), "{title}: {wire} received");
    let outcome = running.interrupt().kept_books(0);
    nothing_lost(&outcome);
    let outputs = &outcome.statistics()["outputs"];
    let dropped = outputs
        .as_object()
        .unwrap()
        .values()
        .flat_map(|output| output["dropped"].as_object().unwrap().values());
    let dropped: u64 = dropped.filter_map(|part| part["records"].as_u64()).sum();
    assert_eq!(dropped, 0, "{title}: records that the output had no time for: {outputs}");
    let recorded = recorded(&file);
    assert_eq!(recorded.len() as u64, flows, "{title}");
    let each = packets / flows;
    for ((_, index), counts) in recorded {
        assert_eq!(counts, (each, each * (28 + 20 + index % 100)), "{title}: {index}");
    }
}

/// So many as the table of the issue asks for take minutes: `MERMIN_TEST_PACKETS`.
fn packets() -> u64 {
    std::env::var("MERMIN_TEST_PACKETS").map_or(1_600_000, |packets| packets.parse().expect("a number"))
}

#[test]
fn few_flows_of_many_packets() {
    need!(namespaces(), tool("ethtool"), tool("ping"), tool("python3"));
    for segments in [1, 40] {
        exact(packets(), 20, segments, "slots");
    }
}

#[test]
fn two_hundred_thousand_flows() {
    need!(namespaces(), tool("ethtool"), tool("ping"), tool("python3"));
    exact(packets(), 200_000, 1, "slots");
    // Each flow gets whole buffers.
    exact(packets().next_multiple_of(200_000 * 40), 200_000, 40, "slots");
}

#[test]
fn the_hash_alone_counts_the_same() {
    need!(namespaces(), tool("ethtool"), tool("ping"), tool("python3"));
    exact(packets() / 2, 20_000, 1, "hash");
}
