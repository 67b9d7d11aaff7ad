//! Memory follows the configured capacities, whatever comes.

use mermin_tests::crowd;
use mermin_tests::memory::{anonymous, peak};
use mermin_tests::program::{Outcome, Program};
use std::io::{self, BufWriter};
use std::sync::atomic::{AtomicU64, Ordering};

const MILLION: u64 = 1_000_000;

/// A crowd through `program`, and its anonymous memory at each look, behind the number of flows written by then.
fn crowd_through(program: Program, flows: u64) -> (Outcome, Vec<(u64, u64)>, u64) {
    let written = AtomicU64::new(0);
    let (mut looks, mut high) = (Vec::new(), 0);
    let outcome = program.arg("-").run_watched(
        |stdin| crowd::write(BufWriter::with_capacity(1 << 16, stdin), flows, &written),
        |mut stdout| io::copy(&mut stdout, &mut io::sink()).map(drop),
        |id| {
            // In this order: what was in memory had been written.
            if let Some(bytes) = anonymous(id) {
                looks.push((written.load(Ordering::Relaxed), bytes));
            }
            high = high.max(peak(id).unwrap_or_default());
        },
    );
    (outcome.kept_books(0), looks, high)
}

#[test]
fn ten_million_flows_through_a_table_of_a_hundred_thousand() {
    let flows = 10 * MILLION;
    let program = Program::new("replay").output("none").set("flow.table_capacity=100000");
    let (outcome, looks, _) = crowd_through(program, flows);
    for count in ["/flows/created", "/flows/released", "/ledger/seen/buffers", "/ledger/released/packets"] {
        assert_eq!(outcome.number(count), flows, "{count}");
    }
    assert_eq!(outcome.number("/flows/active"), 0);
    let book = outcome.statistics()["outputs"].as_object().unwrap().values().next().unwrap();
    assert_eq!(book["delivered"]["records"], flows, "{book}");
    // The usual size while the first, second … million went in: what waits in a queue comes and goes.
    let usual: Vec<u64> = (0..10)
        .map(|million| {
            let of_it = looks.iter().filter(|(written, _)| written / MILLION == million);
            median(of_it.map(|look| look.1).collect())
        })
        .collect();
    let most = looks.iter().map(|look| look.1).max().unwrap();
    let kib: Vec<_> = usual.iter().map(|bytes| bytes >> 10).collect();
    eprintln!("anonymous memory by million, KiB: {kib:?}; at most {}", most >> 10);
    let first = usual[1];
    assert!(usual[1..].iter().all(|bytes| bytes * 100 <= first * 105), "memory grows: {kib:?} KiB");
    assert!(most * 100 <= first * 125, "queues hold more than they may: {most} bytes, usually {first}");
}

#[test]
fn smaller_capacities_take_less_memory() {
    const SMALL_TABLE: &str = "flow.table_capacity=8192";
    const FLOWS: u64 = 400_000;
    let programs: [(&str, &[&str]); 4] = [
        ("defaults", &[]),
        ("memory-constrained", &["--profile", "memory-constrained"]),
        ("defaults, a table of 8 192", &["--set", SMALL_TABLE]),
        ("memory-constrained, a table of 8 192", &["--profile", "memory-constrained", "--set", SMALL_TABLE]),
    ];
    let mut peaks = [const { Vec::new() }; 4];
    // By turns, and the middle one of three: what waits in a queue depends on who runs when.
    for _ in 0..3 {
        for (peaks, (_, arguments)) in peaks.iter_mut().zip(programs) {
            // As in live capture: a replay that meters in its reader has no packet channel to save on.
            let program = Program::new("replay").output("none").set("pipeline.replay_metering=workers");
            let (outcome, looks, high) = crowd_through(program.args(arguments), FLOWS);
            assert_eq!(outcome.number("/flows/released"), FLOWS);
            peaks.push((looks.iter().map(|look| look.1).max().unwrap(), high));
        }
    }
    let [large, large_constrained, small, small_constrained] = peaks.map(|peaks| {
        let (anonymous, all) = peaks.into_iter().unzip();
        (median(anonymous), median(all))
    });
    for ((what, _), (anonymous, all)) in
        programs.iter().zip([large, large_constrained, small, small_constrained])
    {
        eprintln!("peak KiB, {what}: {} anonymous, {} in all", anonymous >> 10, all >> 10);
    }
    for (more, less) in [(large, large_constrained), (small, small_constrained), (large, small)] {
        assert!(less.0 < more.0 && less.1 < more.1, "{less:?} against {more:?}");
    }
    assert!(small.0 * 2 < large.0, "{small:?} against {large:?}");
}

fn median(mut values: Vec<u64>) -> u64 {
    assert!(!values.is_empty(), "never looked");
    values.sort_unstable();
    values[values.len() / 2]
}
