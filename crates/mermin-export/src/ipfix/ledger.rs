//! The agent's ledger for whom records tell of it: an output asks on a board, and who looks after the run writes there.
//!
//! An output can't look itself: a look is a marker that goes down the stages, and these may wait for the output.

use super::wire::{push_u32, push_u64};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Packets and frame bytes.
pub type Term = [u64; 2];

/// The agent's ledger, each term a sum since the agent was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerFigures {
    /// All that were seen.
    pub seen: Term,
    /// That stand in flows.
    pub metered: Term,
    /// Seen again at another observation point.
    pub secondary: Term,
    /// Without a flow key.
    pub unmetered: Term,
    /// Left out by filters.
    pub filtered: Term,
    /// Left out by a draw.
    pub sampled_out: Term,
    /// Lost on the way to the flow table.
    pub lost: Term,
}

impl LedgerFigures {
    /// The options record, behind the scope: first what RFC 7011 section 4.2 has elements for.
    pub(super) fn push(&self, process: u32, out: &mut Vec<u8>) {
        let Self { seen, metered, secondary, unmetered, filtered, sampled_out, lost } = self;
        push_u32(out, process);
        let ignored = [0, 1].map(|unit| unmetered[unit] + filtered[unit] + sampled_out[unit] + lost[unit]);
        for term in [&ignored, seen, metered, secondary, unmetered, filtered, sampled_out, lost] {
            term.iter().for_each(|count| push_u64(out, *count));
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct LedgerBoard {
    asked: AtomicBool,
    figures: Mutex<Option<LedgerFigures>>,
}

impl LedgerBoard {
    /// Asks for figures of about now.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Whether somebody has asked since the last call.
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire) && self.asked.swap(false, Ordering::AcqRel)
    }

    /// Writes the figures of this moment.
    pub fn put(&self, figures: LedgerFigures) {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = Some(figures);
    }

    /// The last figures, if there are any.
    #[must_use]
    pub fn last(&self) -> Option<LedgerFigures> {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
