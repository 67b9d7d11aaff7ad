//! The same frames through eBPF, AF_PACKET and a replay of what tcpdump wrote give the same records.

use crate::captures;
use crate::live::{capture, capture_in, dump, finish, iperf, traffic};
use mermin_tests::capture_file::pcap;
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::{Net, RIGHT, RIGHT6};
use mermin_tests::program::{Outcome, Program};
use std::collections::BTreeSet;

/// What may differ: times, what names the run, and which way a flow runs as seen from this host, which a replay is not on.
const MAY_DIFFER: [&str; 6] = [
    "flow.id",
    "flow.start_time",
    "flow.end_time",
    "flow.end_reason",
    "flow.direction",
    "network.io.direction",
];

/// What may differ besides where packets are summed up: addresses of the link are those of the packet that was handed on
/// first, and fragments are ahead of sums.
const MAY_DIFFER_IN_SUMS: [&str; 2] = ["source.mac", "destination.mac"];

/// Records without what may differ, and without the point.
fn comparable(outcome: &Outcome, and: &[&str]) -> Vec<String> {
    let strip = |record: &mermin_tests::record::Record| {
        let mut fields = record.0.clone();
        fields.retain(|key, _| {
            let key = key.as_str();
            !MAY_DIFFER.contains(&key) && !and.contains(&key) && !key.starts_with("network.interface.")
        });
        serde_json::to_string(&fields).unwrap()
    };
    let mut lines: Vec<String> = outcome.records().iter().map(strip).collect();
    lines.sort_unstable();
    lines
}

fn same(name: &str, expected: &Outcome, got: &Outcome) {
    same_but_for(&[], name, expected, got);
}

fn same_but_for(and: &[&str], name: &str, expected: &Outcome, got: &Outcome) {
    let sets = [expected, got].map(|outcome| comparable(outcome, and).into_iter().collect::<BTreeSet<_>>());
    let show =
        |a: usize, b: usize| sets[a].difference(&sets[b]).take(3).cloned().collect::<Vec<_>>().join("\n  ");
    assert!(
        comparable(expected, and) == comparable(got, and),
        "{name}\nonly expected:\n  {}\nonly got:\n  {}",
        show(0, 1),
        show(1, 0)
    );
}

#[test]
fn without_offloads_all_three() {
    need!(namespaces(), tool("tcpdump"), tool("python3"), tool("ping"), tool("ethtool"));
    let net = Net::new("agree", false);
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("frames.pcap");
    let odd: Vec<_> = captures::oddities().into_iter().filter(|(_, frame)| frame.len() <= 1514).collect();
    std::fs::write(&frames, pcap(&odd)).unwrap();
    // Sent at the left: tags are inline there; the right's kernel takes the outer one off before anybody sees it.
    for (side, device) in [(&net.left, "left"), (&net.right, "right")] {
        let file = folder.path().join(device);
        let written = dump(side, device, &file);
        let ebpf = capture_in(side, device, "ebpf", "packet");
        let packet = capture(side, device, "af_packet");
        let sums = capture_in(side, device, "ebpf", "aggregate");
        let _ = net.left.run(&traffic(&format!("frames left {}", frames.display())));
        let _ = net.left.run(&traffic(&format!("datagrams {RIGHT} 9999 20")));
        let _ = net.left.run(&format!("ping -q -c 5 -i 0.01 {RIGHT6}"));
        let (ebpf, packet) = (ebpf.interrupt().kept(0), packet.interrupt().kept(0));
        let sums = sums.interrupt().kept(0);
        finish(written, &file);
        let mut replay = Program::replay(&[&file]);
        for key in ["idle", "udp", "icmp", "tcp_fin", "tcp_rst", "active"] {
            replay = replay.set(&format!("flow.{key}_timeout=10m"));
        }
        let replay = replay.run().kept(0);
        same(&format!("{device}: af_packet against ebpf"), &ebpf, &packet);
        same(&format!("{device}: replay against ebpf"), &ebpf, &replay);
        same_but_for(&MAY_DIFFER_IN_SUMS, &format!("{device}: sums against events of ebpf"), &ebpf, &sums);
    }
}

#[test]
fn with_offloads_ebpf_and_af_packet() {
    need!(namespaces(), tool("iperf3"), tool("ethtool"));
    let net = Net::new("both", true);
    let (ebpf, packet) =
        (capture_in(&net.left, "left", "ebpf", "packet"), capture(&net.left, "left", "af_packet"));
    let sums = capture_in(&net.left, "left", "ebpf", "aggregate");
    iperf(&net, RIGHT, "-n 50M");
    let (ebpf, packet) = (ebpf.interrupt().kept(0), packet.interrupt().kept(0));
    let sums = sums.interrupt().kept(0);
    same("af_packet against ebpf", &ebpf, &packet);
    same("sums against events of ebpf", &ebpf, &sums);
}
