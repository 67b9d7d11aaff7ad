//! A duration of the configuration that may be changed while stages go by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// See the module's text. Whoever waits by it looks again when it was told to.
#[derive(Debug, Default)]
pub(crate) struct Adjustable(AtomicU64);

impl Adjustable {
    pub(crate) fn new(duration: Duration) -> Self {
        let adjustable = Self::default();
        adjustable.set(duration);
        adjustable
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, duration: Duration) {
        self.0.store(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
