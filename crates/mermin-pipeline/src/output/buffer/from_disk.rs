//! From the disk to an output's thread, and back to the disk what has become of it.
//!
//! What the exporter was given is under way until it has settled it, in order; then it is acknowledged, an entry at a time.
//! Where the exporter gave records up for a reason that may pass, all that is under way is read again once it holds
//! nothing: what of it was delivered comes twice, and `flow.id` and `flow.sequence` tell.

use super::super::Batch;
use super::super::book::{OutputState, amount};
use super::super::intake::{Intake, Settled};
use super::super::queue::Item;
use super::{Buffer, RETRY, What, in_full};
use crate::incidents::contained;
use crate::lock::lock;
use mermin_flow::{Amount, FlowRecord, panic_message};
use mermin_spool::{Position, Read, Stored, Undecodable};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tracing::info;

/// How long to wait before records are given to an exporter again that has just given them up.
const PAUSE: Duration = Duration::from_millis(100);

/// Records of memory that may be under way at once. Where a receiver doesn't settle the first of them, more would have no
/// bound.
pub(super) const IN_MEMORY_MAX: u64 = 16_384;

/// Makes records of an entry.
pub(in super::super) type Decode = Box<dyn FnMut(&Stored) -> Result<Vec<FlowRecord>, Undecodable> + Send>;

/// The end that the output's thread has.
pub(in super::super) struct FromDisk {
    buffer: Arc<Buffer>,
    state: Arc<OutputState>,
    decode: Decode,
    /// Given to the exporter, in order.
    under_way: VecDeque<UnderWay>,
    /// Records that the exporter had settled, whatever became of them, before the first that is under way.
    before: u64,
    /// Of memory, to be given again.
    again: VecDeque<Batch>,
    /// What was given up for reasons that may pass.
    given_up: u64,
    /// Of that, before what is under way was read.
    given_up_before: u64,
    /// The exporter has given records up that are under way.
    failed: bool,
    pub(super) not_before: Option<Instant>,
    /// It has given up records when everything was written already: they are left for the next run.
    leaves: bool,
    /// Dropped for good when nothing was under way: which of the records under way were dropped since isn't known.
    dropped_at_rest: Amount,
}

struct UnderWay {
    records: u64,
    amount: Amount,
    from: From,
}

/// Where records come from.
enum From {
    Disk(Position),
    Memory(Batch),
    /// They can't be decoded: nobody was given them.
    Unreadable(Position),
}

impl FromDisk {
    pub(in super::super) fn new(buffer: Arc<Buffer>, state: Arc<OutputState>, decode: Decode) -> Self {
        Self {
            buffer,
            state,
            decode,
            under_way: VecDeque::new(),
            before: 0,
            again: VecDeque::new(),
            given_up: 0,
            given_up_before: 0,
            failed: false,
            not_before: None,
            leaves: false,
            dropped_at_rest: Amount::default(),
        }
    }

    fn give(&mut self, records: Batch, amount: Amount, from: From) -> Option<Item> {
        self.under_way.push_back(UnderWay { records: amount.records, amount, from });
        Some(Item::Records(records))
    }

    fn give_of_memory(&mut self, records: Batch) -> Option<Item> {
        let amount = amount(&records);
        self.give(Arc::clone(&records), amount, From::Memory(records))
    }

    /// Whether more may be taken from memory.
    fn takes_memory(&self) -> bool {
        let of_memory = self.under_way.iter().filter(|under_way| matches!(under_way.from, From::Memory(_)));
        of_memory.map(|under_way| under_way.records).sum::<u64>() < IN_MEMORY_MAX
    }

    /// Some of what is under way was dropped for good, and stands for others: how many of which can't be told any more.
    fn forget(&self) {
        let mut books = lock(&self.state.books);
        if !self.under_way.is_empty() && books.dropped_for_good() != self.dropped_at_rest {
            books.disk().inexact = true;
        }
    }

    /// Everything under way is to be given again, if the exporter holds nothing of it any more.
    fn rewind(&mut self) -> bool {
        let books = lock(&self.state.books);
        let settled = books.settled().records;
        if settled != books.taken.records {
            return false;
        }
        drop(books);
        self.forget();
        let of_memory = self.under_way.drain(..).filter_map(|under_way| match under_way.from {
            From::Memory(records) => Some(records),
            From::Disk(_) | From::Unreadable(_) => None,
        });
        let mut again: VecDeque<_> = of_memory.collect();
        again.append(&mut self.again);
        self.again = again;
        (self.before, self.given_up_before) = (settled, self.given_up);
        self.dropped_at_rest = lock(&self.state.books).dropped_for_good();
        self.failed = false;
        self.not_before = Some(Instant::now() + PAUSE);
        let mut shelf = self.buffer.lock();
        shelf.spool.rewind();
        self.leaves |= shelf.complete;
        true
    }

    /// What was read, decoded.
    fn decoded(&mut self, stored: &Stored) -> Option<Item> {
        let (amount, position) = (stored.amount(), stored.position());
        let decode = &mut self.decode;
        let decoded = contained(|| decode(stored));
        let decoded = match decoded {
            Ok(decoded) => decoded.map_err(|error| in_full(&error)),
            Err(payload) => Err(format!("reading them has panicked, a bug: {}", panic_message(&*payload))),
        };
        match decoded {
            Ok(records) => self.give(Arc::new(records), amount, From::Disk(position)),
            Err(error) => {
                let what = format!("{error} of {}", amount.records);
                self.buffer.say(&mut self.buffer.lock(), What::Lost, &what);
                self.under_way.push_back(UnderWay { records: 0, amount, from: From::Unreadable(position) });
                self.acknowledge(0);
                None
            }
        }
    }

    /// Takes note of what the exporter is done with: so many records of those under way, from the first on.
    fn acknowledge(&mut self, mut records: u64) {
        let (mut last, mut more) = (None, Amount::default());
        let mut books = lock(&self.state.books);
        let book = books.disk();
        while let Some(first) = self.under_way.front()
            && first.records <= records
            && let Some(first) = self.under_way.pop_front()
        {
            records -= first.records;
            self.before += first.records;
            match first.from {
                From::Disk(position) => {
                    book.from_disk += first.amount;
                    more += first.amount;
                    last = Some(position);
                }
                From::Memory(_) => {
                    book.from_memory += first.amount;
                    more += first.amount;
                }
                From::Unreadable(position) => {
                    book.unreadable += first.amount;
                    last = Some(position);
                }
            }
        }
        books.settle_drops(more);
        if self.under_way.is_empty() {
            self.dropped_at_rest = books.dropped_for_good();
        }
        drop(books);
        let Some(position) = last else { return };
        let mut shelf = self.buffer.lock();
        if let Err(error) = shelf.spool.acknowledge(position) {
            self.buffer.say(&mut shelf, What::Upkeep, &in_full(&error));
        }
        self.buffer.note_size(&shelf);
        drop(shelf);
        self.buffer.status.emptied.notify_all();
    }
}

impl Intake for FromDisk {
    const KEEPS: bool = true;

    fn next(&mut self, at_most: Duration) -> Option<Item> {
        let deadline = Instant::now() + at_most;
        if self.failed && !self.rewind() {
            return None;
        }
        if let Some(at) = self.not_before {
            let left = at.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(at_most));
            if left > at_most {
                return None;
            }
            self.not_before = None;
        }
        let stays = self.leaves || self.buffer.status.is_left();
        if !stays && let Some(records) = self.again.pop_front() {
            return self.give_of_memory(records);
        }
        let buffer = Arc::clone(&self.buffer);
        let mut shelf = buffer.lock();
        loop {
            if self.leaves || buffer.status.is_left() {
                if shelf.complete {
                    return Some(Item::End);
                }
            } else {
                match shelf.spool.read() {
                    Ok(Some(Read::Batch(stored))) => {
                        drop(shelf);
                        return self.decoded(&stored);
                    }
                    Ok(Some(Read::Lost(lost))) => {
                        let what = format!("{} in {} damaged bytes", lost.amount.records, lost.bytes);
                        buffer.say(&mut shelf, What::Lost, &what);
                        lock(&self.state.books).disk().damaged += lost.amount;
                        continue;
                    }
                    Ok(None) => {
                        if self.takes_memory()
                            && let Some(records) = shelf.offered.take()
                        {
                            drop(shelf);
                            buffer.status.emptied.notify_all();
                            return self.give_of_memory(records);
                        }
                        if shelf.complete {
                            return Some(Item::End);
                        }
                    }
                    Err(error) => {
                        buffer.say(&mut shelf, What::Read, &in_full(&error));
                        self.not_before = Some(Instant::now() + RETRY);
                        return None;
                    }
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            shelf = buffer.status.filled.wait_timeout(shelf, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_empty(&self) -> bool {
        if self.failed || self.not_before.is_some() {
            return true;
        }
        let shelf = self.buffer.lock();
        let offered = shelf.offered.is_some() && self.takes_memory();
        let nothing = self.again.is_empty() && !offered && !shelf.spool.has_unread();
        (nothing || self.buffer.status.is_left()) && !shelf.complete
    }

    fn settled(&mut self, settled: Settled) {
        let in_order = match settled.in_order {
            // What comes behind what was given up is read again, too.
            None if self.failed => self.before,
            // What was given up stands at the end of what was settled.
            None => settled.settled - (settled.given_up - self.given_up_before),
            // Where it stands is not known: what was settled before this call is.
            Some(_) if settled.given_up > self.given_up => self.before,
            Some(records) => records,
        };
        self.failed |= settled.given_up > self.given_up;
        self.given_up = settled.given_up;
        self.acknowledge(in_order.saturating_sub(self.before));
    }

    fn ended(&mut self) {
        let mut shelf = self.buffer.lock();
        if let Err(error) = shelf.spool.sync() {
            self.buffer.say(&mut shelf, What::Upkeep, &in_full(&error));
        }
        let left = shelf.spool.spooled().records;
        self.forget();
        debug_assert_eq!(
            shelf.spool.spooled(),
            lock(&self.state.books).disk().spooled(),
            "the book says what is on disk"
        );
        if left > 0 {
            info!("Output {}: {left} records stay on disk", self.buffer.name);
        }
    }
}
