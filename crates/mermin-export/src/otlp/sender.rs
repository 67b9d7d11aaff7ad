//! Requests under way: a few at a time, each tried until it has an answer that settles it.
//!
//! A runtime of the output's own thread drives them, so nothing is shared between outputs and no thread is added. It runs
//! while the exporter is called: while it waits for a free place, and when no record is waiting.

use super::batch::Parcel;
use super::encode::Envelope;
use super::transport::{Answer, Message, Transport};
use crate::backoff::Backoff;
use crate::trouble::Trouble;
use futures::FutureExt as _;
use hyper::body::Bytes;
use mermin_flow::{DeliveryState, panic_message};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, yield_now};
use tracing::{info, warn};

/// How often a wait looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(20);

/// Turns of the runtime that are enough for what has arrived in the meantime.
const TURNS: usize = 16;

/// What became of a parcel.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The collector has it, but for so many of its items.
    /// The last try took that long.
    Accepted { rejected: u64, why: String, after: Duration },
    /// It will never be taken.
    Refused { why: String },
    /// One item that is more than the collector takes.
    TooLarge { why: String },
    /// Sending it is more than this program can.
    Panicked { why: String },
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
    /// There until it is let go of.
    runtime: Option<Runtime>,
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
        Ok(Self { runtime: Some(runtime), tasks: JoinSet::new(), line, places, interrupted })
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
        let runtime = running(&self.runtime).handle();
        self.tasks.spawn_on(async move { line.deliver(parcel).await }, runtime);
        self.turn();
    }

    /// Waits until at most `left` requests are under way, or until time is up. `false`: interrupted, and none is.
    pub(crate) fn wait_for(&mut self, left: usize, at_most: Option<Duration>) -> bool {
        let (tasks, interrupted) = (&mut self.tasks, &self.interrupted);
        let deadline = at_most.map(|at_most| Instant::now() + at_most);
        let goes_on = running(&self.runtime).block_on(async {
            loop {
                // One ends when its parcel is settled or given up.
                while tasks.try_join_next().is_some() {}
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
                    Some(_) = tasks.join_next() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
        if !goes_on {
            self.line.transport.delivery().turn(DeliveryState::Failing, Some("out of time".to_owned()));
        }
        goes_on
    }

    /// Lets requests under way get on, and takes note of those that have ended.
    pub(crate) fn reap(&mut self) {
        if !self.tasks.is_empty() {
            // The wait below is over before anything else has had its turn.
            self.turn();
            self.wait_for(usize::MAX, None);
        }
    }

    /// Lets requests and connections get on, without waiting.
    pub(crate) fn turn(&mut self) {
        running(&self.runtime).block_on(async {
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

/// It is let go of with its sender.
fn running(runtime: &Option<Runtime>) -> &Runtime {
    runtime.as_ref().expect("only dropping the sender takes it")
}

/// A name that is being looked up can't be interrupted, and a runtime that is simply dropped waits for it.
impl<P> Drop for Sender<P> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl<P: Parcel> Line<P> {
    /// Whatever happens, each part of it gets a verdict.
    async fn deliver(&self, parcel: P) {
        let mut parcels = vec![parcel];
        let delivered = AssertUnwindSafe(self.deliver_all(&mut parcels)).catch_unwind().await;
        if let Err(payload) = delivered {
            let why = panic_message(&*payload);
            self.transport.delivery().turn(DeliveryState::Failing, Some(why.clone()));
            for parcel in parcels {
                self.tell(News::Settled(parcel, Verdict::Panicked { why: why.clone() }));
            }
        }
    }

    /// Until none is left. One that is being sent is still among them.
    async fn deliver_all(&self, parcels: &mut Vec<P>) {
        while let Some(parcel) = parcels.last() {
            let parts = self.envelope.around(parcel.encoded());
            let bytes = parts.iter().map(Bytes::len).sum();
            let divisible = parcel.items() > 1;
            if divisible && bytes >= self.too_many_bytes.load(Ordering::Relaxed) {
                let (first, second) = parcel.halves();
                parcels.pop();
                parcels.extend([second, first]);
                continue;
            }
            let verdict = self.settle(parts).await;
            if divisible && matches!(verdict, Verdict::TooLarge { .. }) {
                self.too_many_bytes.fetch_min(bytes, Ordering::Relaxed);
                self.tell(News::Split { items: parcel.items(), bytes });
                continue;
            }
            if let Some(parcel) = parcels.pop() {
                self.tell(News::Settled(parcel, verdict));
            }
        }
    }

    fn tell(&self, news: News<P>) {
        lock(&self.news).push(news);
    }

    /// Sends until there is a verdict.
    async fn settle(&self, parts: Vec<Bytes>) -> Verdict {
        let settings = self.transport.settings();
        let message = Message::new(parts, settings.protocol, settings.compression);
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
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
        if let Some(after) = lock(&self.trouble).ends(Instant::now()) {
            let endpoint = &self.transport.settings().endpoint;
            info!("{}: {endpoint} takes requests again, after {after:.1?}", self.name);
        }
    }

    /// Something failed in a way that may pass.
    fn ill(&self, why: &str) {
        self.transport.delivery().turn(DeliveryState::Retrying, Some(why.to_owned()));
        if lock(&self.trouble).begins(Instant::now()) {
            let endpoint = &self.transport.settings().endpoint;
            warn!("{}: {endpoint}: {why}; trying again", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::batch::Batch;
    use crate::otlp::settings::Settings;
    use crate::otlp::{Environment, OtlpConfig, OtlpSignal};
    use std::sync::mpsc;

    /// As a resolver does that has no answer yet; were the drop to wait for it, neither would ever end.
    #[test]
    fn letting_go_of_it_waits_for_no_name_that_is_looked_up() {
        let settings =
            Settings::of(OtlpSignal::Traces, &OtlpConfig::default(), &Environment::default()).unwrap();
        let transport = Transport::new("test".to_owned(), settings, Arc::default()).unwrap();
        let envelope = Envelope::new(&opentelemetry_proto::tonic::resource::v1::Resource::default());
        let sender = Sender::<Batch>::new("test", transport, envelope, 1).unwrap();
        let (answer, answered) = mpsc::sync_channel::<()>(1);
        let (start, started) = mpsc::sync_channel(1);
        running(&sender.runtime).handle().spawn_blocking(move || {
            start.send(()).unwrap();
            answered.recv().unwrap_err();
        });
        started.recv().unwrap();
        let (end, ended) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            drop(sender);
            end.send(()).unwrap();
        });
        let in_time = ended.recv_timeout(Duration::from_secs(20));
        drop(answer);
        in_time.unwrap();
    }

    /// So many items; more than two can't be encoded.
    struct Bug(u64);

    impl Parcel for Bug {
        fn items(&self) -> usize {
            self.0 as usize
        }

        fn amount(&self) -> mermin_flow::Amount {
            mermin_flow::Amount { records: self.0, packets: 0, bytes: 0 }
        }

        fn encoded(&self) -> Bytes {
            assert!(self.0 <= 2, "this panic is the test's");
            Bytes::from(vec![0; 100 * self.0 as usize])
        }

        fn halves(&self) -> (Self, Self) {
            (Self(self.0 / 2), Self(self.0 - self.0 / 2))
        }
    }

    #[test]
    fn a_parcel_that_sending_panics_at_has_a_verdict() {
        let settings =
            Settings::of(OtlpSignal::Traces, &OtlpConfig::default(), &Environment::default()).unwrap();
        let transport = Transport::new("test".to_owned(), settings, Arc::default()).unwrap();
        let envelope = Envelope::new(&opentelemetry_proto::tonic::resource::v1::Resource::default());
        let mut sender = Sender::<Bug>::new("test", transport, envelope, 4).unwrap();
        for parcel in [3, 5] {
            sender.send(Bug(parcel));
        }
        assert!(sender.wait_for(0, None) && sender.is_idle());
        let mut said: Vec<_> = sender
            .news()
            .into_iter()
            .map(|news| match news {
                News::Settled(parcel, Verdict::Panicked { why }) => (parcel.0, why),
                News::Settled(..) | News::Split { .. } => panic!("it can't be sent"),
            })
            .collect();
        said.sort_unstable();
        let why = || "this panic is the test's".to_owned();
        assert_eq!(said, [(3, why()), (5, why())]);
        assert_eq!(sender.transport().delivery().condition().0, DeliveryState::Failing);
    }
}
