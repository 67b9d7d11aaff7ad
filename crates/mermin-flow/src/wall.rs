//! From the time of observations to what the wall clock showed.
//!
//! Observations are timed by a clock that nobody sets: it showed the wall clock's time when the source was opened, goes on
//! while the machine is suspended, and knows no steps. Flows live by it, so a wall clock that is set forward ends none
//! and one that is set back keeps none. A record's times are then what the wall clock showed when the packets came: the
//! source tells the steps, and whoever makes a record adds those that had been made by then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Steps remembered; beyond it the oldest is forgotten, as if the clock had shown from the start what it showed after it.
const STEPS_MAX: usize = 1_024;

/// From a moment on, what the wall clock is ahead of the observations' clock. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    at: u64,
    ahead: i64,
}

/// The wall clock's steps: a source tells them, records are made with them.
#[derive(Clone, Debug, Default)]
pub struct WallClock {
    ahead_of_boot: Option<u64>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How often `steps` has changed.
    changes: AtomicUsize,
    /// By time, the oldest first.
    steps: Mutex<Vec<Step>>,
}

impl WallClock {
    /// Of observations whose clock is so many nanoseconds ahead of the time since boot (`CLOCK_BOOTTIME`). Wraps.
    #[must_use]
    pub fn ahead_of_boot(nanos: u64) -> Self {
        Self { ahead_of_boot: Some(nanos), ..Self::default() }
    }

    /// What the observations' clock is ahead of the time since boot; nothing where it has nothing to do with it. Who else
    /// has to do with times of packets goes by the same clock.
    #[must_use]
    pub const fn boot(&self) -> Option<u64> {
        self.ahead_of_boot
    }

    /// From `at` on, on the observations' clock, the wall clock is `ahead` nanoseconds ahead of it.
    pub fn stepped(&self, at: u64, ahead: i64) {
        let mut steps = self.shared.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() == STEPS_MAX {
            steps.remove(0);
            steps[0].at = 0;
        }
        steps.push(Step { at, ahead });
        self.shared.changes.fetch_add(1, Ordering::Release);
    }
}

/// A copy of the steps for one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    clock: WallClock,
    seen: usize,
    steps: Vec<Step>,
}

impl Steps {
    pub(crate) fn of(clock: WallClock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Takes what was told since. Cheap when there is nothing.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        if self.clock.shared.changes.load(Ordering::Acquire) != self.seen {
            self.take();
        }
    }

    #[cold]
    fn take(&mut self) {
        let steps = self.clock.shared.steps.lock().unwrap_or_else(PoisonError::into_inner);
        self.steps.clone_from(&steps);
        self.seen = self.clock.shared.changes.load(Ordering::Acquire);
    }

    /// What the wall clock was ahead at `time`.
    #[inline]
    pub(crate) fn ahead(&self, time: u64) -> i64 {
        if self.steps.is_empty() { 0 } else { self.ahead_at(time) }
    }

    #[cold]
    fn ahead_at(&self, time: u64) -> i64 {
        let later = self.steps.partition_point(|step| step.at <= time);
        later.checked_sub(1).map_or(0, |last| self.steps[last].ahead)
    }
}

/// `time` as a clock shows it that is `ahead` nanoseconds ahead.
#[inline]
pub(crate) const fn shown(time: u64, ahead: i64) -> u64 {
    time.saturating_add_signed(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SECOND, T0};

    const HOUR: i64 = 3_600 * SECOND as i64;

    #[test]
    fn a_time_is_told_as_the_clock_showed_it_then() {
        let clock = WallClock::default();
        let mut steps = Steps::of(clock.clone());
        assert_eq!(steps.ahead(T0), 0);
        clock.stepped(T0 + 10, HOUR);
        clock.stepped(T0 + 20, -HOUR);
        assert_eq!(steps.ahead(T0 + 10), 0, "not taken yet");
        steps.refresh();
        for (after, ahead) in [(0, 0), (9, 0), (10, HOUR), (19, HOUR), (20, -HOUR), (u64::MAX - T0, -HOUR)] {
            assert_eq!(steps.ahead(T0 + after), ahead, "{after}");
        }
        assert_eq!(shown(T0, HOUR), T0 + 3_600 * SECOND);
        assert_eq!((shown(5, -6), shown(u64::MAX, 1)), (0, u64::MAX));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let clock = WallClock::default();
        for at in 1..=STEPS_MAX as u64 + 2 {
            clock.stepped(at, at as i64);
        }
        let mut steps = Steps::of(clock);
        steps.refresh();
        assert_eq!(steps.steps.len(), STEPS_MAX);
        assert_eq!((steps.ahead(1), steps.ahead(4), steps.ahead(u64::MAX)), (3, 4, STEPS_MAX as i64 + 2));
    }
}
