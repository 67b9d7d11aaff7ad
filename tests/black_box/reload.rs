//! A live agent that reads its configuration again, and one whose terminal closes.

use crate::live::traffic;
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::{Program, Running, binary, plain};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);

fn until(running: &Running, what: &str, done: impl Fn(&Running) -> bool) {
    let began = Instant::now();
    while !done(running) {
        assert!(began.elapsed() < LONG, "{what}: {}", running.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A configuration in which only the timeout of UDP flows is of interest.
fn udp_timeout(timeout: &str) -> String {
    format!("capture: {{source: ebpf, interfaces: {{include: [left]}}}}\nflow: {{udp_timeout: {timeout}}}\n")
}

#[test]
fn flows_under_way_live_by_new_timeouts_and_the_books_stay_exact() {
    need!(namespaces(), tool("python3"));
    let net = Net::new("reload", false);
    let program = Program::new("run");
    let file = program.folder().join("mermin.yaml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write(&udp_timeout("10m"));
    let running = program.arg("-c").arg(&file).inside(&net.left.name).start();
    let send = |port: u16| drop(net.left.run(&traffic(&format!("datagrams {RIGHT} {port} 300"))));
    let has_ended = |port: u16| {
        let port = format!("\"destination.port\":{port}");
        move |running: &Running| {
            let stdout = running.stdout();
            stdout.lines().any(|line| line.contains(&port) && line.contains("\"idle timeout\""))
        }
    };
    send(9_001);
    // Nothing of it counts, though a part would be right.
    write(&format!("{}log_level: loud\n", udp_timeout("1s")));
    running.signal(Signal::HUP);
    until(&running, "it is refused", |running| running.stderr().contains("Not reloaded: "));
    assert!(!running.stderr().contains("Reloaded: "));
    assert!(running.stderr().contains("`log_level` can't be the text `loud` --> "), "{}", running.stderr());

    write(&udp_timeout("1s"));
    running.signal(Signal::HUP);
    until(&running, "a flow under way ends", has_ended(9_001));
    assert!(running.stderr().contains("Reloaded: flow.udp_timeout (10m → 1s)\n"), "{}", running.stderr());

    write(&udp_timeout("10m"));
    running.signal(Signal::HUP);
    until(&running, "it is reloaded", |running| running.stderr().matches("Reloaded: ").count() == 2);
    send(9_002);
    let outcome = running.interrupt().kept(0);
    let flow = |port: u64| {
        let records = outcome.records();
        let of = |record: &&mermin_tests::record::Record| record.whole("destination.port") == Some(port);
        let records: Vec<_> = records.iter().filter(of).collect();
        let packets: u64 = records.iter().map(|record| record.deltas(false).packets).sum();
        (packets, records.last().unwrap().text("flow.end_reason").to_owned())
    };
    assert_eq!(flow(9_001), (300, "idle timeout".to_owned()));
    assert_eq!(flow(9_002), (300, "forced end".to_owned()));
    let lost = &outcome.statistics()["ledger"]["lost"];
    assert!(lost.as_object().unwrap().values().all(|part| part["packets"] == 0), "{lost}");
}

/// As many reloads, with this many datagrams while each of them happens, between so many pairs of ports.
const RELOADS: u64 = 25;
const DATAGRAMS: u64 = 1_000;
const PORTS: u64 = 200;

/// The `number`th configuration, made by chance from what may change while it runs; every fifth is not valid, wherever in
/// the file that comes.
fn any(number: u64, random: &mut u64) -> String {
    let mut one_of = |values: &[&'static str]| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        values[usize::try_from(*random >> 33).unwrap() % values.len()]
    };
    let mistake =
        ["flow: {udp_timeout: 1}", "no_such_key: 1", "pipeline: {priority: [{class: best}]}", "flow: {"];
    let mistake = one_of(&mistake);
    if number.is_multiple_of(5) {
        return format!("capture: {{source: ebpf, interfaces: {{include: [left]}}}}\n{mistake}\n");
    }
    format!(
        "capture: {{source: ebpf, interfaces: {{include: [left]}}}}
pipeline:
  flow_workers: {}
  coalescing_capacity: {}
  stats_interval: {}
  priority: {}
flow:
  table_capacity: {}
  active_timeout: {}
  start_records: {}
  udp_timeout: {}ms
export: {{queue_capacity: {}}}
",
        one_of(&["{min: 1, max: 4}", "1", "2", "4"]),
        one_of(&["16", "65536"]),
        one_of(&["100ms", "30s"]),
        one_of(&["[]", "[{match: {transports: [udp]}, class: high}]"]),
        one_of(&["16", "1000", "131072"]),
        one_of(&["1s", "60s"]),
        one_of(&["true", "false"]),
        // Every one changes something.
        number + 100,
        one_of(&["8192", "20000"]),
    )
}

/// Whatever a file says, and however often: every packet that was sent is in a record, once.
#[test]
fn a_file_that_changes_all_the_time_loses_nothing() {
    need!(namespaces(), tool("python3"));
    let net = Net::new("reload", false);
    let program = Program::new("run");
    let file = program.folder().join("mermin.yaml");
    let mut random = 0x9e37_79b9;
    // There could be four workers.
    let first = "capture: {source: ebpf, interfaces: {include: [left]}}\npipeline: {flow_workers: {min: 1, max: 4}}\n";
    std::fs::write(&file, first).unwrap();
    let running = program.arg("-c").arg(&file).inside(&net.left.name).start();
    let told = |running: &Running| {
        let said = running.stderr();
        let refused = said.matches("Not reloaded: ").count();
        [said.matches("Reloaded: ").count(), refused].map(|count| u64::try_from(count).unwrap())
    };
    for number in 1..=RELOADS {
        let mut sender = net.left.start(&traffic(&format!("datagrams {RIGHT} 9000 {DATAGRAMS} {PORTS}")));
        std::fs::write(&file, any(number, &mut random)).unwrap();
        running.signal(Signal::HUP);
        until(&running, "it is told how it went", |running| told(running).iter().sum::<u64>() >= number);
        assert!(sender.0.wait().unwrap().success());
    }
    assert_eq!(told(&running), [RELOADS - RELOADS / 5, RELOADS / 5], "{}", running.stderr());
    let outcome = running.interrupt().kept(0);
    let records = outcome.records();
    let sent = records.iter().filter(|record| {
        record.whole("destination.port").is_some_and(|port| (9_000..9_000 + PORTS).contains(&port))
    });
    assert_eq!(sent.map(|record| record.deltas(false).packets).sum::<u64>(), RELOADS * DATAGRAMS);
    let lost = &outcome.statistics()["ledger"]["lost"];
    assert!(lost.as_object().unwrap().values().all(|part| part["packets"] == 0), "{lost}");
}

/// Runs a command in a terminal of its own, closes that when the command captures, and prints how it ended: within a second,
/// or at SIGTERM after that.
const TERMINAL: &str = r#"
import os, pty, signal, sys, time
child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
while "Packet reader task started" not in open(sys.argv[1]).read():
    time.sleep(0.01)
os.close(terminal)
if sys.argv[2] == "nohup":
    time.sleep(1)
    how = "at once" if os.waitpid(child, os.WNOHANG) != (0, 0) else "later"
    os.kill(child, signal.SIGTERM)
else:
    how = "at once"
print(how, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

#[test]
fn a_run_goes_with_its_terminal_unless_it_is_told_not_to() {
    need!(namespaces(), tool("python3"), tool("nohup"));
    let folder = tempfile::tempdir().unwrap();
    let [said, statistics] = ["stderr", "stats.json"].map(|name| folder.path().join(name));
    let line = format!(
        "exec {} run -i lo --source af_packet -o none --stats {} 2>{}",
        binary().display(),
        statistics.display(),
        said.display()
    );
    let shell = ["sh", "-c", &line];
    for (words, how) in [(shell.to_vec(), "at once 0\n"), ([&["nohup"], &shell[..]].concat(), "later 0\n")] {
        std::fs::write(&said, "").unwrap();
        let mut terminal = plain("timeout");
        terminal.args(["60", "python3", "-c", TERMINAL]).arg(&said).args(words).current_dir(folder.path());
        let output = terminal.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = std::fs::read_to_string(&said).unwrap();
        assert!(told.ends_with(how), "{told}{}{said}", String::from_utf8_lossy(&output.stderr));
        let statistics = std::fs::read_to_string(&statistics).unwrap();
        let statistics: serde_json::Value = serde_json::from_str(&statistics).unwrap();
        let broken = mermin_tests::contract::check_books(&statistics);
        assert!(broken.is_empty(), "{broken:?}");
        assert!(!said.contains("Reloaded"), "{said}");
    }
}
