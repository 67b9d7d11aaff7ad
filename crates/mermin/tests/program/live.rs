//! Live packets, signals, pipes.

use super::{Ran, mermin, pcap, program, ran, run, written};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) fn has_privileges(test: &str) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or("0");
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap_or(0);
    // CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN
    let all = [12, 13, 21].iter().all(|bit| effective >> bit & 1 == 1);
    if !all {
        eprintln!("SKIP {test}: root");
    }
    all
}

/// The program without any capability, whoever runs the tests.
fn powerless(test: &str) -> Option<Command> {
    if Command::new("setpriv").arg("--version").output().is_err() {
        eprintln!("SKIP {test}: setpriv");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", program()]);
    Some(command)
}

#[test]
fn without_permission_the_exit_is_77_and_says_what_to_type() {
    let test = "without_permission_the_exit_is_77_and_says_what_to_type";
    for (arguments, what) in [
        (&["run"][..], "CAP_BPF"),
        (&["run", "--source", "ebpf"], "CAP_BPF"),
        (&["run", "--source", "af_packet"], "AF_PACKET needs CAP_NET_RAW"),
        (&["check"], "or CAP_NET_RAW for AF_PACKET; this process has neither"),
        (&["demo"], "can't make network namespaces: operation not permitted"),
    ] {
        let Some(mut command) = powerless(test) else { return };
        let Ran { code, out, err } = ran(&command.args(arguments).output().unwrap());
        assert_eq!(code, 77, "{arguments:?}: {err}");
        assert!(err.contains(what) && err.contains("help: ") && err.contains("sudo "), "{err}");
        // What would be lost by a fallback says nothing where there is none.
        assert!(!err.contains("panicked") && !err.contains("WARN"), "{err}");
        assert_eq!(out.is_empty(), arguments[0] != "check");
    }
}

#[test]
fn a_pattern_that_fits_nothing_is_64() {
    let Ran { code, err, .. } = run(&["run", "-i", "no-such-interface"]);
    assert_eq!(code, 64);
    assert!(err.starts_with("error: no interface fits `no-such-interface`; there are "), "{err}");
    assert!(err.contains("\n  --> -i no-such-interface\nhelp: "), "{err}");
}

#[test]
fn check_attaches_nothing_and_is_fine_for_root() {
    if !has_privileges("check_attaches_nothing_and_is_fine_for_root") {
        return;
    }
    let Ran { code, out, err } = run(&["check", "-i", "lo"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for head in [
        "configuration   fine",
        "source          eBPF",
        "kernel ",
        "capabilities    CAP_BPF",
        "interfaces      lo ",
    ] {
        assert!(out.contains(head), "{head} in {out}");
    }
}

#[test]
fn check_ends_as_run_would() {
    if !has_privileges("check_ends_as_run_would") {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("server.listen={}", taken.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let tls = "server: {listen: '127.0.0.1:0', tls: {cert: /nonexistent/a, key: /nonexistent/b}}";
    let file = "export: {files: [{path: /nonexistent/flows.jsonl}]}";
    let otlp = "export: {otlp: {endpoint: 'https://localhost:1', tls: {ca: /nonexistent/ca}}}";
    for (config, setting, code) in [
        ("", "server.listen=127.0.0.1:0", 0),
        ("", &listen, 69),
        ("server: {listen: '127.0.0.1:0'}", "server.token_file=/nonexistent/token", 64),
        (tls, "log_level=info", 64),
        (file, "log_level=info", 74),
        (otlp, "log_level=info", 64),
        ("", "enrich.kubernetes.enabled=true", 64),
    ] {
        let config = written(folder.path(), "mermin.yaml", config.as_bytes());
        let with = |command: &str, more: &[&str]| {
            let config = config.to_str().unwrap();
            let mut command = mermin(&[command, "-i", "lo", "-c", config, "--set", setting]);
            command.args(more).env("HOME", folder.path());
            command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
            ran(&command.output().unwrap())
        };
        let (checked, run) = (with("check", &[]), with("run", &["--duration", "10ms"]));
        assert_eq!((checked.code, run.code), (code, code), "{setting}: {} {}", checked.err, run.err);
        let problem = |text: &str| text.split_once("error: ").map(|(_, problem)| problem.to_owned());
        assert_eq!(problem(&checked.err), problem(&run.err), "{setting}");
        assert!(checked.out.contains("\ninterfaces      lo "), "all is told all the same: {}", checked.out);
    }
}

#[test]
fn a_run_ends_after_its_duration_with_balanced_books() {
    if !has_privileges("a_run_ends_after_its_duration_with_balanced_books") {
        return;
    }
    for (source, name) in [("ebpf", "ebpf (aggregate mode)"), ("af_packet", "af_packet")] {
        let arguments = ["run", "-i", "lo", "--source", source, "--duration", "300ms", "-o", "none"];
        let Ran { code, err, .. } = run(&arguments);
        assert_eq!(code, 0, "{err}");
        let first = format!("mermin {}: {name} on lo; records: none; Ctrl-C ends", env!("CARGO_PKG_VERSION"));
        assert_eq!(err.lines().next(), Some(first.as_str()));
        assert!(err.contains("All books balance (sightings, metering, outputs)"), "{err}");
    }
}

/// Both sources count what the kernel counted; the demo itself compares and fails with 70 otherwise.
#[test]
fn the_demo_agrees_with_the_kernel() {
    if !has_privileges("the_demo_agrees_with_the_kernel") {
        return;
    }
    for source in ["ebpf", "af_packet"] {
        let Ran { code, out, err } = run(&["demo", "--source", source, "-o", "json"]);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("kernel counted") && !err.contains("DIFFERS"), "{err}");
        for transport in ["tcp", "udp", "icmp", "ipv6-icmp"] {
            assert!(out.contains(&format!("\"network.transport\":\"{transport}\"")), "{transport}");
        }
    }
}

#[test]
fn a_demo_that_is_interrupted_ends_in_good_order() {
    if !has_privileges("a_demo_that_is_interrupted_ends_in_good_order") {
        return;
    }
    let mut child =
        mermin(&["demo", "-o", "none"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    first_line(&mut err);
    signal(&child, "-INT");
    let mut rest = String::new();
    err.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains("All books balance (sightings, metering, outputs)"), "{rest}");
}

fn first_line(err: &mut impl BufRead) {
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert!(line.starts_with("mermin "), "{line}");
}

pub(crate) fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// A capture of as many one-packet UDP flows as fill a pipe and the buffers before it.
fn many_flows(folder: &Path) -> String {
    let packet = |port: u16| {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend(port.to_be_bytes());
        packet.extend([0, 53, 0, 8, 0, 0]);
        (1_700_000_000, 0, packet)
    };
    let file = pcap(101, (1..=20_000).map(packet));
    written(folder, "many.pcap", &file).to_str().unwrap().to_owned()
}

/// A replay whose reader reads nothing: it can't get to its end.
fn stuck(capture: &str, timeout: &str) -> Child {
    let timeout = format!("pipeline.shutdown_timeout={timeout}");
    let mut child = mermin(&["replay", capture, "-o", "json", "--set", &timeout])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // By the first line the signals are listened for.
    let mut err = BufReader::new(child.stderr.take().unwrap());
    first_line(&mut err);
    std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::sink()));
    // All packets have one time, so no flow ends before the capture does: by the first byte of the first record the
    // whole capture is in flows, and far more is to be written than the pipe holds.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child
}

fn ends_within(child: &mut Child, limit: Duration) -> i32 {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().expect("not ended by a signal");
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("still running after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_cannot_be_delivered_in_time_is_75() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = stuck(&many_flows(folder.path()), "200ms");
    signal(&child, "-TERM");
    assert_eq!(ends_within(&mut child, Duration::from_secs(20)), 75);
}

#[test]
fn a_second_signal_ends_at_once_with_130() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = stuck(&many_flows(folder.path()), "1h");
    signal(&child, "-INT");
    // What comes within a quarter of a second is the first one's echo, and a busy machine takes the first one late.
    std::thread::sleep(Duration::from_secs(1));
    signal(&child, "-INT");
    assert_eq!(ends_within(&mut child, Duration::from_secs(20)), 130);
}

#[test]
fn the_echo_of_a_signal_is_no_second_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = stuck(&many_flows(folder.path()), "200ms");
    // As `timeout` does: the process, then its group. By one shell, so that a busy machine puts no pause between them.
    let both = format!("kill -INT {id}; kill -TERM {id}", id = child.id());
    assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
    assert_eq!(ends_within(&mut child, Duration::from_secs(20)), 75);
}

#[test]
fn a_signal_ends_a_replay_of_a_pipe_that_is_silent() {
    let mut child = mermin(&["replay", "-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    first_line(&mut err);
    let folder = tempfile::tempdir().unwrap();
    // All but the last byte: the reader waits in the middle of a record.
    let capture = fs::read(many_flows(folder.path())).unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&capture[..capture.len() - 1]).unwrap();
    let read = |line: &String| line.contains("Processed 10000 packets");
    let mut lines = err.lines().map(|line| line.unwrap());
    assert!(lines.any(|line| read(&line)), "the packets before the silence are read");
    let rest = std::thread::spawn(move || lines.collect::<Vec<_>>().join("\n"));
    let mut out = child.stdout.take().unwrap();
    let records = std::thread::spawn(move || {
        let mut records = String::new();
        out.read_to_string(&mut records).unwrap();
        records.lines().count()
    });
    signal(&child, "-INT");
    let exit = ends_within(&mut child, Duration::from_secs(4));
    let rest = rest.join().unwrap();
    assert_eq!(exit, 0, "{rest}");
    assert!(!rest.contains("error"), "a pipe that was left is not damaged: {rest}");
    assert!(records.join().unwrap() >= 10_000);
    drop(input);
}
