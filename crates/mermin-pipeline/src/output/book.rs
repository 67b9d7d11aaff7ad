//! The book of an output: what it was handed, and what became of that.

use super::guard::Guard;
use super::{
    BREAKER_OPEN, BUFFER_DAMAGED, BUFFER_FULL, BUFFER_UNREADABLE, BUFFER_WRITE_FAILED, CRASH, OutputFailure,
    QUEUE_FULL, TOO_LATE,
};
use crate::lock::lock;
use crate::snapshot::OutputBook;
use mermin_flow::{Amount, FlowRecord, QUARANTINE, Receipt};
use mermin_spool::Recovery;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// What an output and its thread share.
pub(super) struct OutputState {
    /// What was given to the output and what it did with it.
    pub(super) books: Mutex<Books>,
    pub(super) closed: AtomicBool,
    pub(super) failure: Mutex<Option<OutputFailure>>,
    /// Why the last attempt failed, and how many records had been delivered then: it stands until more are.
    pub(super) failing: Mutex<Option<(String, u64)>>,
    pub(super) guard: Guard,
    /// Whether outputs are waited for: then this one is tried always.
    pub(super) waits: Arc<AtomicBool>,
}

impl OutputState {
    pub(super) fn new(guard: Guard, books: Books, waits: Arc<AtomicBool>) -> Self {
        Self {
            books: Mutex::new(books),
            closed: AtomicBool::default(),
            failure: Mutex::default(),
            failing: Mutex::default(),
            guard,
            waits,
        }
    }
}

#[derive(Default)]
pub(super) struct Books {
    pub(super) handed: Amount,
    /// Taken from the queue by the thread.
    pub(super) taken: Amount,
    /// Records that became part of others for want of room.
    pub(super) merged: u64,
    /// No room, while the output was let be.
    pub(super) breaker_open: Amount,
    /// No room.
    pub(super) queue_full: Amount,
    /// No room in time, at the end of the run.
    pub(super) too_late: Amount,
    pub(super) receipt: Receipt,
    /// The thread has panicked: nothing that has no receipt will get one.
    pub(super) crashed: bool,
    /// Of an output whose records wait on disk.
    disk: Option<Box<DiskBook>>,
}

/// What the disk was given, and what became of that.
#[derive(Default)]
pub(super) struct DiskBook {
    /// Found there at the start.
    recovered: Amount,
    /// Of that, left by outputs of this run, in whose books it was handed over.
    inherited: Amount,
    /// Written.
    pub(super) stored: Amount,
    /// Read and settled by the exporter.
    pub(super) from_disk: Amount,
    /// Not written, settled by the exporter all the same.
    pub(super) from_memory: Amount,
    /// Written, and lost there.
    pub(super) damaged: Amount,
    /// Written by a program that wrote what this one can't read.
    pub(super) unreadable: Amount,
    /// No room on disk, and none in the queue.
    pub(super) full: Amount,
    /// The disk failed, and there was no room in the queue.
    pub(super) write_failed: Amount,
    /// Can't be written: a bug.
    pub(super) quarantined: Amount,
    /// Of what is settled, dropped for good.
    dropped: BTreeMap<&'static str, Amount>,
    /// Reasons of the exporter that are not for good.
    passing: &'static [&'static str],
    /// How many of those that were settled were dropped is a bound.
    pub(super) inexact: bool,
    /// More was torn off an earlier run's end than can be known.
    torn_inexact: bool,
}

impl DiskBook {
    /// Of an exporter with these passing reasons; `recovery` is what an earlier run has left.
    pub(super) fn new(recovery: Recovery, passing: &'static [&'static str]) -> Self {
        let mut recovered = recovery.spooled;
        recovered += recovery.torn;
        let (damaged, torn_inexact) = (recovery.torn, recovery.torn_inexact);
        Self { recovered, damaged, passing, torn_inexact, ..Self::default() }
    }

    /// Of what was found, so much was left in this run, and `left` at most.
    pub(super) fn inherit(&mut self, left: Amount) -> Amount {
        self.inherited = least(self.recovered, left);
        self.inherited
    }

    /// What is on disk and not settled.
    pub(super) fn spooled(&self) -> Amount {
        let mut came = self.recovered;
        came += self.stored;
        minus(minus(minus(came, self.from_disk), self.damaged), self.unreadable)
    }

    /// Of what was handed over, all that the queue has no more.
    fn taken(&self) -> Amount {
        let mut taken = self.stored;
        for amount in [self.from_memory, self.full, self.write_failed, self.quarantined] {
            taken += amount;
        }
        taken
    }

    /// Paths of the book that are bounds.
    fn inexact(&self) -> impl Iterator<Item = &'static str> {
        const SETTLED: &[&str] = &["delivered.records", "delivered.packets", "delivered.bytes"];
        const TORN: &[&str] = &[
            "recovered.records",
            "recovered.packets",
            "recovered.bytes",
            "dropped.buffer_damaged.records",
            "dropped.buffer_damaged.packets",
            "dropped.buffer_damaged.bytes",
        ];
        let settled = SETTLED.iter().filter(|_| self.inexact);
        settled.chain(TORN.iter().filter(|_| self.torn_inexact)).copied()
    }

    /// What the exporter has settled.
    fn settled(&self) -> Amount {
        let mut settled = self.from_disk;
        settled += self.from_memory;
        settled
    }
}

/// Notes a panic of the output's thread in its book.
pub(super) struct Crash(pub(super) Arc<OutputState>);

impl Drop for Crash {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.books).crashed = true;
        }
    }
}

pub(super) fn amount(records: &[FlowRecord]) -> Amount {
    let mut sum = Amount::default();
    for record in records {
        sum += Amount::of(record);
    }
    sum
}

fn sum<'a>(amounts: impl IntoIterator<Item = (&'a &'static str, &'a Amount)>) -> Amount {
    let mut sum = Amount::default();
    amounts.into_iter().for_each(|(_, amount)| sum += *amount);
    sum
}

pub(super) fn minus(a: Amount, b: Amount) -> Amount {
    Amount {
        records: a.records.wrapping_sub(b.records),
        packets: a.packets.wrapping_sub(b.packets),
        bytes: a.bytes.wrapping_sub(b.bytes),
    }
}

/// What both have.
fn least(a: Amount, b: Amount) -> Amount {
    Amount {
        records: a.records.min(b.records),
        packets: a.packets.min(b.packets),
        bytes: a.bytes.min(b.bytes),
    }
}

/// What so many merged records take out of a book: their packets and bytes live on in those that carry them.
const fn merged(records: u64) -> Amount {
    Amount { records, packets: 0, bytes: 0 }
}

impl Books {
    /// Of an output whose records wait on disk.
    pub(super) fn on_disk(book: DiskBook) -> Self {
        Self { disk: Some(Box::new(book)), ..Self::default() }
    }

    /// The part that the disk has.
    pub(super) fn disk(&mut self) -> &mut DiskBook {
        self.disk.get_or_insert_default()
    }

    /// What the exporter has dropped for good, sooner or later settled.
    pub(super) fn dropped_for_good(&self) -> Amount {
        let passing = self.disk.as_ref().map_or(&[][..], |disk| disk.passing);
        sum(self.receipt.dropped.iter().filter(|(reason, _)| !passing.contains(reason)))
    }

    /// So much more is settled: what the exporter has dropped for good, and the rest is delivered. It may drop later records
    /// before it has settled earlier ones, which then stand for them; no figure ever falls.
    pub(super) fn settle_drops(&mut self, more: Amount) {
        let Some(disk) = &mut self.disk else { return };
        let mut left = more;
        for (reason, said) in &self.receipt.dropped {
            if !disk.passing.contains(reason) {
                let dropped = disk.dropped.entry(reason).or_default();
                let part = least(minus(*said, *dropped), left);
                *dropped += part;
                left = minus(left, part);
            }
        }
    }

    pub(super) fn book(&self) -> OutputBook {
        // Handed and neither merged nor refused: in the queue, or in the exporter without receipt yet.
        let mut queued = minus(minus(self.handed, self.queue_full), self.breaker_open);
        queued = minus(minus(queued, self.too_late), merged(self.merged));
        queued = minus(queued, self.disk.as_ref().map_or_else(|| self.settled(), |disk| disk.taken()));
        let crashed = if self.crashed { std::mem::take(&mut queued) } else { Amount::default() };
        let disk = self.disk.as_deref();
        let mut dropped = disk.map_or(&self.receipt.dropped, |disk| &disk.dropped).clone();
        let none = Amount::default();
        let reasons = [
            (QUEUE_FULL, self.queue_full),
            (BREAKER_OPEN, self.breaker_open),
            (TOO_LATE, self.too_late),
            (CRASH, crashed),
            (BUFFER_FULL, disk.map_or(none, |disk| disk.full)),
            (BUFFER_WRITE_FAILED, disk.map_or(none, |disk| disk.write_failed)),
            (QUARANTINE, disk.map_or(none, |disk| disk.quarantined)),
            (BUFFER_DAMAGED, disk.map_or(none, |disk| disk.damaged)),
            (BUFFER_UNREADABLE, disk.map_or(none, |disk| disk.unreadable)),
        ];
        for (reason, amount) in reasons {
            if amount != Amount::default() {
                *dropped.entry(reason).or_default() += amount;
            }
        }
        let mut inexact = self.receipt.inexact.clone();
        let delivered = match disk {
            Some(disk) => {
                inexact.extend(disk.inexact());
                minus(disk.settled(), sum(&disk.dropped))
            }
            None => self.receipt.delivered,
        };
        OutputBook {
            handed: self.handed,
            recovered: disk.map_or(none, |disk| minus(disk.recovered, disk.inherited)),
            delivered,
            queued,
            spooled: disk.map_or(none, DiskBook::spooled),
            dropped,
            merged: self.merged,
            inexact,
        }
    }

    /// What the exporter has given a receipt for.
    pub(super) fn settled(&self) -> Amount {
        let mut settled = self.receipt.delivered;
        settled += sum(&self.receipt.dropped);
        settled
    }
}
