//! The output `otlp:metrics`: sums over records, by chosen attributes.
//!
//! A record is delivered when the collector has taken a request with its counts. Cumulative sums lose nothing when a
//! request is refused or gets no answer, and count nothing twice when it is repeated: the next one says it again. Sums
//! since the request before (`delta`) are repeated as they were, so that a collector which had taken them counts them
//! twice: that is why they are not the default.

mod aggregate;
mod choice;
mod exporter;
mod points;
#[cfg(test)]
mod tests;

pub(super) use aggregate::Aggregate;
pub(super) use choice::Choice;
pub(super) use exporter::Metrics;
