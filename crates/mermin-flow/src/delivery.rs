//! How deliveries over a network go, beside the book of the output: for metrics and status, while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What an exporter does with its receiver at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Nothing was sent yet.
    #[default]
    Idle,
    /// The last request was answered as it should.
    Delivering,
    /// The last request failed in a way that may pass: it is tried again.
    Retrying,
    /// The last request failed for good.
    Failing,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Delivering, Self::Retrying, Self::Failing];

    /// The name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Delivering => "delivering",
            Self::Retrying => "retrying",
            Self::Failing => "failing",
        }
    }
}

/// Upper bounds of [`Delivery::answered`]'s buckets, in seconds.
const BOUNDS: [f64; 9] = [0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0, 64.0];

/// See the module's text. Counts only rise; all are read by other threads at any time.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Requests sent, repeated ones too.
    pub requests: AtomicU64,
    /// Of those, repetitions.
    pub retries: AtomicU64,
    /// Requests that got no answer or a bad one, which is any but an acceptance.
    pub failures: AtomicU64,
    /// Bytes of request bodies, as sent.
    pub bytes: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
    /// Requests without an answer yet.
    pub in_flight: AtomicU64,
    latency: [AtomicU64; BOUNDS.len() + 1],
    latency_nanos: AtomicU64,
    latest_nanos: AtomicU64,
    condition: Mutex<Condition>,
}

#[derive(Clone, Debug, Default)]
struct Condition {
    state: DeliveryState,
    error: Option<String>,
}

impl Delivery {
    /// Notes that a request was answered, well or badly, after this time. One that got no answer has none.
    pub fn answered(&self, after: Duration) {
        let seconds = after.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.latency[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.latency_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.latest_nanos.store(nanos, Ordering::Relaxed);
    }

    /// Answers by how long they took: upper bound in seconds (infinity last) and how many, each bucket by itself; and
    /// the sum of all, in seconds.
    #[must_use]
    pub fn latency(&self) -> (Vec<(f64, u64)>, f64) {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets = bounds.zip(&self.latency).map(|(bound, count)| (bound, count.load(Ordering::Relaxed)));
        (buckets.collect(), self.latency_nanos.load(Ordering::Relaxed) as f64 / 1e9)
    }

    /// Answers so far.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.latency.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// How long the latest answer took; no time before the first.
    #[must_use]
    pub fn latest(&self) -> Duration {
        Duration::from_nanos(self.latest_nanos.load(Ordering::Relaxed))
    }

    /// Counts on from where another has left off, in whose place this one comes.
    pub fn go_on_from(&self, before: &Self) {
        let counts = |of: &'_ Self| {
            let counts =
                [&of.requests, &of.retries, &of.failures, &of.bytes, &of.connections, &of.latency_nanos];
            counts.map(|count| count.load(Ordering::Relaxed))
        };
        let own = [
            &self.requests,
            &self.retries,
            &self.failures,
            &self.bytes,
            &self.connections,
            &self.latency_nanos,
        ];
        for (count, before) in own.into_iter().zip(counts(before)) {
            count.fetch_add(before, Ordering::Relaxed);
        }
        for (count, before) in self.latency.iter().zip(&before.latency) {
            count.fetch_add(before.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Sets the state, with the error that brought it about.
    pub fn turn(&self, state: DeliveryState, error: Option<String>) {
        *self.lock() = Condition { state, error };
    }

    /// The state, and the error that brought it about.
    #[must_use]
    pub fn condition(&self) -> (DeliveryState, Option<String>) {
        let condition = self.lock().clone();
        (condition.state, condition.error)
    }

    fn lock(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_fall_into_the_bucket_of_their_time() {
        let delivery = Delivery::default();
        for millis in [1, 2, 16, 17, 100_000] {
            delivery.answered(Duration::from_millis(millis));
        }
        let (buckets, sum) = delivery.latency();
        let counts: Vec<_> = buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]);
        assert!((sum - 100.036).abs() < 1e-9, "{sum}");
        assert_eq!(delivery.answers(), 5);
    }

    #[test]
    fn a_successor_counts_on_and_begins_its_state_anew() {
        let (before, delivery) = (Delivery::default(), Delivery::default());
        before.requests.store(7, Ordering::Relaxed);
        before.in_flight.store(3, Ordering::Relaxed);
        before.answered(Duration::from_millis(2));
        before.turn(DeliveryState::Failing, Some("refused".to_owned()));
        delivery.answered(Duration::from_millis(1));
        delivery.go_on_from(&before);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        assert_eq!((count(&delivery.requests), count(&delivery.in_flight), delivery.answers()), (7, 0, 2));
        assert!((delivery.latency().1 - 0.003).abs() < 1e-9);
        assert_eq!(delivery.condition(), (DeliveryState::Idle, None));
    }

    #[test]
    fn a_state_comes_with_its_error_and_goes_with_it() {
        let delivery = Delivery::default();
        assert_eq!(delivery.condition(), (DeliveryState::Idle, None));
        delivery.turn(DeliveryState::Retrying, Some("refused".to_owned()));
        assert_eq!(delivery.condition(), (DeliveryState::Retrying, Some("refused".to_owned())));
        delivery.turn(DeliveryState::Delivering, None);
        assert_eq!(delivery.condition(), (DeliveryState::Delivering, None));
    }
}
