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
