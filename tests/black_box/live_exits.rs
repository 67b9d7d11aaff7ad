//! A live run ends in time, with nothing left inside and nothing left behind.

use crate::live::{capture, traffic};
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::{Namespace, Net, RIGHT};
use mermin_tests::program::Program;
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

/// Ids of the kernel programs and links that a process holds, as the kernel tells them of its descriptors.
fn held(process: u32) -> Vec<(&'static str, String)> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let id =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|id| id.trim().to_owned());
        // A link's text names its program too.
        match (id("link_id:"), id("prog_id:")) {
            (Some(link), _) => ids.push(("link", link)),
            (None, Some(program)) => ids.push(("prog", program)),
            (None, None) => {}
        }
    }
    ids
}

/// Whether the kernel still knows an object; it frees what nobody holds a moment after the last holder has gone.
fn known(kind: &str, id: &str) -> bool {
    let ask = || Command::new("bpftool").args([kind, "show", "id", id]).output().unwrap().status.success();
    let asked = Instant::now();
    while ask() {
        if asked.elapsed() > Duration::from_secs(3) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn either_signal_ends_it_in_order() {
    need!(namespaces(), tool("bpftool"), tool("ping"));
    let net = Net::new("exit", false);
    for signal in [Signal::INT, Signal::TERM] {
        let running = capture(&net.left, "left", "ebpf");
        let held = held(running.id());
        for kind in ["link", "prog"] {
            assert!(
                held.iter().filter(|(held, _)| *held == kind).count() >= 2,
                "ingress and egress: {held:?}"
            );
        }
        let _ = net.left.run(&format!("ping -q -c 5 -i 0.01 {RIGHT}"));
        running.signal(signal);
        let outcome = running.wait(Duration::from_secs(5)).kept(0);
        assert!(outcome.number("/ledger/metered/packets") >= 10);
        for (kind, id) in held {
            assert!(!known(kind, &id), "{kind} {id} is left behind after {signal:?}");
        }
    }
}

#[test]
fn a_duration_ends_it() {
    need!(namespaces());
    let net = Net::new("time", false);
    let running = Program::new("run").args(["-i", "left", "--duration", "1s"]).inside(&net.left.name).start();
    let outcome = running.wait(Duration::from_secs(8)).kept(0);
    assert!(outcome.took > Duration::from_millis(500));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    need!(namespaces(), tool("python3"));
    let net = Net::new("twice", false);
    // An output that nobody reads: the end can't be waited for in order.
    let pipe = tempfile::tempdir().unwrap();
    let fifo = pipe.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let running = Program::new("run")
        .args(["-i", "left"])
        .output(&format!("json:{}", fifo.display()))
        .set("pipeline.shutdown_timeout=30s")
        .inside(&net.left.name)
        .start();
    // 600 records are more than the pipe holds.
    let _ = net.left.run(&traffic(&format!("ports {RIGHT} 10000 600")));
    running.signal(Signal::INT);
    running.taken();
    // What comes within a quarter of a second is the first one's echo, and a busy machine takes the first one late.
    std::thread::sleep(Duration::from_secs(1));
    running.signal(Signal::INT);
    let outcome = running.wait(Duration::from_secs(10));
    drop(reader);
    assert_eq!(outcome.code, 130, "{}", outcome.stderr);
}

#[test]
fn no_privilege_is_77_and_says_what_to_type() {
    need!(namespaces(), tool("setpriv"));
    let outcome = Program::new("run")
        .args(["-i", "lo", "--duration", "1s"])
        .under(&["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"])
        .run();
    let said = &outcome.stderr;
    assert_eq!(outcome.code, 77, "{said}");
    assert!(said.contains("help: ") && said.contains("error: ") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_glob_that_matches_nothing_is_64() {
    need!(namespaces());
    let net = Net::new("glob", false);
    let outcome = Program::new("run").args(["-i", "nosuch*"]).inside(&net.left.name).run();
    assert_eq!(outcome.code, 64, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("left"), "the interfaces that there are: {}", outcome.stderr);
}

#[test]
fn with_cap_net_raw_alone_af_packet_captures_and_says_why() {
    need!(namespaces(), tool("setpriv"), tool("ping"));
    let net = Net::new("raw", false);
    let running = Program::new("run")
        .args(["-i", "left"])
        .inside(&net.left.name)
        .under(&["setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all", "--"])
        .start();
    let _ = net.left.run(&format!("ping -q -c 5 -i 0.01 {RIGHT}"));
    let outcome = running.interrupt().kept(0);
    assert!(outcome.stderr.contains(": af_packet on left;"), "the first line: {}", outcome.stderr);
    assert!(outcome.stderr.starts_with("mermin "), "the first line says what runs: {}", outcome.stderr);
    let why = outcome.stderr.lines().find(|line| line.contains("this is AF_PACKET")).unwrap();
    assert!(why.contains(" WARN  ") && why.contains("CAP_BPF"), "{why}");
    assert!(outcome.number("/ledger/metered/packets") >= 10, "{}", outcome.stdout);
}

#[test]
fn ten_silent_seconds_are_remarked_on() {
    need!(namespaces(), tool("ping"));
    let (quiet, busy) = (Namespace::new("quiet"), Namespace::new("busy"));
    let run = |namespace: &Namespace| {
        Program::new("run").args(["-i", "lo", "--duration", "12s"]).inside(&namespace.name).start()
    };
    let (on_quiet, on_busy) = (run(&quiet), run(&busy));
    let _ = busy.run("ping -q -c 1 127.0.0.1");
    let says = |outcome: &str| outcome.contains("No packet has crossed lo in 10 seconds; `mermin demo`");
    let outcome = on_quiet.wait(Duration::from_secs(20)).kept(0);
    assert!(says(&outcome.stderr), "{}", outcome.stderr);
    let outcome = on_busy.wait(Duration::from_secs(20)).kept(0);
    assert!(!says(&outcome.stderr), "{}", outcome.stderr);
    assert!(outcome.number("/ledger/metered/packets") > 0);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    need!(namespaces(), tool("bpftool"));
    let running = Program::new("demo").start();
    let held = held(running.id());
    assert!(held.iter().any(|(kind, _)| *kind == "prog"), "{held:?}");
    let outcome = running.interrupt();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    for (kind, id) in held {
        assert!(!known(kind, &id), "{kind} {id} is left behind");
    }
    for list in [&["-o", "link"][..], &["netns", "list"]] {
        let output = Command::new("ip").args(list).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.contains("mermin-"), "{said}");
    }
}
