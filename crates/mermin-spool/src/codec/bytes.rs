//! Numbers to bytes and back: little endian where the width is fixed, LEB128 where small ones are frequent.

use super::Undecodable;

type Result<T> = std::result::Result<T, Undecodable>;

/// Appends to a message.
pub(super) trait Write {
    fn number(&mut self, value: u64);

    /// Of either sign, small ones are short.
    fn signed(&mut self, value: i64) {
        self.number((value << 1 ^ value >> 63).cast_unsigned());
    }

    /// A place in a table, counted from 1; 0: none.
    fn place(&mut self, value: u32) {
        self.number(u64::from(value));
    }
}

impl Write for Vec<u8> {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }
}

/// Takes a message apart.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Undecodable::Content("length"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Undecodable::Content("length"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Undecodable::Content("number"))
    }

    pub(super) fn signed(&mut self) -> Result<i64> {
        let value = self.number()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub(super) fn place(&mut self) -> Result<u32> {
        u32::try_from(self.number()?).map_err(|_| Undecodable::Content("place"))
    }

    /// The length of a table whose items take a byte each at least: so nobody makes the reader take more memory.
    pub(super) fn count(&mut self) -> Result<usize> {
        let count = self.number()?;
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= self.0.len())
            .ok_or(Undecodable::Content("count"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_numbers_are_short() {
        let length = |value| {
            let mut bytes = Vec::new();
            bytes.signed(value);
            bytes.len()
        };
        assert_eq!([0, -1, 63, -64, 64, i64::MAX, i64::MIN].map(length), [1, 1, 1, 1, 2, 10, 10]);
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        assert!(Bytes(&[0x80]).number().is_err());
        assert!(Bytes(&[0xff; 11]).number().is_err());
        assert!(Bytes(&[2, 0]).count().is_err());
        assert!(Bytes(&[0xff, 0xff, 0xff, 0xff, 0x1f]).place().is_err());
    }

    proptest! {
        #[test]
        fn numbers_come_back(unsigned: u64, signed: i64) {
            let mut bytes = Vec::new();
            bytes.number(unsigned);
            bytes.signed(signed);
            let mut bytes = Bytes(&bytes);
            prop_assert_eq!((bytes.number().unwrap(), bytes.signed().unwrap()), (unsigned, signed));
            prop_assert!(bytes.0.is_empty());
        }
    }
}
