//! Records to an OpenTelemetry collector, over gRPC or HTTP.
//!
//! One output per signal, each with a queue, a book and a thread of its own: `otlp:traces`, `otlp:logs`, `otlp:metrics`.
//! A record is delivered when the collector has answered the request that carries it. While it doesn't, requests are
//! repeated for as long as the run lasts, and records wait: those under way, then those in the queue; what comes when that
//! is full is dropped and counted by the queue. What the collector refuses for good is dropped with a reason.
//!
//! OpenTelemetry's SDK is not used: its batch processor drops what it has no room for without a trace.

mod agent;
mod backoff;
mod batch;
mod config;
mod encode;
mod environment;
mod metrics;
mod pace;
mod plan;
mod records;
mod resource;
mod secret;
mod sender;
mod settings;
mod sheet;
#[cfg(test)]
mod tests;
mod transport;
mod wire;

pub use agent::AgentMetrics;
pub use config::{
    BasicAuth, OtlpBatch, OtlpCompression, OtlpConfig, OtlpMetrics, OtlpProtocol, OtlpSignal,
    OtlpTemporality, OtlpTls,
};
pub use environment::Environment;
pub use plan::OtlpPlan;
pub use secret::Secret;

use std::time::{SystemTime, UNIX_EPOCH};

/// The present, in nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
