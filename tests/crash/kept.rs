//! `kill -9` at moments that nobody chose, and upgrades, under load, with `capture.on_exit: keep`: what the sender has sent is
//! due in the books of all lives together, once, and each packet of it was settled or is lost by a crash.

use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::{LEFT, Net};
use mermin_tests::program::{Outcome, Program, Running, binary, plain};
use rustix::process::Signal;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One in so many ends is a graceful one.
pub(super) const BETWEEN: u64 = 5;
/// Upgrades of the test of those.
const UPGRADES: u64 = 5;
pub(super) const PORT: u16 = 9_955;
/// Flows of the sender, one source port each.
const SOCKETS: usize = 64;

/// Ends of a test; MERMIN_TEST_KILLS asks for more.
pub(super) fn kills() -> u64 {
    std::env::var("MERMIN_TEST_KILLS").map_or(20, |kills| kills.parse().expect("a number"))
}

/// `ip netns exec` would give each run mounts of its own, and names would go with them.
pub(super) fn within(namespace: &str) -> [String; 2] {
    ["nsenter".to_owned(), format!("--net=/run/netns/{namespace}")]
}

pub(super) fn mermin(namespace: &str, command: &str) -> String {
    let [program, argument] = within(namespace);
    let output = plain(program).arg(argument).arg(binary()).arg(command).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn start(namespace: &str, mode: &str) -> Running {
    run(namespace, mode).set("pipeline.journal.enabled=false").start()
}

pub(super) fn run(namespace: &str, mode: &str) -> Program {
    Program::new("run")
        .under(&within(namespace).each_ref().map(String::as_str))
        .args(["-i", "left", "--source", "ebpf"])
        .set(&format!("capture.mode={mode}"))
        .set("capture.on_exit=keep")
        .set("flow.active_timeout=1s")
        .set("flow.udp_timeout=1s")
}

/// Packets that `mermin check` says were read, settled and lost.
pub(super) fn books(namespace: &str) -> [u64; 3] {
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
            // Flows of one packet.
            let once = UdpSocket::bind("0.0.0.0:0").unwrap();
            sent += u64::from(once.send_to(&[7; 100], (LEFT, PORT)).is_ok());
            std::thread::sleep(Duration::from_micros(500));
        }
        sent
    })
}

/// What crosses the wire while the agents that `lives` starts, one after the other, capture, the first of which is there:
/// packets sent.
pub(super) fn under_load(
    net: &Net,
    first: Running,
    lives: impl FnOnce(Running) -> Running,
) -> (u64, Running) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when an assertion fails.
        let stop = Stop(&stop);
        let flag = stop.0;
        let sender = scope.spawn(move || load(net, flag));
        let last = lives(first);
        flag.store(true, Ordering::Release);
        (sender.join().unwrap(), last)
    })
}

fn survives(mode: &str) {
    need!(namespaces(), tool("nsenter"));
    let began = Instant::now();
    let net = Net::new("keep", true);
    let name = net.left.name.clone();
    let _receiver = net.left.within(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    let (kills, mut random, mut crashes, mut records) = (kills(), 0x9e37_79b9_u64, 0, 0);
    let (sent, last) = under_load(&net, start(&name, mode), |mut running| {
        for round in 0..kills {
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
        running
    });
    let outcome = last.interrupt().kept_books(0);
    records += packets_to(&outcome.stdout);
    crashes += u64::from(lost(&outcome) > 0);
    let [due, settled, lost] = books(&name);
    println!(
        "{mode}: {kills} ends in {:.0?}: {sent} sent, {due} read, {settled} settled, {records} in records, {lost} lost by \
         crashes",
        began.elapsed()
    );
    assert_eq!(due, settled + lost);
    assert_eq!(due, sent, "each packet is counted once");
    assert!(records <= settled && lost > 0 && crashes > 0, "{records} {settled} {lost} {crashes}");
    assert!(mermin(&name, "cleanup").contains("removed programs on tcx of left"));
}

/// The next agent starts as soon as the one before is asked to end, as a package manager has it: nothing is lost, and nobody
/// sees a gap.
fn upgrades(mode: &str) {
    need!(namespaces(), tool("nsenter"));
    let net = Net::new("keep", true);
    let name = net.left.name.clone();
    let _receiver = net.left.within(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    let mut records = 0;
    let mut ended = |outcome: Outcome| {
        assert_eq!(lost(&outcome), 0);
        records += packets_to(&outcome.stdout);
    };
    let (sent, last) = under_load(&net, start(&name, mode), |mut running| {
        for _ in 0..UPGRADES {
            std::thread::sleep(Duration::from_millis(300));
            running.signal(Signal::TERM);
            let next = start(&name, mode);
            ended(running.wait(Duration::from_secs(10)).kept_books(0));
            running = next;
        }
        running
    });
    ended(last.interrupt().kept_books(0));
    let [due, settled, lost] = books(&name);
    assert_eq!([sent, settled, lost], [due, due, 0], "each packet is counted, by one of them");
    assert_eq!(records, sent);
    assert!(mermin(&name, "cleanup").contains("removed programs on tcx of left"));
}

/// Of the ledger of the last life: of the one before it.
pub(super) fn lost(outcome: &Outcome) -> u64 {
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

#[test]
fn an_upgrade_leaves_no_packet_out() {
    upgrades("packet");
}

#[test]
fn an_upgrade_leaves_no_packet_out_with_sums() {
    upgrades("aggregate");
}
