//! The kernel's time of an event in nanoseconds since 1970.
//!
//! The two clocks are compared once: a step of the wall clock afterwards would otherwise move the packets of a running
//! flow. Suspended time counts in both.

/// Nanoseconds between 1970 and boot.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    boot: u64,
}

impl Clock {
    pub(super) fn new() -> Self {
        // Read between two readings of the other: the error is at most half of what lies between them.
        let before = now(libc::CLOCK_BOOTTIME);
        let wall = now(libc::CLOCK_REALTIME);
        let after = now(libc::CLOCK_BOOTTIME);
        Self { boot: wall.saturating_sub(before + (after - before) / 2) }
    }

    /// A time of the kernel's.
    pub(super) fn utc(self, since_boot: u64) -> u64 {
        self.boot.saturating_add(since_boot)
    }

    /// The present on the kernel's clock.
    pub(super) fn now() -> u64 {
        now(libc::CLOCK_BOOTTIME)
    }
}

fn now(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the kernel fills it or leaves it alone.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn boot_time_becomes_wall_time() {
        let clock = Clock::new();
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i128;
        let ours = i128::from(clock.utc(Clock::now()));
        assert!((ours - before).abs() < 1_000_000_000, "{ours} is not near {before}");
    }
}
