//! Counts that one thread writes and others may read at any time, each by itself exact, together only when their
//! writer is at rest.

use mermin_flow::{MeterBook, Tally};
use std::sync::atomic::{AtomicU64, Ordering};

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

/// What a flow worker publishes after each message.
#[derive(Debug, Default)]
pub(crate) struct MeterCells {
    metered: TallyCell,
    secondary: TallyCell,
    reported: TallyCell,
    created: AtomicU64,
    released: AtomicU64,
    /// Messages handled: how often the worker woke.
    pub(crate) messages: AtomicU64,
}

impl MeterCells {
    pub(crate) fn set(&self, book: &MeterBook) {
        self.metered.set(book.metered);
        self.secondary.set(book.secondary);
        self.reported.set(book.reported);
        self.created.store(book.created, Ordering::Release);
        self.released.store(book.released, Ordering::Release);
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> MeterBook {
        // Released before created, so that the difference is never negative.
        let released = self.released.load(Ordering::Acquire);
        MeterBook {
            metered: self.metered.get(),
            secondary: self.secondary.get(),
            reported: self.reported.get(),
            created: self.created.load(Ordering::Acquire),
            released,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_comes_out_of_the_cell_that_it_was_put_in() {
        let tally = |n| Tally { packets: n, bytes: n + 1, buffers: n + 2, buffer_bytes: n + 3 };
        let book = MeterBook {
            metered: tally(10),
            secondary: tally(20),
            reported: tally(30),
            created: 40,
            released: 39,
        };
        let cells = MeterCells::default();
        cells.set(&book);
        cells.set(&book);
        assert_eq!(cells.get(), book);
        assert_eq!(cells.messages.into_inner(), 2);
    }
}
