//! The kernel's tick as a clock: what the programs read for nothing, and what time that was.
//!
//! A tick is counted when the clock of the kernel's own time (`CLOCK_MONOTONIC`) has gone on by one, so the distance to the
//! time since boot is constant until the machine is suspended. A program reads both at one moment; the moment lies somewhere
//! within a tick, so of many readings the least distance is the nearest.

/// Ticks and the time since boot at one moment, read by a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) ticks: u64,
    /// Nanoseconds, suspended time included.
    pub(super) boot: u64,
}

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticks {
    /// Nanoseconds.
    length: u64,
    /// Time since boot of tick 0, as if there had never been a suspend.
    base: u64,
    /// The last reading's.
    last: u64,
}

impl Ticks {
    /// Of ticks as long as the coarse clocks' grain.
    pub(super) fn new(first: Reading) -> Self {
        Self::of(coarse_grain(), first)
    }

    fn of(length: u64, first: Reading) -> Self {
        Self { length, base: distance(length, first), last: first.ticks }
    }

    /// Of a tick, ns.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Another reading.
    pub(super) fn learn(&mut self, reading: Reading) {
        let distance = distance(self.length, reading);
        // Further away by more than a tick can hide: the machine was suspended.
        if distance < self.base || distance - self.base > 2 * self.length {
            self.base = distance;
        }
        self.last = reading.ticks;
    }

    /// The time since boot at which this tick began, of which the low half is known. It lies within two thousand million
    /// ticks of the last reading.
    pub(super) fn time(&self, low: u32) -> u64 {
        let since = low.wrapping_sub(self.last as u32).cast_signed();
        let ticks = self.last.wrapping_add_signed(since.into());
        self.base.wrapping_add(ticks.wrapping_mul(self.length))
    }
}

impl Ticks {
    /// The time since boot of a first packet: the tick in the low half and, where it isn't 0, the low half of the time in the
    /// high one.
    pub(super) fn first(&self, first: u64) -> u64 {
        let (tick, nanos) = (self.time(first as u32), (first >> 32) as u32);
        if nanos == 0 {
            return tick;
        }
        tick.wrapping_add_signed(nanos.wrapping_sub(tick as u32).cast_signed().into())
    }
}

fn distance(length: u64, reading: Reading) -> u64 {
    reading.boot.wrapping_sub(reading.ticks.wrapping_mul(length))
}

fn coarse_grain() -> u64 {
    let mut grain = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `grain` is writable.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut grain) };
    (grain.tv_nsec as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 4_000_000;

    #[test]
    fn a_first_packet_has_its_own_time_where_it_is_known() {
        let ticks = Ticks::of(LENGTH, Reading { ticks: 1_000, boot: 50 * LENGTH });
        let time = ticks.time(1_010);
        assert_eq!(ticks.first(1_010), time);
        for exact in [time - 3, time, time + 3_999_999, time + 1_000_000_000] {
            let nanos = exact as u32;
            assert_eq!(ticks.first(u64::from(nanos) << 32 | 1_010), exact);
        }
    }

    #[test]
    fn the_nearest_reading_counts_until_the_machine_was_suspended() {
        // Ticks begin at 123 ns.
        let at = |boot: u64| Reading { ticks: (1 << 32) + (boot - 123) / LENGTH, boot };
        let mut ticks = Ticks::of(LENGTH, at(10 * LENGTH + 3_000_000));
        let tenth = (1_u64 << 32) as u32 + 10;
        assert_eq!(ticks.time(tenth), 10 * LENGTH + 3_000_000);
        ticks.learn(at(20 * LENGTH + 500));
        ticks.learn(at(30 * LENGTH + 700_000));
        assert_eq!(ticks.time(tenth), 10 * LENGTH + 500);
        assert_eq!(ticks.time(tenth.wrapping_sub(12)), 500_u64.wrapping_sub(2 * LENGTH));
        // Suspended for a second: no tick was counted.
        let mut later = at(40 * LENGTH);
        later.boot += 1_000_000_000;
        ticks.learn(later);
        assert_eq!(ticks.time(later.ticks as u32), later.boot);
    }
}
