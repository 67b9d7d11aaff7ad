//! `kill -9` at moments that nobody chose, under load, with `capture.on_exit: keep`: what the sender has sent is due in the
//! books of all lives together, once, and each packet of it was settled or is lost by a crash.

use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::{LEFT, Net};
use mermin_tests::program::{Outcome, Program, Running, binary, plain};
use rustix::process::Signal;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const KILLS: u64 = 20;
/// A graceful end after so many.
const BETWEEN: u64 = 5;
const PORT: u16 = 9_955;
/// Flows of the sender, one source port each.
const SOCKETS: usize = 64;

/// `ip netns exec` would give each run mounts of its own, and names would go with them.
fn within(namespace: &str) -> [String; 2] {
    ["nsenter".to_owned(), format!("--net=/run/netns/{namespace}")]
}

fn mermin(namespace: &str, command: &str) -> String {
    let [program, argument] = within(namespace);
    let output = plain(program).arg(argument).arg(binary()).arg(command).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn start(namespace: &str, mode: &str) -> Running {
    Program::new("run")
        .under(&within(namespace).each_ref().map(String::as_str))
        .args(["-i", "left", "--source", "ebpf"])
        .set(&format!("capture.mode={mode}"))
        .set("capture.on_exit=keep")
        .set("flow.active_timeout=1s")
        .set("flow.udp_timeout=1s")
        .start()
}

/// Packets that `mermin check` says were read, settled and lost.
fn books(namespace: &str) -> [u64; 3] {
    let text = mermin(namespace, "check");
    let line = text.lines().find(|line| line.starts_with("kept ")).unwrap().to_owned();
    let before = |what: &str| -> u64 {
        let (front, _) = line.split_once(what).unwrap_or_else(|| panic!("{line}"));
        front.split_whitespace().last().unwrap().parse().unwrap()
    };
    [before(" packets read"), before(" settled"), before(" lost by crashes")]
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Sends until told to stop, about as fast as half a core can; how many packets.
fn load(net: &Net, stop: &AtomicBool) -> u64 {
    net.right.within(|| {
        let sockets: Vec<_> = (0..SOCKETS).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
        let mut sent = 0;
        while !stop.load(Ordering::Acquire) {
            for socket in &sockets {
                sent += u64::from(socket.send_to(&[7; 100], (LEFT, PORT)).is_ok());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        sent
    })
}

fn survives(mode: &str) {
    need!(namespaces(), tool("nsenter"));
    let began = Instant::now();
    let net = Net::new("keep", true);
    let name = net.left.name.clone();
    let _receiver = net.left.within(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    let (stop, mut random, mut crashes) = (AtomicBool::new(false), 0x9e37_79b9_u64, 0);
    let first = start(&name, mode);
    let mut records = 0;
    let sent = std::thread::scope(|scope| {
        let net = &net;
        // Also when an assertion fails.
        let stop = Stop(&stop);
        let flag = stop.0;
        let sender = scope.spawn(move || load(net, flag));
        let mut running = first;
        for round in 0..KILLS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_millis((random >> 33) % 700));
            if (round + 1).is_multiple_of(BETWEEN) {
                let outcome = running.interrupt().kept_books(0);
                records += packets_to(&outcome.stdout);
                crashes += u64::from(lost(&outcome) > 0);
            } else {
                running.signal(Signal::KILL);
                records += packets_to(&running.wait(Duration::from_secs(10)).stdout);
            }
            running = start(&name, mode);
        }
        stop.0.store(true, Ordering::Release);
        let sent = sender.join().unwrap();
        let outcome = running.interrupt().kept_books(0);
        records += packets_to(&outcome.stdout);
        crashes += u64::from(lost(&outcome) > 0);
        sent
    });
    let [due, settled, lost] = books(&name);
    println!(
        "{mode}: {KILLS} ends in {:.0?}: {sent} sent, {due} read, {settled} settled, {records} in records, {lost} lost by \
         crashes",
        began.elapsed()
    );
    assert_eq!(due, settled + lost);
    assert_eq!(due, sent, "each packet is counted once");
    assert!(records <= settled && lost > 0 && crashes > 0, "{records} {settled} {lost} {crashes}");
    assert!(mermin(&name, "cleanup").contains("removed programs on tcx of left"));
}

/// Of the ledger of the last life: of the one before it.
fn lost(outcome: &Outcome) -> u64 {
    let ledger = &outcome.statistics()["ledger"];
    for (reason, lost) in ledger["lost"].as_object().unwrap() {
        assert!(reason == "crash" || lost["packets"] == 0, "{ledger}");
    }
    ledger["lost"]["crash"]["packets"].as_u64().unwrap_or(0)
}

/// Packets of the sender in whole lines.
fn packets_to(lines: &str) -> u64 {
    let records = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let ours = records.filter(|record| record["destination.port"] == PORT);
    ours.map(|record| record["flow.packets.delta"].as_u64().unwrap()).sum()
}

#[test]
fn each_packet_is_counted_once_whenever_the_agent_is_killed() {
    survives("packet");
}

#[test]
fn each_packet_is_counted_once_whenever_the_agent_is_killed_with_sums() {
    survives("aggregate");
}
