//! `kill -9` at moments that nobody chose, under load, with a disk buffer: whatever it had taken is delivered by a later
//! run, and no file that a kill left stops the agent.
//!
//! Each round replays flows of its own to a collector that takes them, refuses them or is slow. When the agent is dead the
//! test reads a copy of its files by the buffer's own library, beside the next round: what is in them has to arrive. After
//! every ten kills a run may come to its end: what waits would otherwise take longer to read each time.

#![expect(clippy::unwrap_used, reason = "what fails here is a failed test")]

mod journal;
mod kept;

use mermin_flow::Amount;
use mermin_spool::{Fsync, Read, Spool, SpoolSettings};
use mermin_tests::capture_file::{EPOCH, Pcap, Resolution, link};
use mermin_tests::frame::{Ends, ethernet, udp};
use mermin_tests::program::Program;
use mermin_tests::servers::faulty_collector::{Answer, FaultyCollector};
use rustix::process::Signal;
use serde_json::json;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const KILLS: u64 = 50;
/// Kills between two runs that deliver all that waits.
const BETWEEN: u64 = 10;
/// So many that most kills come before the end.
const FLOWS: u16 = 6_000;
const HOUR: u64 = 3_600_000_000_000;
const BYTES: u64 = 64 << 20;

/// Flows of one packet, each round's an hour after those of the one before.
fn capture(round: u64, flows: u16) -> Vec<u8> {
    let mut frame = ethernet(&udp(Ends::new("10.0.0.0:40000", "192.0.2.53:53"), b"crash"));
    let mut bytes = Vec::new();
    let mut capture = Pcap::new(&mut bytes, link::ETHERNET, Resolution::Nanoseconds, 65_535).unwrap();
    for flow in 0..flows {
        // The source's port.
        frame[34..36].copy_from_slice(&(40_000 + flow).to_be_bytes());
        capture.frame(EPOCH + round * HOUR + u64::from(flow) * 1_000, &frame).unwrap();
    }
    capture.finish().unwrap();
    bytes
}

fn agent(folder: &Path, collector: &FaultyCollector, round: u64, flows: u16) -> Program {
    Program::new("replay")
        .output(&format!("otlp:{}", collector.endpoint()))
        .arg("-")
        .set("export.otlp.buffer=disk")
        .set(&format!("export.disk_buffer.folder={}", folder.display()))
        .set(&format!("export.disk_buffer.bytes={BYTES}B"))
        .set("export.otlp.batch.records=500")
        .set("flow.table_capacity=64")
        .input(capture(round, flows))
}

/// The files as they are now.
fn copy(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// The flows whose records are in such files; and what an append has left of itself that the kill interrupted, which was never
/// taken.
fn taken(folder: &Path) -> (HashSet<Vec<u8>>, Amount) {
    let mut spool = Spool::open(folder, SpoolSettings { bytes: BYTES, fsync: Fsync::Never }).unwrap();
    let torn = spool.recovery().torn;
    let (_, mut decoder) = mermin_spool::codec(Arc::default());
    let mut flows = HashSet::new();
    while let Some(read) = spool.read().unwrap() {
        let Read::Batch(stored) = read else { panic!("nothing is damaged by a kill: {read:?}") };
        let records = decoder.decode(&stored).unwrap();
        flows.extend(records.iter().map(|record| record.id.0.to_be_bytes().to_vec()));
    }
    (flows, torn)
}

#[test]
fn what_the_buffer_has_taken_is_delivered_after_fifty_kills() {
    let (began, parent) = (Instant::now(), tempfile::tempdir().unwrap());
    let (folder, buffer) = (parent.path().join("buffer"), parent.path().join("buffer/otlp:traces"));
    let mood = Arc::new(AtomicU64::new(0));
    let of_round = Arc::clone(&mood);
    let collector = FaultyCollector::start(move |asked| match of_round.load(Ordering::Acquire) % 4 {
        0 => Answer::unavailable(None),
        1 => Answer::AcceptAfter(Duration::from_millis(30)),
        2 if asked.number.is_multiple_of(3) => Answer::Disconnect,
        _ => Answer::Accept,
    });
    let (mut expected, mut with_some, mut random) = (HashSet::new(), 0, 0x9e37_79b9_u64);
    let mut reading = Vec::new();
    for round in 0..KILLS {
        mood.store(round, Ordering::Release);
        let running = agent(&folder, &collector, round, FLOWS).start_reading();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_millis((random >> 33) % 150));
        running.signal(Signal::KILL);
        drop(running);
        let copy = copy(&buffer);
        reading.push(std::thread::spawn(move || taken(copy.path())));
        if (round + 1).is_multiple_of(BETWEEN) {
            mood.store(3, Ordering::Release);
            let outcome = agent(&folder, &collector, KILLS + round, 1).run().kept_books(0);
            let book = &outcome.statistics()["outputs"]["otlp:traces"];
            assert_eq!(book["spooled"]["records"], 0, "{book}");
            let mut torn = Amount::default();
            for taken in reading.drain(..) {
                let flows;
                (flows, torn) = taken.join().unwrap();
                with_some += u64::from(!flows.is_empty());
                expected.extend(flows);
            }
            // By the last kill: each start cuts off what is torn, and says so.
            let Amount { records, packets, bytes } = torn;
            let counts = json!({"records": records, "packets": packets, "bytes": bytes});
            let dropped = if records > 0 { json!({"buffer_damaged": counts}) } else { json!({}) };
            assert_eq!(book["dropped"], dropped);
        }
    }
    let kept = collector.kept();
    let resources = kept.traces.iter().flat_map(|request| &request.resource_spans);
    let spans: Vec<_> =
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).collect();
    let flows: HashSet<_> = spans.iter().map(|span| span.trace_id.clone()).collect();
    let missing = expected.difference(&flows).count();
    assert_eq!(missing, 0, "of {} that were in the buffer", expected.len());
    // What came twice is the same span of the same trace.
    let distinct: HashSet<_> = spans.iter().map(|span| (&span.trace_id, &span.span_id)).collect();
    assert_eq!(distinct.len(), flows.len());
    println!(
        "{KILLS} kills in {:.0?}; after {with_some} of them records were in the buffer, {} in all; {} spans came, {} of them again",
        began.elapsed(),
        expected.len(),
        spans.len(),
        spans.len() - distinct.len()
    );
    assert!(with_some > KILLS / 2 && expected.len() > 1_000, "{with_some}, {}", expected.len());
}
