//! Closing an epoch: what the programs saw in it and how each buffer left.
//!
//! The grace period blocks for milliseconds, so a thread of its own waits for it; the reader asks for a book and looks
//! later whether it has come.

use super::grace::Grace;
use super::mapped::Mapped;
use mermin_abi::{Counters, Verdict};
use mermin_flow::Tally;
use mermin_wire::Unmetered;
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// The sum over all CPUs of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Book {
    pub(super) epoch: u32,
    pub(super) seen: Tally,
    pub(super) submitted: Tally,
    pub(super) ring_full: Tally,
    pub(super) unmetered: [Tally; Unmetered::COUNT],
    pub(super) ethertypes: BTreeMap<u16, u64>,
    /// Packets whose ethertype found no slot.
    pub(super) ethertypes_other: u64,
    pub(super) ip_length_over_frame: u64,
}

impl Book {
    fn add(&mut self, counters: &Counters) {
        self.seen.buffers += counters.seen_buffers;
        self.seen.buffer_bytes += counters.seen_bytes;
        self.submitted += tally(&counters.submitted);
        self.ring_full += tally(&counters.ring_full);
        for (sum, verdict) in self.unmetered.iter_mut().zip(&counters.unmetered) {
            *sum += tally(verdict);
        }
        for slot in counters.ethertypes.iter().filter(|slot| slot.packets > 0) {
            *self.ethertypes.entry(slot.ethertype as u16).or_default() += slot.packets;
        }
        self.ethertypes_other += counters.ethertypes_other;
        self.ip_length_over_frame += counters.ip_length_over_frame;
    }

    /// Whether every buffer that was seen left by exactly one exit.
    pub(super) fn balances(&self) -> bool {
        let verdicts = self.submitted + self.ring_full + self.unmetered.iter().copied().sum();
        (self.seen.buffers, self.seen.buffer_bytes) == (verdicts.buffers, verdicts.buffer_bytes)
    }
}

fn tally(verdict: &Verdict) -> Tally {
    let &Verdict { packets, bytes, buffers, buffer_bytes } = verdict;
    Tally { packets, bytes, buffers, buffer_bytes }
}

/// What the thread is asked for.
enum Request {
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
    pub(super) fn start(mapped: Mapped, grace: Grace) -> io::Result<Self> {
        let (requests, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let mut closer = Closer { mapped, grace, epoch: 0 };
        let thread = thread::Builder::new().name("mermin-epoch".to_owned()).spawn(move || {
            while let Ok(request) = asked.recv() {
                if answer.send(closer.close(&request)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { requests: Some(requests), answers, thread: Some(thread), waiting: false })
    }

    /// The book of an epoch that was asked for by an earlier call, once it is closed; asks for one if none is on its way.
    pub(super) fn next(&mut self) -> Option<io::Result<Book>> {
        if !self.waiting {
            self.ask(Request::Flip);
            return None;
        }
        let book = self.answers.try_recv().ok()?;
        self.waiting = false;
        Some(book)
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
        // There is room: one request at a time. It fails only after the thread has panicked; then no book comes.
        self.waiting = self.requests.as_ref().is_some_and(|requests| requests.try_send(request).is_ok());
    }
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

struct Closer {
    mapped: Mapped,
    grace: Grace,
    epoch: u32,
}

impl Closer {
    fn close(&mut self, request: &Request) -> io::Result<Book> {
        let closed = self.epoch;
        let next = closed.wrapping_add(1);
        if matches!(request, Request::Flip) {
            self.mapped.go_live(next);
            if let Err(error) = self.grace.wait() {
                // Nobody knows who still counts in the old half: stay in it.
                self.mapped.go_live(closed);
                return Err(error);
            }
        }
        self.epoch = next;
        let mut book = Book { epoch: closed, ..Book::default() };
        self.mapped.take(closed, |counters| book.add(counters));
        Ok(book)
    }
}
