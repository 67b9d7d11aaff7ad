//! An output: a queue, a thread, a book. What goes wrong with it touches no other stage.

mod backlog;
mod book;
mod breaker;
mod buffer;
mod change;
mod fan_out;
mod guard;
mod intake;
mod leaving;
mod queue;
mod thread;

pub use breaker::{BreakerConfig, BreakerState};
pub use buffer::DiskBuffer;
pub use change::ChangeError;
pub(crate) use fan_out::FanOut;

use crate::incidents::Incidents;
use crate::lock::lock;
use crate::priority::PriorityRule;
use crate::pulse::OutputPulse;
use crate::snapshot::OutputBook;
use book::{Books, DiskBook, OutputState};
use buffer::{Buffer, FromDisk, Status, ToDisk, Trouble};
use guard::Guard;
use intake::FromQueue;
use mermin_flow::{Amount, Delivery, Exporter, FlowRecord, QUARANTINE};
use mermin_spool::Stored;
use queue::{Consumer, OutputQueue, QueueCounts, Strained};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::Instant;
use thread::OutputThread;

/// Records shared by all outputs.
pub(crate) type Batch = Arc<Vec<FlowRecord>>;

/// Records that had no room because the output was let be, in `dropped`.
const BREAKER_OPEN: &str = "breaker_open";
/// Records that had no room, in `dropped`.
const QUEUE_FULL: &str = "queue_full";
/// Records that had no room in the queue because the disk buffer had none, in `dropped`.
const BUFFER_FULL: &str = "buffer_full";
/// Records that had no room in the queue because the disk buffer could not be written, in `dropped`.
const BUFFER_WRITE_FAILED: &str = "buffer_write_failed";
/// Records that were on disk, and are damaged there or gone, in `dropped`.
const BUFFER_DAMAGED: &str = "buffer_damaged";
/// Records on disk that this version can't read, in `dropped`.
const BUFFER_UNREADABLE: &str = "buffer_unreadable";
/// Records that the thread had when it panicked, in `dropped`.
const CRASH: &str = "crash";
/// Records that the end of the run could not wait for, in `dropped`.
pub(crate) const TOO_LATE: &str = "shutdown_timeout";

/// How an output ended.
#[derive(Clone, Debug)]
pub struct OutputFailure {
    /// The output's name.
    pub output: String,
    /// The key in `dropped` of its book.
    pub reason: &'static str,
    /// What happened the first time.
    pub error: String,
}

/// How an output is treated.
#[derive(Clone)]
pub(crate) struct Treatment {
    /// Records that its queue holds.
    pub(crate) capacity: usize,
    /// Whether that notes how long they waited.
    pub(crate) detailed: bool,
    /// Whose records go first.
    pub(crate) rules: Arc<[PriorityRule]>,
    /// When it is let be.
    pub(crate) breaker: BreakerConfig,
    /// Whether it is waited for, whatever it does.
    pub(crate) waits: bool,
}

/// An output that comes while records flow.
pub struct NewOutput {
    /// Takes the records.
    pub exporter: Box<dyn Exporter>,
    /// Names of outputs that go to where this one goes, and that this change removes or one before has: until they have ended
    /// its records wait.
    pub after: Vec<String>,
    /// Where its records wait, if not in memory only. What it finds there it delivers, too.
    pub buffer: Option<DiskBuffer>,
}

/// What an output has counted besides its book. The next one of its name goes on from there, so that no count falls.
#[derive(Clone, Debug, Default)]
struct Predecessor {
    delivery: Option<Arc<Delivery>>,
    queue: QueueCounts,
}

impl Predecessor {
    /// The greater counts of both: one that was removed earlier may end later.
    fn raise_to(&mut self, other: Self) {
        let requests = |delivery: &Arc<Delivery>| delivery.requests.load(Ordering::Relaxed);
        if other.delivery.as_ref().map(requests) > self.delivery.as_ref().map(requests) {
            self.delivery = other.delivery;
        }
        self.queue.raise_to(other.queue);
    }
}

#[cfg(test)]
impl Treatment {
    /// With room for so many records, and not waited for.
    fn with_room_for(capacity: usize) -> Self {
        Self {
            capacity,
            detailed: false,
            rules: Arc::default(),
            breaker: BreakerConfig::default(),
            waits: false,
        }
    }
}

/// The side of an output that the pipeline sees.
pub(crate) struct Output {
    pub(crate) name: String,
    /// Whether somebody is meant to read what it writes: `none` has nobody.
    pub(crate) has_readers: bool,
    pub(crate) queue: Arc<OutputQueue>,
    /// How deliveries go, where there is a receiver.
    pub(crate) delivery: Option<Arc<Delivery>>,
    interrupter: Option<Arc<AtomicBool>>,
    /// Where its records wait, if not in memory only.
    buffer: Option<Arc<Status>>,
    drop_reasons: &'static [&'static str],
    /// Panics of its threads that were contained.
    panics: Arc<AtomicU64>,
    /// Its threads, once it has them.
    threads: Vec<ThreadId>,
    /// Whether a panic that ends one of them is a matter of the run: until it is removed.
    matters: Arc<AtomicBool>,
    shared: Arc<OutputState>,
}

/// What a thread does.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

impl Output {
    /// An output for `exporter`, and its threads' names and work. It goes on counting where the one `before` left off.
    fn new(
        exporter: Box<dyn Exporter>,
        buffer: Option<DiskBuffer>,
        treatment: &Treatment,
        before: Option<Predecessor>,
    ) -> (Self, Vec<(String, Work)>) {
        let before = before.unwrap_or_default();
        if let (Some(delivery), Some(before)) = (exporter.delivery(), &before.delivery) {
            delivery.go_on_from(before);
        }
        let (capacity, detailed) = (treatment.capacity, treatment.detailed);
        let queue = OutputQueue::new(before.queue, capacity, detailed, Arc::clone(&treatment.rules));
        let name = exporter.name().to_owned();
        let waits = Arc::new(AtomicBool::new(treatment.waits));
        let guard = Guard::new(&*exporter, &treatment.breaker, Arc::clone(&waits));
        let books = buffer.as_ref().map(|buffer| {
            let recovery = buffer.spool.recovery();
            Books::on_disk(DiskBook::new(recovery, exporter.passing_reasons()))
        });
        let shared = OutputState::new(guard, books.unwrap_or_default(), waits);
        let shared = Arc::new(shared);
        let mut output = Self {
            has_readers: name != "none",
            name,
            queue: Arc::clone(&queue),
            delivery: exporter.delivery(),
            interrupter: exporter.interrupter(),
            buffer: None,
            drop_reasons: exporter.drop_reasons(),
            panics: Arc::default(),
            threads: Vec::new(),
            matters: Arc::new(AtomicBool::new(true)),
            shared: Arc::clone(&shared),
        };
        let (consumer, main) = (Consumer(queue), format!("out-{}", output.name));
        let incidents = |what| Incidents::new(format!("{what} {}", output.name), Arc::clone(&output.panics));
        let Some(DiskBuffer { spool, points }) = buffer else {
            let intake = FromQueue::new(consumer);
            let thread = OutputThread::new(intake, exporter, shared, incidents("Output"));
            return (output, vec![(main, Box::new(move || thread.run()))]);
        };
        let (mut encoder, mut decoder) = mermin_spool::codec(points);
        let encode = Box::new(move |records: &[FlowRecord]| encoder.encode(records));
        let decode = Box::new(move |stored: &Stored| decoder.decode(stored));
        let buffer = Buffer::new(&output.name, spool);
        output.buffer = Some(buffer.status());
        let writer = ToDisk::new(
            Arc::clone(&buffer),
            Arc::clone(&shared),
            encode,
            incidents("The disk buffer of output"),
        );
        let reader = FromDisk::new(buffer, Arc::clone(&shared), decode);
        let thread = OutputThread::new(reader, exporter, shared, incidents("Output"));
        let writes: Work = Box::new(move || writer.run(&consumer));
        let works =
            vec![(main, Box::new(move || thread.run()) as Work), (format!("disk-{}", output.name), writes)];
        (output, works)
    }

    /// From now on it is treated so.
    fn treat(&self, treatment: &Treatment) {
        self.queue.change(treatment.capacity, Arc::clone(&treatment.rules));
        self.shared.guard.change(&treatment.breaker);
    }

    /// Takes a batch; `wait` for room, or make some: what is merged and dropped for that is counted.
    pub(crate) fn hand(&self, batch: &Batch, carried: Amount, wait: bool) {
        lock(&self.shared.books).handed += carried;
        let batch = Arc::clone(batch);
        let refused = if wait {
            self.queue.push(batch).is_err()
        } else {
            match self.queue.offer(batch) {
                Ok(strained) => {
                    self.strained(strained);
                    false
                }
                Err(_) => true,
            }
        };
        if refused {
            let mut books = lock(&self.shared.books);
            // What is refused because nobody consumes any more is not told from what was lost with the thread.
            if !books.crashed {
                books.too_late += carried;
            }
        }
    }

    fn strained(&self, strained: Strained) {
        if strained != Strained::default() {
            // Why what is behind the queue does not take it.
            let trouble = self.buffer.as_ref().map(|buffer| buffer.trouble());
            let is_open = self.shared.guard.is_open();
            let mut books = lock(&self.shared.books);
            books.merged += strained.merged;
            let dropped = match trouble {
                Some(Trouble::Full) => &mut books.disk().full,
                Some(Trouble::Failing(_)) => &mut books.disk().write_failed,
                None if is_open => &mut books.breaker_open,
                None | Some(Trouble::None) => &mut books.queue_full,
            };
            *dropped += strained.dropped;
        }
    }

    /// Whether nobody reads its records any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Looks for a call of its exporter that takes too long.
    fn look(&self, now: Instant) {
        self.shared.guard.look(now);
    }

    pub(crate) fn failure(&self) -> Option<OutputFailure> {
        lock(&self.shared.failure).clone()
    }

    /// How it does; `book` is that of all outputs that have had its name.
    fn pulse(&self, book: &OutputBook) -> OutputPulse {
        let (breaker, why, opened) = self.shared.guard.look(Instant::now());
        let mut reasons = vec![BREAKER_OPEN, QUEUE_FULL, TOO_LATE, QUARANTINE, CRASH];
        if self.buffer.is_some() {
            reasons.extend([BUFFER_FULL, BUFFER_WRITE_FAILED, BUFFER_DAMAGED, BUFFER_UNREADABLE]);
        }
        OutputPulse {
            name: self.name.clone(),
            drops: book.dropped.values().map(|dropped| dropped.records).sum(),
            delivered: book.delivered.records,
            panics: self.panics(),
            merged: book.merged,
            drop_reasons: reasons.iter().chain(self.drop_reasons).copied().collect(),
            queue: self.queue.pulse(),
            buffer: self.buffer.as_ref().map(|buffer| buffer.pulse()),
            closed: self.is_closed(),
            failing: lock(&self.shared.failing).as_ref().map(|(error, _)| error.clone()),
            delivery: self.delivery.clone(),
            breaker,
            let_be: why,
            opened,
        }
    }

    /// Its own, without that of others who had its name before.
    fn own_book(&self) -> OutputBook {
        lock(&self.shared.books).book()
    }

    /// Panics that were contained.
    fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// How often it was let be.
    fn opened(&self) -> u64 {
        let (.., opened) = self.shared.guard.look(Instant::now());
        opened
    }

    fn predecessor(&self) -> Predecessor {
        Predecessor { delivery: self.delivery.clone(), queue: self.queue.counts() }
    }

    /// From now on it is tried whatever comes of it, and nothing that it does counts against it.
    fn wait_from_now(&self) {
        self.shared.waits.store(true, Ordering::Release);
    }

    /// Time is up for it, and an exporter that waits for its receiver gives up. What waits in its queue is dropped; of an
    /// output with a disk buffer it is written to disk, and stays there with what is there.
    fn give_up(&self) {
        if self.buffer.is_some() {
            return self.leave(false);
        }
        self.drop_waiting();
        self.interrupt();
    }

    /// What waits in its queue is dropped, and nothing comes there any more.
    fn drop_waiting(&self) {
        self.queue.give_up();
        let dropped = self.queue.clear();
        lock(&self.shared.books).too_late += dropped;
    }

    /// Outputs of this run that had its name have `left` so much on disk. How much of that it has found there: no earlier run
    /// has left it, and it goes on in this book.
    fn inherit(&self, left: Amount) -> Amount {
        if self.buffer.is_none() { Amount::default() } else { lock(&self.shared.books).disk().inherit(left) }
    }

    /// The end has begun, its own or that of the run, and what is on disk may stay there: it is not waited for any longer, and
    /// not at all with `only_if_let_be` unless the output is let be.
    fn leave(&self, only_if_let_be: bool) {
        if let Some(buffer) = &self.buffer
            && (!only_if_let_be || self.shared.guard.is_open())
        {
            buffer.leave();
            self.interrupt();
        }
    }

    /// Time is up: an exporter that waits for its receiver gives up. Whether there is one that listens to this.
    fn interrupt(&self) -> bool {
        let interrupter = self.interrupter.iter();
        interrupter.map(|flag| flag.store(true, Ordering::Release)).count() > 0
    }
}
