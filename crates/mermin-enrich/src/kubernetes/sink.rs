//! Where the watches put what they learn.

use crate::kubernetes::object::{Change, Time};

/// Keeps what is told. Called on the `kubernetes` thread, which waits meanwhile.
pub(crate) trait ChangeSink: Send + 'static {
    /// Something was told at `at`, ns since 1970. Of one kind no change is earlier than the one before it.
    fn change(&mut self, change: Change, at: Time);

    /// For now that was all: what was told should be seen by others.
    fn settle(&mut self);
}
