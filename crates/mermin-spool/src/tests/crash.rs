//! `kill -9`, at moments that nobody chose.
//!
//! The test starts itself again as a child, which appends, reads and acknowledges and notes in a log what has returned.
//! The parent kills it and compares the spool with the log.

use crate::{Fsync, Read, Spool, SpoolSettings};
use mermin_flow::{Amount, FlowId, FlowRecord, ObservationPoints};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const FOLDER: &str = "MERMIN_SPOOL_CRASH_FOLDER";
const FIRST: &str = "MERMIN_SPOOL_CRASH_FIRST";
const ROUNDS: u64 = 60;
/// Small, so that segments come and go.
const BYTES: u64 = 256 << 10;

fn open(folder: &Path) -> Spool {
    Spool::open(&folder.join("spool"), SpoolSettings { bytes: BYTES, fsync: Fsync::Never }).unwrap()
}

fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// A batch of its own: the flow's id says which.
fn batch(number: u64) -> Vec<FlowRecord> {
    let mut records = crate::testing::records(1 + number as u32 % 40);
    for record in &mut records {
        (record.id, record.point) = (FlowId(u128::from(number)), ObservationPoints::UNKNOWN);
    }
    records
}

/// What the child does until it is killed; not a test of its own.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let mut next: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let mut log = File::options().append(true).open(log(&folder)).unwrap();
    let mut spool = open(&folder);
    let (mut encoder, mut decoder) = crate::codec(Arc::default());
    loop {
        match spool.append(&mut encoder.encode(&batch(next))) {
            Ok(()) => {
                writeln!(log, "appended {next}").unwrap();
                next += 1;
            }
            Err(error) => assert!(matches!(error, crate::SpoolError::Full { .. }), "{error}"),
        }
        if next.is_multiple_of(3) || spool.bytes() > BYTES * 3 / 4 {
            for _ in 0..4 {
                let Some(Read::Batch(stored)) = spool.read().unwrap() else { break };
                let number = decoder.decode(&stored).unwrap()[0].id.0;
                writeln!(log, "acknowledging {number}").unwrap();
                spool.acknowledge(stored.position()).unwrap();
                writeln!(log, "acknowledged {number}").unwrap();
            }
        }
    }
}

/// The last number that a line of the log begins with; half a line at its end doesn't count.
fn last(log: &str, what: &str) -> Option<u64> {
    let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
    whole.lines().rev().find_map(|line| line.strip_prefix(what)).map(|number| number.trim().parse().unwrap())
}

#[test]
fn what_an_append_took_is_there_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (mut first, mut appended_in_all, mut torn, mut between) = (0, 0, 0, 0);
    let mut acknowledged = None;
    for round in 0..ROUNDS {
        fs::write(log(folder), "").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::crash::child", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder)
            .env(FIRST, first.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // It must have begun; then some of its time passes, another each round.
        while fs::metadata(log(folder)).unwrap().len() == 0 {
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(round * 7_919 % 15_000));
        child.kill().unwrap();
        child.wait().unwrap();

        let log = fs::read_to_string(log(folder)).unwrap();
        let appended = last(&log, "appended ").map_or(first, |last| last + 1);
        acknowledged = last(&log, "acknowledged ").or(acknowledged);
        let acknowledging = last(&log, "acknowledging ").or(acknowledged);
        let mut spool = open(folder);
        let (_, mut decoder) = crate::codec(Arc::default());
        let (mut numbers, mut sum) = (Vec::new(), Amount::default());
        while let Some(read) = spool.read().unwrap() {
            let Read::Batch(stored) = read else { panic!("nothing is lost: {read:?}") };
            let records = decoder.decode(&stored).unwrap();
            let number = records[0].id.0 as u64;
            assert!(records == batch(number), "{number} is as it was appended");
            sum += stored.amount();
            numbers.push(number);
        }
        assert_eq!(sum, spool.spooled());
        // In order, each once; from the first that was not acknowledged to the last that was taken, and no other.
        let begin = numbers.first().copied().unwrap_or(appended);
        assert_eq!(numbers, (begin..begin + numbers.len() as u64).collect::<Vec<_>>());
        let (least, most) =
            (acknowledged.map_or(0, |last| last + 1), acknowledging.map_or(0, |last| last + 1));
        assert!((least..=most).contains(&begin), "{begin} of {least}..={most}");
        let end = begin + numbers.len() as u64;
        assert!((appended..=appended + 1).contains(&end), "{end}, and {appended} had returned");
        torn += u64::from(spool.recovery().torn_bytes > 0);
        between += u64::from(end > appended || begin > least);
        appended_in_all += appended - first;
        acknowledged = begin.checked_sub(1);
        first = end;
    }
    println!(
        "{ROUNDS} kills, {appended_in_all} batches; {between} between doing and saying, {torn} within a write"
    );
    assert!(appended_in_all > ROUNDS, "{appended_in_all}");
}
