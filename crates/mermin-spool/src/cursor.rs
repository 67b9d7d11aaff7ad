//! Where something stands in the files.

use crate::mark::Mark;

/// A place between two entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Of the entry behind it.
    pub(crate) mark: Mark,
    /// Number of the segment.
    pub(crate) segment: u64,
    /// From the segment's begin.
    pub(crate) offset: u64,
}
