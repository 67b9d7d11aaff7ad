//! The agent in a container as the DaemonSet describes it: no rights but those, nothing to write to, containerd's
//! default seccomp profile.

use mermin_tests::container::Container;
use mermin_tests::need;
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::Program;
use mermin_tests::servers::KUBERNETES;
use mermin_tests::{manifest, need::tool};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::Duration;

fn container(net: &Net) -> Container {
    let objects = manifest::objects("kubernetes");
    let pod = &manifest::of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    Container::of(pod, &pod["containers"][0]).on_node(&net.left.name)
}

fn agent(container: Container) -> Program {
    Program::new("run").args(["--source", "ebpf", "-i", "left"]).contained(container)
}

/// What the kernel says of the agent: the child of the runtime.
fn rights(runtime: u32) -> BTreeMap<String, String> {
    let read = |file: String| std::fs::read_to_string(file).unwrap();
    let children = read(format!("/proc/{runtime}/task/{runtime}/children"));
    let status = read(format!("/proc/{}/status", children.trim()));
    let pair =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    status.lines().filter_map(pair).collect()
}

#[test]
fn captures_by_ebpf_with_what_the_manifest_gives() {
    need!(Container::possible(), KUBERNETES.installed(), tool("ping"));
    let net = Net::new("pod", false);
    let running = agent(container(&net)).start();
    let rights = rights(running.id());
    assert_eq!(rights["CapEff"], "000000c000001000", "BPF, PERFMON, NET_ADMIN");
    assert_eq!((&*rights["CapBnd"], &*rights["CapInh"]), (&*rights["CapEff"], "0000000000000000"));
    assert_eq!((&*rights["NoNewPrivs"], &*rights["Seccomp"]), ("1", "2"));
    let _ = net.left.run(&format!("ping -c 5 -i 0.2 -q {RIGHT}"));
    running.signal(Signal::INT);
    let outcome = running.wait(Duration::from_secs(10)).kept(0);
    let records = outcome.records();
    let icmp = records.iter().find(|record| record.get("network.transport") == Some("icmp"));
    let (there, back) =
        icmp.map(|record| (record.deltas(false).packets, record.deltas(true).packets)).unwrap();
    assert_eq!((there, back), (5, 5), "{}", outcome.stdout);
}

#[test]
fn names_the_capability_that_is_missing() {
    need!(Container::possible(), KUBERNETES.installed());
    let net = Net::new("pod", false);
    let all = container(&net).capabilities().to_vec();
    assert_eq!(all.len(), 3, "{all:?}");
    for missing in &all {
        let outcome = agent(container(&net).without(missing)).run();
        assert_eq!(outcome.code, 77, "{}", outcome.stderr);
        for name in &all {
            assert_eq!(outcome.stderr.contains(name.as_str()), name == missing, "{}", outcome.stderr);
        }
    }
}

#[test]
fn has_nothing_to_write_to() {
    need!(Container::possible(), KUBERNETES.installed());
    let net = Net::new("pod", false);
    let outcome = agent(container(&net)).args(["-o", "json:/records.json", "--duration", "1s"]).run();
    assert!(outcome.code != 0 && outcome.stderr.contains("/records.json"), "{}", outcome.stderr);
}
