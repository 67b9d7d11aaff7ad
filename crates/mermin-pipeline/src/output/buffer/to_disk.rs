//! From an output's queue to its disk.

use super::super::Batch;
use super::super::book::{Crash, OutputState, amount};
use super::super::queue::{Consumer, Item};
use super::{Buffer, RETRY, Trouble, What, in_full};
use crate::incidents::{Incidents, NOTHING_LOST, contained};
use crate::lock::lock;
use mermin_flow::{Amount, FlowRecord, QUARANTINE, panic_message};
use mermin_spool::{Entry, SpoolError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::info;

/// How long the thread sleeps when nothing comes and nothing is to be synced.
const NAP: Duration = Duration::from_millis(500);

/// Makes an entry of records.
pub(in super::super) type Encode = Box<dyn FnMut(&[FlowRecord]) -> Entry + Send>;

/// The thread that writes.
pub(in super::super) struct ToDisk {
    buffer: Arc<Buffer>,
    state: Arc<OutputState>,
    encode: Encode,
    incidents: Incidents,
    /// Not to be tried before, where it failed.
    retry_at: Option<Instant>,
}

/// What became of a batch that could not be written.
enum Fate {
    /// The output took it from memory.
    Taken,
    /// The disk is worth another try.
    Again,
    /// The run is over.
    TooLate,
}

/// Whatever becomes of the thread, the output hears that nothing more will come.
struct Complete(Arc<Buffer>);

impl Drop for Complete {
    fn drop(&mut self) {
        self.0.lock().complete = true;
        self.0.status.filled.notify_all();
    }
}

impl ToDisk {
    pub(in super::super) fn new(
        buffer: Arc<Buffer>,
        state: Arc<OutputState>,
        encode: Encode,
        incidents: Incidents,
    ) -> Self {
        Self { buffer, state, encode, incidents, retry_at: None }
    }

    pub(in super::super) fn run(mut self, consumer: &Consumer) {
        let _crash = Crash(Arc::clone(&self.state));
        let _complete = Complete(Arc::clone(&self.buffer));
        loop {
            match consumer.next(NAP) {
                Some(Item::Records(batch)) => self.store(&batch),
                Some(Item::End) => break,
                None => {}
            }
            self.tend();
        }
    }

    fn tend(&self) {
        let mut shelf = self.buffer.lock();
        if let Err(error) = shelf.spool.tend(Instant::now()) {
            self.buffer.say(&mut shelf, What::Upkeep, &in_full(&error));
        }
    }

    /// Writes a batch, or waits until somebody takes it from memory.
    pub(super) fn store(&mut self, batch: &Batch) {
        let encode = &mut self.encode;
        let entry = contained(|| encode(batch));
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(payload) => return self.store_the_others(batch, &panic_message(&*payload)),
        };
        loop {
            if self.retry_at.is_none_or(|at| Instant::now() >= at) {
                match self.append(&mut entry) {
                    Ok(()) => return,
                    Err(SpoolError::TooLarge { .. }) => return self.store_parts(batch),
                    Err(error) => self.trouble(&error),
                }
            }
            self.tend();
            match self.wait(batch) {
                Fate::Taken => return,
                Fate::Again => {}
                Fate::TooLate => return self.store_or_drop(&mut entry),
            }
        }
    }

    fn append(&mut self, entry: &mut Entry) -> Result<(), SpoolError> {
        let mut shelf = self.buffer.lock();
        let appended = shelf.spool.append(entry);
        self.buffer.note_size(&shelf);
        appended?;
        if let Trouble::Failing(_) = self.buffer.status.set_trouble(Trouble::None) {
            info!("The disk buffer of output {} is written again", self.buffer.name);
        }
        // While the shelf is locked: nobody may read it before it stands in the book.
        lock(&self.state.books).disk().stored += entry.amount();
        drop(shelf);
        self.retry_at = None;
        self.buffer.status.filled.notify_one();
        Ok(())
    }

    fn trouble(&mut self, error: &SpoolError) {
        let mut shelf = self.buffer.lock();
        let text = in_full(error);
        if matches!(error, SpoolError::Full { .. }) {
            self.buffer.say(&mut shelf, What::Full, &text);
            self.buffer.status.set_trouble(Trouble::Full);
            self.retry_at = None;
        } else {
            self.buffer.say(&mut shelf, What::Write, &text);
            self.buffer.status.set_trouble(Trouble::Failing(text));
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    /// Offers the batch to the output, where the disk fails; waits for room where it is full.
    fn wait(&self, batch: &Batch) -> Fate {
        let offers = matches!(self.buffer.status.trouble(), Trouble::Failing(_));
        let mut shelf = self.buffer.lock();
        if offers {
            shelf.offered = Some(Arc::clone(batch));
            self.buffer.status.filled.notify_one();
        }
        let waits = |shelf: &mut super::Shelf| {
            let taken = offers && shelf.offered.is_none();
            !taken && !self.buffer.status.is_left()
        };
        let until = self.retry_at.unwrap_or_else(|| Instant::now() + RETRY);
        let at_most = until.saturating_duration_since(Instant::now());
        if offers {
            let waited = self.buffer.status.emptied.wait_timeout_while(shelf, at_most, waits);
            shelf = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        } else if !self.buffer.status.is_left() {
            // Whoever acknowledges says so.
            let waited = self.buffer.status.emptied.wait_timeout(shelf, at_most);
            shelf = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        if offers && shelf.offered.take().is_none() {
            Fate::Taken
        } else if self.buffer.status.is_left() {
            Fate::TooLate
        } else {
            Fate::Again
        }
    }

    /// A batch whose encoding has panicked: what it panics at when it is alone, too, is given up.
    fn store_the_others(&mut self, batch: &Batch, message: &str) {
        if let [record] = &batch[..] {
            let consequence = || {
                format!(
                    "record {} of flow {} can't be written and stands in dropped.{QUARANTINE}",
                    record.sequence, record.community_id
                )
            };
            self.incidents.note(message, consequence);
            lock(&self.state.books).disk().quarantined += amount(batch);
        } else {
            self.incidents.note(message, || NOTHING_LOST.to_owned());
            batch.iter().for_each(|record| self.store(&Arc::new(vec![record.clone()])));
        }
    }

    /// A batch that is too much for one entry.
    fn store_parts(&mut self, batch: &Batch) {
        if batch.len() < 2 {
            let carried = amount(batch);
            let mut shelf = self.buffer.lock();
            self.buffer.say(&mut shelf, What::Lost, "a record is too large for it");
            return lock(&self.state.books).disk().write_failed += carried;
        }
        let (first, second) = batch.split_at(batch.len() / 2);
        self.store(&Arc::new(first.to_vec()));
        self.store(&Arc::new(second.to_vec()));
    }

    /// The last try.
    fn store_or_drop(&mut self, entry: &mut Entry) {
        let Err(error) = self.append(entry) else { return };
        let carried: Amount = entry.amount();
        let books = &mut *lock(&self.state.books);
        let book = books.disk();
        let full = matches!(error, SpoolError::Full { .. });
        *if full { &mut book.full } else { &mut book.write_failed } += carried;
    }
}
