//! `New flow created: <community id>`: at most ten a second at INFO, then one line for the suppressed; all at DEBUG.

use mermin_flow::CommunityId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tracing::{Level, debug, enabled, info};

const PER_SECOND: u64 = 10;

/// Shared by all flow workers.
pub(crate) struct CreatedLog {
    start: Instant,
    level: Level,
    /// The second since `start` in the upper half, lines of that second in the lower.
    window: AtomicU64,
    suppressed: AtomicU64,
}

impl CreatedLog {
    pub(crate) fn new() -> Self {
        let level = if enabled!(Level::DEBUG) {
            Level::DEBUG
        } else if enabled!(Level::INFO) {
            Level::INFO
        } else {
            Level::ERROR
        };
        Self { start: Instant::now(), level, window: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// A flow was created.
    #[inline]
    pub(crate) fn note(&self, community_id: impl FnOnce() -> CommunityId) {
        match self.level {
            Level::DEBUG => debug!("New flow created: {}", community_id()),
            Level::INFO => self.limited(community_id),
            _ => {}
        }
    }

    fn limited(&self, community_id: impl FnOnce() -> CommunityId) {
        // While the second's lines are used up, the clock is read for one flow in 256 only.
        let window = self.window.load(Ordering::Relaxed);
        if window & 0xffff_ffff >= PER_SECOND {
            let before = self.suppressed.fetch_add(1, Ordering::Relaxed);
            if before & 0xff != 0 || !self.next_second(window) {
                return;
            }
            self.say_suppressed();
            return;
        }
        self.next_second(window);
        self.window.fetch_add(1, Ordering::Relaxed);
        info!("New flow created: {}", community_id());
    }

    /// Opens the current second if it is later than the window's.
    fn next_second(&self, window: u64) -> bool {
        let second = self.start.elapsed().as_secs() + 1;
        second > window >> 32
            && self
                .window
                .compare_exchange(window, second << 32, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// One line for all flows since the last one that had none.
    pub(crate) fn say_suppressed(&self) {
        let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        if suppressed > 0 {
            info!("{suppressed} more flows created (log_level: debug names each)");
        }
    }
}
