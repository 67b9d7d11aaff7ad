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

/// Runs the shared check on `0.records` and `0.statistics`, `1.records` … of a folder: one interpreter for all, because
/// starting it takes longer than most checks. Gives for each run what the check said, or null if it was content.
const JUDGE: &str = r#"
import contextlib, io, json, sys
check, folder, runs = sys.argv[1:]
program = compile(open(check).read(), check, "exec")
verdicts = []
for run in range(int(runs)):
    sys.argv = [check, f"{folder}/{run}.records", f"{folder}/{run}.statistics"]
    said, why = io.StringIO(), "it did not end by exit"
    try:
        with contextlib.redirect_stdout(said):
            exec(program, {"__name__": "__main__"})
    except SystemExit as end:
        why = end.code
    except Exception as error:
        why = repr(error)
    verdicts.append(f"{why}: {said.getvalue()}" if why else None)
print(json.dumps(verdicts))
"#;

/// What the shared check says of each pair of records and statistics.
fn judged(runs: impl Iterator<Item = (String, String)>) -> Vec<Option<String>> {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for (records, statistics) in runs {
        std::fs::write(folder.path().join(format!("{count}.records")), records).unwrap();
        std::fs::write(folder.path().join(format!("{count}.statistics")), statistics).unwrap();
        count += 1;
    }
    let check = shared("tools/check_contract.py").unwrap();
    let mut python = Command::new("python3");
    python.arg("-c").arg(JUDGE).arg(check).arg(folder.path()).arg(count.to_string());
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let verdicts: Vec<_> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdicts.len(), count);
    verdicts
}

#[test]
fn holds_by_the_shared_check() {
    need!(tool("python3"), shared_captures(), shared("tools/check_contract.py"));
    let mut files = captures::shared();
    let mut runs: Vec<_> = files
        .iter()
        .map(|file| {
            let outcome = Program::replay(&[file]).run();
            let statistics = outcome.statistics().to_string();
            (outcome.stdout, statistics)
        })
        .collect();
    // One that breaks it: a record is missing.
    let (records, statistics) = runs.iter().rfind(|(records, _)| !records.is_empty()).cloned().unwrap();
    let last = records.trim_end().rfind('\n').map_or(0, |end| end + 1);
    runs.push((records[..last].to_owned(), statistics));
    files.push("a record is missing".into());
    let broken: Vec<_> = files
        .iter()
        .zip(judged(runs.into_iter()))
        .filter_map(|(file, verdict)| Some((file.display().to_string(), verdict?)))
        .collect();
    let names: Vec<_> = broken.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a record is missing"], "{broken:#?}");
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
