//! `kill -9` at moments that nobody chose, with a journal: what was in memory is gone on with, and no packet is lost.

use super::kept::{BETWEEN, PORT, books, kills, lost, mermin, run, under_load};
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::Net;
use mermin_tests::program::{Program, Running, plain};
use mermin_tests::servers::faulty_collector::{Answer, FaultyCollector};
use opentelemetry_proto::tonic::common::v1::any_value;
use rustix::process::Signal;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn with_journal(program: Program, folder: &Path) -> Program {
    program.set(&format!("pipeline.journal.folder={}", folder.display()))
}

/// Records of all lives; each once, however often it was sent.
#[derive(Default)]
struct Delivered {
    records: HashMap<(String, u64), serde_json::Value>,
    again: u64,
}

impl Delivered {
    fn take_in(&mut self, lines: &str) {
        for line in lines.lines() {
            let Ok(mut record) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            if record["destination.port"] != PORT {
                continue;
            }
            let name =
                (record["flow.id"].as_str().unwrap().to_owned(), record["flow.sequence"].as_u64().unwrap());
            // What is known of the ends may have changed.
            record.as_object_mut().unwrap().retain(|key, _| key.starts_with("flow."));
            match self.records.entry(name) {
                Entry::Vacant(free) => drop(free.insert(record)),
                Entry::Occupied(before) => {
                    assert_eq!(*before.get(), record, "sent again, it is the same");
                    self.again += 1;
                }
            }
        }
    }

    fn packets(&self) -> u64 {
        self.records.values().map(|record| record["flow.packets.delta"].as_u64().unwrap()).sum()
    }
}

/// As [`survives`], with the journal: nothing is lost. Where `reshapes`, maps are made anew now and then, and meanwhile no program
/// counts.
fn loses_nothing(mode: &str, reshapes: bool) {
    need!(namespaces(), tool("nsenter"));
    let began = Instant::now();
    let (net, folder) = (Net::new("jrnl", true), tempfile::tempdir().unwrap());
    let name = net.left.name.clone();
    let _receiver = net.left.within(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    let kills = if reshapes { kills() / 2 } else { kills() };
    let (mut random, mut delivered) = (0x9e37_79b9_u64, Delivered::default());
    // Lives differ in who has which shards.
    let start = |random: u64| {
        with_journal(run(&name, mode), folder.path())
            .set(&format!("pipeline.flow_workers={}", 1 + (random >> 50) % 3))
            .set(&format!(
                "capture.ring_bytes={}MiB",
                if reshapes && (random >> 55).is_multiple_of(2) { 32 } else { 64 }
            ))
            .start()
    };
    let (sent, last) = under_load(&net, start(random), |mut running| {
        for round in 0..kills {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Some don't come to a cut of their own.
            let at_most = if (random >> 58) & 1 == 0 { 400 } else { 3_000 };
            std::thread::sleep(Duration::from_millis((random >> 33) % at_most));
            if (round + 2).is_multiple_of(BETWEEN) {
                // In the middle of its end.
                running.signal(Signal::TERM);
                std::thread::sleep(Duration::from_millis((random >> 43) % 60));
            }
            if (round + 1).is_multiple_of(BETWEEN) {
                let outcome = running.interrupt().kept_books(0);
                assert_eq!(lost(&outcome), 0, "{}", outcome.stderr);
                delivered.take_in(&outcome.stdout);
            } else {
                running.signal(Signal::KILL);
                delivered.take_in(&running.wait(Duration::from_secs(10)).stdout);
            }
            running = start(random);
        }
        running
    });
    let outcome = last.interrupt().kept_books(0);
    assert_eq!(lost(&outcome), 0, "{}", outcome.stderr);
    delivered.take_in(&outcome.stdout);
    let [due, settled, lost] = books(&name);
    println!(
        "{mode}: {kills} ends in {:.0?}: {sent} sent, {due} read, {settled} settled, {} in {} records, {} sent again, {lost} lost \
         by crashes",
        began.elapsed(),
        delivered.packets(),
        delivered.records.len(),
        delivered.again,
    );
    assert_eq!([settled, lost], [due, 0], "nothing is lost");
    assert_eq!(delivered.packets(), due, "each packet stands in one record");
    assert!(if reshapes { due < sent } else { due == sent }, "each packet is counted once: {due} of {sent}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left but the lock");
    assert!(mermin(&name, "cleanup").contains("removed programs on tcx of left"));
}

/// A file system of so many KiB.
struct Disk(TempDir);

impl Disk {
    fn of(kib: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = plain("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "mermin-tests"])
            .arg(folder.path())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    fn resize(&self, kib: u32) {
        let option = format!("remount,size={kib}k");
        assert!(plain("mount").args(["-o", &option]).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = plain("umount").arg(self.0.path()).status();
    }
}

/// Waits until the agent has said so on standard error.
fn says(running: &Running, what: &str) {
    let began = Instant::now();
    while !running.stderr().contains(what) {
        assert!(began.elapsed() < Duration::from_secs(60), "not said: {what}\n{}", running.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What can't be written down is lost with the process, to the packet; and once it can be, nothing is.
#[test]
fn where_the_journals_disk_is_full_the_loss_is_exact() {
    need!(namespaces(), tool("nsenter"));
    let Some(disk) = Disk::of(256) else { panic!("a tmpfs can't be mounted") };
    let net = Net::new("full", true);
    let name = net.left.name.clone();
    let _receiver = net.left.within(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    let mut delivered = Delivered::default();
    let start = || with_journal(run(&name, "aggregate").set("flow.udp_timeout=20s"), disk.0.path()).start();
    let (sent, last) = under_load(&net, start(), |running| {
        says(&running, "The journal can't be written");
        std::thread::sleep(Duration::from_secs(3));
        running.signal(Signal::KILL);
        delivered.take_in(&running.wait(Duration::from_secs(10)).stdout);
        assert!(!delivered.records.is_empty(), "records don't wait for a disk that is full");
        // Again, and then there is room.
        let running = start();
        says(&running, "The journal can't be written");
        disk.resize(256 << 10);
        says(&running, "The journal is written again");
        // Somebody else fills it.
        let filled = fs::write(disk.0.path().join("other"), vec![0; 256 << 20]);
        assert!(filled.is_err(), "no room is left");
        std::thread::sleep(Duration::from_secs(3));
        fs::remove_file(disk.0.path().join("other")).unwrap();
        let began = Instant::now();
        while running.stderr().matches("The journal is written again").count() < 2 {
            assert!(began.elapsed() < Duration::from_secs(30), "{}", running.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_secs(2));
        running.signal(Signal::KILL);
        delivered.take_in(&running.wait(Duration::from_secs(10)).stdout);
        start()
    });
    let outcome = last.interrupt().kept_books(0);
    assert_eq!(lost(&outcome), 0, "the last one was killed with a journal");
    delivered.take_in(&outcome.stdout);
    let [due, settled, crashed] = books(&name);
    assert_eq!([due, settled + crashed], [sent, sent]);
    assert!(crashed > 0, "the first one was killed without");
    assert_eq!(delivered.packets(), settled);
    assert!(mermin(&name, "cleanup").contains("removed programs on tcx of left"));
}

/// What was not settled was lost, and nothing is in records that was.
fn something_is_lost_to_the_packet(namespace: &str, sent: u64, delivered: &Delivered) {
    let [due, settled, crashed] = books(namespace);
    assert_eq!([due, settled + crashed], [sent, sent]);
    assert!(crashed > 0 && delivered.packets() <= settled, "{} of {settled}", delivered.packets());
    assert!(mermin(namespace, "cleanup").contains("removed programs on tcx of left"));
}

/// Whoever damages it loses what was in there, and that is told.
#[test]
fn what_is_missing_in_a_journal_is_lost_to_the_packet() {
    need!(namespaces(), tool("nsenter"));
    let (net, folder) = (Net::new("torn", true), tempfile::tempdir().unwrap());
    let name = net.left.name.clone();
    let _receiver = net.left.within(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    let mut delivered = Delivered::default();
    let start = || with_journal(run(&name, "packet"), folder.path()).start();
    let (sent, last) = under_load(&net, start(), |mut running| {
        for damaged in ["read.", "cuts.", "read."] {
            std::thread::sleep(Duration::from_millis(2_345));
            running.signal(Signal::KILL);
            delivered.take_in(&running.wait(Duration::from_secs(10)).stdout);
            for file in fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap()) {
                if file.file_name().to_str().unwrap().starts_with(damaged) {
                    let mut bytes = fs::read(file.path()).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(file.path(), bytes).unwrap();
                }
            }
            running = start();
        }
        running
    });
    let outcome = last.interrupt().kept_books(0);
    delivered.take_in(&outcome.stdout);
    something_is_lost_to_the_packet(&name, sent, &delivered);
}

/// Runs with the journal, without one and with another by turns: what an earlier one says of what others have counted since is of the past.
#[test]
fn a_journal_from_before_a_run_without_it_is_not_gone_on_with() {
    need!(namespaces(), tool("nsenter"));
    let (net, folders) =
        (Net::new("turn", true), [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
    let name = net.left.name.clone();
    let _receiver = net.left.within(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    let mut delivered = Delivered::default();
    let start = |which: Option<usize>| match which {
        Some(which) => with_journal(run(&name, "aggregate"), folders[which].path()).start(),
        None => run(&name, "aggregate").set("pipeline.journal.enabled=false").start(),
    };
    let (sent, last) = under_load(&net, start(Some(0)), |mut running| {
        for next in [None, Some(0), Some(1), Some(0), None, Some(1)] {
            std::thread::sleep(Duration::from_millis(2_700));
            running.signal(Signal::KILL);
            delivered.take_in(&running.wait(Duration::from_secs(10)).stdout);
            running = start(next);
        }
        running
    });
    let outcome = last.interrupt().kept_books(0);
    delivered.take_in(&outcome.stdout);
    something_is_lost_to_the_packet(&name, sent, &delivered);
}

/// Trace and span id.
type SpanName = (Vec<u8>, Vec<u8>);

/// The packets of each span to the sender's port, by trace and span id: what comes twice says the same.
fn spans(collector: &FaultyCollector) -> (HashMap<SpanName, i64>, usize) {
    let (mut spans, mut again) = (HashMap::new(), 0);
    let kept = collector.kept();
    let resources = kept.traces.iter().flat_map(|request| &request.resource_spans);
    for span in resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans) {
        let number = |key: &str| {
            let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
            match attribute.value.as_ref()?.value {
                Some(any_value::Value::IntValue(number)) => Some(number),
                _ => None,
            }
        };
        if number("destination.port") != Some(PORT.into()) {
            continue;
        }
        let packets = number("flow.packets.delta").unwrap();
        match spans.entry((span.trace_id.clone(), span.span_id.clone())) {
            Entry::Vacant(free) => drop(free.insert(packets)),
            Entry::Occupied(before) => {
                assert_eq!(*before.get(), packets, "sent again, it is the same");
                again += 1;
            }
        }
    }
    (spans, again)
}

/// A collector that is slow, refuses and hangs up: what it had not taken when the agent was killed, the next run sends.
#[test]
fn what_was_not_delivered_before_a_kill_is_delivered_by_the_next_run() {
    need!(namespaces(), tool("nsenter"));
    let (net, folder) = (Net::new("sent", true), tempfile::tempdir().unwrap());
    let name = net.left.name.clone();
    let _receiver = net.left.within(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    let mood = Arc::new(AtomicU64::new(0));
    let of_round = Arc::clone(&mood);
    let collector = net.left.within(|| {
        FaultyCollector::start(move |asked| match of_round.load(Ordering::Acquire) % 4 {
            0 => Answer::unavailable(None),
            1 => Answer::AcceptAfter(Duration::from_millis(200)),
            2 if asked.number.is_multiple_of(3) => Answer::Disconnect,
            _ => Answer::Accept,
        })
    });
    let start = || {
        with_journal(run(&name, "aggregate"), folder.path())
            .output(&format!("otlp:{}", collector.endpoint()))
            .set("export.queue_capacity=200000")
            .set("pipeline.shutdown_timeout=20s")
            .start()
    };
    let mut random = 0x9e37_79b9_u64;
    let (sent, last) = under_load(&net, start(), |mut running| {
        for round in 0..kills() / 2 {
            mood.store(round, Ordering::Release);
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_millis((random >> 33) % 3_000));
            running.signal(Signal::KILL);
            drop(running);
            running = start();
        }
        mood.store(3, Ordering::Release);
        running
    });
    let outcome = last.interrupt().kept_books(0);
    assert_eq!(lost(&outcome), 0, "{}", outcome.stderr);
    let (spans, again) = spans(&collector);
    let packets: i64 = spans.values().sum();
    println!("{sent} sent, {packets} in {} spans, {again} came again", spans.len());
    assert_eq!([books(&name), [sent, sent, 0]], [[sent, sent, 0]; 2]);
    assert_eq!(packets as u64, sent, "each packet stands in one span");
    assert!(mermin(&name, "cleanup").contains("removed programs on tcx of left"));
}

#[test]
fn with_a_journal_no_packet_is_lost_whenever_the_agent_is_killed() {
    loses_nothing("packet", false);
}

#[test]
fn with_a_journal_no_packet_is_lost_whenever_the_agent_is_killed_with_sums() {
    loses_nothing("aggregate", false);
}

#[test]
fn with_a_journal_no_packet_is_lost_where_maps_are_made_anew() {
    loses_nothing("aggregate", true);
}

#[test]
fn with_a_journal_no_packet_is_lost_where_rings_are_made_anew() {
    loses_nothing("packet", true);
}
