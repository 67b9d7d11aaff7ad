//! `New flow created: <community id>`: at most ten a second at INFO, then one line for the suppressed; all at DEBUG.

use mermin_flow::CommunityId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tracing::{Level, debug, enabled, info};

const PER_SECOND: u64 = 10;

/// Once a second has had this many flows too much, the clock is read for one flow in as many only.
const FLOOD: u64 = 256;

/// Shared by all flow workers.
pub(crate) struct CreatedLog {
    start: Instant,
    level: Level,
    limit: Limit,
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
        Self { start: Instant::now(), level, limit: Limit::default() }
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
        let admitted = self.limit.admits(|| self.start.elapsed().as_secs());
        if let Some(suppressed) = admitted {
            say(suppressed);
            info!("New flow created: {}", community_id());
        }
    }

    /// One line for all flows since the last one that had none.
    pub(crate) fn say_suppressed(&self) {
        say(self.limit.suppressed.swap(0, Ordering::Relaxed));
    }
}

fn say(suppressed: u64) {
    if suppressed > 0 {
        info!("{suppressed} more flows created (log_level: debug names each)");
    }
}

/// Counts the lines of a second and the flows that had none.
#[derive(Default)]
struct Limit {
    /// The second in the upper half, its lines in the lower.
    window: AtomicU64,
    suppressed: AtomicU64,
}

impl Limit {
    /// Whether a flow may have a line, and how many since the last admitted one had none.
    fn admits(&self, second: impl FnOnce() -> u64) -> Option<u64> {
        let window = self.window.load(Ordering::Relaxed);
        if lines(window) >= PER_SECOND {
            let suppressed = self.suppressed.load(Ordering::Relaxed);
            let looks = suppressed < FLOOD || suppressed.is_multiple_of(FLOOD);
            if !looks || !self.opens(window, second()) {
                self.suppressed.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        } else {
            self.opens(window, second());
        }
        // Another worker may have taken the last line in between.
        if lines(self.window.fetch_add(1, Ordering::Relaxed)) >= PER_SECOND {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }

    /// Opens the second if it is later than the window's.
    fn opens(&self, window: u64, second: u64) -> bool {
        let opened = (second + 1) << 32;
        second + 1 > window >> 32
            && self.window.compare_exchange(window, opened, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

const fn lines(window: u64) -> u64 {
    window & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_lines::lines_of;

    #[test]
    fn ten_a_second_and_the_rest_is_told_with_the_next_one() {
        let limit = Limit::default();
        for second in 0..5 {
            let told: Vec<_> = (0..15).map(|_| limit.admits(|| second)).collect();
            assert_eq!(told[0], Some(if second == 0 { 0 } else { 5 }), "second {second}");
            assert!(told[1..10].iter().all(|admitted| *admitted == Some(0)), "{told:?}");
            assert!(told[10..].iter().all(Option::is_none), "{told:?}");
        }
    }

    #[test]
    fn a_flood_reads_the_clock_now_and_then_and_loses_no_count() {
        let limit = Limit::default();
        let (mut looks, mut admitted, mut told) = (0, 0, 0);
        for flow in 0..100_000_u64 {
            let verdict = limit.admits(|| {
                looks += 1;
                flow / 50_000
            });
            if let Some(suppressed) = verdict {
                admitted += 1;
                told += suppressed;
            }
        }
        assert_eq!(admitted, 20);
        assert!(looks < 1_000, "{looks}");
        assert_eq!(admitted + told + limit.suppressed.into_inner(), 100_000);
    }

    #[test]
    fn several_workers_share_the_ten_lines() {
        let limit = Limit::default();
        let admitted: usize = std::thread::scope(|scope| {
            let work = || (0..1_000).filter(|_| limit.admits(|| 0).is_some()).count();
            let workers: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(admitted, 10);
        assert_eq!(limit.suppressed.into_inner(), 8_000 - 10);
    }

    /// The lines of a log that hears of `flows` new flows and is told to name those that it has not.
    fn said(level: Level, flows: usize) -> Vec<String> {
        lines_of(level, || {
            let log = CreatedLog::new();
            (0..flows).for_each(|_| log.note(|| CommunityId([7; 20])));
            log.say_suppressed();
            log.say_suppressed();
        })
    }

    #[test]
    fn debug_names_each_info_ten_a_second_with_the_number_of_the_rest_and_less_none() {
        let flow = format!("New flow created: {}", CommunityId([7; 20]));
        assert_eq!(said(Level::DEBUG, 30), vec![flow.clone(); 30]);
        assert_eq!(said(Level::WARN, 30), [""; 0]);
        assert_eq!(said(Level::INFO, 3), vec![flow.clone(); 3]);
        let lines = said(Level::INFO, 30);
        let named = lines.iter().filter(|line| **line == flow).count();
        let more: Vec<_> = lines.iter().filter_map(|line| line.split_once(" more flows created")).collect();
        let suppressed: usize = more.iter().map(|(number, _)| number.parse::<usize>().unwrap()).sum();
        assert_eq!((named + more.len(), named + suppressed), (lines.len(), 30), "{lines:#?}");
        assert!(named >= 10 && more.iter().all(|(number, _)| *number != "0"), "{lines:#?}");
    }
}
