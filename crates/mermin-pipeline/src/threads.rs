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

struct Alarm(Panicked);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// Gives stages their threads and keeps those that have a result of no interest.
#[derive(Default)]
pub(crate) struct Threads {
    pub(crate) panicked: Panicked,
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
        let alarm = Alarm(Arc::clone(&self.panicked));
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
        let thread = self.spawn(stage, name, work)?;
        let id = thread.thread().id();
        let mut kept = self.lock();
        // Those that have ended well are of no more interest: under changing load they would be ever more.
        let mut left = Vec::with_capacity(kept.len() + 1);
        for thread in kept.drain(..) {
            if !thread.is_finished() || self.panicked.load(Ordering::Acquire) {
                left.push(thread);
            } else {
                drop(thread.join());
            }
        }
        left.push(thread);
        *kept = left;
        Ok(id)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all that are kept have ended.
    pub(crate) fn have_ended(&self) -> bool {
        self.lock().iter().all(JoinHandle::is_finished)
    }

    /// Whether these have.
    pub(crate) fn have_ended_of(&self, threads: &[ThreadId]) -> bool {
        self.lock().iter().all(|thread| thread.is_finished() || !threads.contains(&thread.thread().id()))
    }

    /// These are kept no longer: nobody waits for them.
    pub(crate) fn let_go(&self, threads: &[ThreadId]) {
        self.lock().retain(|thread| !threads.contains(&thread.thread().id()));
    }

    /// The names of those that have ended by a panic. Those that still run are left to themselves.
    pub(crate) fn collect(&self) -> Vec<String> {
        let ended = self.lock().extract_if(.., |thread| thread.is_finished()).collect::<Vec<_>>();
        let name = |thread: JoinHandle<()>| {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            thread.join().is_err().then_some(name)
        };
        ended.into_iter().filter_map(name).collect()
    }
}
