//! The watermark of a source: how far time has come, by the times of its packets.
//!
//! It never goes back. Packets a little out of order wait for no one: the watermark stays where it is. A clock that
//! was set back (or a capture that continues in the past) is told from two interleaved clocks by what follows: when
//! time goes on for [`STEP`] without coming near the watermark again, the watermark goes on with it, so flows neither
//! end early nor stay for as long as the clock needs to catch up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Times this little behind the watermark are disorder, not another clock.
pub(crate) const DISORDER: u64 = 1_000_000_000;

/// Nothing holds packets back for so long: what is later has another clock.
const LATENESS_MAX: u64 = 3_600_000_000_000;

/// Time that must pass on a clock behind the watermark before it is believed.
const STEP: u64 = 5_000_000_000;

/// By how much packets were handed on later than others, at most; 0 while that is less than a second. Written by the
/// reader before it hands on the packet, read by its meters.
#[derive(Clone, Debug, Default)]
pub struct Lateness(Arc<AtomicU64>);

impl Lateness {
    fn note(&self, late: u64) {
        if late <= LATENESS_MAX {
            self.0.fetch_max(late, Ordering::Relaxed);
        }
    }

    /// Nanoseconds.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module's text. All times in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Watermark {
    stamp: u64,
    /// Added to packet times since the clock was set back.
    offset: u64,
    /// Least and greatest time of the packets behind the watermark, since the last one near it.
    behind: Option<(u64, u64)>,
    /// Greatest time on the packets' own clock before it was set back.
    before: u64,
    lateness: Lateness,
}

impl Watermark {
    /// Takes a packet's time; the watermark that goes with it.
    #[inline(always)]
    pub fn stamp(&mut self, time: u64) -> u64 {
        let time = time.saturating_add(self.offset);
        if time >= self.stamp {
            self.stamp = time;
            self.behind = None;
            return time;
        }
        self.stamp_behind(time)
    }

    #[cold]
    fn stamp_behind(&mut self, time: u64) -> u64 {
        if self.stamp - time <= DISORDER {
            self.behind = None;
            return self.stamp;
        }
        self.lateness.note(self.stamp - time);
        let (low, high) = self.behind.map_or((time, time), |(low, high)| (low.min(time), high.max(time)));
        if high - low < STEP {
            self.behind = Some((low, high));
        } else if self.stamp - high < high - low {
            // Nearer to the watermark than to where it was set back to: it has come back by itself (a packet or two
            // with a senseless time).
            self.behind = Some((time, time));
        } else {
            self.before = self.latest();
            self.offset = self.offset.saturating_add(self.stamp - low);
            self.stamp = self.stamp.saturating_add(high - low);
            self.behind = None;
        }
        self.stamp
    }

    /// The source says that everything up to `time` has been read. What a source says never goes back, so after its
    /// clock was set back it repeats an old time, which says nothing about now.
    pub fn advance(&mut self, time: u64) -> u64 {
        if time > self.latest() { self.stamp(time) } else { self.stamp }
    }

    /// Greatest time so far on the packets' own clock.
    fn latest(&self) -> u64 {
        self.stamp.saturating_sub(self.offset).max(self.before)
    }

    /// How late packets have been.
    pub(crate) fn lateness(&self) -> Lateness {
        self.lateness.clone()
    }

    /// Where it stands.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SECOND, T0};

    fn stamps(seconds: &[u64]) -> Vec<u64> {
        let mut watermark = Watermark::default();
        seconds.iter().map(|s| (watermark.stamp(T0 + s * SECOND) - T0) / SECOND).collect()
    }

    #[test]
    fn the_latest_packet_is_remembered_but_for_another_clock() {
        let mut watermark = Watermark::default();
        let lateness = watermark.lateness();
        for (at, late) in [(5_000, 0), (4_999, 0), (4_990, 10), (4_995, 10), (5_001, 10), (0, 10)] {
            watermark.stamp(T0 + at * SECOND);
            assert_eq!(lateness.get(), late * SECOND, "{at}");
        }
    }

    #[test]
    fn follows_times_that_go_on_and_stays_for_disorder() {
        assert_eq!(stamps(&[100, 101, 100, 103]), [100, 101, 101, 103]);
    }

    #[test]
    fn goes_on_after_the_clock_was_set_back() {
        assert_eq!(stamps(&[1000, 100, 104, 105, 106, 200]), [1000, 1000, 1000, 1005, 1006, 1100]);
    }

    #[test]
    fn one_senseless_time_does_not_hurry_it() {
        let zero = |watermark: &mut Watermark| watermark.stamp(0);
        for senseless_first in [true, false] {
            let mut watermark = Watermark::default();
            watermark.stamp(T0 + 100 * SECOND);
            if senseless_first {
                zero(&mut watermark);
            }
            watermark.stamp(T0 + 98 * SECOND);
            zero(&mut watermark);
            assert_eq!(watermark.stamp(T0 + 98 * SECOND), T0 + 100 * SECOND);
            assert_eq!(watermark.stamp(T0 + 101 * SECOND), T0 + 101 * SECOND);
        }
    }

    #[test]
    fn a_small_step_back_is_waited_for() {
        assert_eq!(stamps(&[100, 92, 94, 96, 98, 99, 100, 101]), [100, 100, 100, 100, 100, 100, 100, 101]);
    }

    #[test]
    fn a_clock_that_has_come_half_way_back_is_believed() {
        assert_eq!(stamps(&[110, 100, 105, 106]), [110, 110, 115, 116]);
        assert_eq!(stamps(&[109, 100, 105, 106]), [109, 109, 109, 109]);
    }

    #[test]
    fn two_interleaved_clocks_do_not_hurry_it() {
        assert_eq!(stamps(&[100, 90, 101, 91, 110, 100, 120, 110]), [100, 100, 101, 101, 110, 110, 120, 120]);
    }
}
