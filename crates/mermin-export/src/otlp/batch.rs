//! What one request carries.

use hyper::body::Bytes;
use mermin_flow::Amount;

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
        let part = |items: &[Item], bytes, begin| Self { bytes, begin, items: items.to_vec() };
        let cut = middle - self.begin;
        (part(first, self.bytes.slice(..cut), self.begin), part(second, self.bytes.slice(cut..), middle))
    }
}

/// A batch that is being filled.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    bytes: Vec<u8>,
    items: Vec<Item>,
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

    /// Makes a batch of what is there and begins anew, with as much room.
    pub(crate) fn close(&mut self) -> Batch {
        let fresh =
            Self { bytes: Vec::with_capacity(self.bytes.len()), items: Vec::with_capacity(self.items.len()) };
        let full = std::mem::replace(self, fresh);
        Batch { bytes: Bytes::from(full.bytes), begin: 0, items: full.items }
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
            sum += part.amount();
        }
        assert_eq!(sum, whole.amount());
        assert_eq!(sum, Amount { records: 7, packets: 28, bytes: 2_800 });
    }
}
