//! `Processed N packets`: when the count reaches 1 000, 10 000, 100 000 …, live at most once a second.

use std::time::{Duration, Instant};
use tracing::info;

const FIRST: u64 = 1_000;
const PAUSE: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Progress {
    next: u64,
    live: bool,
    said: Option<Instant>,
}

impl Progress {
    pub(crate) const fn new(live: bool) -> Self {
        Self { next: FIRST, live, said: None }
    }

    /// `processed` packets so far.
    #[inline]
    pub(crate) fn reached(&mut self, processed: u64) {
        if processed >= self.next {
            self.say(processed);
        }
    }

    #[cold]
    fn say(&mut self, processed: u64) {
        self.tell(processed, Instant::now(), |milestone| info!("Processed {milestone} packets"));
    }

    fn tell(&mut self, processed: u64, now: Instant, mut told: impl FnMut(u64)) {
        if self.live && self.said.is_some_and(|at| now.duration_since(at) < PAUSE) {
            return;
        }
        self.said = Some(now);
        // Live, milestones that a pause has swallowed are told by the last of them.
        while processed >= self.next {
            let milestone = self.next;
            self.next = self.next.saturating_mul(10);
            if !self.live || processed < self.next {
                told(milestone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_lines::lines_of;

    /// Milestones told for counts, each reached at so many milliseconds.
    fn told(live: bool, counts: &[(u64, u64)]) -> Vec<u64> {
        let (mut progress, start, mut told) = (Progress::new(live), Instant::now(), Vec::new());
        for &(ms, processed) in counts {
            if processed >= progress.next {
                progress.tell(processed, start + Duration::from_millis(ms), |milestone| told.push(milestone));
            }
        }
        told
    }

    #[test]
    fn a_replay_tells_every_power_of_ten_from_a_thousand_on() {
        assert_eq!(told(false, &[(0, 999), (0, 1_000), (0, 1_500), (0, 9_999)]), [1_000]);
        assert_eq!(told(false, &[(0, 123_456), (0, 1_000_000)]), [1_000, 10_000, 100_000, 1_000_000]);
    }

    #[test]
    fn live_it_tells_at_most_one_a_second_and_of_those_swallowed_the_last() {
        let counts = [(0, 1_200), (500, 10_000), (999, 200_000), (1_000, 300_000), (1_500, 1_000_000)];
        assert_eq!(told(true, &counts), [1_000, 100_000]);
    }

    #[test]
    fn live_several_milestones_at_once_are_one() {
        assert_eq!(told(true, &[(0, 999), (0, 9_999)]), [1_000]);
        assert_eq!(told(true, &[(0, 10_000)]), [10_000]);
    }

    #[test]
    fn a_milestone_is_a_line_of_the_log() {
        let lines = lines_of(tracing::Level::INFO, || {
            let mut progress = Progress::new(false);
            [0, 999, 1_000, 1_001, 10_500].into_iter().for_each(|processed| progress.reached(processed));
        });
        assert_eq!(lines, ["Processed 1000 packets", "Processed 10000 packets"]);
    }
}
