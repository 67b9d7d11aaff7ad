//! For every capture: packets, IP bytes and frame bytes per directed 5-tuple equal what tshark says.

use crate::captures;
use mermin_tests::contract;
use mermin_tests::need;
use mermin_tests::need::{captures as shared, tool};
use mermin_tests::program::{Outcome, Program};
use mermin_tests::record::by_tuple;
use mermin_tests::tshark::{Testimony, witness};
use mermin_tests::tuple::{Counts, differences};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one capture gave.
#[derive(Default)]
struct Verdict {
    frames: u64,
    tuples: usize,
    unmetered: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

/// Where tshark and the rules for records part, by capture: what tshark does, and why the records are as they are.
/// A capture is excused from one comparison, of flows or of reasons, never from the books.
const CONVENTIONS: &[(&str, &str)] = &[
    (
        "icmp-icmp_print-oobr-1.pcap",
        "tshark takes ICMP of 3 bytes for malformed; type and code are there, so it is metered",
    ),
    (
        "oddities-64.pcap",
        "tshark shows SCTP's ports only with the whole common header; the ports are captured",
    ),
];

#[test]
fn every_shared_capture_agrees() {
    need!(tool("tshark"), shared());
    report(&captures::shared());
}

#[test]
fn captures_of_our_own_agree() {
    need!(tool("tshark"));
    let folder = tempfile::tempdir().unwrap();
    report(&captures::own(folder.path()));
}

/// Checks all captures, two at a time, and prints a table of what is not metered and why.
fn report(files: &[PathBuf]) {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = compare(file);
                    verdicts.lock().unwrap().insert(file.clone(), verdict);
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().unwrap();
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    println!("not metered, by capture:");
    for (file, verdict) in verdicts.iter().filter(|(_, verdict)| !verdict.unmetered.is_empty()) {
        let reasons: Vec<String> =
            verdict.unmetered.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        println!("  {:<44} {:>6} frames: {}", name(file), verdict.frames, reasons.join(", "));
    }
    let frames: u64 = verdicts.values().map(|verdict| verdict.frames).sum();
    let tuples: usize = verdicts.values().map(|verdict| verdict.tuples).sum();
    println!("{} captures, {frames} frames, {tuples} directed 5-tuples compared", verdicts.len());
    let mut wrong = 0;
    for (file, verdict) in &verdicts {
        let file = name(file);
        match CONVENTIONS.iter().find(|(excused, _)| *excused == file) {
            Some((_, reason)) if !verdict.wrong.is_empty() => {
                println!("tshark's convention, {file}: {reason}");
            }
            Some(_) => panic!("{file} agrees: its entry in CONVENTIONS is stale"),
            None => {
                wrong += usize::from(!verdict.wrong.is_empty());
                verdict.wrong.iter().for_each(|line| println!("{file}: {line}"));
            }
        }
    }
    assert_eq!(wrong, 0, "captures that differ; the lines above say how");
}

fn compare(file: &Path) -> Verdict {
    let outcome = Program::replay(&[file]).run();
    let mut verdict = Verdict::default();
    let testimony = match witness(file) {
        Ok(testimony) => testimony,
        Err(error) => {
            // Neither can read it, or tshark knows the link type as little as we do.
            let unknown_link = outcome.code == 0
                && outcome.number("/ledger/seen/packets") > 0
                && outcome.number("/ledger/unmetered/link_type/packets")
                    == outcome.number("/ledger/seen/packets");
            if !unknown_link && ![65, 66].contains(&outcome.code) {
                verdict.wrong.push(format!("tshark: {}; exit code {}", error.trim(), outcome.code));
            }
            return verdict;
        }
    };
    if ![0, 65].contains(&outcome.code) {
        verdict.wrong.push(format!("exit code {}: {}", outcome.code, outcome.stderr));
        return verdict;
    }
    verdict.wrong = contract::check(&outcome.stdout, outcome.statistics.as_ref());
    agree(&testimony, &outcome, &mut verdict);
    verdict
}

fn agree(testimony: &Testimony, outcome: &Outcome, verdict: &mut Verdict) {
    let table = by_tuple(&outcome.records());
    verdict.frames = testimony.frames;
    verdict.tuples = testimony.table.len();
    for (tuple, expected, got) in differences(&testimony.table, &table).into_iter().take(6) {
        let show = |counts: Counts| {
            format!("{} packets, {} B, {} B on the link", counts.packets, counts.bytes, counts.frame_bytes)
        };
        verdict.wrong.push(format!("{tuple}: tshark {}; records {}", show(expected), show(got)));
    }
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, tally) in outcome.statistics()["ledger"]["unmetered"].as_object().into_iter().flatten() {
        let packets = tally["packets"].as_u64().unwrap_or_default();
        if packets > 0 {
            verdict.unmetered.insert(reason.clone(), packets);
            let undecodable =
                ["malformed", "truncated", "too_deep", "bad_"].iter().any(|word| reason.starts_with(word));
            *reasons.entry(if undecodable { "undecodable" } else { reason }).or_default() += packets;
        }
    }
    if reasons != testimony.unmetered {
        verdict.wrong.push(format!("not metered: tshark {:?}; ledger {reasons:?}", testimony.unmetered));
    }
}
