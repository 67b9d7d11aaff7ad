//! An output's records on disk: between its queue and its thread.
//!
//! A thread of its own writes what comes out of the queue ([`ToDisk`]); the output's thread reads it ([`FromDisk`]) and
//! acknowledges what the exporter has settled. Both work on one [`Spool`] behind a mutex, encode and decode outside of it.
//! All records take this way, so that none that was written is lost by a crash.
//!
//! Where a record can't be written it stays in the queue, which merges and drops the least important when it is full. While
//! the disk is at its bound that lasts until the output makes room; while it can't be written the output gets its records
//! from memory, once it has everything that is on disk.

mod from_disk;
#[cfg(test)]
mod tests;
mod to_disk;

pub(super) use from_disk::FromDisk;
pub(super) use to_disk::ToDisk;

use super::Batch;
use crate::lock::lock;
use crate::pulse::BufferPulse;
use mermin_flow::ObservationPoints;
use mermin_spool::Spool;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::warn;

/// How soon a disk that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// Trouble that lasts, or comes and goes, is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Where an output's records wait, instead of in memory only.
pub struct DiskBuffer {
    /// Opened for this output alone.
    pub spool: Spool,
    /// Where the records' observation points are named.
    pub points: Arc<ObservationPoints>,
}

/// Why records are not written at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Trouble {
    #[default]
    None,
    /// The bound is reached.
    Full,
    /// The disk fails, is full, can't be written.
    Failing(String),
}

/// What is known to whoever doesn't wait for the disk, and outlasts the threads.
pub(super) struct Status {
    capacity: u64,
    trouble: Mutex<Trouble>,
    /// Size of its files.
    bytes: AtomicU64,
    /// There may be something to read.
    filled: Condvar,
    /// There may be room, or what was offered is taken.
    emptied: Condvar,
    /// Time is up: what is on disk stays there.
    leaving: AtomicBool,
}

/// What both threads work on. The folder is free for others when both have ended.
pub(super) struct Buffer {
    name: String,
    status: Arc<Status>,
    /// Held while the disk is worked on, which may take long; before any other lock.
    shelf: Mutex<Shelf>,
}

pub(super) struct Shelf {
    spool: Spool,
    /// What can't be written is offered to the output here.
    offered: Option<Batch>,
    /// Nothing more will be written.
    complete: bool,
    said: Said,
}

impl Status {
    /// What is not settled by now stays on disk, for the next run.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    fn is_left(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    pub(super) fn trouble(&self) -> Trouble {
        lock(&self.trouble).clone()
    }

    fn set_trouble(&self, trouble: Trouble) -> Trouble {
        std::mem::replace(&mut lock(&self.trouble), trouble)
    }

    pub(super) fn pulse(&self) -> BufferPulse {
        let trouble = match self.trouble() {
            Trouble::None => None,
            Trouble::Full => Some("it is full".to_owned()),
            Trouble::Failing(error) => Some(error),
        };
        BufferPulse { bytes: self.bytes.load(Ordering::Relaxed), capacity: self.capacity, trouble }
    }
}

impl Buffer {
    pub(super) fn new(name: &str, spool: Spool) -> Arc<Self> {
        let status = Status {
            capacity: spool.settings().bytes,
            trouble: Mutex::default(),
            bytes: AtomicU64::new(spool.bytes()),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            leaving: AtomicBool::new(false),
        };
        let shelf = Shelf { spool, offered: None, complete: false, said: Said::default() };
        Arc::new(Self { name: name.to_owned(), status: Arc::new(status), shelf: Mutex::new(shelf) })
    }

    pub(super) fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_size(&self, shelf: &Shelf) {
        self.status.bytes.store(shelf.spool.bytes(), Ordering::Relaxed);
    }

    /// Says that something is wrong with the disk, not too often.
    fn say(&self, shelf: &mut Shelf, what: What, error: &str) {
        if shelf.said.is_due(what, Instant::now()) {
            match what {
                What::Full => warn!("The disk buffer of output {} is full: {error}", self.name),
                What::Write => {
                    warn!("The disk buffer of output {}: {error}; records wait in memory", self.name);
                }
                What::Read => warn!("The disk buffer of output {}: {error}; trying again", self.name),
                What::Upkeep => warn!("The disk buffer of output {}: {error}", self.name),
                What::Lost => warn!("The disk buffer of output {} has lost records: {error}", self.name),
            }
        }
    }
}

/// What can be said.
#[derive(Clone, Copy)]
enum What {
    Full,
    Write,
    Read,
    Upkeep,
    Lost,
}

/// When it was last said, each by itself.
#[derive(Default)]
struct Said([Option<Instant>; 5]);

impl Said {
    fn is_due(&mut self, what: What, now: Instant) -> bool {
        let last = &mut self.0[what as usize];
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= SAY_AGAIN);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// An error with what caused it, in one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
