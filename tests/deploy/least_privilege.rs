//! The agent in a container as the DaemonSet describes it: no rights but those, nothing to write to, containerd's
//! default seccomp profile.

use mermin_tests::container::Container;
use mermin_tests::manifest;
use mermin_tests::need;
use mermin_tests::need::tool;
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::Program;
use mermin_tests::program::binary;
use mermin_tests::servers::KUBERNETES;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

fn container(net: &Net) -> Container {
    let objects = manifest::objects("kubernetes");
    let pod = &manifest::of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    Container::of(pod, &pod["containers"][0]).on_node(&net.left.name)
}

fn agent(container: Container) -> Program {
    Program::new("run").args(["--source", "ebpf", "-i", "left"]).contained(container)
}

/// The node's bpffs, which goes with the test.
struct Bpffs(TempDir);

impl Bpffs {
    fn mounted() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "bpf", "none"]).arg(folder.path()).status();
        assert!(mounted.unwrap().success());
        Self(folder)
    }

    /// Where the pod has it.
    fn given_to(&self, container: Container, pod: &Value) -> Container {
        let named = |all: &Value| -> Value {
            let mut all = all.as_array().unwrap().iter();
            all.find(|one| one["name"] == "bpffs").unwrap().clone()
        };
        assert_eq!(named(&pod["volumes"])["hostPath"]["path"], "/sys/fs/bpf");
        let place = named(&pod["containers"][0]["volumeMounts"])["mountPath"].as_str().unwrap().to_owned();
        container.mounting(self.0.path(), Path::new(&place), true)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn the_next_pod_goes_on_with_what_was_counted_since_the_last_one() {
    need!(Container::possible(), KUBERNETES.installed(), tool("ping"));
    let net = Net::new("pod", false);
    let bpffs = Bpffs::mounted();
    let objects = manifest::objects("kubernetes");
    let pod = &manifest::of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
    let next = || agent(bpffs.given_to(container(&net), pod)).set("capture.on_exit=keep").start();
    assert_eq!(next().interrupt().kept_books(0).number("/ledger/lost/crash/packets"), 0);
    let _ = net.left.run(&format!("ping -c 5 -i 0.2 -q {RIGHT}"));
    let outcome = next().interrupt().kept_books(0);
    let records = outcome.records();
    let echoes = records.iter().filter(|record| record.get("network.transport") == Some("icmp"));
    let counted: u64 = echoes.map(|record| record.deltas(false).packets + record.deltas(true).packets).sum();
    assert_eq!(counted, 10, "{}", outcome.stdout);
    // What the component makes of the pod.
    let cleaning = cleaning();
    let arguments = cleaning["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().into());
    let arguments: Vec<_> = arguments.collect();
    let output = bpffs.given_to(container(&net), pod).command(&binary(), &arguments, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("removed programs on tcx of left"), "{output:?}");
}

/// The container of pods that take away what agents have left.
fn cleaning() -> Value {
    let folder = manifest::overlay(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [path/to/deploy/kubernetes]\n\
         components: [path/to/deploy/kubernetes/cleanup]\n",
    );
    let objects = manifest::objects(&folder.path().display().to_string());
    let pod = &manifest::of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
    let container = pod["containers"][0].clone();
    assert!(container.get("livenessProbe").is_none(), "{container}");
    container
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
