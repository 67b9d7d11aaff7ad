//! The contract holds on every capture, by the project's own check and by the shared one.

use crate::captures;
use mermin_tests::need;
use mermin_tests::need::{captures as shared_captures, shared, tool};
use mermin_tests::program::Program;
use std::process::Command;

#[test]
fn holds_on_every_shared_capture_together() {
    need!(shared_captures());
    let files = captures::shared();
    let files: Vec<_> = files.iter().map(std::path::PathBuf::as_path).collect();
    // Their packets are malformed, the files are not.
    let outcome = Program::replay(&files).run().kept(0);
    assert!(outcome.number("/ledger/metered/packets") > 10_000);
}

#[test]
fn holds_by_the_shared_check() {
    need!(tool("python3"), shared_captures(), shared("tools/check_contract.py"));
    let check = shared("tools/check_contract.py").unwrap();
    for file in captures::shared() {
        let program = Program::replay(&[&file]);
        let folder = tempfile::tempdir().unwrap();
        let outcome = program.run();
        let (records, statistics) = (folder.path().join("records"), folder.path().join("statistics"));
        std::fs::write(&records, &outcome.stdout).unwrap();
        std::fs::write(&statistics, outcome.statistics().to_string()).unwrap();
        let said = Command::new("python3").arg(&check).args([&records, &statistics]).output().unwrap();
        assert!(said.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&said.stdout));
    }
}

#[test]
fn start_records_keep_it_too() {
    let folder = tempfile::tempdir().unwrap();
    for file in captures::own(folder.path()) {
        let outcome = Program::replay(&[&file]).set("flow.start_records=true").run().kept(0);
        let of = |event: &str| {
            outcome.records().iter().filter(|record| record.text("flow.event") == event).count()
        };
        assert!(of("start") > 0);
        assert_eq!(of("start"), of("end"));
    }
}
