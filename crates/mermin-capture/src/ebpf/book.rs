//! Closing an epoch: what the programs saw in it and how each buffer left.
//!
//! The grace period blocks for milliseconds, so a thread of its own waits for it; the reader asks for a book and looks
//! later whether it has come.

use super::grace::Grace;
use super::logged::Log;
use super::mapped::Mapped;
use super::pulse::Pulse;
use super::ring::Produced;
use super::slots::Slots;
use super::ticks::Ticks;
use super::words::Words;
use crate::filters::Filtered;
use mermin_abi::{Counters, Event, Verdict};
use mermin_flow::Tally;
use mermin_wire::Unmetered;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};

/// The sum over all CPUs of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Book {
    pub(super) epoch: u32,
    pub(super) seen: Tally,
    /// What the ring took, or still waited for it at the end.
    pub(super) submitted: Tally,
    /// What stood in slots at the end and is metered.
    pub(super) slots: Tally,
    /// What the hash took.
    pub(super) overflowed: Tally,
    pub(super) ring_full: Tally,
    pub(super) table_full: Tally,
    pub(super) unmetered: [Tally; Unmetered::COUNT],
    pub(super) filtered: Filtered,
    pub(super) ethertypes: BTreeMap<u16, u64>,
    /// Packets whose ethertype found no slot.
    pub(super) ethertypes_other: u64,
    pub(super) ip_length_over_frame: u64,
    /// Whether the hash could not be read, or not be emptied.
    pub(super) hash_failed: bool,
    /// Fragments that were summed up without their datagram's ports.
    pub(super) unresolved_fragments: u64,
    /// What stood in slots and in the hash, or waited for the ring.
    pub(super) deltas: Vec<Event>,
    /// All that the ring has of this epoch lies before this position.
    pub(super) up_to: u64,
    /// No packet of the next epoch was seen before this time since boot.
    pub(super) next_began: u64,
    /// What time a tick is.
    pub(super) ticks: Option<Ticks>,
    /// Nanoseconds before its end in which the programs counted nothing, as nobody had shown life.
    pub(super) uncounted: u64,
}

impl Book {
    fn add(&mut self, counters: &Counters) {
        self.seen.buffers += counters.seen_buffers;
        self.seen.buffer_bytes += counters.seen_bytes;
        self.submitted += tally(&counters.submitted);
        self.overflowed += tally(&counters.overflowed);
        self.ring_full += tally(&counters.ring_full);
        self.table_full += tally(&counters.table_full);
        for (sum, verdict) in self.unmetered.iter_mut().zip(&counters.unmetered) {
            *sum += tally(verdict);
        }
        self.filtered.add_all(counters.filtered.iter().map(tally));
        for slot in counters.ethertypes.iter().filter(|slot| slot.packets > 0) {
            *self.ethertypes.entry(slot.ethertype as u16).or_default() += slot.packets;
        }
        self.ethertypes_other += counters.ethertypes_other;
        self.ip_length_over_frame += counters.ip_length_over_frame;
        self.unresolved_fragments += counters.unresolved_fragments;
    }

    /// What is to be handed on.
    pub(super) fn metered(&self) -> Tally {
        self.submitted + self.slots + self.overflowed
    }

    /// Whether every buffer that was seen left by exactly one exit.
    pub(super) fn balances(&self) -> bool {
        let metered = self.metered();
        let lost = self.ring_full + self.table_full;
        let not_metered = self.unmetered.iter().copied().chain(self.filtered.tallies());
        let verdicts = metered + lost + not_metered.sum();
        (self.seen.buffers, self.seen.buffer_bytes) == (verdicts.buffers, verdicts.buffer_bytes)
    }
}

pub(super) fn tally(verdict: &Verdict) -> Tally {
    let &Verdict { packets, bytes, buffers, buffer_bytes } = verdict;
    Tally { packets, bytes, buffers, buffer_bytes }
}

/// What the thread is asked for.
pub(super) enum Request {
    /// Begin the next epoch and close this one.
    Flip,
    /// The programs are off, so no grace period is needed: close the epoch.
    Off,
}

/// The thread that closes epochs.
pub(super) struct Books {
    requests: Option<SyncSender<Request>>,
    answers: Receiver<io::Result<Book>>,
    thread: Option<JoinHandle<()>>,
    waiting: bool,
}

impl Books {
    pub(super) fn start(mut closer: Closer) -> io::Result<Self> {
        let (requests, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let thread = thread::Builder::new().name("mermin-epoch".to_owned()).spawn(move || {
            loop {
                match asked.recv_timeout(closer.pulse.interval()) {
                    Ok(request) => {
                        if answer.send(closer.close(&request)).is_err() {
                            break;
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => closer.beat(),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        })?;
        Ok(Self { requests: Some(requests), answers, thread: Some(thread), waiting: false })
    }

    /// The book of an epoch that was asked for by an earlier call, once it is closed; asks for one if none is on its way.
    pub(super) fn next(&mut self) -> Option<io::Result<Book>> {
        if !self.waiting {
            self.ask(Request::Flip);
            return (!self.waiting).then(|| Err(gone()));
        }
        let book = match self.answers.try_recv() {
            Ok(book) => book,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(gone()),
        };
        self.waiting = false;
        Some(book)
    }

    /// Whether one was asked for that has not come.
    pub(super) const fn is_on_its_way(&self) -> bool {
        self.waiting
    }

    /// All books that are still to come: whatever the programs see from now on is in none of them. Blocks for a grace
    /// period or two. `Err` last: there was none, and the last book is still open.
    pub(super) fn last(&mut self) -> Vec<io::Result<Book>> {
        self.all(Request::Flip)
    }

    /// The last books, after the programs were taken off: that of the next epoch, too, in which they counted for as long as a flip
    /// was tried in vain.
    pub(super) fn after_the_programs(&mut self) -> Vec<io::Result<Book>> {
        let mut books = self.all(Request::Off);
        books.extend(self.all(Request::Off));
        books
    }

    fn all(&mut self, request: Request) -> Vec<io::Result<Book>> {
        let mut books = Vec::new();
        if self.waiting {
            books.extend(self.answers.recv());
        }
        self.ask(request);
        books.extend(self.answers.recv());
        self.waiting = false;
        books
    }

    fn ask(&mut self, request: Request) {
        // There is room: one request at a time. It fails only after the thread has panicked.
        self.waiting = self.requests.as_ref().is_some_and(|requests| requests.try_send(request).is_ok());
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that ends epochs has panicked: this is a bug")
}

impl Drop for Books {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // An answer that nobody took is in the channel's one place: the thread never waits for us.
            let _ = thread.join();
        }
    }
}

/// Closes epochs, and shows the programs that somebody does.
pub(super) struct Closer {
    mapped: Mapped,
    grace: Grace,
    pulse: Pulse,
    /// What the programs sum up, in aggregate mode.
    slots: Option<Slots>,
    produced: Produced,
    epoch: u32,
    /// Where what was read is committed before it is cleared, if it outlasts the process; and what was due so far.
    kept: Option<(Arc<Words>, Tally)>,
    /// Where it is written down before that.
    log: Option<Log>,
    /// When a flip first began the next epoch, where none has succeeded yet.
    next_began: Option<u64>,
}

impl Closer {
    /// From here on the programs count.
    pub(super) fn new(
        mapped: Mapped,
        grace: Grace,
        pulse: Pulse,
        slots: Option<Slots>,
        produced: Produced,
    ) -> Self {
        let mut closer =
            Self { mapped, grace, pulse, slots, produced, epoch: 0, kept: None, log: None, next_began: None };
        closer.beat();
        closer
    }

    /// Between two epochs.
    fn beat(&mut self) {
        self.pulse.beat(&self.mapped);
    }

    /// Goes on where an earlier process has ended: whatever that was at, each half is read once. Its books that were open, the
    /// last of which is that of this moment.
    pub(super) fn go_on(mut self, words: Arc<Words>, log: Option<Log>) -> io::Result<(Self, Vec<Book>)> {
        let (committed, due) = words.committed();
        if words.last_cleared() != committed {
            self.clear(committed);
            words.cleared(committed);
        }
        (self.kept, self.log) = (Some((words, due)), log);
        let (live, mut books) = (self.mapped.live(), Vec::new());
        if live != committed.wrapping_add(1) {
            // It had begun the live epoch, and not come to reading the one before.
            self.grace.wait()?;
            books.push(self.read(live.wrapping_sub(1), 0));
        }
        self.epoch = live;
        books.push(self.close(&Request::Flip)?);
        Ok((self, books))
    }

    /// Begins the next epoch and ends this one.
    pub(super) fn close(&mut self, request: &Request) -> io::Result<Book> {
        let closed = self.epoch;
        let next = closed.wrapping_add(1);
        let now = self.pulse.beat(&self.mapped);
        let next_began = *self.next_began.get_or_insert(now);
        if matches!(request, Request::Flip) {
            if let Some(slots) = &mut self.slots {
                slots.forget_closed(next);
            }
            self.mapped.go_live(next);
            if let Err(error) = self.grace.wait() {
                // Nobody knows who still counts in the old half: stay in it.
                self.mapped.go_live(closed);
                return Err(error);
            }
        }
        (self.epoch, self.next_began) = (next, None);
        Ok(self.read(closed, next_began))
    }

    /// The book of an epoch in which no program runs any more. Read, then written down, then committed, then cleared: whenever the process is
    /// killed, who comes next knows whether it was read.
    fn read(&mut self, closed: u32, next_began: u64) -> Book {
        let mut book = Book {
            epoch: closed,
            up_to: self.produced.position(),
            next_began,
            ticks: Some(self.pulse.ticks()),
            uncounted: self.pulse.take_uncounted(),
            ..Book::default()
        };
        if let Some(slots) = &mut self.slots {
            slots.read_staged(closed, &mut book.deltas);
            book.slots = slots.read_slots(closed, &mut book.deltas, &mut book.filtered);
            if let Err(error) = slots.read_hash(closed, &mut book.deltas) {
                tracing::error!(%error, "the hash of an epoch can't be read: what is in it comes later, or stays in flight");
                book.hash_failed = true;
            }
        }
        self.mapped.read(closed, |counters| book.add(counters));
        if let Some(log) = &self.log {
            log.sums(closed, &book.deltas);
        }
        if let Some((words, due)) = &mut self.kept {
            *due += book.metered();
            words.commit(closed, *due);
        }
        book.hash_failed |= !self.clear(closed);
        if let Some((words, _)) = &self.kept {
            words.cleared(closed);
        }
        book
    }

    /// Whether all of the half could be cleared.
    fn clear(&mut self, epoch: u32) -> bool {
        self.mapped.clear(epoch);
        let Some(slots) = &mut self.slots else { return true };
        let cleared = slots.clear(epoch);
        if let Err(error) = &cleared {
            tracing::error!(%error, "the hash of an epoch can't be emptied: what is in it will count twice");
        }
        cleared.is_ok()
    }
}
