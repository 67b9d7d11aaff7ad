//! The bound of the packet channel: credits count observations over all lanes, so the configured capacity is what it says.
//! Nothing is locked; `tests/loom` goes through all orders in which reader and workers may meet here.

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::sync::thread::{self, Thread};
use std::sync::OnceLock;
use std::time::Duration;

/// See the module's text. The reader takes, workers give back.
#[derive(Debug)]
pub(crate) struct Credits {
    pub(crate) capacity: usize,
    used: AtomicUsize,
    pub(crate) high_water: AtomicUsize,
    /// Times that the reader waited for a worker, or, live, with backpressure, kept what found no room until there was some.
    pub(crate) waits: AtomicUsize,
    reader_waits: AtomicBool,
    reader: OnceLock<Thread>,
}

impl Credits {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            used: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
            waits: AtomicUsize::new(0),
            reader_waits: AtomicBool::new(false),
            reader: OnceLock::new(),
        }
    }

    /// Observations in the channel.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Only the reader takes, so between look and add the channel can only have become emptier.
    pub(crate) fn take(&self, n: usize) -> bool {
        let used = self.used.load(Ordering::Acquire);
        if used + n > self.capacity {
            return false;
        }
        self.used.fetch_add(n, Ordering::AcqRel);
        self.high_water.fetch_max(used + n, Ordering::Relaxed);
        true
    }

    pub(crate) fn give_back(&self, n: usize) {
        self.used.fetch_sub(n, Ordering::AcqRel);
        // One of both sees the other: the reader these credits, or this that the reader waits.
        fence(Ordering::SeqCst);
        if self.reader_waits.load(Ordering::Relaxed)
            && let Some(reader) = self.reader.get()
        {
            reader.unpark();
        }
    }

    /// Parks the reader until `n` fit. The timeout only bounds the harm of a worker that died.
    pub(crate) fn wait(&self, n: usize, abandoned: impl Fn() -> bool) -> bool {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.reader.get_or_init(thread::current);
        self.reader_waits.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        let taken = loop {
            if self.take(n) {
                break true;
            }
            if abandoned() {
                break false;
            }
            thread::park_timeout(Duration::from_millis(50));
        };
        self.reader_waits.store(false, Ordering::Relaxed);
        taken
    }
}
