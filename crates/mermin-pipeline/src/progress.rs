//! `Processed N packets`: when the count reaches 1 000, 10 000, 100 000 …, live at most once a second.

use std::time::{Duration, Instant};
use tracing::info;

const FIRST: u64 = 1_000;
const PAUSE: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Progress {
    next: u64,
    live: bool,
    said: Option<Instant>,
}

impl Progress {
    pub(crate) const fn new(live: bool) -> Self {
        Self { next: FIRST, live, said: None }
    }

    /// `processed` packets so far.
    #[inline]
    pub(crate) fn reached(&mut self, processed: u64) {
        if processed >= self.next {
            self.say(processed);
        }
    }

    #[cold]
    fn say(&mut self, processed: u64) {
        if self.live && self.said.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        self.said = Some(Instant::now());
        // Live, milestones that a pause has swallowed are told by the last of them.
        while processed >= self.next {
            let milestone = self.next;
            self.next = self.next.saturating_mul(10);
            if !self.live || processed < self.next {
                info!("Processed {milestone} packets");
            }
        }
    }
}
