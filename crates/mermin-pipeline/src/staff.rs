//! How many workers of a stage there are, should be and may be: what those who decide tell those who bring it about.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many workers there are and should be.
#[derive(Debug)]
pub(crate) struct Staff {
    wanted: AtomicUsize,
    working: AtomicUsize,
    /// Chairs that there are.
    most: usize,
    /// The least and the most that the load may ask for.
    range: [AtomicUsize; 2],
    /// Held while somebody decides: who follows the load must not undo what the settings say.
    deciding: Mutex<()>,
}

impl Staff {
    /// `working` of at most `most`.
    pub(crate) const fn new(working: usize, most: usize) -> Self {
        let range = [AtomicUsize::new(working), AtomicUsize::new(most)];
        Self {
            wanted: AtomicUsize::new(working),
            working: AtomicUsize::new(working),
            most,
            range,
            deciding: Mutex::new(()),
        }
    }

    /// There are never more.
    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    /// The least and the most that the load may ask for.
    pub(crate) fn range(&self) -> (usize, usize) {
        let [least, most] = &self.range;
        (least.load(Ordering::Relaxed), most.load(Ordering::Relaxed))
    }

    /// From now on the load may ask for so many, and so many work: as many as do, as far as that is within.
    pub(crate) fn set_range(&self, (least, most): (usize, usize)) {
        let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let (least, most) = (least.clamp(1, self.most), most.clamp(1, self.most));
        self.range[0].store(least, Ordering::Relaxed);
        self.range[1].store(most, Ordering::Relaxed);
        self.wanted.store(self.wanted().clamp(least, most), Ordering::Release);
    }

    /// So many should work.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Acquire)
    }

    /// From now on so many should work, as far as that is within what the load may ask for.
    pub(crate) fn want(&self, workers: usize) {
        let _deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let (least, most) = self.range();
        self.wanted.store(workers.clamp(least, most), Ordering::Release);
    }

    /// No more than so many can be had, whatever is wanted.
    pub(crate) fn settle_for(&self, workers: usize) {
        self.wanted.store(workers, Ordering::Release);
    }

    /// From now on so many do.
    pub(crate) fn set_working(&self, workers: usize) {
        self.working.store(workers, Ordering::Release);
    }

    /// So many do.
    pub(crate) fn working(&self) -> usize {
        self.working.load(Ordering::Acquire)
    }
}
