//! What the tests of sources share: a sink that keeps what it is told, an end whose book balances, a network.

mod net;

pub(crate) use net::{PORT, Pair, interface, run, send, sender};

use mermin_flow::{Loss, Observation, Polled, Sightings, Sink, Source, Tally};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
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

/// Panics at every seventh observation, and keeps the others.
#[derive(Default)]
pub(crate) struct Touchy {
    pub(crate) kept: Kept,
    pub(crate) panics: u64,
}

impl Sink for Touchy {
    fn observe(&mut self, observation: Observation) {
        if (self.kept.0.len() as u64 + self.panics) % 7 == 6 {
            self.panics += 1;
            // Without the hook's words on standard error, where hundreds would hide why a test has failed.
            resume_unwind(Box::new("this panic is the test's"));
        }
        self.kept.observe(observation);
    }
}

impl Touchy {
    /// As [`Source::poll`]; after a panic, as the packet reader does.
    pub(crate) fn poll(&mut self, source: &mut impl Source, budget: usize) -> Polled {
        let panics = self.panics;
        let polled = catch_unwind(AssertUnwindSafe(|| source.poll(self, budget)));
        polled.unwrap_or_else(|_| {
            assert_eq!(self.panics, panics + 1, "the panic is the sink's");
            assert_eq!(source.after_panic(self.kept.tally()).buffers, 1);
            Polled::More
        })
    }

    /// Closes the source and reads it to its end: each observation was taken or is lost, once.
    pub(crate) fn finish(&mut self, source: &mut impl Source) -> Sightings {
        source.close();
        while self.poll(source, 100) != Polled::Ended {
            source.wait(Duration::from_millis(1));
        }
        let sightings = source.sightings().unwrap();
        assert_eq!([sightings.in_ring, sightings.in_kernel_table], [Tally::ZERO; 2]);
        assert_balanced(&sightings, &self.kept);
        assert!(self.panics > 0);
        assert_eq!(sightings.lost[&Loss::WorkerQuarantine].buffers, self.panics);
        sightings
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
    assert_eq!([sightings.in_ring, sightings.in_kernel_table], [Tally::ZERO; 2]);
    assert_balanced(&sightings, kept);
    sightings
}

pub(crate) fn assert_balanced(sightings: &Sightings, kept: &Kept) {
    let verdicts: Tally = sightings.in_ring
        + sightings.in_kernel_table
        + sightings.lost.values().copied().sum()
        + sightings.unmetered.iter().copied().sum()
        + sightings.filtered.values().copied().sum()
        + kept.tally();
    assert_eq!(
        (sightings.seen.buffers, sightings.seen.buffer_bytes),
        (verdicts.buffers, verdicts.buffer_bytes),
        "{sightings:?}"
    );
    assert_eq!(sightings.anomalies.get("epochs_out_of_balance"), None);
}
