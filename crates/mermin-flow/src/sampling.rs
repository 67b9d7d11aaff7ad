//! By what draw an observation was kept, in four bytes: an observation has no more to spare.
//!
//! A rate is a power of two, `1:n` with n up to 128. A buffer is kept or left out as a whole, so what its packets stand for
//! varies with the squares of its counts. Those of the bytes are kept as observations are merged; those of the packets
//! follow from them.

use crate::observation::Observation;

/// The three lowest bits have the exponent of n. The others are those of a float: the sum of the squares of the buffers' IP
/// bytes, to six digits of one buffer. Each merging rounds to as many, which comes to about a hundredth over a hundred thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Sampling(u32);

const EXPONENT: u32 = 0b111;

impl Sampling {
    /// Nothing was drawn: it stands for itself.
    pub const NONE: Self = Self(0);
    /// The exponent of the lowest rate that there can be, 1:128.
    pub const EXPONENT_MAX: u8 = EXPONENT as u8;

    /// Of a buffer with so many IP bytes, kept by a draw of one in 2 to the power of `exponent`, 1 to
    /// [`Sampling::EXPONENT_MAX`].
    #[must_use]
    pub fn kept(exponent: u8, bytes: u64) -> Self {
        debug_assert!((1..=Self::EXPONENT_MAX).contains(&exponent), "a rate of 1:{}", 1_u32 << exponent);
        Self::pack(exponent.into(), bytes as f32 * bytes as f32)
    }

    const fn pack(exponent: u32, squares: f32) -> Self {
        // Rounded to the nearest, so that sums don't drift.
        Self((squares.to_bits() + EXPONENT.div_ceil(2)) & !EXPONENT | exponent)
    }

    const fn squares(self) -> f32 {
        f32::from_bits(self.0 & !EXPONENT)
    }

    /// One in so many was kept; 1: all.
    #[must_use]
    pub const fn one_in(self) -> u32 {
        1 << (self.0 & EXPONENT)
    }

    /// Whether both were kept at the same rate.
    pub(crate) const fn is_as(self, other: Self) -> bool {
        (self.0 ^ other.0) & EXPONENT == 0
    }

    /// Both together, of one rate.
    pub(crate) fn with(self, other: Self) -> Self {
        match self.0 & EXPONENT {
            0 => Self::NONE,
            exponent => Self::pack(exponent, self.squares() + other.squares()),
        }
    }
}

impl Observation {
    /// The sums of the squares of the packets and of the IP bytes of its buffers, if these were drawn. Of a single buffer
    /// they are exact. Of merged ones the bytes' is nearly right ([`Sampling`]); the packets' is exact where no buffer had more than
    /// one, and else as if all packets were equally long, which those of a segmented buffer are.
    pub(crate) fn squares(&self) -> [u128; 2] {
        let square = |count: u64| u128::from(count) * u128::from(count);
        if self.buffers <= 1 {
            return [square(self.packets.into()), square(self.bytes)];
        }
        let bytes = f64::from(self.sampling.squares());
        let packets = if self.packets == self.buffers {
            u128::from(self.packets)
        } else {
            let per_byte = f64::from(self.packets) / self.bytes.max(1) as f64;
            ((bytes * per_byte * per_byte).round() as u128).max(self.packets.into())
        };
        [packets, bytes.round() as u128]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buffer(exponent: u8, packets: u32, bytes: u64) -> Observation {
        let sampling = Sampling::kept(exponent, bytes);
        Observation { packets, buffers: 1, bytes, sampling, ..Observation::EMPTY }
    }

    #[test]
    fn a_rate_is_a_power_of_two() {
        let rates = (1..=Sampling::EXPONENT_MAX).map(|exponent| Sampling::kept(exponent, 1_500).one_in());
        assert_eq!(rates.collect::<Vec<_>>(), [2, 4, 8, 16, 32, 64, 128]);
        assert_eq!((Sampling::NONE.one_in(), Sampling::NONE.with(Sampling::NONE)), (1, Sampling::NONE));
    }

    #[test]
    fn what_was_drawn_at_different_rates_or_not_at_all_is_not_merged() {
        let plain = Observation { sampling: Sampling::NONE, ..buffer(1, 1, 40) };
        for (one, other, may) in [
            (buffer(1, 1, 40), buffer(1, 1, 90), true),
            (buffer(1, 1, 40), buffer(2, 1, 40), false),
            (buffer(1, 1, 40), plain, false),
            (plain, buffer(3, 1, 40), false),
        ] {
            assert_eq!({ one }.absorb(&other, 1_000), may, "{one:?} {other:?}");
        }
    }

    /// Equal buffers are the worst: all are rounded the same way for long.
    #[test]
    fn a_hundred_thousand_mergings_change_squares_by_less_than_two_hundredths() {
        const BUFFERS: u32 = 100_000;
        for bytes in [40, 52, 576, 1_499, 1_500, 64_000] {
            let one = Sampling::kept(6, bytes);
            let all = (1..BUFFERS).fold(one, |sum, _| sum.with(one));
            let off = f64::from(all.squares()) / (f64::from(BUFFERS) * (bytes * bytes) as f64) - 1.0;
            assert!(off.abs() < 0.02, "{bytes}: {off}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Of single packets of any length, and of segmented buffers with segments of one length.
        #[test]
        fn squares_outlast_merging(
            buffers in prop::collection::vec((1_u32..45, 20_u64..1_500), 1..300), segmented: bool, exponent in 1_u8..8,
        ) {
            let counts = |(packets, bytes): (u32, u64)| {
                if segmented { (packets, 1_500 * u64::from(packets)) } else { (1, bytes) }
            };
            let mut merged: Option<Observation> = None;
            let (mut packets, mut bytes) = (0_u64, 0_u64);
            for &one in &buffers {
                let one = counts(one);
                packets += u64::from(one.0).pow(2);
                bytes += one.1.pow(2);
                let next = buffer(exponent, one.0, one.1);
                match &mut merged {
                    Some(merged) => prop_assert!(merged.absorb(&next, 1_000)),
                    None => merged = Some(next),
                }
            }
            let merged = merged.unwrap();
            prop_assert_eq!(merged.sampling.one_in(), 1 << exponent);
            for (found, expected) in merged.squares().into_iter().zip([packets, bytes]) {
                let most = (expected as f64 * 1e-3).max(0.5);
                prop_assert!((found as f64 - expected as f64).abs() < most, "{} {}", found, expected);
            }
        }
    }
}
