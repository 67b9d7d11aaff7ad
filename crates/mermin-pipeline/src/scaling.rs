//! How many workers a stage should have, by how busy they are.
//!
//! More when they have little time left or much waits for them, twice in a row; fewer when one less would still be idle
//! half of the time, for ten looks in a row. Between the two lies a gap that no change can leap over, so a steady load
//! comes to rest at one number.

use std::time::Duration;

/// Between two looks.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// The part of their time that workers are busy, from which on there should be more.
const BUSY: f64 = 0.8;
/// How full the channel in front of them is, from which on there should be more.
const FULL: f64 = 0.5;
/// What workers may be busy after one of them has gone.
const QUIET: f64 = 0.5;
const LOOKS_FOR_MORE: u32 = 2;
const LOOKS_FOR_FEWER: u32 = 10;

/// Decides, look by look.
#[derive(Debug)]
pub(crate) struct Scaling {
    least: usize,
    most: usize,
    busy: u32,
    quiet: u32,
}

impl Scaling {
    /// Between `least` and `most` workers.
    pub(crate) const fn new(least: usize, most: usize) -> Self {
        Self { least, most, busy: 0, quiet: 0 }
    }

    /// How many there should be, where `workers` were busy for this part of their time and the channel in front of them
    /// is full to this part, both 0 to 1.
    pub(crate) fn advise(&mut self, workers: usize, busy: f64, full: f64) -> usize {
        let wants_more = workers < self.most && (busy > BUSY || full > FULL);
        let after = busy * workers as f64 / (workers as f64 - 1.0);
        let wants_fewer = workers > self.least && after < QUIET && full <= FULL;
        self.busy = if wants_more { self.busy + 1 } else { 0 };
        self.quiet = if wants_fewer { self.quiet + 1 } else { 0 };
        let advice = if self.busy == LOOKS_FOR_MORE {
            workers + 1
        } else if self.quiet == LOOKS_FOR_FEWER {
            workers - 1
        } else {
            return workers.clamp(self.least, self.most);
        };
        (self.busy, self.quiet) = (0, 0);
        advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many workers there are after each of `looks` looks under a load of so many workers' time.
    fn workers(scaling: &mut Scaling, from: usize, load: f64, looks: usize) -> Vec<usize> {
        let mut workers = from;
        (0..looks)
            .map(|_| {
                let busy = (load / workers as f64).min(1.0);
                workers = scaling.advise(workers, busy, if load > workers as f64 { 1.0 } else { 0.0 });
                workers
            })
            .collect()
    }

    #[test]
    fn load_brings_workers_soon_and_quiet_takes_them_later() {
        let mut scaling = Scaling::new(1, 4);
        assert_eq!(workers(&mut scaling, 1, 10.0, 8), [1, 2, 2, 3, 3, 4, 4, 4]);
        let quiet = workers(&mut scaling, 4, 0.1, 30);
        let last = |n: usize| quiet.iter().filter(|workers| **workers == n).count();
        assert_eq!((last(4), last(3), last(2), last(1)), (9, 10, 10, 1));
    }

    #[test]
    fn a_short_burst_brings_none() {
        let mut scaling = Scaling::new(1, 4);
        for busy in [1.0, 0.3, 1.0, 0.3, 0.9, 0.0] {
            assert_eq!(scaling.advise(1, busy, 0.0), 1);
        }
        assert_eq!([0.6, 0.6].map(|full| scaling.advise(1, 0.1, full)), [1, 2], "a full channel is load");
    }

    proptest! {
        /// Under a steady load the number changes one way only, then rests, within its bounds.
        #[test]
        fn a_steady_load_comes_to_rest(
            (least, most) in (1_usize..6, 0_usize..10).prop_map(|(least, more)| (least, least + more)),
            load in 0.0_f64..20.0, from in 0_usize..10,
        ) {
            let from = (least + from).min(most);
            let seen = workers(&mut Scaling::new(least, most), from, load, 300);
            prop_assert!(seen.iter().all(|n| (least..=most).contains(n)));
            prop_assert!(seen.is_sorted() || seen.iter().rev().is_sorted(), "{:?}", seen);
            prop_assert!(seen[200..].iter().all(|n| *n == seen[200]), "{:?}", seen);
            let resting = seen[200] as f64;
            prop_assert!(load / resting <= BUSY || seen[200] == most, "{} for {}", resting, load);
        }
    }
}
