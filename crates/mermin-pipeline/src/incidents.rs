//! Panics of threads that were contained: counted, told, and, where putting things in order is costly, answered with
//! a pause that grows while they go on.

use mermin_flow::{GivenUp, panic_message};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::error;

/// Panics so far apart have nothing to do with each other.
const APART: Duration = Duration::from_millis(500);
/// The first pause. The first panic has none.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest pause: a worker that panics at everything still comes to every message.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Between two lines of the log.
const SILENCE: Duration = Duration::from_secs(1);

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on panics that workers contain are told in the log, and not by the hook that was there before: that
/// writes to standard error, past log levels and formats.
pub fn contained_panics_go_to_the_log() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if CONTAINED.get() {
            PLACE.set(panic.location().map(ToString::to_string));
        } else {
            before(panic);
        }
    }));
}

/// Runs `work`, which contains its panics.
pub(crate) fn containing<T>(work: impl FnOnce() -> T) -> T {
    let before = CONTAINED.replace(true);
    let result = work();
    CONTAINED.set(before);
    result
}

/// Does `work`, whose panic is for the caller to make good.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    containing(|| catch_unwind(AssertUnwindSafe(work)))
}

/// What a panic came to when what it was at has been tried again.
pub(crate) const NOTHING_LOST: &str = "contained, nothing is lost";

/// How many panics were contained, by stage.
#[derive(Debug, Default)]
pub(crate) struct Panics {
    pub(crate) reader: Arc<AtomicU64>,
    pub(crate) flow: Arc<AtomicU64>,
    pub(crate) enrichment: Arc<AtomicU64>,
    /// What goes on beside the packets.
    pub(crate) tasks: Arc<AtomicU64>,
}

/// The panics of one worker.
pub(crate) struct Incidents {
    worker: Cow<'static, str>,
    count: Arc<AtomicU64>,
    /// In a row, each within [`APART`] of the one before.
    row: u32,
    last: Option<Instant>,
    said: Option<Instant>,
    unsaid: u64,
}

impl Incidents {
    /// Of a worker that is called so; counts in `count`.
    pub(crate) fn new(worker: impl Into<Cow<'static, str>>, count: Arc<AtomicU64>) -> Self {
        Self { worker: worker.into(), count, row: 0, last: None, said: None, unsaid: 0 }
    }

    /// Takes one, with its message and what came of it.
    pub(crate) fn note(&mut self, message: &str, consequence: impl FnOnce() -> String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.say(message, consequence, Instant::now());
    }

    /// As [`Incidents::note`], of one that was costly to put in order; returns when the worker may go on.
    pub(crate) fn note_and_pause(&mut self, message: &str, consequence: impl FnOnce() -> String) {
        self.note(message, consequence);
        let pause = self.pause(Instant::now());
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }

    /// Does `work`; a panic in it is noted, and `consequence` said.
    pub(crate) fn contain(&mut self, work: impl FnOnce(), consequence: &str) {
        if let Err(payload) = contained(work) {
            self.note(&panic_message(&*payload), || consequence.to_owned());
        }
    }

    fn pause(&mut self, now: Instant) -> Duration {
        let apart = self.last.replace(now).is_none_or(|last| now.duration_since(last) > APART);
        self.row = if apart { 0 } else { self.row.saturating_add(1) };
        match self.row {
            0 => Duration::ZERO,
            row => PAUSE_MIN.saturating_mul(1 << (row - 1).min(16)).min(PAUSE_MAX),
        }
    }

    /// One line a second at most.
    fn say(&mut self, message: &str, consequence: impl FnOnce() -> String, now: Instant) {
        let place = PLACE.take();
        if self.said.is_some_and(|said| now.duration_since(said) < SILENCE) {
            self.unsaid += 1;
            return;
        }
        self.said = Some(now);
        let unsaid = match std::mem::take(&mut self.unsaid) {
            0 => String::new(),
            n => format!("; {n} more since the last line"),
        };
        let place = place.map(|place| format!(" at {place}")).unwrap_or_default();
        error!("{} panicked{place}: {message}; {}{unsaid}", self.worker, consequence());
    }
}

/// What a panic of a flow worker has cost.
pub(crate) fn cost(given_up: Option<GivenUp>) -> String {
    let packets = |n: u64| if n == 1 { "1 packet".to_owned() } else { format!("{n} packets") };
    match given_up {
        None => NOTHING_LOST.to_owned(),
        Some(GivenUp::Observation(flow, tally)) => {
            format!(
                "{} of flow {flow} can't be metered and stand in lost.worker_quarantine",
                packets(tally.packets)
            )
        }
        Some(GivenUp::Flow(flow, tally)) => format!(
            "flow {flow} can't be reported and is given up: {} stand in lost.worker_quarantine",
            packets(tally.packets)
        ),
        Some(GivenUp::Unknown(tally)) => {
            format!("{} stand in lost.worker_quarantine", packets(tally.packets))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_lines::lines_of;
    use mermin_flow::{CommunityId, Tally};

    #[test]
    fn a_turn_that_panics_is_noted_and_the_next_one_comes() {
        let count = Arc::new(AtomicU64::new(0));
        let mut incidents = Incidents::new("A task", Arc::clone(&count));
        let mut turns = Vec::new();
        let lines = lines_of(tracing::Level::ERROR, || {
            for turn in 0..3 {
                let work = || {
                    assert!(turn != 1, "asked for");
                    turns.push(turn);
                };
                incidents.contain(work, "it goes on");
            }
        });
        assert_eq!((turns, count.load(Ordering::Relaxed)), (vec![0, 2], 1));
        assert!(lines.len() == 1 && lines[0].contains("A task panicked"), "{lines:?}");
        assert!(lines[0].ends_with("asked for; it goes on"), "{lines:?}");
    }

    #[test]
    fn a_single_panic_costs_no_time_and_a_row_of_them_ever_more() {
        let mut incidents = Incidents::new("A worker", Arc::default());
        let mut now = Instant::now();
        let mut pause = |later: u64| {
            now += Duration::from_millis(later);
            incidents.pause(now).as_millis()
        };
        assert_eq!([0, 1, 1, 1].map(&mut pause), [0, 1, 2, 4]);
        assert_eq!((0..30).map(|_| pause(1)).max(), Some(250));
        assert_eq!([501, 500].map(&mut pause), [0, 1]);
    }

    #[test]
    fn each_is_counted_and_what_was_lost_is_said() {
        let count = Arc::new(AtomicU64::new(0));
        let mut incidents = Incidents::new("A flow worker", Arc::clone(&count));
        let flow = CommunityId([1; 20]);
        let lines = lines_of(tracing::Level::ERROR, || {
            let mut now = Instant::now();
            for given_up in [
                None,
                Some(GivenUp::Unknown(Tally::frame(60))),
                Some(GivenUp::Observation(flow, Tally::frame(60))),
                Some(GivenUp::Flow(flow, Tally::frame(60) + Tally::frame(60))),
            ] {
                incidents.say("index out of bounds", || cost(given_up), now);
                now += Duration::from_millis(700);
            }
        });
        let id = flow.to_string();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].contains("A flow worker panicked: index out of bounds; contained, nothing is lost"),
            "{}",
            lines[0]
        );
        assert!(
            lines[1].contains(&format!("1 packet of flow {id} can't be metered"))
                && lines[1].ends_with("; 1 more since the last line"),
            "{}",
            lines[1]
        );
        (0..3).for_each(|_| incidents.note("again", || cost(None)));
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}
