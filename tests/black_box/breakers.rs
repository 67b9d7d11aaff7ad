//! Outputs that hang or fail while packets keep coming: they are let be, the others get all records meanwhile, and what
//! became of each record stands in a book.

use crate::otlp::{amount, book, capture, says};
use mermin_tests::program::{Outcome, Program, Running};
use mermin_tests::servers::faulty_collector::{Answer, FaultyCollector};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FLOWS: u64 = 20_000;
const LONG: Duration = Duration::from_secs(60);

/// A pipe with a name, and both its ends: whoever opens one of them later need not wait for the other.
fn pipe(path: &Path) -> File {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

/// A replay that doesn't wait for its outputs, of a pipe that stays open, to standard output as JSON and to `output`.
/// Flows end at once, for want of room. Comes back when `output` is let be; most packets came after that.
fn start(folder: &Path, output: &str) -> (Running, File) {
    let input = folder.join("input");
    let mut writer = pipe(&input);
    let program = Program::new("replay").args(["-o", output]).arg(&input);
    let program = program.set("pipeline.enable_backpressure=false").set("flow.table_capacity=64");
    let program = program.set("pipeline.packet_channel_capacity=1000000").set("export.queue_capacity=1000");
    let program = program.set("pipeline.breaker={failures: 3, slow: 1s, pause: 100ms, pause_max: 200ms}");
    let running = program.start();
    let capture = capture(FLOWS);
    let (first, rest) = capture.split_at(capture.len() / 4);
    writer.write_all(first).unwrap();
    says(&running, "is let be and tried now and then: ");
    // The other output is to get what its queue has room for, also where it has to wait for a CPU.
    for part in rest.chunks(rest.len() / 40 + 1) {
        writer.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(25));
    }
    (running, writer)
}

/// Returns when standard output has more than could have been on its way before: it has a small queue, too, and what comes
/// in a burst may be more than it takes at once.
fn the_other_goes_on(running: &Running) {
    let asked = Instant::now();
    while (running.stdout().lines().count() as u64) < FLOWS / 3 {
        assert!(asked.elapsed() < LONG, "{}", running.stdout().lines().count());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Records delivered to `output`.
fn delivered(outcome: &Outcome, output: &str) -> u64 {
    let json = book(outcome, "json");
    let mine = book(outcome, output);
    let dropped = mine["dropped"].as_object().unwrap();
    assert!(dropped.keys().all(|reason| reason == "queue_full" || reason == "breaker_open"), "{mine}");
    assert!(dropped.contains_key("breaker_open"), "{mine}");
    assert_eq!(mine["handed"], json["handed"]);
    assert!(amount(&json["delivered"])[0] > FLOWS / 3, "{json}");
    amount(&mine["delivered"])[0]
}

#[test]
fn a_pipe_that_nobody_reads_is_let_be_until_somebody_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    let both = pipe(&path);
    let output = format!("json:{}", path.display());
    let (running, input) = start(folder.path(), &output);
    says(&running, "it has not answered for 1.0s; its records wait");
    the_other_goes_on(&running);
    let mut reader = File::open(&path).unwrap();
    drop(both);
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().count() as u64
    });
    says(&running, "takes records again");
    drop(input);
    let outcome = running.wait(LONG).kept_books(0);
    assert_eq!(read.join().unwrap(), delivered(&outcome, &output));
}

#[test]
fn a_collector_that_takes_nothing_is_let_be_until_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let collector = FaultyCollector::start(move |_| {
        if is_well.load(Ordering::Acquire) { Answer::Accept } else { Answer::unavailable(None) }
    });
    let (running, input) = start(folder.path(), &format!("otlp:{}", collector.endpoint()));
    says(&running, "Output otlp:traces is let be");
    the_other_goes_on(&running);
    well.store(true, Ordering::Release);
    says(&running, "otlp:traces takes records again");
    drop(input);
    let outcome = running.wait(LONG).kept_books(0);
    assert_eq!(collector.kept().span_sums().items, delivered(&outcome, "otlp:traces"));
}
