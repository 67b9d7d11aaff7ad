//! A meter's part of the metering book.

use crate::tally::Tally;
use std::ops::AddAssign;

/// What a meter has done so far: its part of the metering book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterBook {
    /// Observations that stand in flows.
    pub metered: Tally,
    /// Observations of a direction that another observation point counts.
    pub secondary: Tally,
    /// What records have carried out of the flow table.
    pub reported: Tally,
    /// Flows created.
    pub created: u64,
    /// Flows ended.
    pub released: u64,
}

impl AddAssign for MeterBook {
    fn add_assign(&mut self, other: Self) {
        self.metered += other.metered;
        self.secondary += other.secondary;
        self.reported += other.reported;
        self.created += other.created;
        self.released += other.released;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_of_several_meters_add_up() {
        let book = |n: u64| MeterBook {
            metered: Tally::frame(n),
            secondary: Tally::frame(10 * n),
            reported: Tally::frame(100 * n),
            created: 1_000 * n,
            released: 10_000 * n,
        };
        let mut sum = book(2);
        sum += book(3);
        let frames = |bytes| Tally { packets: 2, bytes, buffers: 2, buffer_bytes: bytes };
        let expected = MeterBook {
            metered: frames(5),
            secondary: frames(50),
            reported: frames(500),
            created: 5_000,
            released: 50_000,
        };
        assert_eq!(sum, expected);
    }
}
