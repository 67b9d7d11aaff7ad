//! What the tests of sources share: a sink that keeps what it is told, an end whose book balances, a network.

mod net;

pub(crate) use net::{PORT, Pair, interface, run, send, sender};

use mermin_flow::{Observation, Polled, Sightings, Sink, Source, Tally};
use std::process::Command;
use std::time::Duration;

/// Whether this thread has a capability, by its bit (linux/capability.h).
pub(crate) fn has_capability(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or("0");
    u64::from_str_radix(effective.trim(), 16).unwrap_or(0) >> bit & 1 == 1
}

/// Whether network namespaces can be made and nothing else is `missing`; says what is.
pub(crate) fn can_run(test: &str, mut missing: Vec<&str>) -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    if !has_capability(CAP_SYS_ADMIN) {
        missing.push("CAP_SYS_ADMIN");
    }
    if Command::new("ip").arg("-V").output().is_err() {
        missing.push("ip (iproute2)");
    }
    if !missing.is_empty() {
        eprintln!("SKIP {test}: {}", missing.join(", "));
    }
    missing.is_empty()
}

/// Keeps what it is told.
#[derive(Default)]
pub(crate) struct Kept(pub(crate) Vec<Observation>);

impl Sink for Kept {
    fn observe(&mut self, observation: Observation) {
        self.0.push(observation);
    }
}

impl Kept {
    /// What went to a port.
    pub(crate) fn to(&self, port: u16) -> Vec<&Observation> {
        self.0.iter().filter(|seen| seen.ports[1] == port.to_be()).collect()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.0.iter().map(Observation::tally).sum()
    }
}

/// Closes the source and reads it to its end; the book has to balance.
pub(crate) fn finish(source: &mut impl Source, kept: &mut Kept) -> Sightings {
    source.close();
    loop {
        match source.poll(kept, 100) {
            Polled::Ended => break,
            Polled::Drained => source.wait(Duration::from_millis(100)),
            Polled::More => {}
        }
    }
    let sightings = source.sightings().unwrap();
    assert_eq!(sightings.in_ring, Tally::ZERO);
    assert_balanced(&sightings, kept);
    sightings
}

pub(crate) fn assert_balanced(sightings: &Sightings, kept: &Kept) {
    let verdicts: Tally = sightings.in_ring
        + sightings.lost.values().copied().sum()
        + sightings.unmetered.iter().copied().sum()
        + kept.tally();
    assert_eq!(
        (sightings.seen.buffers, sightings.seen.buffer_bytes),
        (verdicts.buffers, verdicts.buffer_bytes),
        "{sightings:?}"
    );
    assert_eq!(sightings.anomalies.get("epochs_out_of_balance"), None);
}
