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
    /// Observations, and what flows held, that metering panicked at time and again: lost.
    pub quarantined: Tally,
    /// Flows created.
    pub created: u64,
    /// Flows ended.
    pub released: u64,
    /// Those of them that had to go for another, the table being full.
    pub evicted: u64,
}

impl AddAssign for MeterBook {
    fn add_assign(&mut self, other: Self) {
        self.metered += other.metered;
        self.secondary += other.secondary;
        self.reported += other.reported;
        self.quarantined += other.quarantined;
        self.created += other.created;
        self.released += other.released;
        self.evicted += other.evicted;
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
            quarantined: Tally::frame(10_000 * n),
            created: 1_000 * n,
            released: 10_000 * n,
            evicted: 100_000 * n,
        };
        let mut sum = book(2);
        sum += book(3);
        let frames = |bytes| Tally { packets: 2, bytes, buffers: 2, buffer_bytes: bytes };
        let expected = MeterBook {
            metered: frames(5),
            secondary: frames(50),
            reported: frames(500),
            quarantined: frames(50_000),
            created: 5_000,
            released: 50_000,
            evicted: 500_000,
        };
        assert_eq!(sum, expected);
    }
}
