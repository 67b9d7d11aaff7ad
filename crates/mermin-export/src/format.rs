//! What an output of lines needs from its format.

use mermin_flow::FlowRecord;

/// Turns records into lines.
pub trait Format: Send {
    /// Appends the record's line with its line feed, and whatever belongs before it.
    fn push(&mut self, record: &FlowRecord, out: &mut Vec<u8>);
}
