//! The threads of a pipeline, also those that come and go while it runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

/// How long exporters that were interrupted may take to say what they still hold.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// A pipeline could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gave no thread.
    #[error("no thread for the {stage}")]
    Thread {
        /// Which stage.
        stage: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Raised when a thread panics.
pub(crate) type Panicked = Arc<AtomicBool>;

struct Alarm {
    raised: Panicked,
    names: Arc<Mutex<Vec<String>>>,
    /// Whether the run is to hear of it.
    armed: Arc<AtomicBool>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() && self.armed.load(Ordering::Acquire) {
            // Ahead of the alarm: who hears that finds the name.
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.push(thread::current().name().unwrap_or_default().to_owned());
            self.raised.store(true, Ordering::Release);
        }
    }
}

/// Gives stages their threads and keeps those that have a result of no interest.
#[derive(Default)]
pub(crate) struct Threads {
    pub(crate) panicked: Panicked,
    /// Names of those that have raised the alarm.
    names: Arc<Mutex<Vec<String>>>,
    kept: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// A thread whose end the caller waits for.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        stage: &'static str,
        name: String,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, StartError> {
        self.spawn_with_alarm(stage, name, Arc::new(AtomicBool::new(true)), work)
    }

    fn spawn_with_alarm<T: Send + 'static>(
        &self,
        stage: &'static str,
        name: String,
        armed: Arc<AtomicBool>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, StartError> {
        let alarm = Alarm { raised: Arc::clone(&self.panicked), names: Arc::clone(&self.names), armed };
        let work = move || {
            let _alarm = alarm;
            work()
        };
        thread::Builder::new().name(name).spawn(work).map_err(|source| StartError::Thread { stage, source })
    }

    /// A thread that is kept here.
    pub(crate) fn keep(
        &self,
        stage: &'static str,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<ThreadId, StartError> {
        self.keep_with_alarm(stage, name, Arc::new(AtomicBool::new(true)), work)
    }

    /// A thread that is kept here, and whose panic is a matter of the run while `armed` says so.
    pub(crate) fn keep_with_alarm(
        &self,
        stage: &'static str,
        name: String,
        armed: Arc<AtomicBool>,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<ThreadId, StartError> {
        let thread = self.spawn_with_alarm(stage, name, armed, work)?;
        let id = thread.thread().id();
        let mut kept = self.lock();
        // Those that have ended are of no more interest: under changing load they would be ever more.
        kept.retain(|thread| !thread.is_finished());
        kept.push(thread);
        Ok(id)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this one has.
    pub(crate) fn has_ended(&self, thread: ThreadId) -> bool {
        self.lock().iter().all(|one| one.thread().id() != thread || one.is_finished())
    }

    /// Whether all that are kept have ended.
    pub(crate) fn have_ended(&self) -> bool {
        self.lock().iter().all(JoinHandle::is_finished)
    }

    /// Whether all have but these.
    pub(crate) fn have_ended_but(&self, threads: &[ThreadId]) -> bool {
        self.lock().iter().all(|thread| thread.is_finished() || threads.contains(&thread.thread().id()))
    }

    /// Whether these have.
    pub(crate) fn have_ended_of(&self, threads: &[ThreadId]) -> bool {
        self.lock().iter().all(|thread| thread.is_finished() || !threads.contains(&thread.thread().id()))
    }

    /// These are kept no longer: nobody waits for them.
    pub(crate) fn let_go(&self, threads: &[ThreadId]) {
        self.lock().retain(|thread| !threads.contains(&thread.thread().id()));
    }

    /// The names of those that have raised the alarm, also of those that are not kept here.
    pub(crate) fn panicked(&self) -> Vec<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
