//! How long to wait before a request is tried again: twice as long each time, up to a bound, with jitter, so that a
//! thousand agents don't come back to their collector in the same moment.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);

/// A collector that is back is noticed within this time.
const LONGEST: Duration = Duration::from_secs(5);

/// Counts tries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    /// The next wait. A hint is a least time: what the collector asks for, and a little more. One that is shorter than
    /// the wait would be without it changes nothing.
    pub(crate) fn next(&mut self, hint: Option<Duration>) -> Duration {
        // Keys of hash maps are this program's one source of chance.
        self.next_with(hint, RandomState::new().hash_one(self.0))
    }

    fn next_with(&mut self, hint: Option<Duration>, random: u64) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.0.min(16)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let asked = hint.map_or(Duration::ZERO, |hint| hint + FIRST.mul_f64(share));
        whole.mul_f64(0.5 + share / 2.0).max(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_lie_in_the_upper_half() {
        for (random, expected) in [
            (0, [125, 250, 500, 1_000, 2_000, 2_500, 2_500]),
            (u64::MAX, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]),
        ] {
            let mut backoff = Backoff::default();
            let waits = [(); 7].map(|()| backoff.next_with(None, random).as_secs_f64() * 1_000.0);
            assert_eq!(waits.map(f64::round), expected.map(f64::from));
        }
        let mut backoff = Backoff(u32::MAX);
        assert!(backoff.next(None) <= LONGEST);
    }

    #[test]
    fn a_hint_is_kept() {
        let hint = Some(Duration::from_secs(30));
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_with(hint, 0), Duration::from_secs(30));
        assert!(backoff.next_with(hint, u64::MAX) <= Duration::from_millis(30_250));
    }

    #[test]
    fn a_hint_of_no_time_switches_nothing_off() {
        let mut backoff = Backoff::default();
        let waits = [(); 7].map(|()| backoff.next_with(Some(Duration::ZERO), 0).as_millis());
        assert_eq!(waits, [125, 250, 500, 1_000, 2_000, 2_500, 2_500]);
    }
}
