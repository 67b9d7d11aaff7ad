//! From what is known of an object's life to the tenures of its addresses.

use crate::kubernetes::evidence::{SECOND, SETTLE, SKEW};
use crate::kubernetes::index::{Place, TenureId};
use crate::kubernetes::object::Time;
use crate::kubernetes::tenure::Tenure;

/// What is known of the life of an object that has addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// It had no address before this.
    pub(crate) born: Time,
    /// It was not told to end before this.
    pub(crate) asked: Option<Time>,
    pub(crate) finished: Option<End>,
    pub(crate) deleted: Option<End>,
}

/// An end that lies somewhere between two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) not_before: Time,
    pub(crate) not_after: Time,
}

impl Life {
    /// A pod was told of as finished, at `now`; its last container ended at `stamp`, by the clock of its node.
    pub(crate) fn finish(&mut self, now: Time, stamp: Option<Time>, told_at_once: bool) {
        if self.finished.is_some() {
            return;
        }
        let not_before = stamp.map_or(now.saturating_sub(SETTLE), |stamp| stamp.saturating_sub(SKEW));
        // A pod's status says so when its containers and its network namespace are gone.
        let stamped = stamp.filter(|_| !told_at_once).map(|stamp| stamp + SECOND + SKEW + SETTLE);
        let not_after = stamped.map_or(now, |stamped| stamped.min(now));
        self.finished = Some(End { not_before: not_before.min(not_after), not_after });
    }

    /// Up to when the object surely had its addresses.
    pub(crate) fn certain_until(&self) -> Time {
        // A pod may finish before it is told to: then its own end counts. Else it lives until it is told to, at least.
        let told = self.asked.or(self.deleted.map(|end| end.not_before));
        self.finished.map(|end| end.not_before).or(told).unwrap_or(Time::MAX)
    }

    /// When it surely had none any more.
    pub(crate) fn possible_until(&self) -> Time {
        let ends = [self.finished, self.deleted].into_iter().flatten();
        ends.map(|end| end.not_after).min().unwrap_or(Time::MAX)
    }
}

/// An object's hold on one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) place: Place,
    pub(crate) id: TenureId,
    pub(crate) possible_from: Time,
    pub(crate) certain_from: Time,
    /// It lost the place while it lived on.
    pub(crate) lost: Option<End>,
    /// It has ended, and the past knows.
    pub(crate) is_past: bool,
}

impl Hold {
    pub(crate) fn tenure(&self, life: &Life) -> Tenure {
        let (certain_until, possible_until) =
            self.lost.map_or((Time::MAX, Time::MAX), |lost| (lost.not_before, lost.not_after));
        Tenure {
            possible_from: self.possible_from,
            certain_from: self.certain_from,
            certain_until: certain_until.min(life.certain_until()),
            possible_until: possible_until.min(life.possible_until()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Time = 1_000_000 * SECOND;

    #[test]
    fn a_pod_lives_at_least_until_it_is_told_to_end() {
        let mut life = Life::default();
        assert_eq!((life.certain_until(), life.possible_until()), (Time::MAX, Time::MAX));
        life.asked = Some(5);
        life.deleted = Some(End { not_before: 8, not_after: 9 });
        assert_eq!((life.certain_until(), life.possible_until()), (5, 9));
        life.asked = None;
        assert_eq!((life.certain_until(), life.possible_until()), (8, 9));
    }

    #[test]
    fn a_pod_that_finished_did_so_when_its_containers_did() {
        let mut life = Life { asked: Some(NOON + 9 * SECOND), ..Life::default() };
        life.finish(NOON + 10 * SECOND, Some(NOON + 4 * SECOND), true);
        assert_eq!(life.certain_until(), NOON + 3 * SECOND);
        assert_eq!(life.possible_until(), NOON + 10 * SECOND);
        // Told of in a list, long after.
        let mut life = Life::default();
        life.finish(NOON + 3_600 * SECOND, Some(NOON), false);
        assert_eq!((life.certain_until(), life.possible_until()), (NOON - SKEW, NOON + 2 * SECOND + SETTLE));
        // A clock that is ahead does not make the end later than now.
        let mut life = Life::default();
        life.finish(NOON, Some(NOON + 60 * SECOND), true);
        assert_eq!((life.certain_until(), life.possible_until()), (NOON, NOON));
    }
}
