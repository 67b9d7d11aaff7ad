//! The sign of life that the programs count on: without one for `capture.orphan_timeout` they let packets pass uncounted, so
//! what nobody reads costs next to nothing. Whoever reads it again knows for how long nothing was counted.

use super::bpf::run_once;
use super::error::EbpfError;
use super::mapped::Mapped;
use super::object::{CLOCK, Object};
use super::ticks::{Reading, Ticks};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

/// Signs of life in the time after which the programs miss one.
const BEATS: u32 = 4;

/// See the module's text. Has the kernel's clocks read, too.
pub(super) struct Pulse {
    /// The program that reads clocks.
    clock: OwnedFd,
    ticks: Ticks,
    timeout: Duration,
    /// Nanoseconds in which the programs counted nothing, since the last book.
    uncounted: u64,
}

impl Pulse {
    /// # Errors
    /// The kernel doesn't run the program that reads clocks.
    pub(super) fn new(object: &mut Object, mapped: &Mapped, timeout: Duration) -> Result<Self, EbpfError> {
        let clock = object.descriptor(CLOCK)?;
        let failed = |source| EbpfError::Kernel { what: "a run of a program", source };
        let ticks = Ticks::new(read(mapped, &clock).map_err(failed)?);
        Ok(Self { clock, ticks, timeout, uncounted: 0 })
    }

    pub(super) const fn ticks(&self) -> Ticks {
        self.ticks
    }

    /// How long until the next sign.
    pub(super) fn interval(&self) -> Duration {
        self.timeout / BEATS
    }

    /// Gives a sign: from now on the programs count for another timeout. The time since boot, ns.
    pub(super) fn beat(&mut self, mapped: &Mapped) -> u64 {
        // Without a reading, ticks and time are those of the last one, and the programs' time runs on.
        if let Ok(reading) = read(mapped, &self.clock) {
            self.ticks.learn(reading);
            self.note_gap(mapped.deadline(), reading.ticks);
            let timeout = u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX);
            mapped.set_deadline(reading.ticks.saturating_add(timeout.div_ceil(self.ticks.length())));
        }
        mapped.clock().boot
    }

    fn note_gap(&mut self, deadline: u64, now: u64) {
        if deadline == 0 || now < deadline {
            return;
        }
        // The deadline's own tick is one without counting.
        let gap = (now - deadline + 1).saturating_mul(self.ticks.length());
        self.uncounted = self.uncounted.saturating_add(gap);
        tracing::warn!(
            "for {:.1?} the programs have let packets pass uncounted: no agent had shown life for \
             capture.orphan_timeout (anomalies.uncounted_ms)",
            Duration::from_nanos(gap)
        );
    }

    /// Nanoseconds without counting that no book tells of yet.
    pub(super) fn take_uncounted(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }
}

fn read(mapped: &Mapped, clock: &OwnedFd) -> io::Result<Reading> {
    run_once(clock.as_fd())?;
    Ok(mapped.clock())
}
