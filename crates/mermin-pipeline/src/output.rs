//! An output: a queue, a thread, a book. What goes wrong with it touches no other stage.

use crate::record_queue::{Consumer, Item, QueueFigures, RecordQueue};
use crate::snapshot::{Arrivals, Marker, OutputBook};
use mermin_flow::{Amount, Exporter, Failure, FlowRecord, Receipt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Records shared by all outputs.
pub(crate) type Shared = Arc<Vec<FlowRecord>>;

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
    shared: Arc<OutputState>,
}

#[derive(Default)]
struct OutputState {
    /// What was given to the output and what it did with it.
    books: Mutex<Books>,
    closed: AtomicBool,
    failure: Mutex<Option<OutputFailure>>,
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
    /// An output for `exporter` whose queue holds `capacity` records, and the work of its thread. `producers` is how
    /// many threads hand records to it.
    pub(crate) fn new(
        exporter: Box<dyn Exporter>,
        capacity: usize,
        producers: usize,
    ) -> (Self, impl FnOnce() + Send + 'static) {
        let queue = RecordQueue::new(capacity);
        let shared = Arc::new(OutputState::default());
        let name = exporter.name().to_owned();
        let output = Self {
            has_readers: name != "none",
            name,
            queue: Arc::clone(&queue),
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
        lock(&self.shared.books).too_late.records > 0
    }

    /// Whether nobody reads its records any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    pub(crate) fn failure(&self) -> Option<OutputFailure> {
        lock(&self.shared.failure).clone()
    }

    pub(crate) fn figures(&self) -> QueueFigures {
        self.queue.figures()
    }

    pub(crate) fn book(&self) -> OutputBook {
        lock(&self.shared.books).book()
    }
}

impl Books {
    fn book(&self) -> OutputBook {
        // Handed and not refused: in the queue, or in the exporter without receipt yet.
        let mut queued = minus(minus(self.handed, self.queue_full), self.too_late);
        queued = minus(queued, self.settled());
        let crashed = if self.crashed { std::mem::take(&mut queued) } else { Amount::default() };
        let mut dropped = self.receipt.dropped.clone();
        let reasons =
            [("queue_full", self.queue_full), ("shutdown_timeout", self.too_late), ("crash", crashed)];
        for (reason, amount) in reasons {
            if amount != Amount::default() {
                *dropped.entry(reason).or_default() += amount;
            }
        }
        OutputBook { handed: self.handed, delivered: self.receipt.delivered, queued, dropped }
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
        let (mut ended, mut arrivals) = (0, Arrivals::default());
        while ended < self.producers {
            match consumer.next(Duration::from_millis(500)) {
                Some(Item::Records(batch)) => {
                    self.export(&batch);
                    if consumer.0.is_empty() {
                        self.flush();
                    }
                }
                Some(Item::Marker(_, marker)) if arrivals.is_last(&marker, self.producers) => {
                    self.mark(&marker);
                }
                Some(Item::Marker(..)) => {}
                Some(Item::End) => ended += 1,
                None => {}
            }
        }
        self.flush();
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
        let Err(failure) = result else { return };
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
        lock(&self.shared.failure).get_or_insert(failure);
    }

    /// The marker has come from every producer: the output's part is complete.
    fn mark(&mut self, marker: &Marker) {
        self.flush();
        let (name, book) = (self.exporter.name().to_owned(), lock(&self.shared.books).book());
        marker.add(|parts| parts.outputs.push((name, book)));
    }
}

/// Hands records to every output.
pub(crate) struct FanOut {
    pub(crate) outputs: Vec<Output>,
    /// Whether a full output is waited for.
    waits: AtomicBool,
}

impl FanOut {
    pub(crate) fn new(outputs: Vec<Output>, waits: bool) -> Self {
        Self { outputs, waits: AtomicBool::new(waits) }
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

    pub(crate) fn release(&self, records: Vec<FlowRecord>) {
        let (carried, wait) = (amount(&records), self.waits.load(Ordering::Acquire));
        let batch = Arc::new(records);
        for output in &self.outputs {
            output.hand(&batch, carried, wait);
        }
    }

    pub(crate) fn mark(&self, producer: usize, marker: &Marker) {
        for output in &self.outputs {
            output.queue.mark(producer, Arc::clone(marker));
        }
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
