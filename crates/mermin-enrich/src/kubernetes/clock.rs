//! The present in nanoseconds since 1970, on a clock that no step of the wall clock moves: packets are timed by one that
//! was compared with the wall clock once, too.

use crate::kubernetes::object::Time;
use rustix::time::{ClockId, clock_gettime};

/// A clock that never goes back. Suspended time counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Nanoseconds between 1970 and boot.
    boot: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { boot: read(ClockId::Realtime).saturating_sub(read(ClockId::Boottime)) }
    }

    pub(crate) fn now(self) -> Time {
        self.boot + read(ClockId::Boottime)
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
    fn it_tells_the_wall_clocks_time() {
        let clock = Clock::new();
        let ours = clock.now();
        let wall = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        assert!(ours.abs_diff(wall) < 1_000_000_000, "{ours} is not near {wall}");
        assert!(clock.now() >= ours);
    }
}
