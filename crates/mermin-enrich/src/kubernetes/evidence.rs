//! When something happened in the cluster, as far as a watch can tell: how early at the earliest.
//!
//! A watch tells of an event after it has happened; how long after, nobody says. That it has happened by now is sure.
//! For the other edge there is
//!
//! - the order: while the watch keeps up, what is told now happened since a moment ago ([`LAG`]);
//! - what was heard last: after an interruption, everything that is told happened since then;
//! - timestamps, in whole seconds and by another clock. They also show when a watch doesn't keep up: by how much the time
//!   between timestamp and arrival varies, less the second that a timestamp leaves open.

use crate::kubernetes::object::Time;
use std::collections::VecDeque;

pub(crate) const MILLISECOND: Time = 1_000_000;
pub(crate) const SECOND: Time = 1_000 * MILLISECOND;

/// How much later than it happened a watch tells of an event, at least assumed. A pod needs longer than this from being
/// made to its first packet, so an event may in fact be later by as much.
pub(crate) const LAG: Time = 25 * MILLISECOND;
/// A watch that keeps up is heard of every second; one that was not heard of for this long has stood still.
pub(crate) const QUIET: Time = 1_500 * MILLISECOND;
/// How much earlier than it seems a pod may have been told to end: to be on the safe side costs little here.
pub(crate) const CAUTION: Time = 500 * MILLISECOND;
/// How far the clocks of a cluster may be apart.
pub(crate) const SKEW: Time = SECOND;
/// How long after a pod's first packet the API server may be told of its address, and after its last that it has lost
/// it: the kubelet looks at its pods every second and then writes their status.
pub(crate) const SETTLE: Time = 5 * SECOND;
/// How long a pod may go on after it was deleted by force.
pub(crate) const LINGER: Time = 30 * SECOND;

/// Timestamps that are compared at once.
const SAMPLES: usize = 64;
/// Older ones say nothing of the watch as it is now.
const SAMPLE_AGE: Time = 300 * SECOND;

/// How well the watches keep up, by timestamps of what they tell.
#[derive(Debug, Default)]
pub(crate) struct Punctuality {
    /// Arrival, and how much later than the timestamp it was by this host's clock; negative where the clocks differ.
    samples: VecDeque<(Time, i64)>,
}

impl Punctuality {
    /// Something that was stamped `stamp` has just been told of by a watch that wasn't interrupted. The earliest time at
    /// which it can have happened.
    pub(crate) fn happened(&mut self, now: Time, stamp: Option<Time>) -> Time {
        let Some(stamp) = stamp else { return now.saturating_sub(self.lag()) };
        let after = now as i64 - stamp as i64;
        let (lag, least) = (self.lag(), self.samples.iter().map(|(_, after)| *after).min());
        // The least delay so far holds the clocks' difference, and of the open second an unknown part.
        let open = (SECOND + lag) as i64;
        let earliest = match least {
            Some(least) if after - least > open => stamp as i64 + least - open,
            None if after > (SECOND + SKEW) as i64 => stamp as i64 - SKEW as i64,
            _ => (now - lag.min(now)) as i64,
        };
        self.add(now, after);
        earliest.max(0) as Time
    }

    fn add(&mut self, now: Time, after: i64) {
        self.samples.retain(|(arrival, _)| now.saturating_sub(*arrival) < SAMPLE_AGE);
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, after));
    }

    /// [`LAG`], or more where the watches have been later than that of late.
    pub(crate) fn lag(&self) -> Time {
        let delays = || self.samples.iter().map(|(_, after)| *after);
        let (Some(least), Some(greatest)) = (delays().min(), delays().max()) else { return LAG };
        let proven = (greatest - least - SECOND as i64).max(0) as Time;
        LAG.max(2 * proven).min(SETTLE)
    }
}

/// What is known of one kind's watch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    /// When all was known of it last.
    pub(crate) heard: Option<Time>,
    /// It is known to have broken, or a list is being told.
    pub(crate) is_broken: bool,
}

impl Watch {
    /// Whether what is told now may have happened at any time since it was heard of last.
    pub(crate) fn is_behind(&self, now: Time) -> bool {
        self.is_broken || self.heard.is_none_or(|heard| now.saturating_sub(heard) > QUIET)
    }

    /// The earliest time at which what is told now, stamped `stamp`, can have happened.
    pub(crate) fn happened(&self, punctuality: &mut Punctuality, now: Time, stamp: Option<Time>) -> Time {
        if !self.is_behind(now) {
            return punctuality.happened(now, stamp);
        }
        let since_heard = self.heard.map_or(0, |heard| heard.saturating_sub(LAG));
        let stamped = stamp.map_or(0, |stamp| stamp.saturating_sub(SKEW));
        since_heard.max(stamped).min(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Time = 1_000_000 * SECOND;

    #[test]
    fn a_watch_that_keeps_up_is_taken_at_its_word() {
        let mut punctuality = Punctuality::default();
        // Delays of 0 to 1 s come from the stamps' grain alone.
        for at in [100, 300, 999, 500, 5] {
            let now = NOON + at * MILLISECOND;
            assert_eq!(punctuality.happened(now, Some(NOON)), now - LAG);
        }
        assert_eq!(punctuality.happened(NOON, None), NOON - LAG);
    }

    #[test]
    fn a_clock_that_differs_does_no_harm() {
        for offset in [-20_000_i64, -900, 900, 20_000] {
            let mut punctuality = Punctuality::default();
            for at in [100_u64, 300, 999, 500, 5] {
                let now = NOON + at * MILLISECOND;
                let stamp = (NOON as i64 + offset * MILLISECOND as i64) as Time;
                let earliest = punctuality.happened(now, Some(stamp));
                assert!(earliest <= now - LAG, "{offset}");
                // But for the first, which has only the clocks to go by.
                assert!(at == 100 || earliest == now - LAG, "{offset}");
            }
        }
    }

    #[test]
    fn a_late_event_is_seen_by_its_stamp() {
        let mut punctuality = Punctuality::default();
        punctuality.happened(NOON + 400 * MILLISECOND, Some(NOON));
        // Made at NOON + 10.9 s, told of 3 s later: the stamp leaves a second open, and so does the first one's.
        let (made, told) = (NOON + 10_900 * MILLISECOND, NOON + 13_900 * MILLISECOND);
        let earliest = punctuality.happened(told, Some(NOON + 10 * SECOND));
        assert!(earliest <= made && made - earliest < 2 * SECOND, "{earliest}");
        // From then on the watch is trusted less.
        let next = NOON + 20 * SECOND;
        assert_eq!(punctuality.happened(next, None), next - SETTLE);
        let later = next + SAMPLE_AGE;
        punctuality.happened(later, Some(later));
        assert_eq!(punctuality.happened(later, None), later - LAG);
    }

    #[test]
    fn without_a_comparison_the_clocks_count() {
        let earliest = Punctuality::default().happened(NOON + 9 * SECOND, Some(NOON));
        assert_eq!(earliest, NOON - SKEW);
    }

    #[test]
    fn after_an_interruption_all_has_happened_since_the_watch_was_heard_of() {
        let watch = Watch { heard: Some(NOON), is_broken: true };
        let happened = |stamp| watch.happened(&mut Punctuality::default(), NOON + 60 * SECOND, stamp);
        assert_eq!(happened(None), NOON - LAG);
        assert_eq!(happened(Some(NOON + 30 * SECOND)), NOON + 29 * SECOND);
        assert_eq!(happened(Some(NOON - 30 * SECOND)), NOON - LAG);
        assert_eq!(happened(Some(NOON + 90 * SECOND)), NOON + 60 * SECOND);
        let silent = Watch { is_broken: false, ..watch };
        assert_eq!(silent.happened(&mut Punctuality::default(), NOON + 60 * SECOND, None), NOON - LAG);
        let first = Watch { heard: None, is_broken: true };
        assert_eq!(first.happened(&mut Punctuality::default(), NOON, None), 0);
    }
}
