//! Counts that one thread writes and others may read at any time, each by itself exact, together only when their
//! writer is at rest. Nothing is locked; `tests/loom` goes through all orders in which writer and reader may meet.

use crate::sync::atomic::{AtomicU64, Ordering};
use mermin_flow::{Settlement, Tally};
use std::fmt;

/// A [`Tally`] with one writer.
#[derive(Default)]
pub(crate) struct TallyCell {
    values: [AtomicU64; 4],
    /// Where it is kept beside, by a source that outlasts the process.
    settlement: Option<Settlement>,
}

impl From<Option<Settlement>> for TallyCell {
    fn from(settlement: Option<Settlement>) -> Self {
        Self { settlement, ..Self::default() }
    }
}

impl TallyCell {
    pub(crate) fn set(&self, tally: Tally) {
        let values = [tally.packets, tally.bytes, tally.buffers, tally.buffer_bytes];
        for (cell, value) in self.values.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
        if let Some(settle) = &self.settlement {
            settle(tally);
        }
    }

    pub(crate) fn get(&self) -> Tally {
        let [packets, bytes, buffers, buffer_bytes] =
            std::array::from_fn(|i| self.values[i].load(Ordering::Relaxed));
        Tally { packets, bytes, buffers, buffer_bytes }
    }
}

impl fmt::Debug for TallyCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TallyCell").field(&self.get()).finish()
    }
}

/// Flows created and released so far. Whoever reads sees each flow that was released as created too.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    created: AtomicU64,
    released: AtomicU64,
}

impl Lives {
    pub(crate) fn set(&self, created: u64, released: u64) {
        self.created.store(created, Ordering::Release);
        self.released.store(released, Ordering::Release);
    }

    pub(crate) fn get(&self) -> (u64, u64) {
        let released = self.released.load(Ordering::Acquire);
        (self.created.load(Ordering::Acquire), released)
    }
}
