//! The units in which the ledger counts.

use std::ops::{Add, AddAssign, Sub};

/// Packets and bytes as the ledger counts them. `packets` and `bytes` are on the wire (known after parsing),
/// `buffers` and `buffer_bytes` are what the source handed over (known before).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets on the wire.
    pub packets: u64,
    /// Frame bytes on the wire.
    pub bytes: u64,
    /// Socket buffers or frames.
    pub buffers: u64,
    /// Their length.
    pub buffer_bytes: u64,
}

impl Tally {
    /// Nothing.
    pub const ZERO: Self = Self { packets: 0, bytes: 0, buffers: 0, buffer_bytes: 0 };

    /// One frame that is one packet of `bytes` bytes.
    #[inline]
    #[must_use]
    pub const fn frame(bytes: u64) -> Self {
        Self { packets: 1, bytes, buffers: 1, buffer_bytes: bytes }
    }

    /// Each count, but not less than that of `least`.
    #[must_use]
    pub fn at_least(self, least: Self) -> Self {
        Self {
            packets: self.packets.max(least.packets),
            bytes: self.bytes.max(least.bytes),
            buffers: self.buffers.max(least.buffers),
            buffer_bytes: self.buffer_bytes.max(least.buffer_bytes),
        }
    }
}

impl AddAssign for Tally {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.buffers += other.buffers;
        self.buffer_bytes += other.buffer_bytes;
    }
}

impl Add for Tally {
    type Output = Self;
    #[inline]
    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sub for Tally {
    type Output = Self;
    /// Wraps below zero: only differences of counters that were read in order are meaningful.
    #[inline]
    fn sub(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(other.packets),
            bytes: self.bytes.wrapping_sub(other.bytes),
            buffers: self.buffers.wrapping_sub(other.buffers),
            buffer_bytes: self.buffer_bytes.wrapping_sub(other.buffer_bytes),
        }
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Tally = Tally { packets: 1, bytes: 20, buffers: 300, buffer_bytes: 4_000 };
    const B: Tally = Tally { packets: 5, bytes: 10, buffers: 500, buffer_bytes: 1_000 };

    #[test]
    fn counts_are_added_and_compared_one_by_one() {
        assert_eq!(A + B, Tally { packets: 6, bytes: 30, buffers: 800, buffer_bytes: 5_000 });
        assert_eq!((A + B) - B, A);
        assert_eq!([A, B, A].into_iter().sum::<Tally>(), A + B + A);
        assert_eq!(A.at_least(B), Tally { packets: 5, bytes: 20, buffers: 500, buffer_bytes: 4_000 });
        assert_eq!(Tally::frame(60), Tally { packets: 1, bytes: 60, buffers: 1, buffer_bytes: 60 });
    }
}
