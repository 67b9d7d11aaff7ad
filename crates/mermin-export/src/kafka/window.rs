//! What has become of the records under way: which are settled, and how many without a gap.
//!
//! Records are numbered from 0 as they come. Partitions answer in any order, so the window has a place for each record
//! from the first one that is open. Where one partition takes nothing while others do, that place is far ahead: so places have
//! a bound, at which records wait.

use super::settings::MESSAGES_MAX;
use mermin_flow::Amount;
use std::collections::VecDeque;

/// The bound: 1 048 576 places, 40 bytes each.
pub(super) const PLACES_MAX: usize = 16 * MESSAGES_MAX;

/// Places whose memory is kept when there is no record.
const PLACES_KEPT: usize = MESSAGES_MAX;

const _: () = assert!(size_of::<Option<Open>>() <= 40, "what is said above, and in docs/reference/kafka.md");

/// See the module's text.
#[derive(Debug)]
pub(super) struct Window {
    /// The number of the first place: all before are settled.
    first: u64,
    /// `None`: settled.
    open: VecDeque<Option<Open>>,
    held: Amount,
    places_max: usize,
}

/// A record without a receipt.
#[derive(Clone, Copy, Debug)]
struct Open {
    amount: Amount,
    /// Of its message, milliseconds since 1970.
    time: i64,
}

impl Window {
    /// With a bound of so many places.
    pub(super) fn new(places_max: usize) -> Self {
        Self { first: 0, open: VecDeque::new(), held: Amount::default(), places_max }
    }

    /// Whether records have to wait for a place.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= self.places_max
    }

    /// Takes a record, whose message has this time; its number.
    pub(super) fn push(&mut self, amount: Amount, time: i64) -> u64 {
        self.open.push_back(Some(Open { amount, time }));
        self.held += amount;
        self.first + self.open.len() as u64 - 1
    }

    /// What the record carries, which is open no more. `None` where it wasn't.
    pub(super) fn settle(&mut self, number: u64) -> Option<Amount> {
        let place = self.place(number)?;
        let Open { amount, .. } = self.open.get_mut(place)?.take()?;
        self.held = minus(self.held, amount);
        while let Some(None) = self.open.front() {
            self.open.pop_front();
            self.first += 1;
        }
        self.shrink();
        Some(amount)
    }

    /// The time of the record's message, while the record is open.
    pub(super) fn time(&self, number: u64) -> Option<i64> {
        self.open.get(self.place(number)?)?.map(|open| open.time)
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// The record that was taken last was not taken.
    pub(super) fn forget(&mut self, number: u64) {
        if number + 1 == self.first + self.open.len() as u64
            && let Some(Some(Open { amount, .. })) = self.open.pop_back()
        {
            self.held = minus(self.held, amount);
        }
    }

    /// What all open records but these carry (sorted by number), which are open no more.
    pub(super) fn settle_but(&mut self, kept: &[u64]) -> Amount {
        let last = self.first + self.open.len() as u64;
        let mut settled = Amount::default();
        for number in (self.first..last).filter(|number| kept.binary_search(number).is_err()) {
            settled += self.settle(number).unwrap_or_default();
        }
        settled
    }

    /// All that is open, which is open no more.
    pub(super) fn clear(&mut self) -> Amount {
        self.first += self.open.len() as u64;
        self.open.clear();
        self.shrink();
        std::mem::take(&mut self.held)
    }

    fn shrink(&mut self) {
        if self.open.is_empty() && self.open.capacity() > 2 * PLACES_KEPT {
            self.open.shrink_to(PLACES_KEPT);
        }
    }

    /// What is open.
    pub(super) fn held(&self) -> Amount {
        self.held
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Records that are settled, in whatever order.
    pub(super) fn settled(&self) -> u64 {
        self.first + self.open.len() as u64 - self.held.records
    }

    /// Records that are settled, from the first one on without a gap.
    pub(super) fn settled_in_order(&self) -> u64 {
        self.first
    }
}

/// `a` without `b`, which it holds.
const fn minus(a: Amount, b: Amount) -> Amount {
    Amount { records: a.records - b.records, packets: a.packets - b.packets, bytes: a.bytes - b.bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_behind_a_gap_counts_when_the_gap_is_closed() {
        let mut window = Window::new(PLACES_MAX);
        let amount = |records| Amount { records: 1, packets: records, bytes: 10 * records };
        let numbers: Vec<_> = (1..=5).map(|n| window.push(amount(n), n as i64)).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        assert_eq!((window.time(3), window.time(9)), (Some(4), None));
        assert_eq!((window.settle(2), window.settled_in_order()), (Some(amount(3)), 0));
        assert_eq!(window.settled(), 1);
        assert_eq!((window.settle(0), window.settled_in_order()), (Some(amount(1)), 1));
        assert_eq!((window.settle(1), window.settled_in_order()), (Some(amount(2)), 3));
        assert_eq!([window.settle(1), window.settle(2), window.settle(9)], [None; 3], "once, and no others");
        assert_eq!(window.held(), Amount { records: 2, packets: 9, bytes: 90 });
        assert_eq!(window.settle_but(&[3, 4]), Amount::default());
        assert_eq!(window.clear(), Amount { records: 2, packets: 9, bytes: 90 });
        assert!(window.is_empty() && window.held() == Amount::default());
        assert_eq!((window.settled_in_order(), window.settle(4), window.push(amount(6), 6)), (5, None, 5));
        window.forget(4);
        assert_eq!(window.held(), amount(6), "only the last");
        window.forget(5);
        let numbers = [7, 8, 9].map(|packets| window.push(amount(packets), 0));
        assert_eq!(numbers, [5, 6, 7]);
        assert_eq!(window.settle_but(&[6]), Amount { records: 2, packets: 16, bytes: 160 });
        assert_eq!((window.held(), window.settled_in_order()), (amount(8), 6));
        assert_eq!(window.settle(6), Some(amount(8)));
        assert_eq!((window.held(), window.push(amount(7), 7)), (Amount::default(), 8));
    }
    #[test]
    fn places_have_a_bound_and_are_given_back() {
        let mut window = Window::new(PLACES_MAX);
        let one = Amount { records: 1, packets: 1, bytes: 1 };
        let first = window.push(one, 0);
        while !window.is_full() {
            let number = window.push(one, 0);
            window.settle(number);
        }
        assert_eq!((window.open.len(), window.held()), (PLACES_MAX, one), "for the one that is open");
        window.settle(first);
        assert!(window.is_empty() && !window.is_full());
        assert!(window.open.capacity() <= 2 * PLACES_KEPT, "{}", window.open.capacity());
    }
}
