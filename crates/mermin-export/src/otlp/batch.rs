//! What one request carries.

use hyper::body::Bytes;
use mermin_flow::Amount;
use std::ops::Range;

/// The items of a request, and what they stand for in the output's book.
pub(crate) trait Parcel: Send + Sync + Sized + 'static {
    /// How many items.
    fn items(&self) -> usize;

    /// The records in them.
    fn amount(&self) -> Amount;

    /// The items as fields of their scope.
    fn encoded(&self) -> Bytes;

    /// Both halves of two items or more.
    fn halves(&self) -> (Self, Self);
}

/// A record among others.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// Where it ends in the bytes.
    end: usize,
    amount: Amount,
}

/// Encoded records. A part of a batch shares its bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    bytes: Bytes,
    /// Where `bytes` begins, by the count of `Item::end`.
    begin: usize,
    items: Vec<Item>,
    /// Items of the output before the first one.
    first: u64,
}

impl Batch {
    /// The numbers of its items, among all of the output.
    pub(crate) fn numbers(&self) -> Range<u64> {
        self.first..self.first + self.items.len() as u64
    }
}

impl Parcel for Batch {
    fn items(&self) -> usize {
        self.items.len()
    }

    fn amount(&self) -> Amount {
        let mut sum = Amount::default();
        self.items.iter().for_each(|item| sum += item.amount);
        sum
    }

    fn encoded(&self) -> Bytes {
        self.bytes.clone()
    }

    fn halves(&self) -> (Self, Self) {
        let (first, second) = self.items.split_at(self.items.len() / 2);
        let middle = first.last().map_or(self.begin, |item| item.end);
        let part = |items: &[Item], bytes, begin, first| Self { bytes, begin, items: items.to_vec(), first };
        let (cut, half) = (middle - self.begin, self.first + first.len() as u64);
        (
            part(first, self.bytes.slice(..cut), self.begin, self.first),
            part(second, self.bytes.slice(cut..), middle, half),
        )
    }
}

/// Buffers of settled batches that are kept.
const SPARE: usize = 2;

/// A batch that is being filled.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    bytes: Vec<u8>,
    items: Vec<Item>,
    /// Items of batches that were closed.
    closed: u64,
    /// Buffers that batches had: the kernel hands out and clears megabytes only once.
    spare: Vec<Vec<u8>>,
}

impl OpenBatch {
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds what `encode` appends as one item.
    #[inline]
    pub(crate) fn push(&mut self, amount: Amount, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.bytes);
        self.items.push(Item { end: self.bytes.len(), amount });
    }

    /// Forgets what was appended of an item that did not become one.
    pub(crate) fn tidy(&mut self) {
        self.bytes.truncate(self.items.last().map_or(0, |item| item.end));
    }

    /// The number of an item that is in no batch. None is open.
    pub(crate) fn skip(&mut self) -> Range<u64> {
        debug_assert!(self.is_empty(), "it comes after what is open");
        let number = self.closed;
        self.closed += 1;
        number..self.closed
    }

    /// Makes a batch of what is there and begins anew, with as much room.
    pub(crate) fn close(&mut self) -> Batch {
        let room = Vec::with_capacity(self.items.len());
        let items = std::mem::replace(&mut self.items, room);
        let room = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.bytes.len()));
        let bytes = Bytes::from(std::mem::replace(&mut self.bytes, room));
        let first = self.closed;
        self.closed += items.len() as u64;
        Batch { bytes, begin: 0, items, first }
    }

    /// Takes back the buffer of a batch that nobody needs any more, unless another part of it is still under way.
    pub(crate) fn recycle(&mut self, batch: Batch) {
        if self.spare.len() < SPARE
            && let Ok(mut bytes) = batch.bytes.try_into_mut()
        {
            bytes.clear();
            self.spare.push(bytes.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_all_that_the_whole_had() {
        let mut open = OpenBatch::default();
        for n in 1..=7_u8 {
            let amount = Amount { records: 1, packets: n.into(), bytes: 100 * u64::from(n) };
            open.push(amount, |out| out.extend(vec![n; usize::from(n)]));
        }
        assert_eq!((open.len(), open.bytes()), (7, 28));
        let whole = open.close();
        assert!(open.is_empty());
        open.push(Amount::default(), |_| {});
        assert_eq!((whole.numbers(), open.close().numbers()), (0..7, 7..8));
        let mut parts = vec![whole.clone()];
        while let Some(place) = parts.iter().position(|part| part.items() > 1) {
            let (first, second) = parts[place].halves();
            assert_eq!(first.items() + second.items(), parts[place].items());
            parts.splice(place..=place, [first, second]);
        }
        assert_eq!(parts.len(), 7);
        let mut sum = Amount::default();
        for (n, part) in (1..=7_u8).zip(&parts) {
            assert_eq!(part.encoded(), vec![n; usize::from(n)]);
            assert_eq!(part.numbers(), u64::from(n) - 1..u64::from(n));
            sum += part.amount();
        }
        assert_eq!(sum, whole.amount());
        assert_eq!(sum, Amount { records: 7, packets: 28, bytes: 2_800 });
    }

    #[test]
    fn a_settled_batch_leaves_its_buffer_unless_a_part_of_it_is_under_way() {
        let mut open = OpenBatch::default();
        let full = |open: &mut OpenBatch| {
            (0..4).for_each(|n| open.push(Amount::default(), |out| out.extend([n; 1_000])));
            open.close()
        };
        let first = full(&mut open);
        let buffer = first.encoded().as_ptr();
        let (left, right) = first.halves();
        open.recycle(first);
        open.recycle(left);
        assert!(open.spare.is_empty(), "a half is under way");
        assert_eq!(right.encoded(), [[2; 1_000], [3; 1_000]].concat());
        open.recycle(right);
        assert_eq!((open.spare.len(), open.spare[0].as_ptr()), (1, buffer));
        full(&mut open);
        let second = full(&mut open);
        assert_eq!(second.encoded().as_ptr(), buffer, "the second batch after it is written there");
        assert_eq!(second.encoded(), (0..4).flat_map(|n| [n; 1_000]).collect::<Vec<u8>>());
    }
}
