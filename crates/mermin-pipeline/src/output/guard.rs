//! What an output's breaker is told: each call of its exporter, what came of it, and calls that don't come back.

use super::breaker::{Breaker, BreakerConfig, BreakerState, Change, Permit};
use crate::lock::lock;
use crate::random::random;
use mermin_flow::{Delivery, Exporter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// What came of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Records were delivered.
    pub(super) delivered: bool,
    /// How long the receiver took to answer, where it gives answers.
    pub(super) answer: Duration,
    /// Attempts that failed, and why the last one did.
    pub(super) failures: u32,
    pub(super) error: Option<String>,
}

/// See the module's text. The output's thread tells it of its calls; the one that watches over the run, and whoever wants
/// to know how it goes, looks for one that does not come back.
#[derive(Debug)]
pub(super) struct Guard {
    name: String,
    /// Whether the exporter takes records whatever happens.
    sums_up: bool,
    delivery: Option<Arc<Delivery>>,
    /// While it is waited for, however long it takes, nothing counts.
    waits: Arc<AtomicBool>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    breaker: Breaker,
    /// Since when the exporter has been called, or has had no answer within the call.
    call: Option<Instant>,
    /// Answers that its receiver has given.
    answers: u64,
    /// Why the output is let be.
    why: String,
}

impl Guard {
    /// Of this exporter. `waits` says whether it is waited for, however long it takes.
    pub(super) fn new(exporter: &dyn Exporter, config: &BreakerConfig, waits: Arc<AtomicBool>) -> Self {
        let breaker = Breaker::new(config.clone(), Instant::now());
        let inner = Mutex::new(Inner { breaker, call: None, answers: 0, why: String::new() });
        let (name, sums_up, delivery) = (exporter.name().to_owned(), exporter.sums_up(), exporter.delivery());
        Self { name, sums_up, delivery, waits, inner }
    }

    /// From now on its breaker goes by this.
    pub(super) fn change(&self, config: &BreakerConfig) {
        let inner = &mut *lock(&self.inner);
        inner.breaker.change(config.clone(), Instant::now());
        if inner.breaker.state() == BreakerState::Closed {
            inner.why.clear();
        }
    }

    fn turn(&self, inner: &mut Inner, change: Option<Change>) {
        match change {
            Some(Change::Opened) => {
                let meanwhile = if self.sums_up { "it sums up meanwhile" } else { "its records wait" };
                warn!("Output {} is let be and tried now and then: {}; {meanwhile}", self.name, inner.why);
            }
            Some(Change::Closed(after)) => {
                info!("Output {} takes records again, after {after:.1?}", self.name);
                inner.why.clear();
            }
            None => {}
        }
    }

    fn is_waited_for(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    fn look_at_call(&self, inner: &mut Inner, now: Instant) {
        // A call may wait for several answers, each of which may come in time.
        let answers = self.delivery.as_ref().map_or(0, |delivery| delivery.answers());
        if std::mem::replace(&mut inner.answers, answers) != answers {
            inner.call = inner.call.map(|_| now);
        }
        let slow = inner.breaker.slow();
        if inner.call.is_some_and(|since| now.saturating_duration_since(since) >= slow)
            && inner.breaker.state() != BreakerState::Open
            && !self.is_waited_for()
        {
            inner.why = format!("it has not answered for {slow:.1?}");
            let change = inner.breaker.open(now, random());
            self.turn(inner, change);
        }
    }

    /// What the output's thread may do.
    pub(super) fn permit(&self, now: Instant) -> Permit {
        lock(&self.inner).breaker.permit(now)
    }

    /// The exporter is called.
    pub(super) fn begin(&self, now: Instant) {
        lock(&self.inner).call = Some(now);
    }

    /// The call has come back. One that was waited for counts for nothing.
    pub(super) fn end(&self, now: Instant, outcome: Outcome) {
        let inner = &mut *lock(&self.inner);
        // One that takes too long has not come back in time, whatever came of it.
        self.look_at_call(inner, now);
        let Some(began) = inner.call.take().filter(|_| !self.is_waited_for()) else { return };
        let slow = inner.breaker.slow();
        if now.saturating_duration_since(began) >= slow {
            return;
        }
        let change = if outcome.delivered && outcome.answer < slow {
            inner.breaker.succeeded(now)
        } else if outcome.delivered {
            inner.why = format!("it answers after {:.1?}", outcome.answer);
            inner.breaker.failed(1, now, random())
        } else if outcome.failures > 0 {
            inner.why = outcome.error.unwrap_or_else(|| "attempts to deliver fail".to_owned());
            inner.breaker.failed(outcome.failures, now, random())
        } else {
            None
        };
        self.turn(inner, change);
    }

    /// How the output is treated, why where it is let be, and how often it came to that.
    pub(super) fn look(&self, now: Instant) -> (BreakerState, Option<String>, u64) {
        let inner = &mut *lock(&self.inner);
        self.look_at_call(inner, now);
        let state = inner.breaker.state();
        let why = (state != BreakerState::Closed).then(|| inner.why.clone());
        (state, why, inner.breaker.opened())
    }

    /// Whether the output was let be when somebody last looked.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.inner).breaker.state() != BreakerState::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_lines::lines_of;
    use mermin_flow::{Failure, FlowRecord, Interval, Receipt};
    use std::num::NonZeroU32;
    use tracing::Level;

    fn guard() -> Guard {
        let config = BreakerConfig {
            failures: NonZeroU32::new(2).unwrap(),
            slow: Interval::seconds(5),
            ..BreakerConfig::default()
        };
        Guard::new(&Receiver::default(), &config, Arc::default())
    }

    /// Has a receiver that gives answers when the test says so.
    #[derive(Default)]
    struct Receiver(Arc<Delivery>);

    impl Exporter for Receiver {
        fn name(&self) -> &str {
            "a"
        }

        fn export(&mut self, _: &[FlowRecord], _: &mut Receipt) -> Result<(), Failure> {
            Ok(())
        }

        fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
            Ok(())
        }

        fn delivery(&self) -> Option<Arc<Delivery>> {
            Some(Arc::clone(&self.0))
        }
    }

    fn delivered(after: u64) -> Outcome {
        Outcome { delivered: true, answer: Duration::from_secs(after), ..Outcome::default() }
    }

    fn failed(failures: u32) -> Outcome {
        Outcome { failures, error: Some("no space".to_owned()), ..Outcome::default() }
    }

    /// A call from one second to another.
    fn call(guard: &Guard, start: Instant, (from, to): (u64, u64), outcome: Outcome) -> BreakerState {
        guard.begin(start + Duration::from_secs(from));
        guard.end(start + Duration::from_secs(to), outcome);
        guard.look(start + Duration::from_secs(to)).0
    }

    #[test]
    fn failures_in_a_row_open_it_and_are_told_once() {
        let lines = lines_of(Level::INFO, || {
            let (guard, start) = (guard(), Instant::now());
            assert_eq!(call(&guard, start, (0, 1), failed(1)), BreakerState::Closed);
            assert_eq!(call(&guard, start, (1, 1), Outcome::default()), BreakerState::Closed);
            assert_eq!(call(&guard, start, (1, 1), failed(1)), BreakerState::Open);
            assert_eq!(guard.look(start + Duration::from_secs(1)).1.as_deref(), Some("no space"));
            assert_eq!(call(&guard, start, (1, 1), failed(3)), BreakerState::Open);
            assert_eq!(guard.permit(start + Duration::from_secs(9)), Permit::Probe);
            assert_eq!(call(&guard, start, (9, 11), delivered(2)), BreakerState::Closed);
            assert_eq!(guard.look(start + Duration::from_secs(11)), (BreakerState::Closed, None, 1));
        });
        assert_eq!(
            lines,
            [
                "Output a is let be and tried now and then: no space; its records wait",
                "Output a takes records again, after 10.0s"
            ]
        );
    }

    #[test]
    fn late_answers_are_failures() {
        let (guard, start) = (guard(), Instant::now());
        assert_eq!(call(&guard, start, (0, 1), delivered(6)), BreakerState::Closed);
        assert_eq!(call(&guard, start, (1, 2), delivered(4)), BreakerState::Closed);
        assert_eq!(call(&guard, start, (2, 3), delivered(5)), BreakerState::Closed);
        assert_eq!(call(&guard, start, (3, 4), delivered(5)), BreakerState::Open);
        let why = guard.look(start + Duration::from_secs(4)).1;
        assert_eq!(why.as_deref(), Some("it answers after 5.0s"));
    }

    #[test]
    fn one_call_that_does_not_come_back_suffices_and_coming_back_late_is_no_success() {
        let (guard, start) = (guard(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        guard.begin(at(0));
        assert_eq!((guard.look(at(4)).0, guard.is_open()), (BreakerState::Closed, false));
        assert_eq!((guard.look(at(5)).0, guard.is_open()), (BreakerState::Open, true));
        guard.end(at(60), delivered(0));
        assert!(guard.is_open());
        assert_eq!(guard.permit(at(60)), Permit::Probe);
        assert_eq!(call(&guard, start, (60, 61), delivered(0)), BreakerState::Closed);
        // Nobody looked meanwhile.
        assert_eq!(call(&guard, start, (70, 80), delivered(0)), BreakerState::Open);
    }

    #[test]
    fn what_is_waited_for_counts_for_nothing() {
        let (guard, start) = (guard(), Instant::now());
        let later = start + Duration::from_secs(600);
        guard.begin(start);
        // It was called before.
        guard.waits.store(true, Ordering::Release);
        assert_eq!(guard.look(later).0, BreakerState::Closed);
        guard.end(later, failed(9));
        assert_eq!(guard.look(later).0, BreakerState::Closed);
    }

    #[test]
    fn a_call_that_waits_for_several_answers_may_take_longer_than_one() {
        let receiver = Receiver::default();
        let guard = Guard::new(&receiver, &BreakerConfig::default(), Arc::default());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        guard.begin(at(0));
        for second in [4, 8, 12] {
            receiver.0.answered(Duration::from_secs(4));
            assert_eq!(guard.look(at(second)).0, BreakerState::Closed);
        }
        assert_eq!(guard.look(at(16)).0, BreakerState::Closed);
        assert_eq!(guard.look(at(17)).0, BreakerState::Open);
    }
}
