//! How long batches waited in a channel: a histogram that many threads may add to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds of the buckets, in seconds. Ten to one apart: a channel either hands over at once, or lags by a batch, or
/// is full.
const BOUNDS: [f64; 8] = [0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0];

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// Waits by how long they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WaitFigures {
    /// Upper bound in seconds, the last infinite, and how many batches: each bucket by itself.
    pub buckets: Vec<(f64, u64)>,
    /// All of them together, in seconds.
    pub sum: f64,
}

impl Waits {
    /// A batch that was handed over at this time was taken now.
    pub(crate) fn until_now(&self, since: Instant) {
        self.add(since.elapsed());
    }

    fn add(&self, wait: Duration) {
        let seconds = wait.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn figures(&self) -> WaitFigures {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let sum = self.nanos.load(Ordering::Relaxed) as f64 / 1e9;
        WaitFigures { buckets: bounds.zip(counts).collect(), sum }
    }
}

impl WaitFigures {
    /// These and others, of lanes of one channel.
    pub(crate) fn plus(mut self, other: &Self) -> Self {
        for ((_, count), (_, more)) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.sum += other.sum;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_fall_into_the_bucket_of_their_length() {
        let waits = Waits::default();
        for micros in [0, 10, 11, 1_000, 200_000_000] {
            waits.add(Duration::from_micros(micros));
        }
        let figures = waits.figures();
        let counts =
            |figures: &WaitFigures| figures.buckets.iter().map(|(_, count)| *count).collect::<Vec<_>>();
        assert_eq!(counts(&figures), [2, 1, 1, 0, 0, 0, 0, 0, 1]);
        assert!((figures.sum - 200.001_021).abs() < 1e-9, "{}", figures.sum);
        let twice = figures.clone().plus(&figures);
        assert_eq!((counts(&twice)[0], twice.sum), (4, 2.0 * figures.sum));
    }
}
