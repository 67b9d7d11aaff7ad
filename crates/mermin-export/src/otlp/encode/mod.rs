//! Records as OpenTelemetry's messages, written straight into the bytes of a request.
//!
//! The official types allocate twice per attribute, some hundred times per record; here a record is written field by
//! field, keys encoded beforehand. Tests hold the result against the official types: decoded and encoded again by them
//! the bytes are the same, and the values are those of the JSON line (docs/design/0009-otlp.md).

mod attributes;
mod envelope;
mod log;
mod span;
#[cfg(test)]
mod tests;

pub(crate) use attributes::{AttributeKeys, Attributes};
pub(crate) use envelope::Envelope;
pub(crate) use log::Logs;
pub(crate) use span::Spans;

use mermin_flow::FlowRecord;

/// Writes records as items of a request.
pub(crate) trait Encode: Send {
    /// Called once before the records of a batch; `now` in nanoseconds since 1970.
    fn begin(&mut self, now: u64);

    /// Appends one record, as a field of its scope.
    fn push(&mut self, record: &FlowRecord, out: &mut Vec<u8>);
}

/// The field of the items in their scope: `ScopeSpans.spans`, `ScopeLogs.log_records`, `ScopeMetrics.metrics`.
pub(crate) const ITEM: u8 = 2;
