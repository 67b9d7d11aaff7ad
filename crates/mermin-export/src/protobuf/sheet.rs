//! What a record is written on.
//!
//! A span has some forty attributes of a few bytes each: appended to a `Vec` piece by piece, most of the time goes into
//! checks of its capacity and calls that copy twenty bytes. Here there is always room behind the end, so a piece of known
//! size is copied as a whole block, and the end moves by as much of it as counts; the next piece overwrites the rest.

use super::wire::{SHORT_VARINTS, fixed64_field, short_varint, varint_len};

/// The largest block.
pub(crate) const BLOCK: usize = 64;

/// Bytes, with room behind them.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    /// All of it is there; `len` says how much counts.
    bytes: Vec<u8>,
    len: usize,
}

impl Sheet {
    /// What was written.
    pub(crate) fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for `more` bytes and a block. Nothing else does: it comes before what is written.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, more: usize) {
        if self.bytes.len() - self.len < more + BLOCK {
            self.grow(more + BLOCK);
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) {
        self.bytes.resize((self.len + more) * 2, 0);
    }

    /// The first `counts` bytes of a block.
    #[inline(always)]
    pub(crate) fn block<const N: usize>(&mut self, block: &[u8; N], counts: usize) {
        *place(&mut self.bytes[self.len..]) = *block;
        self.len += counts;
    }

    /// The first `counts` bytes of a block in which one byte is another, and so many of `tail` behind it.
    #[inline(always)]
    pub(crate) fn opening(
        &mut self,
        block: &[u8; BLOCK],
        counts: usize,
        (at, byte): (usize, u8),
        tail: [u8; 8],
        tail_counts: usize,
    ) {
        let room: &mut [u8; BLOCK + 8] = place(&mut self.bytes[self.len..]);
        *place(room) = *block;
        room[at] = byte;
        *place(&mut room[counts..]) = tail;
        self.len += counts + tail_counts;
    }

    /// A varint.
    #[inline(always)]
    pub(crate) fn varint(&mut self, value: u64) {
        if value < SHORT_VARINTS {
            self.block(&short_varint(value).to_le_bytes(), varint_len(value));
        } else {
            self.long_varint(value);
        }
    }

    #[cold]
    #[inline(never)]
    fn long_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.block(&[value as u8 | 0x80], 1);
            value >>= 7;
        }
        self.block(&[value as u8], 1);
    }

    /// A field of eight bytes.
    #[inline]
    pub(crate) fn fixed64(&mut self, number: u8, value: u64) {
        self.block(&[fixed64_field(number)], 1);
        self.block(&value.to_le_bytes(), 8);
    }

    /// Bytes of any number, most often a few.
    #[inline(always)]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let len = bytes.len();
        let target = &mut self.bytes[self.len..][..len];
        // Two pieces that overlap.
        if let (9..=16, Some(first), Some(last)) = (len, bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            *place(target) = *first;
            *place(&mut target[len - 8..]) = *last;
        } else if let (4..=8, Some(first), Some(last)) =
            (len, bytes.first_chunk::<4>(), bytes.last_chunk::<4>())
        {
            *place(target) = *first;
            *place(&mut target[len - 4..]) = *last;
        } else {
            target.copy_from_slice(bytes);
        }
        self.len += len;
    }
}

/// The first of `bytes`. An assignment to it is a few moves, where `copy_from_slice` is a call.
#[inline(always)]
fn place<const N: usize>(bytes: &mut [u8]) -> &mut [u8; N] {
    bytes.first_chunk_mut().expect("there is always room: see `reserve`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_are_those_of_the_official_crate(shift in 0_u32..64, bits: u64) {
            let mut official = Vec::new();
            prost::encoding::encode_varint(bits >> shift, &mut official);
            let mut sheet = Sheet::default();
            sheet.reserve(10);
            sheet.varint(bits >> shift);
            prop_assert_eq!(sheet.written(), &official[..]);
        }

        #[test]
        fn pieces_of_every_length_stand_one_behind_the_other(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..60),
        ) {
            let mut sheet = Sheet::default();
            for piece in &pieces {
                sheet.reserve(piece.len() + 3);
                sheet.bytes(piece);
                sheet.block(&[7; BLOCK], 3);
            }
            let expected: Vec<_> = pieces.iter().flat_map(|piece| piece.iter().copied().chain([7; 3])).collect();
            prop_assert_eq!(sheet.written(), &expected[..]);
            sheet.clear();
            prop_assert!(sheet.written().is_empty());
        }
    }
}
