//! What a source has to do with a journal.

use crate::read_log::ReadLog;
use mermin_flow::{SourceCut, Tally};
use std::fmt;
use std::sync::Arc;

/// A source's part of a journal.
#[derive(Clone)]
pub struct SourceJournal {
    /// Where it writes down what it reads.
    pub log: ReadLog,
    /// What a run that was killed has left.
    pub carried: Option<Arc<Carried>>,
    /// Begins a journal anew, where nobody goes on with what was left: with a cut ahead of all that is read.
    pub begin: Arc<dyn Fn(SourceCut) + Send + Sync>,
}

impl fmt::Debug for SourceJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceJournal")
            .field("log", &self.log)
            .field("carried", &self.carried)
            .finish_non_exhaustive()
    }
}

/// What stands in a journal, as far as a source has to know of it.
#[derive(Debug, Default)]
pub struct Carried {
    /// What the source said of itself at the cut.
    pub source: Vec<u8>,
    /// What had come to an end at the cut, in all runs, and needs nobody any more.
    pub settled: Tally,
    /// What is gone on with: flows, and records that are handed on once more.
    pub held: Tally,
    /// What was read behind the cut, as it was appended.
    pub read: Vec<Vec<u8>>,
}
