//! A running pipeline and its end: when the source has ended, when it was told to, when nobody reads any more.

use crate::observer::{Observer, Shared};
use crate::output::{FanOut, OutputFailure};
use crate::reader::{ReaderControl, ReaderEnd};
use crate::statistics::Statistics;
use crate::threads::{LAST_WORDS, Threads};
use crate::tuning::Tuning;
use mermin_flow::Source;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tracing::info;

/// How often outputs are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks for the end of a live run.
const LIVE_LOOK: Duration = Duration::from_millis(50);

/// How a run ended.
pub struct Outcome<S> {
    /// The last statistics.
    pub statistics: Statistics,
    /// The source, unless it could not be brought to its end in time.
    pub source: Option<S>,
    /// The first failure of each output that had one.
    pub failures: Vec<OutputFailure>,
    /// `shutdown_timeout` passed before everything was delivered.
    pub timed_out: bool,
    /// Nobody reads the outputs any more: the run ended because of that.
    pub nobody_reads: bool,
    /// Threads that panicked: a bug.
    pub panicked: Vec<String>,
}

/// A running pipeline.
pub struct Running<S> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) reader: JoinHandle<ReaderEnd<S>>,
    pub(crate) threads: Arc<Threads>,
}

impl<S: Source + 'static> Running<S> {
    /// A handle that can ask for the end from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shared.control))
    }

    /// A handle that says how many workers should work.
    #[must_use]
    pub fn staffing(&self) -> Staffing {
        Staffing(Arc::clone(&self.shared))
    }

    /// A handle that changes settings.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        Tuning(Arc::clone(&self.shared))
    }

    /// A view of the running pipeline.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer(Arc::clone(&self.shared))
    }

    /// Waits until the source has ended or `stopping` says that it was told to, then brings everything to its end
    /// within the configured time. `stopping` is asked several times a second.
    pub fn wait(self, mut stopping: impl FnMut() -> bool) -> Outcome<S> {
        let mut end: Option<End> = None;
        let (mut nobody_reads, mut looked) = (false, Instant::now());
        loop {
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.shared.fan_out.look();
            }
            // The reader first: it may give a worker a thread.
            if self.reader.is_finished() && self.have_ended() {
                if self.journal_has_ended() {
                    break;
                }
                self.shared.journal.iter().for_each(|journal| journal.nobody_is_left());
            }
            match &mut end {
                Some(end) if Instant::now() >= end.deadline => break,
                Some(end) => end.look_for_stuck(&self.shared.fan_out),
                None => {
                    nobody_reads = self.shared.fan_out.nobody_reads();
                    let panicked = self.shared.panicked.load(Ordering::Acquire);
                    if stopping() || nobody_reads || panicked {
                        self.shared.control.stop();
                        self.shared.fan_out.wait_from_now();
                        self.shared.fan_out.leave(true);
                        let timeout = self.shared.shutdown_timeout.get();
                        // What comes behind one that was removed needs time, too.
                        self.shared.fan_out.hurry(Instant::now() + timeout / 2);
                        end = Some(End::within(timeout));
                    } else if self.reader.is_finished() {
                        self.shared.fan_out.wait_from_now();
                    }
                }
            }
            // A replay is over in a moment; a live run goes on for days, and should cost nothing where nothing happens.
            thread::sleep(if S::LIVE && end.is_none() { LIVE_LOOK } else { Duration::from_millis(2) });
        }
        self.finish(nobody_reads)
    }

    /// Whether all threads have, but those of outputs that were removed: nobody waits for these. And the journal's, which waits
    /// for the others.
    fn have_ended(&self) -> bool {
        let mut others = self.shared.fan_out.leaving_threads();
        others.extend(self.shared.journal_thread);
        self.threads.have_ended_but(&others)
    }

    fn journal_has_ended(&self) -> bool {
        self.threads.have_ended_but(&self.shared.fan_out.leaving_threads())
    }

    fn finish(self, nobody_reads: bool) -> Outcome<S> {
        let missing = !self.have_ended();
        let shared = self.shared;
        // What was not delivered in time is told as dropped: it must not be sent again.
        shared.journal.iter().for_each(|journal| journal.nobody_is_left());
        let began = Instant::now();
        while began.elapsed() < LAST_WORDS
            && shared.journal_thread.is_some_and(|thread| !self.threads.has_ended(thread))
        {
            thread::sleep(Duration::from_millis(2));
        }
        *shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        shared.end.notify_all();
        // Time is up for exporters that wait for a receiver; what they still hold they say themselves, if they can.
        if missing && shared.fan_out.interrupt() {
            let began = Instant::now();
            while began.elapsed() < LAST_WORDS && !self.threads.have_ended() {
                thread::sleep(Duration::from_millis(2));
            }
        }
        shared.fan_out.part_with_leaving();
        let left_behind = !self.reader.is_finished() || !self.threads.have_ended();
        let reader = if self.reader.is_finished() { self.reader.join().ok() } else { None };
        let panicked = self.threads.panicked();
        let (source, part) = match reader {
            Some(end) => (Some(end.source), Some(end.part)),
            None => (None, None),
        };
        let incomplete = left_behind || !panicked.is_empty();
        let mut parts = shared.parts_at_rest(part, incomplete);
        parts.outputs.iter_mut().for_each(|(_, book)| book.close());
        let timed_out = left_behind || shared.fan_out.is_late();
        let statistics = shared.statistics_of(parts);
        if !incomplete {
            // Set once: a pipeline ends once.
            let _ = shared.at_end.set(statistics.clone());
        }
        shared.created.say_suppressed();
        info!("{}", statistics.line());
        let failures = shared.fan_out.failures();
        Outcome { statistics, source, failures, timed_out, nobody_reads, panicked }
    }
}

/// An end that was asked for.
struct End {
    deadline: Instant,
    next_look: Instant,
    between_looks: Duration,
    /// What outputs had taken at the last look, of those that had more to take; nothing before the first one.
    waiting: Option<Vec<Option<u64>>>,
}

impl End {
    fn within(timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            deadline: now + timeout,
            next_look: now + timeout / 8 * 5,
            // Long enough that a healthy thread has run in between, on a busy core too.
            between_looks: timeout / 8,
            waiting: None,
        }
    }

    /// In the last quarter of its time, what is on disk is left there for the next run, and outputs that are full and don't
    /// move are not waited for any longer: what they have no room for is dropped, so that every stage comes to its end and
    /// the other outputs get their records.
    fn look_for_stuck(&mut self, fan_out: &FanOut) {
        let now = Instant::now();
        if now >= self.next_look {
            // Of all outputs before any is given up: the others have more to take from then on.
            let waiting = fan_out.waiting();
            if let Some(before) = &self.waiting {
                fan_out.leave(false);
                fan_out.give_up_stuck(before, &waiting);
            }
            self.waiting = Some(waiting);
            self.next_look = now + self.between_looks;
        }
    }
}

/// Says how many workers should work: from 1 to as many as the configuration allows.
#[derive(Clone)]
pub struct Staffing(Arc<Shared>);

impl Staffing {
    /// From now on so many flow workers.
    pub fn want(&self, workers: usize) {
        self.0.staff.want(workers);
    }

    /// From now on so many enrichment workers.
    pub fn want_enrichment(&self, workers: usize) {
        if let Some(crew) = &self.0.enrichment_crew {
            crew.staff().want(workers);
            crew.adjust();
        }
    }
}

/// Asks a pipeline to end.
#[derive(Clone)]
pub struct Stopper(Arc<ReaderControl>);

impl Stopper {
    /// The reader takes what has arrived and ends.
    pub fn stop(&self) {
        self.0.stop();
    }
}
