//! An output: a queue, a thread, a book. What goes wrong with it touches no other stage.

use crate::pulse::OutputPulse;
use crate::record_queue::{Consumer, Item, RecordQueue};
use crate::snapshot::{Arrivals, Marker, OutputBook};
use mermin_flow::{Amount, Delivery, Exporter, Failure, FlowRecord, Receipt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Records shared by all outputs.
pub(crate) type Shared = Arc<Vec<FlowRecord>>;

/// How long an output's thread sleeps when nothing comes and its exporter has nothing to see to.
const NAP: Duration = Duration::from_millis(500);

/// Records that had no room, in `dropped`.
const QUEUE_FULL: &str = "queue_full";
/// Records that the thread had when it panicked, in `dropped`.
const CRASH: &str = "crash";
/// How soon an exporter that has dropped something is called again.
const SOON: Duration = Duration::from_millis(10);

/// Records that the end of the run could not wait for, in `dropped`.
const TOO_LATE: &str = "shutdown_timeout";

/// A failure repeats with every batch; the log says it this often.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

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

/// The side of an output that the pipeline sees.
pub(crate) struct Output {
    pub(crate) name: String,
    /// Whether somebody is meant to read what it writes: `none` has nobody.
    pub(crate) has_readers: bool,
    pub(crate) queue: Arc<RecordQueue<Shared>>,
    /// How deliveries go, where there is a receiver.
    pub(crate) delivery: Option<Arc<Delivery>>,
    interrupter: Option<Arc<AtomicBool>>,
    drop_reasons: &'static [&'static str],
    shared: Arc<OutputState>,
}

#[derive(Default)]
struct OutputState {
    /// What was given to the output and what it did with it.
    books: Mutex<Books>,
    closed: AtomicBool,
    failure: Mutex<Option<OutputFailure>>,
    /// Why the last attempt failed, and how many records had been delivered then: it stands until more are.
    failing: Mutex<Option<(String, u64)>>,
}

#[derive(Default)]
struct Books {
    handed: Amount,
    /// Taken from the queue by the thread.
    taken: Amount,
    /// No room.
    queue_full: Amount,
    /// No room in time, at the end of the run.
    too_late: Amount,
    receipt: Receipt,
    /// The thread has panicked: nothing that has no receipt will get one.
    crashed: bool,
}

/// Notes a panic of the output's thread in its book.
struct Crash(Arc<OutputState>);

impl Drop for Crash {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.books).crashed = true;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn amount(records: &[FlowRecord]) -> Amount {
    let mut sum = Amount::default();
    for record in records {
        sum += Amount::of(record);
    }
    sum
}

fn minus(a: Amount, b: Amount) -> Amount {
    Amount {
        records: a.records.wrapping_sub(b.records),
        packets: a.packets.wrapping_sub(b.packets),
        bytes: a.bytes.wrapping_sub(b.bytes),
    }
}

impl Output {
    /// An output for `exporter` whose queue holds `capacity` records (and notes how long, where that is wanted), and
    /// the work of its thread. `producers` is how many threads hand records to it.
    pub(crate) fn new(
        exporter: Box<dyn Exporter>,
        (capacity, detailed): (usize, bool),
        producers: usize,
    ) -> (Self, impl FnOnce() + Send + 'static) {
        let queue = RecordQueue::new(capacity, detailed);
        let shared = Arc::new(OutputState::default());
        let name = exporter.name().to_owned();
        let output = Self {
            has_readers: name != "none",
            name,
            queue: Arc::clone(&queue),
            delivery: exporter.delivery(),
            interrupter: exporter.interrupter(),
            drop_reasons: exporter.drop_reasons(),
            shared: Arc::clone(&shared),
        };
        let thread =
            OutputThread { exporter, shared, producers, receipt: Receipt::default(), last_warning: None };
        (output, move || thread.run(&Consumer(queue)))
    }

    /// Takes a batch; `wait` for room, or drop and count it.
    pub(crate) fn hand(&self, batch: &Shared, carried: Amount, wait: bool) {
        lock(&self.shared.books).handed += carried;
        let refused =
            if wait { self.queue.push(Arc::clone(batch)) } else { self.queue.try_push(Arc::clone(batch)) };
        if refused.is_err() {
            let mut books = lock(&self.shared.books);
            match (books.crashed, wait) {
                (true, _) => {}
                (false, true) => books.too_late += carried,
                (false, false) => books.queue_full += carried,
            }
        }
    }

    /// Whether records were dropped because the end of the run could not wait for room.
    fn was_too_late(&self) -> bool {
        let books = lock(&self.shared.books);
        books.too_late.records > 0 || books.receipt.dropped.contains_key(TOO_LATE)
    }

    /// Whether nobody reads its records any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    pub(crate) fn failure(&self) -> Option<OutputFailure> {
        lock(&self.shared.failure).clone()
    }

    pub(crate) fn pulse(&self) -> OutputPulse {
        let book = self.book();
        OutputPulse {
            name: self.name.clone(),
            drops: book.dropped.values().map(|dropped| dropped.records).sum(),
            delivered: book.delivered.records,
            drop_reasons: [QUEUE_FULL, TOO_LATE, CRASH].iter().chain(self.drop_reasons).copied().collect(),
            queue: self.queue.pulse(),
            closed: self.is_closed(),
            failing: lock(&self.shared.failing).as_ref().map(|(error, _)| error.clone()),
            delivery: self.delivery.clone(),
        }
    }

    pub(crate) fn book(&self) -> OutputBook {
        lock(&self.shared.books).book()
    }

    /// Time is up: an exporter that waits for its receiver gives up. Whether there is one that listens to this.
    fn interrupt(&self) -> bool {
        let interrupter = self.interrupter.iter();
        interrupter.map(|flag| flag.store(true, Ordering::Release)).count() > 0
    }
}

impl Books {
    fn book(&self) -> OutputBook {
        // Handed and not refused: in the queue, or in the exporter without receipt yet.
        let mut queued = minus(minus(self.handed, self.queue_full), self.too_late);
        queued = minus(queued, self.settled());
        let crashed = if self.crashed { std::mem::take(&mut queued) } else { Amount::default() };
        let mut dropped = self.receipt.dropped.clone();
        let reasons = [(QUEUE_FULL, self.queue_full), (TOO_LATE, self.too_late), (CRASH, crashed)];
        for (reason, amount) in reasons {
            if amount != Amount::default() {
                *dropped.entry(reason).or_default() += amount;
            }
        }
        let inexact = self.receipt.inexact.clone();
        OutputBook { handed: self.handed, delivered: self.receipt.delivered, queued, dropped, inexact }
    }

    /// What the exporter has given a receipt for.
    fn settled(&self) -> Amount {
        let mut settled = self.receipt.delivered;
        for dropped in self.receipt.dropped.values() {
            settled += *dropped;
        }
        settled
    }
}

struct OutputThread {
    exporter: Box<dyn Exporter>,
    shared: Arc<OutputState>,
    producers: usize,
    receipt: Receipt,
    last_warning: Option<Instant>,
}

impl OutputThread {
    fn run(mut self, consumer: &Consumer<Shared>) {
        let _crash = Crash(Arc::clone(&self.shared));
        let (mut ended, mut nap) = (0, NAP);
        while ended < self.producers {
            match consumer.next(nap) {
                Some(Item::Records(batch)) => self.export(&batch),
                // Snapshots are taken ahead of the queue: what waits in it stands in the book as queued.
                Some(Item::Marker(..)) | None => {}
                Some(Item::End) => ended += 1,
            }
            nap = if consumer.0.is_empty() { self.idle().unwrap_or(NAP) } else { NAP };
        }
        self.flush();
    }

    /// Nothing waits: the exporter may see to what it holds. How soon it wants to be called again.
    fn idle(&mut self) -> Option<Duration> {
        if self.shared.closed.load(Ordering::Relaxed) {
            return None;
        }
        let result = self.exporter.idle(&mut self.receipt);
        self.publish(Amount::default());
        match result {
            Ok(again) => {
                self.note(Ok(()));
                again
            }
            Err(failure) => {
                self.note(Err(failure));
                // What was dropped is one thing; the exporter may hold more that is under way.
                Some(SOON)
            }
        }
    }

    fn export(&mut self, batch: &Shared) {
        let carried = amount(batch);
        let result = if self.shared.closed.load(Ordering::Relaxed) {
            *self.receipt.dropped.entry("closed").or_default() += carried;
            Ok(())
        } else {
            self.exporter.export(batch, &mut self.receipt)
        };
        self.publish(carried);
        self.note(result);
    }

    fn flush(&mut self) {
        if self.shared.closed.load(Ordering::Relaxed) {
            return;
        }
        let result = self.exporter.flush(&mut self.receipt);
        self.publish(Amount::default());
        self.note(result);
        let books = lock(&self.shared.books);
        debug_assert_eq!(books.settled(), books.taken, "an exporter holds nothing after a flush");
    }

    fn publish(&self, taken: Amount) {
        let mut books = lock(&self.shared.books);
        books.taken += taken;
        books.receipt.clone_from(&self.receipt);
    }

    fn note(&mut self, result: Result<(), Failure>) {
        let delivered = self.receipt.delivered.records;
        let Err(failure) = result else {
            lock(&self.shared.failing).take_if(|(_, before)| delivered > *before);
            return;
        };
        let name = self.exporter.name();
        if failure.closed {
            self.shared.closed.store(true, Ordering::Release);
            debug!(output = name, "nobody reads this output any more");
            return;
        }
        let failure = OutputFailure {
            output: name.to_owned(),
            reason: failure.reason,
            error: failure.error.to_string(),
        };
        if self.last_warning.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            self.last_warning = Some(Instant::now());
            let dropped = self.receipt.dropped.get(failure.reason).map_or(0, |amount| amount.records);
            warn!("Output {name} lost records: {} ({dropped} records dropped so far)", failure.error);
        }
        *lock(&self.shared.failing) = Some((failure.error.clone(), delivered));
        lock(&self.shared.failure).get_or_insert(failure);
    }
}

/// Hands records to every output.
pub(crate) struct FanOut {
    pub(crate) outputs: Vec<Output>,
    /// Whether a full output is waited for.
    waits: AtomicBool,
    /// Threads that hand records over.
    producers: usize,
    arrivals: Mutex<Arrivals>,
    /// Records that were promised room and have not been released yet.
    promised: Mutex<usize>,
}

impl FanOut {
    pub(crate) fn new(outputs: Vec<Output>, producers: usize, waits: bool) -> Self {
        Self {
            outputs,
            waits: AtomicBool::new(waits),
            producers,
            arrivals: Mutex::default(),
            promised: Mutex::default(),
        }
    }

    /// From now on every output is waited for: the end has begun, and what is left is to be delivered.
    pub(crate) fn wait_from_now(&self) {
        self.waits.store(true, Ordering::Release);
    }

    /// How much each output has taken from its queue.
    pub(crate) fn taken(&self) -> Vec<u64> {
        self.outputs.iter().map(|output| output.queue.taken()).collect()
    }

    /// From now on outputs that have records to take and have taken none since `before` are not waited for: a stuck
    /// one must not keep the others from getting theirs.
    pub(crate) fn give_up_stuck(&self, before: &[u64]) {
        for (output, before) in self.outputs.iter().zip(before) {
            if output.queue.taken() == *before && !output.queue.is_empty() {
                output.queue.give_up();
            }
        }
    }

    /// Whether giving up cost records.
    pub(crate) fn gave_up_records(&self) -> bool {
        self.outputs.iter().any(Output::was_too_late)
    }

    /// How many of `n` records every output has room for, besides those promised before. The promise stands until
    /// they are released and it is taken back by [`Self::keep_promise`]. Outputs that are waited for take any number.
    pub(crate) fn promise(&self, n: usize) -> usize {
        if n == 0 {
            return 0;
        }
        let mut promised = lock(&self.promised);
        let n = if self.waits.load(Ordering::Acquire) {
            n
        } else {
            let room = self.outputs.iter().map(|output| output.queue.room()).min().unwrap_or(usize::MAX);
            n.min(room.saturating_sub(*promised))
        };
        *promised += n;
        n
    }

    /// `n` records that were promised room have been released.
    pub(crate) fn keep_promise(&self, n: usize) {
        if n > 0 {
            *lock(&self.promised) -= n;
        }
    }

    pub(crate) fn release(&self, records: Vec<FlowRecord>) {
        let (carried, wait) = (amount(&records), self.waits.load(Ordering::Acquire));
        let batch = Arc::new(records);
        for output in &self.outputs {
            output.hand(&batch, carried, wait);
        }
    }

    /// A producer has handed over everything ahead of `marker`. With the last one the outputs' books are read where
    /// they are: a receiver that is slow to answer must not hold up a snapshot.
    pub(crate) fn mark(&self, marker: &Marker) {
        if lock(&self.arrivals).is_last(marker, self.producers) {
            marker.add(|parts| parts.outputs = self.books());
        }
    }

    /// The outputs' names and books.
    pub(crate) fn books(&self) -> Vec<(String, OutputBook)> {
        self.outputs.iter().map(|output| (output.name.clone(), output.book())).collect()
    }

    /// Time is up: exporters that wait for a receiver give up. Whether there are such.
    pub(crate) fn interrupt(&self) -> bool {
        self.outputs.iter().map(Output::interrupt).fold(false, |any, one| any | one)
    }

    pub(crate) fn end(&self) {
        for output in &self.outputs {
            output.queue.end();
        }
    }

    /// Whether there are outputs with readers and all of them have lost their reader.
    pub(crate) fn nobody_reads(&self) -> bool {
        let mut with_readers = self.outputs.iter().filter(|output| output.has_readers).peekable();
        with_readers.peek().is_some() && with_readers.all(Output::is_closed)
    }
}
