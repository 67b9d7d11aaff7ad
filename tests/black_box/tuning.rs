//! What the tuning guide says of processor time: fewer workers take less of it. What it says of drops, wake-ups and waits is
//! counted in `crates/mermin-pipeline/tests/tuning_guide.rs`, of memory in `bounded.rs`.

use mermin_tests::crowd;
use mermin_tests::program::Program;
use std::sync::atomic::AtomicU64;

const FLOWS: u64 = 500_000;
const FEW: [usize; 2] = [1, 1];
const MANY: [usize; 2] = [16, 16];

/// Seconds that a replay with so many flow and enrichment workers takes of all cores together.
fn processor_seconds(capture: &[u8], [flow, enrichment]: [usize; 2]) -> f64 {
    let outcome = Program::new("replay")
        .output("none")
        .arg("-")
        .set("pipeline.replay_metering=workers")
        .set(&format!("pipeline.flow_workers={flow}"))
        .set(&format!("pipeline.enrichment_workers={enrichment}"))
        .set("enrich.names.10.0.0.0/8=crowd")
        .input(capture.to_vec())
        .run()
        .kept_books(0);
    assert_eq!(outcome.number("/flows/released"), FLOWS);
    outcome.statistics()["process"]["cpu_seconds"].as_f64().unwrap()
}

/// "High CPU usage". The middle one of five, by turns: what else the machine does meets both.
#[test]
fn fewer_workers_take_less_processor_time() {
    let mut capture = Vec::new();
    crowd::write(&mut capture, FLOWS, &AtomicU64::new(0)).unwrap();
    let mut pairs: Vec<[f64; 2]> =
        (0..5).map(|_| [FEW, MANY].map(|workers| processor_seconds(&capture, workers))).collect();
    let ratio = |[few, many]: &[f64; 2]| many / few;
    pairs.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    eprintln!("processor seconds with few and many workers: {pairs:?}");
    assert!(ratio(&pairs[2]) > 1.0, "{pairs:?}");
}
