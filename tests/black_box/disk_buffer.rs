//! An output whose records wait on disk while its receiver is away, and over the end of the agent.

use crate::otlp::{amount, book, capture, says};
use mermin_tests::need;
use mermin_tests::program::Program;
use mermin_tests::servers::collector::Collector;
use rustix::process::Signal;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

const FLOWS: u64 = 20_000;
const LONG: Duration = Duration::from_secs(60);

fn replay(folder: &Path, endpoint: &str, flows: u64) -> Program {
    Program::new("replay")
        .output(&format!("otlp:{endpoint}"))
        .arg("-")
        .set("export.otlp.buffer=disk")
        .set(&format!("export.disk_buffer.folder={}", folder.display()))
        .input(capture(flows))
}

#[test]
fn a_collector_that_is_away_while_the_agent_is_restarted_gets_everything() {
    need!(Collector::installed());
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("buffer");
    let mut collector = Collector::start();
    let endpoint = collector.grpc_endpoint();
    collector.kill();
    let running = replay(&folder, &endpoint, FLOWS).start_reading();
    says(&running, "; trying again");
    running.signal(Signal::TERM);
    let first = running.wait(LONG).kept_books(0);
    let before = book(&first, "otlp:traces");
    assert!(amount(&before["handed"])[0] > 0);
    assert_eq!((&before["spooled"], &before["dropped"]), (&before["handed"], &serde_json::json!({})));
    assert!(first.stderr.contains("for the next run"), "{}", first.stderr);

    collector.restart();
    let second = replay(&folder, &endpoint, 1).run().kept_books(0);
    let after = book(&second, "otlp:traces");
    assert_eq!(after["recovered"], before["spooled"], "{after}");
    assert_eq!(amount(&after["delivered"])[0], amount(&after["recovered"])[0] + 1, "{after}");
    assert_eq!(amount(&after["spooled"]), [0; 3]);
    let received = collector.received();
    let spans = received.spans();
    let distinct: HashSet<_> =
        spans.iter().map(|span| (span["traceId"].as_str(), span["spanId"].as_str())).collect();
    // The second run's one flow is the first run's first.
    assert_eq!(distinct.len() as u64, amount(&before["spooled"])[0]);
}

/// A file's records wait on disk, too; and what is asked for and can't be is said with a way out.
#[test]
fn what_a_disk_buffer_cannot_be_is_said_before_anything_runs() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("buffer");
    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    let away = "http://127.0.0.1:9";
    let holder = replay(&folder, away, 10).start_reading();
    says(&holder, "; trying again");
    let in_file = file.join("buffer");
    for (setting, code, what) in [
        (format!("export.disk_buffer.folder={}", folder.display()), 69, "is in use by another mermin"),
        ("export.disk_buffer.folder=here".to_owned(), 64, "`here` is not an absolute path"),
        ("export.disk_buffer.bytes=1kB".to_owned(), 64, "`1kB` is no size for a disk buffer"),
        (format!("export.disk_buffer.folder={}", in_file.display()), 74, "can't be used"),
        ("export.otlp.signals=[metrics]".to_owned(), 64, "nothing of it waits on disk"),
    ] {
        let outcome = replay(&folder, away, 1).set(&setting).run();
        assert_eq!(outcome.code, code, "{setting}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(what) && outcome.stderr.contains("help: "), "{}", outcome.stderr);
    }
}
