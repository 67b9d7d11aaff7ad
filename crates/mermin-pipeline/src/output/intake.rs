//! Where an output's thread takes records from: its queue, or the disk behind it.

use super::queue::{Consumer, Item};
use std::time::Duration;

/// What an exporter has said of all records that it was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    /// Settled, whatever became of them.
    pub(super) settled: u64,
    /// Of those, given up for reasons that may pass.
    pub(super) given_up: u64,
    /// See [`mermin_flow::Exporter::settled_in_order`].
    pub(super) in_order: Option<u64>,
}

/// See the module's text.
pub(super) trait Intake {
    /// Whether records that the exporter gives up for a passing reason are given to it again.
    const KEEPS: bool;

    /// Waits for the next item; `None` after `at_most` without one.
    fn next(&mut self, at_most: Duration) -> Option<Item>;

    /// Whether there is nothing to take.
    fn is_empty(&self) -> bool;

    /// The exporter was called.
    fn settled(&mut self, settled: Settled);

    /// It was called for the last time.
    fn ended(&mut self);
}

impl Intake for Consumer {
    const KEEPS: bool = false;

    fn next(&mut self, at_most: Duration) -> Option<Item> {
        Self::next(self, at_most)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn settled(&mut self, _: Settled) {}

    fn ended(&mut self) {}
}
