//! The clock of a pcapng interface: ticks of any size, and an offset in seconds, to nanoseconds since 1970.

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;
/// The last time that is believed, on 21 July 2553: a year before 64 bits of nanoseconds end. A watermark at that end
/// could not go on with the packets that follow, and no flow would time out any more.
const LATEST: u64 = u64::MAX - 365 * 86_400 * SECOND;
/// `if_tsresol` without the option: microseconds.
pub(super) const MICROSECONDS: u8 = 6;

/// How ticks become nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// Coarser than nanoseconds, by powers of ten.
    Multiply(u64),
    /// Finer, by powers of ten; what is finer is cut. 0: so fine that 64 bits of ticks are no nanosecond.
    Divide(u64),
    /// 2^-n seconds.
    Binary(u32),
}

/// Resolution and offset of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    scale: Scale,
    offset: i128,
}

impl Clock {
    /// `resolution` is `if_tsresol` (negative power of ten, or of two with the highest bit), `offset` is `if_tsoffset`
    /// in seconds.
    pub(super) fn new(resolution: u8, offset: i64) -> Self {
        let exponent = u32::from(resolution & 0x7f);
        let scale = if resolution & 0x80 != 0 {
            Scale::Binary(exponent)
        } else if exponent <= 9 {
            Scale::Multiply(10u64.pow(9 - exponent))
        } else {
            Scale::Divide(10u64.checked_pow(exponent - 9).unwrap_or(0))
        };
        Self { scale, offset: i128::from(offset) * i128::from(SECOND) }
    }

    /// The time of a count of ticks, where it is from 1970 to 2553.
    #[inline]
    pub(super) fn nanos(&self, ticks: u64) -> Option<u64> {
        self.since_1970(ticks).filter(|nanos| *nanos <= LATEST)
    }

    #[inline]
    fn since_1970(&self, ticks: u64) -> Option<u64> {
        let nanos = match self.scale {
            Scale::Multiply(factor) if self.offset == 0 => return ticks.checked_mul(factor),
            Scale::Multiply(factor) => u128::from(ticks) * u128::from(factor),
            Scale::Divide(divisor) => u128::from(ticks.checked_div(divisor).unwrap_or(0)),
            Scale::Binary(exponent) => (u128::from(ticks) * u128::from(SECOND)) >> exponent,
        };
        u64::try_from(i128::try_from(nanos).ok()?.checked_add(self.offset)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_to_nanoseconds() {
        for (resolution, offset, ticks, nanos) in [
            (6, 0, 1_700_000_000_123_456, Some(1_700_000_000_123_456_000)),
            (9, 0, 1_700_000_000_123_456_789, Some(1_700_000_000_123_456_789)),
            (0, 0, 1_700_000_000, Some(1_700_000_000_000_000_000)),
            (0, -1, 1_700_000_000, Some(1_699_999_999_000_000_000)),
            (0, 10, 1, Some(11_000_000_000)),
            (0, -2, 1, None),
            (0, i64::MIN, 1, None),
            (0, i64::MAX, 1, None),
            (9, 0, LATEST, Some(LATEST)),
            (9, 0, LATEST + 1, None),
            (9, 0, u64::MAX, None),
            (9, 1, LATEST, None),
            (12, 0, u64::MAX, Some(u64::MAX / 1_000)),
            (0, 0, u64::MAX / SECOND + 1, None),
            (6, 0, u64::MAX, None),
            (12, 0, 1_999_999, Some(1_999)),
            (12, 1, 1_999, Some(1_000_000_001)),
            (28, 0, u64::MAX, Some(1)),
            (29, 0, u64::MAX, Some(0)),
            (127, 0, u64::MAX, Some(0)),
            (0x80, 0, 7, Some(7_000_000_000)),
            (0x80 | 1, 0, 3, Some(1_500_000_000)),
            (0x80 | 32, 5, 1 << 31, Some(5_500_000_000)),
            (0x80 | 127, 0, u64::MAX, Some(0)),
            (0x80, 0, u64::MAX, None),
        ] {
            assert_eq!(Clock::new(resolution, offset).nanos(ticks), nanos, "{resolution} {offset} {ticks}");
        }
    }
}
