//! The present in nanoseconds since 1970, on the clock that packets are timed by: one that was compared with the wall
//! clock once and that no step of it moves.

use mermin_flow::WallClock;
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since 1970.
pub(crate) type Time = u64;

/// A clock that never goes back. Suspended time counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Nanoseconds between 1970 and boot.
    boot: u64,
}

impl Clock {
    /// Of its own, where no packets of this host are timed.
    pub(crate) fn new() -> Self {
        Self { boot: read(ClockId::Realtime).wrapping_sub(read(ClockId::Boottime)) }
    }

    /// That of the observations, where packets of this host are captured.
    pub(crate) fn of(live: Option<&WallClock>) -> Self {
        live.and_then(WallClock::boot).map_or_else(Self::new, |boot| Self { boot })
    }

    pub(crate) fn now(self) -> Time {
        self.boot.wrapping_add(read(ClockId::Boottime))
    }
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Neither clock is negative on a machine that is on.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn it_is_the_clock_that_packets_are_timed_by() {
        let hour = 3_600_000_000_000;
        let observations = WallClock::ahead_of_boot(Clock::new().boot.wrapping_sub(hour));
        let (ours, theirs) = (Clock::of(Some(&observations)).now() + hour, Clock::of(None).now());
        assert!(ours.abs_diff(theirs) < 1_000_000_000, "{ours} and {theirs}");
    }

    #[test]
    fn it_tells_the_wall_clocks_time() {
        let clock = Clock::new();
        let ours = clock.now();
        let wall = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        assert!(ours.abs_diff(wall) < 1_000_000_000, "{ours} is not near {wall}");
        assert!(clock.now() >= ours);
    }
}
