//! How fast datagrams go: a few at once, and not more than so many a second, so that what a burst makes of the output's
//! queue fits the receive buffer of a collector (212 992 bytes by Linux' default, ninety datagrams of 1 472 bytes).

use std::time::{Duration, Instant};

/// Datagrams that may go at once.
const BURST: u32 = 16;

/// A bucket of datagrams (RFC 2698 has such).
#[derive(Debug)]
pub(crate) struct Pace {
    /// Between two datagrams, in the mean.
    interval: Duration,
    /// When the bucket will be full again.
    full_at: Instant,
}

impl Pace {
    pub(crate) fn new(rate: u32, now: Instant) -> Self {
        Self { interval: Duration::from_secs(1) / rate.max(1), full_at: now }
    }

    /// How long the next datagram has to wait.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let room = self.interval * (BURST - 1);
        self.full_at.checked_duration_since(now + room).filter(|wait| !wait.is_zero())
    }

    /// A datagram goes.
    pub(crate) fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000, start);
        let (mut now, mut sent_at) = (start, Vec::new());
        while sent_at.len() < 1_016 {
            match pace.wait(now) {
                Some(wait) => now += wait,
                None => {
                    pace.take(now);
                    sent_at.push(now - start);
                }
            }
        }
        assert!(sent_at[..16].iter().all(Duration::is_zero));
        assert_eq!(sent_at[16], Duration::from_millis(1));
        assert_eq!(sent_at[1_015], Duration::from_secs(1));
    }
}
