//! From when to when an address has an owner, as far as that can be known.
//!
//! Nobody tells when exactly an address changed hands: the API server hears of it later, and writes whole seconds. So a
//! tenure has two edges at each end: between them the owner may have had the address or not.
//!
//! ```text
//!  possible_from     certain_from                 certain_until    possible_until
//!       |- - - - - - - - -|============================|- - - - - - - - -|
//! ```
//!
//! An address has one owner at a time. So where one tenure is certain, no other is possible.

use crate::kubernetes::object::Time;

/// From the first packet of a record to its last; both belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Time,
    pub(crate) last: Time,
}

impl Span {
    /// The part of it that lies within `from..=until`.
    pub(crate) fn within(self, from: Time, until: Time) -> Option<Self> {
        let part = Self { first: self.first.max(from), last: self.last.min(until) };
        (part.first <= part.last).then_some(part)
    }
}

/// An owner's hold on an address. The certain part may be empty (`certain_from > certain_until`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tenure {
    /// Not before this.
    pub(crate) possible_from: Time,
    /// From here on for sure…
    pub(crate) certain_from: Time,
    /// … up to here. [`Time::MAX`] while nothing speaks against it.
    pub(crate) certain_until: Time,
    /// Not after this.
    pub(crate) possible_until: Time,
}

impl Tenure {
    /// The part of `span` in which the owner may have had the address.
    pub(crate) fn possible(&self, span: Span) -> Option<Span> {
        span.within(self.possible_from, self.possible_until)
    }

    /// The part of `span` in which it is still possible beside `other`, an owner of the same place. A tenure has no
    /// gaps: one that had begun when the other surely had the place was over by then, and one that ended after that
    /// began after it. All ends up to `known` have been told; who is thought to have the place beyond that may have lost
    /// it before the other one got it.
    pub(crate) fn possible_beside(&self, other: &Self, span: Span, known: Time) -> Option<Span> {
        let (own_end, other_end) = (self.certain_until.min(known), other.certain_until.min(known));
        if other.certain_from > other_end {
            return Some(span);
        }
        let until = if self.certain_from < other.certain_from { other.certain_from } else { Time::MAX };
        let from = if own_end > other_end { other_end } else { 0 };
        span.within(from, until)
    }

    /// Whether the owner had the address throughout `span`.
    pub(crate) const fn is_certain(&self, span: Span) -> bool {
        self.certain_from <= span.first && span.last <= self.certain_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_belong_to_a_tenure() {
        let tenure = Tenure { possible_from: 10, certain_from: 20, certain_until: 30, possible_until: 40 };
        let span = |first, last| Span { first, last };
        assert_eq!(tenure.possible(span(0, 9)), None);
        assert_eq!(tenure.possible(span(0, 10)), Some(span(10, 10)));
        assert_eq!(tenure.possible(span(40, 50)), Some(span(40, 40)));
        assert_eq!(tenure.possible(span(41, 50)), None);
        assert!(tenure.is_certain(span(20, 30)));
        assert!(!tenure.is_certain(span(19, 30)) && !tenure.is_certain(span(20, 31)));
    }

    #[test]
    fn who_had_begun_before_another_was_over_by_then() {
        let tenure = |possible_from, certain_from, certain_until, possible_until| Tenure {
            possible_from,
            certain_from,
            certain_until,
            possible_until,
        };
        let all = Span { first: 0, last: 100 };
        let (first, second) = (tenure(0, 10, 20, 90), tenure(15, 40, 50, 60));
        assert_eq!(first.possible_beside(&second, all, 100), Some(Span { first: 0, last: 40 }));
        assert_eq!(second.possible_beside(&first, all, 100), Some(Span { first: 20, last: 100 }));
        // Of one that was never certain nothing follows.
        let unsure = tenure(15, 50, 40, 60);
        assert_eq!(first.possible_beside(&unsure, all, 100), Some(all));
        assert_eq!(unsure.possible_beside(&first, all, 100), Some(Span { first: 20, last: 100 }));
        // The first one's end isn't told yet, the second one's is.
        let endless = tenure(0, 10, Time::MAX, Time::MAX);
        assert_eq!(endless.possible_beside(&second, all, 45), Some(Span { first: 0, last: 40 }));
        assert_eq!(endless.possible_beside(&second, all, 35), Some(all));
    }

    #[test]
    fn a_tenure_without_a_certain_part_is_never_certain() {
        let tenure = Tenure { possible_from: 10, certain_from: 30, certain_until: 20, possible_until: 40 };
        assert!((10..=40).all(|at| !tenure.is_certain(Span { first: at, last: at })));
    }
}
