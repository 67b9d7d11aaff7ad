//! Requests under way: a few at a time, each tried until it has an answer that settles it.
//!
//! A runtime of the output's own thread drives them, so nothing is shared between outputs and no thread is added. It runs
//! while the exporter is called: while it waits for a free place, and when no record is waiting.

use super::backoff::Backoff;
use super::batch::Parcel;
use super::encode::Envelope;
use super::transport::{Answer, Message, Transport};
use hyper::body::Bytes;
use mermin_flow::DeliveryState;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, yield_now};
use tracing::{info, warn};

/// How often a wait looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(20);

/// Trouble that lasts is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Turns of the runtime that are enough for what has arrived in the meantime.
const TURNS: usize = 16;

/// What became of a parcel.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The collector has it, but for so many of its items.
    Accepted { rejected: u64, why: String, after: Duration },
    /// It will never be taken.
    Refused { why: String },
    /// One item that is more than the collector takes.
    TooLarge { why: String },
}

/// News of a parcel.
#[derive(Debug)]
pub(crate) enum News<P> {
    Settled(P, Verdict),
    /// So many items in so many bytes were too large, and are sent in parts.
    Split {
        items: usize,
        bytes: usize,
    },
}

/// See the module's text.
pub(crate) struct Sender<P> {
    runtime: Runtime,
    tasks: JoinSet<()>,
    line: Arc<Line<P>>,
    places: usize,
    interrupted: Arc<AtomicBool>,
}

/// What all tasks share.
struct Line<P> {
    name: String,
    transport: Transport,
    envelope: Envelope,
    news: Mutex<Vec<News<P>>>,
    trouble: Mutex<Trouble>,
    /// The fewest bytes that the collector has found too many: nothing of that size is sent again.
    too_many_bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Trouble {
    since: Option<Instant>,
    said: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<P: Parcel> Sender<P> {
    /// `places`: how many requests may be under way. `None` where this thread can't have a runtime.
    pub(crate) fn new(
        name: &str,
        transport: Transport,
        envelope: Envelope,
        places: usize,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let line = Line {
            name: name.to_owned(),
            transport,
            envelope,
            news: Mutex::default(),
            trouble: Mutex::default(),
            too_many_bytes: AtomicUsize::new(usize::MAX),
        };
        let (line, interrupted) = (Arc::new(line), Arc::default());
        Ok(Self { runtime, tasks: JoinSet::new(), line, places, interrupted })
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.line.transport
    }

    pub(crate) fn interrupter(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupted)
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Whether no request is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// How many are.
    pub(crate) fn under_way(&self) -> usize {
        self.tasks.len()
    }

    /// Waits for a place, then sends `parcel`. What is held when the wait is interrupted has no verdict.
    pub(crate) fn send(&mut self, parcel: P) {
        if !self.wait_for(self.places - 1, None) {
            return;
        }
        let line = Arc::clone(&self.line);
        self.tasks.spawn_on(async move { line.deliver(parcel).await }, self.runtime.handle());
        self.turn();
    }

    /// Waits until at most `left` requests are under way, or until time is up. `false`: interrupted, and none is.
    pub(crate) fn wait_for(&mut self, left: usize, at_most: Option<Duration>) -> bool {
        let (tasks, interrupted) = (&mut self.tasks, &self.interrupted);
        let deadline = at_most.map(|at_most| Instant::now() + at_most);
        let goes_on = self.runtime.block_on(async {
            loop {
                while let Some(ended) = tasks.try_join_next() {
                    settled(ended);
                }
                if interrupted.load(Ordering::Acquire) {
                    tasks.shutdown().await;
                    return false;
                }
                if tasks.len() <= left || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return true;
                }
                let pause =
                    deadline.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
                tokio::select! {
                    Some(ended) = tasks.join_next() => settled(ended),
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
        if !goes_on {
            self.line.transport.delivery().turn(DeliveryState::Failing, Some("out of time".to_owned()));
        }
        goes_on
    }

    /// Takes note of requests that have ended.
    pub(crate) fn reap(&mut self) {
        if !self.tasks.is_empty() {
            self.wait_for(usize::MAX, None);
        }
    }

    /// Lets requests and connections get on, without waiting.
    pub(crate) fn turn(&mut self) {
        self.runtime.block_on(async {
            for _ in 0..TURNS {
                yield_now().await;
            }
        });
    }

    /// What has come in.
    pub(crate) fn news(&self) -> Vec<News<P>> {
        std::mem::take(&mut *lock(&self.line.news))
    }
}

/// A task ends when its parcel is settled, when it is given up, or by a bug.
fn settled(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        resume_unwind(error.into_panic());
    }
}

impl<P: Parcel> Line<P> {
    async fn deliver(&self, parcel: P) {
        let mut parcels = vec![parcel];
        while let Some(parcel) = parcels.pop() {
            let parts = self.envelope.around(parcel.encoded());
            let bytes = parts.iter().map(Bytes::len).sum();
            let divisible = parcel.items() > 1;
            if divisible && bytes >= self.too_many_bytes.load(Ordering::Relaxed) {
                let (first, second) = parcel.halves();
                parcels.extend([second, first]);
                continue;
            }
            let verdict = self.settle(parts).await;
            if divisible && matches!(verdict, Verdict::TooLarge { .. }) {
                self.too_many_bytes.fetch_min(bytes, Ordering::Relaxed);
                self.tell(News::Split { items: parcel.items(), bytes });
                parcels.push(parcel);
                continue;
            }
            self.tell(News::Settled(parcel, verdict));
        }
    }

    fn tell(&self, news: News<P>) {
        lock(&self.news).push(news);
    }

    /// Sends until there is a verdict.
    async fn settle(&self, parts: Vec<Bytes>) -> Verdict {
        let settings = self.transport.settings();
        let message = Message::new(parts, settings.protocol, settings.compression);
        let (mut backoff, began) = (Backoff::default(), Instant::now());
        loop {
            let (after, why) = match self.transport.send(&message).await {
                Answer::Accepted { rejected, why } => {
                    self.well();
                    return Verdict::Accepted { rejected, why, after: began.elapsed() };
                }
                Answer::Refused { why } => {
                    let said = Some(why.clone());
                    self.transport.delivery().turn(DeliveryState::Failing, said);
                    return Verdict::Refused { why };
                }
                Answer::TooLarge { why } => return Verdict::TooLarge { why },
                Answer::Retry { after, why } => (after, why),
                Answer::None { why } => (None, why),
            };
            self.ill(&why);
            tokio::time::sleep(backoff.next(after)).await;
            self.transport.delivery().retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn well(&self) {
        self.transport.delivery().turn(DeliveryState::Delivering, None);
        let Trouble { since, said } = std::mem::take(&mut *lock(&self.trouble));
        if let (Some(since), Some(_)) = (since, said) {
            let endpoint = &self.transport.settings().endpoint;
            info!("{}: {endpoint} takes records again, after {:.1?}", self.name, since.elapsed());
        }
    }

    /// Something failed in a way that may pass.
    fn ill(&self, why: &str) {
        let delivery = self.transport.delivery();
        delivery.failures.fetch_add(1, Ordering::Relaxed);
        delivery.turn(DeliveryState::Retrying, Some(why.to_owned()));
        let mut trouble = lock(&self.trouble);
        trouble.since.get_or_insert_with(Instant::now);
        if trouble.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            trouble.said = Some(Instant::now());
            let endpoint = &self.transport.settings().endpoint;
            warn!("{}: {endpoint}: {why}; trying again, records wait in the queue", self.name);
        }
    }
}
