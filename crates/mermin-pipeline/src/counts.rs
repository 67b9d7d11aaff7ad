//! Counts that one thread writes and others may read at any time, each by itself exact, together only when their
//! writer is at rest. Nothing is locked; `tests/loom` goes through all orders in which writer and reader may meet.

use crate::sync::atomic::{AtomicU64, Ordering};
use mermin_flow::Tally;

/// A [`Tally`] with one writer.
#[derive(Debug, Default)]
pub(crate) struct TallyCell([AtomicU64; 4]);

impl TallyCell {
    pub(crate) fn set(&self, tally: Tally) {
        let values = [tally.packets, tally.bytes, tally.buffers, tally.buffer_bytes];
        for (cell, value) in self.0.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Tally {
        let [packets, bytes, buffers, buffer_bytes] =
            std::array::from_fn(|i| self.0[i].load(Ordering::Relaxed));
        Tally { packets, bytes, buffers, buffer_bytes }
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
