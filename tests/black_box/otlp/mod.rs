//! Records at a collector: the real one for all that it does, a stand-in for what it can't be made to do.

mod delivery;
mod real_collector;

use mermin_tests::crowd;
use mermin_tests::program::{Outcome, Program, Running};
use serde_json::Value;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// A capture of so many flows, of one packet each.
pub(crate) fn capture(flows: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    crowd::write(&mut bytes, flows, &AtomicU64::new(0)).unwrap();
    bytes
}

/// A replay of standard input to a collector.
fn replay(endpoint: &str, protocol: &str) -> Program {
    let program = Program::new("replay").output(&format!("otlp:{endpoint}")).arg("-");
    program.set(&format!("export.otlp.protocol={protocol}"))
}

/// An output's book.
pub(crate) fn book<'a>(outcome: &'a Outcome, output: &str) -> &'a Value {
    &outcome.statistics()["outputs"][output]
}

/// Records, packets and bytes of a term.
pub(crate) fn amount(term: &Value) -> [u64; 3] {
    ["records", "packets", "bytes"].map(|unit| term[unit].as_u64().unwrap())
}

/// Returns when the log holds `text`.
pub(crate) fn says(running: &Running, text: &str) {
    let asked = Instant::now();
    while !running.stderr().contains(text) {
        assert!(asked.elapsed() < Duration::from_secs(30), "it does not say {text}: {}", running.stderr());
        std::thread::sleep(Duration::from_millis(5));
    }
}
