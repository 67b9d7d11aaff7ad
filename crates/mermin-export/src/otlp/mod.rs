//! Records to an OpenTelemetry collector, over gRPC or HTTP.
//!
//! One output per signal, each with a queue, a book and a thread of its own: `otlp:traces`, `otlp:logs`, `otlp:metrics`.
//! A record is delivered when the collector has answered the request that carries it. While it doesn't, requests are
//! repeated for as long as the run lasts, and records wait: those under way, then those in the queue or on disk; what comes
//! when that is full is dropped and counted. What the collector refuses for good is dropped with a reason.
//!
//! OpenTelemetry's SDK is not used: its batch processor drops what it has no room for without a trace.

mod agent;
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
#[cfg(test)]
mod tests;
mod transport;

pub use agent::AgentMetrics;
pub use config::{
    BasicAuth, OtlpBatch, OtlpCompression, OtlpConfig, OtlpMetrics, OtlpProtocol, OtlpSignal,
    OtlpTemporality, OtlpTls,
};
pub use environment::Environment;
pub use plan::OtlpPlan;
pub use secret::Secret;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Since when sums count.
#[derive(Clone, Copy, Debug)]
struct Since {
    began: Instant,
    /// What the wall clock showed then, nanoseconds since 1970.
    shown: u64,
}

impl Since {
    fn now() -> Self {
        Self { began: Instant::now(), shown: now() }
    }

    /// From then to now, by the wall clock. Once that was set back to before the beginning, the beginning is as long ago
    /// as it is in truth.
    fn window(&mut self) -> (u64, u64) {
        self.window_at(now(), self.began.elapsed())
    }

    fn window_at(&mut self, now: u64, passed: Duration) -> (u64, u64) {
        if now < self.shown {
            let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
            self.shown = now.saturating_sub(passed);
        }
        (self.shown, now.max(self.shown + 1))
    }
}

/// The present, in nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod clock_tests {
    use super::*;

    #[test]
    fn a_window_begins_before_now_also_when_the_clock_was_set_back() {
        let (second, hour) = (1_000_000_000, 3_600_000_000_000);
        let mut since = Since { began: Instant::now(), shown: 10 * hour };
        let passed = Duration::from_secs(30);
        assert_eq!(since.window_at(10 * hour, passed), (10 * hour, 10 * hour + 1));
        assert_eq!(since.window_at(10 * hour + 30 * second, passed), (10 * hour, 10 * hour + 30 * second));
        assert_eq!(since.window_at(9 * hour, passed), (9 * hour - 30 * second, 9 * hour));
        assert_eq!(since.window_at(9 * hour + second, passed), (9 * hour - 30 * second, 9 * hour + second));
    }
}
