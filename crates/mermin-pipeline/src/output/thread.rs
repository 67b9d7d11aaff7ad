//! The thread of an output: from its queue to its exporter, and what the exporter says into the book.
//!
//! A panic of the exporter is contained where it can be called again: it says how many records it had taken, the one after
//! these is given to it again by itself, and given up (`quarantine`) if it panics at that, too. No other record is lost, none
//! is given to it twice.

use super::book::{Crash, OutputState, amount};
use super::breaker::Permit;
use super::guard::Outcome;
use super::intake::{Intake, Settled};
use super::queue::Item;
use super::{Batch, OutputFailure};
use crate::incidents::{Incidents, NOTHING_LOST, contained};
use crate::lock::lock;
use mermin_flow::{Amount, Delivery, Exporter, Failure, FlowRecord, QUARANTINE, Receipt, panic_message};
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// How long an output's thread sleeps when nothing comes and its exporter has nothing to see to.
const NAP: Duration = Duration::from_millis(500);
/// How long it sleeps at most while its output is let be: it has to hear of the end.
const REST: Duration = Duration::from_millis(100);

/// A call that brings no records.
const NOTHING: (usize, Amount) = (0, Amount { records: 0, packets: 0, bytes: 0 });

/// How soon an exporter that has dropped something is called again.
const SOON: Duration = Duration::from_millis(10);

/// A failure repeats with every batch; the log says it this often.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// The thread at work.
pub(super) struct OutputThread<I> {
    intake: I,
    exporter: Box<dyn Exporter>,
    shared: Arc<OutputState>,
    receipt: Receipt,
    last_warning: Option<Instant>,
    delivery: Option<Arc<Delivery>>,
    /// Attempts of the exporter that had failed after the last call.
    failures: u64,
    /// Records that the exporter was given and has taken.
    taken: u64,
    incidents: Incidents,
}

/// A panic that was contained.
struct Contained {
    message: String,
    /// Records that the exporter has taken in the call.
    took: u64,
}

impl<I: Intake> OutputThread<I> {
    pub(super) fn new(
        intake: I,
        exporter: Box<dyn Exporter>,
        shared: Arc<OutputState>,
        incidents: Incidents,
    ) -> Self {
        let delivery = exporter.delivery();
        Self {
            // Those of a predecessor are not its own.
            failures: delivery.as_ref().map_or(0, |delivery| delivery.failures.load(Ordering::Relaxed)),
            delivery,
            intake,
            exporter,
            shared,
            receipt: Receipt::default(),
            last_warning: None,
            taken: 0,
            incidents,
        }
    }

    pub(super) fn run(mut self) {
        let _crash = Crash(Arc::clone(&self.shared));
        let mut nap = NAP;
        loop {
            if let Some(rest) = self.rest() {
                std::thread::sleep(rest);
                continue;
            }
            match self.intake.next(nap) {
                Some(Item::Records(batch)) => self.export(&batch),
                None => {}
                Some(Item::End) => break,
            }
            nap = if self.intake.is_empty() { self.idle().unwrap_or(NAP) } else { NAP };
        }
        self.flush();
        self.intake.ended();
    }

    /// How long to take nothing from the queue, where the output is let be or what it was tried with is under way.
    fn rest(&mut self) -> Option<Duration> {
        if self.is_closed() || self.is_waited_for() || self.exporter.sums_up() {
            return None;
        }
        match self.shared.guard.permit(Instant::now()) {
            Permit::Free => None,
            Permit::Probe if !self.holds_records() => None,
            Permit::Probe => Some(self.idle().unwrap_or_default().min(REST)),
            Permit::Pause(left) => {
                // An exporter that sees to its receiver itself goes on with that: its attempts are probes, too.
                let again = if self.delivery.is_some() { self.idle() } else { None };
                Some(again.unwrap_or(REST).min(REST).min(left))
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
    }

    fn is_waited_for(&self) -> bool {
        self.shared.waits.load(Ordering::Acquire)
    }

    /// Whether the exporter has records without a receipt.
    fn holds_records(&self) -> bool {
        let books = lock(&self.shared.books);
        books.settled() != books.taken
    }

    /// Calls the exporter with `records` records, which carry so much, and notes what came of it.
    fn call<T>(
        &mut self,
        (records, carried): (usize, Amount),
        call: impl FnOnce(&mut dyn Exporter, &mut Receipt) -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>, Contained> {
        let delivered = self.receipt.delivered.records;
        self.shared.guard.begin(Instant::now());
        let (exporter, receipt) = (&mut *self.exporter, &mut self.receipt);
        let result = contained(|| call(exporter, receipt));
        let took = match &result {
            Ok(_) => records as u64,
            Err(payload) => self.after_panic(records as u64, &panic_message(&**payload)),
        };
        self.taken += took;
        self.publish(carried);
        let mut outcome =
            Outcome { delivered: self.receipt.delivered.records > delivered, ..Outcome::default() };
        if let Some(delivery) = &self.delivery {
            let failures = delivery.failures.load(Ordering::Relaxed);
            let more = failures - std::mem::replace(&mut self.failures, failures);
            outcome.failures = u32::try_from(more).unwrap_or(u32::MAX);
            outcome.answer = delivery.latest();
            outcome.error = delivery.condition().1;
        }
        let result = result.map_err(|payload| Contained { message: panic_message(&*payload), took });
        let error = match &result {
            Ok(Err(failure)) if !failure.closed => Some(failure.error.to_string()),
            Err(contained) => Some(format!("it has panicked: {}", contained.message)),
            Ok(_) => None,
        };
        if error.is_some() {
            outcome.failures = outcome.failures.max(1);
            outcome.error = error;
        }
        self.shared.guard.end(Instant::now(), outcome);
        result
    }

    /// A call with so many records has panicked. How many of them the exporter has taken.
    fn after_panic(&mut self, records: u64, message: &str) -> u64 {
        let exporter = &mut self.exporter;
        match contained(|| exporter.after_panic()) {
            Ok(Some(held)) => (self.settled() + held).saturating_sub(self.taken).min(records),
            Ok(None) | Err(_) => self.die(message),
        }
    }

    /// Ends the thread. A panic that goes on after it was contained tells nobody of itself.
    fn die(&mut self, message: &str) -> ! {
        self.incidents.note(message, || "it can't go on".to_owned());
        resume_unwind(Box::new(message.to_owned()))
    }

    /// Records that have a receipt.
    fn settled(&self) -> u64 {
        let dropped: u64 = self.receipt.dropped.values().map(|dropped| dropped.records).sum();
        self.receipt.delivered.records + dropped
    }

    /// Nothing waits: the exporter may see to what it holds. How soon it wants to be called again.
    fn idle(&mut self) -> Option<Duration> {
        if self.is_closed() {
            return None;
        }
        match self.call(NOTHING, |exporter, receipt| exporter.idle(receipt)) {
            Ok(Ok(again)) => {
                self.note(Ok(()));
                again
            }
            Ok(Err(failure)) => {
                self.note(Err(failure));
                // What was dropped is one thing; the exporter may hold more that is under way.
                Some(SOON)
            }
            Err(contained) => {
                self.incidents.note(&contained.message, || NOTHING_LOST.to_owned());
                Some(SOON)
            }
        }
    }

    fn export(&mut self, batch: &Batch) {
        let carried = amount(batch);
        if self.is_closed() {
            *self.receipt.dropped.entry("closed").or_default() += carried;
            self.taken += carried.records;
            return self.publish(carried);
        }
        let (mut rest, mut carried) = (0..batch.len(), Some(carried));
        // The first of the rest is one that it has panicked at.
        let mut suspects = false;
        while !rest.is_empty() {
            let part = if suspects { rest.start..rest.start + 1 } else { rest.clone() };
            match self.give(batch, part.clone(), carried.take().unwrap_or_default()) {
                Ok(result) => {
                    self.note(result);
                    rest.start = part.end;
                    suspects = false;
                }
                Err(Contained { message, took: 0 }) if suspects => {
                    let record = &batch[rest.start];
                    self.quarantine(record);
                    let consequence = || {
                        format!(
                            "record {} of flow {} can't be exported and stands in dropped.{QUARANTINE}",
                            record.sequence, record.community_id
                        )
                    };
                    self.incidents.note(&message, consequence);
                    rest.start += 1;
                    suspects = false;
                }
                Err(Contained { message, took }) => {
                    self.incidents.note(&message, || NOTHING_LOST.to_owned());
                    rest.start += took as usize;
                    suspects = !suspects;
                }
            }
        }
    }

    /// Gives the exporter a part of a batch, whose whole carries so much.
    fn give(
        &mut self,
        batch: &[FlowRecord],
        part: Range<usize>,
        carried: Amount,
    ) -> Result<Result<(), Failure>, Contained> {
        let call = |exporter: &mut dyn Exporter, receipt: &mut Receipt| {
            exporter.export(batch.get(part.clone()).unwrap_or_default(), receipt)
        };
        self.call((part.len(), carried), call)
    }

    fn quarantine(&mut self, record: &FlowRecord) {
        let result =
            self.call((1, Amount::default()), |exporter, receipt| exporter.quarantine(record, receipt));
        match result {
            Ok(result) => self.note(result),
            Err(Contained { took: 0, .. }) => {
                // Not even that.
                *self.receipt.dropped.entry(QUARANTINE).or_default() += Amount::of(record);
                self.taken += 1;
                self.publish(Amount::default());
            }
            Err(_) => {}
        }
    }

    fn flush(&mut self) {
        if self.is_closed() {
            return;
        }
        for last in [false, true] {
            match self.call(NOTHING, |exporter, receipt| exporter.flush(receipt)) {
                Ok(result) => {
                    self.note(result);
                    break;
                }
                // What it holds can't be had.
                Err(Contained { message, .. }) if last => self.die(&message),
                Err(Contained { message, .. }) => self.incidents.note(&message, || NOTHING_LOST.to_owned()),
            }
        }
        let books = lock(&self.shared.books);
        debug_assert_eq!(books.settled(), books.taken, "an exporter holds nothing after a flush");
    }

    fn publish(&mut self, taken: Amount) {
        let mut books = lock(&self.shared.books);
        books.taken += taken;
        books.receipt.clone_from(&self.receipt);
        let settled = books.settled().records;
        drop(books);
        let passing = self.exporter.passing_reasons().iter();
        let given_up = passing.filter_map(|reason| self.receipt.dropped.get(reason));
        let given_up = given_up.map(|amount| amount.records).sum();
        self.intake.settled(Settled { settled, given_up, in_order: self.exporter.settled_in_order() });
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
        let again = I::KEEPS && self.exporter.passing_reasons().contains(&failure.reason);
        let failure = OutputFailure {
            output: name.to_owned(),
            reason: failure.reason,
            error: failure.error.to_string(),
        };
        if self.last_warning.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            self.last_warning = Some(Instant::now());
            let dropped = self.receipt.dropped.get(failure.reason).map_or(0, |amount| amount.records);
            if again {
                warn!("Output {name}: {}; its records are on disk and tried again", failure.error);
            } else {
                warn!("Output {name} lost records: {} ({dropped} records dropped so far)", failure.error);
            }
        }
        *lock(&self.shared.failing) = Some((failure.error.clone(), delivered));
        if again {
            return;
        }
        lock(&self.shared.failure).get_or_insert(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Output, Treatment};
    use super::*;
    use crate::log_lines::lines_of;
    use crate::testing::record;
    use mermin_flow::FlowEvent;
    use tracing::Level;

    struct Broken;

    impl Exporter for Broken {
        fn name(&self) -> &str {
            "broken"
        }

        fn export(&mut self, _: &[FlowRecord], _: &mut Receipt) -> Result<(), Failure> {
            panic!("this panic is the test's")
        }

        fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
            Ok(())
        }
    }

    #[test]
    fn why_a_thread_ends_is_in_the_log() {
        let (output, mut works) = Output::new(Box::new(Broken), None, &Treatment::with_room_for(10), None);
        let batch = Arc::new(vec![record(1, FlowEvent::End)]);
        output.hand(&batch, amount(&batch), true);
        let (_, work) = works.remove(0);
        let lines = lines_of(Level::ERROR, || assert!(contained(work).is_err()));
        assert_eq!(lines, ["Output broken panicked: this panic is the test's; it can't go on"]);
        assert_eq!(output.own_book().dropped["crash"].records, 1);
    }
}
