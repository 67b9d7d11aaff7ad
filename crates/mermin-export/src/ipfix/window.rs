//! Data records that have no receipt yet, in order: not sent, or sent and not acknowledged. What was sent in vain is sent
//! again from here, in messages that are made anew.

use super::shape::Shape;
use mermin_flow::{Amount, Receipt};
use std::collections::VecDeque;

/// A data record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) shape: Shape,
    /// Where its octets begin, counted from the first of all.
    start: u64,
    pub(crate) length: usize,
    /// What the flow record carries; with its last data record.
    amount: Option<Amount>,
    /// Why it is given up.
    fate: Option<&'static str>,
}

impl Item {
    pub(crate) const fn is_given_up(&self) -> bool {
        self.fate.is_some()
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Window {
    items: VecDeque<Item>,
    octets: VecDeque<u8>,
    /// How many octets came before those that it has.
    before: u64,
    /// Items of these that are sent.
    sent: usize,
    held: u64,
    /// Why the flow record is given up whose first data record has come to its end.
    fate: Option<&'static str>,
}

impl Window {
    /// Takes a data record, which is the last of its flow record where an amount comes with it.
    pub(crate) fn push(&mut self, shape: Shape, octets: &[u8], amount: Option<Amount>) {
        let start = self.before + self.octets.len() as u64;
        self.octets.extend(octets);
        self.items.push_back(Item { shape, start, length: octets.len(), amount, fate: None });
        self.held += u64::from(amount.is_some());
    }

    /// A flow record without a data record, which is given up when its turn comes.
    pub(crate) fn push_lost(&mut self, amount: Amount, fate: &'static str) {
        let start = self.before + self.octets.len() as u64;
        let shape = Shape::default();
        self.items.push_back(Item { shape, start, length: 0, amount: Some(amount), fate: Some(fate) });
        self.held += 1;
    }

    /// Flow records without a receipt.
    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How much it has.
    pub(crate) fn octets(&self) -> usize {
        self.octets.len()
    }

    /// Octets that are not sent.
    pub(crate) fn unsent_octets(&self) -> usize {
        let first =
            self.items.get(self.sent).map_or(self.before + self.octets.len() as u64, |item| item.start);
        (self.before + self.octets.len() as u64 - first) as usize
    }

    /// Octets that are sent.
    pub(crate) fn sent_octets(&self) -> usize {
        self.octets() - self.unsent_octets()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.items.len()
    }

    /// The next item to be sent, after `ahead` others that are.
    pub(crate) fn unsent(&self, ahead: usize) -> Option<Item> {
        self.items.get(self.sent + ahead).copied()
    }

    /// Appends the octets of an item.
    pub(crate) fn copy(&self, item: &Item, out: &mut Vec<u8>) {
        let from = (item.start - self.before) as usize;
        let (first, second) = self.octets.as_slices();
        let to = from + item.length;
        if to <= first.len() {
            out.extend_from_slice(&first[from..to]);
        } else if from >= first.len() {
            out.extend_from_slice(&second[from - first.len()..to - first.len()]);
        } else {
            out.extend_from_slice(&first[from..]);
            out.extend_from_slice(&second[..to - first.len()]);
        }
    }

    /// The next item is given up; it counts as sent.
    pub(crate) fn give_up(&mut self, ahead: usize, fate: &'static str) {
        if let Some(item) = self.items.get_mut(self.sent + ahead) {
            item.fate = Some(fate);
        }
    }

    /// So many more are sent.
    pub(crate) const fn advance(&mut self, items: usize) {
        self.sent += items;
    }

    /// Nothing of what it has is sent.
    pub(crate) const fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The first `items` have come to their end. The answer is what of them was given up.
    pub(crate) fn settle(&mut self, items: usize, receipt: &mut Receipt) -> Amount {
        let (mut gone, mut octets) = (Amount::default(), 0);
        for item in self.items.drain(..items) {
            octets += item.length;
            self.fate = self.fate.or(item.fate);
            let Some(amount) = item.amount else { continue };
            self.held -= 1;
            match self.fate.take() {
                Some(reason) => {
                    *receipt.dropped.entry(reason).or_default() += amount;
                    gone += amount;
                }
                None => receipt.delivered += amount,
            }
        }
        self.octets.drain(..octets);
        self.before += octets as u64;
        self.sent -= items.min(self.sent);
        gone
    }

    /// Everything is given up.
    pub(crate) fn drop_all(&mut self, reason: &'static str, receipt: &mut Receipt) -> Amount {
        let mut gone = Amount::default();
        for item in self.items.drain(..) {
            self.fate = self.fate.or(item.fate);
            let Some(amount) = item.amount else { continue };
            *receipt.dropped.entry(self.fate.take().unwrap_or(reason)).or_default() += amount;
            gone += amount;
        }
        self.before += self.octets.len() as u64;
        self.octets.clear();
        (self.sent, self.held, self.fate) = (0, 0, None);
        gone
    }
}
