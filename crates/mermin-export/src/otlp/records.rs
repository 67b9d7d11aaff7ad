//! The outputs `otlp:traces` and `otlp:logs`: each record an item of a request.

use super::batch::{Batch, OpenBatch, Parcel};
use super::config::OtlpConfig;
use super::encode::{Encode, Envelope};
use super::now;
use super::pace::Pace;
use super::sender::{News, Sender, Verdict};
use super::transport::Transport;
use mermin_flow::{Amount, Delivery, Exporter, Failure, FlowRecord, QUARANTINE, Receipt};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Reasons in `dropped` of the book.
pub(super) const REJECTED: &str = "rejected";
pub(super) const REFUSED: &str = "refused";
pub(super) const TOO_LARGE: &str = "too_large";
pub(super) const TOO_LATE: &str = "shutdown_timeout";

/// How long a call that finds nothing to do lets requests get on.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// Sends records.
pub(super) struct Records<E> {
    name: String,
    encoder: E,
    open: OpenBatch,
    /// When the open batch got its first record.
    opened: Instant,
    /// The longest record so far, which the next one may be as long as.
    longest: usize,
    delay: Duration,
    pace: Pace,
    sender: Sender<Batch>,
    /// Without a receipt.
    held: Amount,
    in_order: InOrder,
}

/// How many records are settled without a gap, though requests are answered in any order.
#[derive(Default)]
struct InOrder {
    settled: u64,
    /// Settled records behind the first gap: where they begin and end.
    ahead: BTreeMap<u64, u64>,
}

impl InOrder {
    fn settle(&mut self, records: Range<u64>) {
        self.ahead.insert(records.start, records.end);
        while let Some(end) = self.ahead.remove(&self.settled) {
            self.settled = end;
        }
    }
}

impl<E: Encode> Records<E> {
    pub(super) fn new(
        name: String,
        encoder: E,
        config: &OtlpConfig,
        transport: Transport,
        envelope: Envelope,
    ) -> io::Result<Self> {
        let sender = Sender::new(&name, transport, envelope, config.requests_in_flight.get())?;
        Ok(Self {
            name,
            encoder,
            open: OpenBatch::default(),
            opened: Instant::now(),
            longest: 0,
            delay: config.batch.delay.0,
            pace: Pace::new(&config.batch),
            sender,
            held: Amount::default(),
            in_order: InOrder::default(),
        })
    }

    fn push(&mut self, record: &FlowRecord, receipt: &mut Receipt) -> Result<(), Failure> {
        let amount = Amount::of(record);
        if self.open.is_empty() {
            self.opened = Instant::now();
            self.encoder.begin(now());
        }
        let before = self.open.bytes();
        self.open.push(amount, |out| self.encoder.push(record, out));
        self.held += amount;
        self.longest = self.longest.max(self.open.bytes() - before);
        if self.pace.is_full(self.open.len(), self.open.bytes(), self.longest) {
            self.dispatch();
            // What has become of earlier requests decides how large the next one is.
            return self.settle(receipt);
        }
        Ok(())
    }

    fn dispatch(&mut self) {
        if !self.open.is_empty() {
            let batch = self.open.close();
            self.sender.send(batch);
        }
    }

    fn is_due(&self) -> bool {
        !self.open.is_empty() && self.opened.elapsed() >= self.delay
    }

    /// Puts into the receipt what has been settled; when time is up, everything.
    fn settle(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        let mut result = Ok(());
        for news in self.sender.news() {
            match news {
                News::Split { items, bytes } => self.pace.too_large(items, bytes),
                News::Settled(batch, verdict) => {
                    if let Verdict::Accepted { after, .. } = &verdict {
                        self.pace.taken(batch.items(), *after);
                    }
                    self.held = minus(self.held, batch.amount());
                    self.in_order.settle(batch.numbers());
                    result = result.and(book(&batch, verdict, receipt));
                    self.open.recycle(batch);
                }
            }
        }
        if self.sender.is_interrupted() {
            self.open = OpenBatch::default();
            let held = std::mem::take(&mut self.held);
            if held != Amount::default() {
                *receipt.dropped.entry(TOO_LATE).or_default() += held;
            }
        }
        result
    }
}

/// `a` without `b`, which it holds.
pub(super) const fn minus(a: Amount, b: Amount) -> Amount {
    Amount { records: a.records - b.records, packets: a.packets - b.packets, bytes: a.bytes - b.bytes }
}

/// Where the records of a settled batch stand in the book.
fn book(batch: &Batch, verdict: Verdict, receipt: &mut Receipt) -> Result<(), Failure> {
    let amount = batch.amount();
    let (reason, why) = match verdict {
        Verdict::Accepted { rejected: 0, .. } => {
            receipt.delivered += amount;
            return Ok(());
        }
        Verdict::Accepted { rejected, why, .. } => {
            let rejected = rejected.min(amount.records);
            let dropped = receipt.dropped.entry(REJECTED).or_default();
            *dropped += Amount { records: rejected, ..amount };
            if rejected < amount.records {
                // Which ones they are the collector doesn't say.
                receipt.delivered += Amount { records: amount.records - rejected, packets: 0, bytes: 0 };
                receipt.inexact.extend([
                    "delivered.packets",
                    "delivered.bytes",
                    "dropped.rejected.packets",
                    "dropped.rejected.bytes",
                ]);
            }
            (REJECTED, format!("the collector rejects {rejected} of {} records: {why}", amount.records))
        }
        Verdict::Refused { why } => {
            *receipt.dropped.entry(REFUSED).or_default() += amount;
            (REFUSED, format!("the collector refuses a request: {why}"))
        }
        Verdict::Panicked { why } => {
            *receipt.dropped.entry(QUARANTINE).or_default() += amount;
            (QUARANTINE, format!("sending a request has panicked, a bug: {why}"))
        }
        Verdict::TooLarge { why } => {
            *receipt.dropped.entry(TOO_LARGE).or_default() += amount;
            (TOO_LARGE, format!("a single record is too large for the collector: {why}"))
        }
    };
    Err(Failure { reason, closed: false, error: io::Error::other(why) })
}

impl<E: Encode> Exporter for Records<E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        let mut result = Ok(());
        for record in records {
            result = result.and(self.push(record, receipt));
        }
        if self.is_due() {
            self.dispatch();
        }
        result.and(self.settle(receipt))
    }

    fn flush(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        self.dispatch();
        self.sender.wait_for(0, None);
        self.settle(receipt)
    }

    fn idle(&mut self, receipt: &mut Receipt) -> Result<Option<Duration>, Failure> {
        if self.is_due() {
            self.dispatch();
        }
        if self.sender.is_idle() {
            // The collector may have closed the connection.
            self.sender.turn();
        } else {
            // Until one is answered.
            let left = self.sender.under_way() - 1;
            self.sender.wait_for(left, Some(PATIENCE));
        }
        self.settle(receipt)?;
        let until_due = (!self.open.is_empty()).then(|| self.delay.saturating_sub(self.opened.elapsed()));
        Ok(if self.sender.is_idle() { until_due } else { Some(Duration::ZERO) })
    }

    fn after_panic(&mut self) -> Option<u64> {
        self.open.tidy();
        Some(self.held.records)
    }

    fn quarantine(&mut self, record: &FlowRecord, receipt: &mut Receipt) -> Result<(), Failure> {
        self.dispatch();
        let number = self.open.skip();
        self.in_order.settle(number);
        *receipt.dropped.entry(QUARANTINE).or_default() += Amount::of(record);
        self.settle(receipt)
    }

    fn drop_reasons(&self) -> &'static [&'static str] {
        &[REJECTED, REFUSED, TOO_LARGE, TOO_LATE]
    }

    fn passing_reasons(&self) -> &'static [&'static str] {
        &[TOO_LATE]
    }

    fn settled_in_order(&self) -> Option<u64> {
        Some(self.in_order.settled)
    }

    fn interrupter(&self) -> Option<Arc<AtomicBool>> {
        Some(self.sender.interrupter())
    }

    fn delivery(&self) -> Option<Arc<Delivery>> {
        Some(Arc::clone(self.sender.transport().delivery()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::settings::Settings;
    use crate::otlp::{Environment, OtlpSignal};
    use crate::sample;
    use opentelemetry_proto::tonic::resource::v1::Resource;

    /// A byte for each record; panics behind that of the one with sequence 3.
    struct Bug;

    impl Encode for Bug {
        fn begin(&mut self, _: u64) {}

        fn push(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
            out.push(record.sequence as u8);
            assert_ne!(record.sequence, 3, "this panic is the test's");
        }
    }

    #[test]
    fn a_record_that_it_panics_at_leaves_no_trace_and_has_its_place_in_order() {
        let (config, environment) = (OtlpConfig::default(), Environment::default());
        let settings = Settings::of(OtlpSignal::Traces, &config, &environment).unwrap();
        let transport = Transport::new("test".to_owned(), settings, Arc::default()).unwrap();
        let envelope = Envelope::new(&Resource::default());
        let mut output = Records::new("test".to_owned(), Bug, &config, transport, envelope).unwrap();
        let numbered = |sequence| FlowRecord { sequence, ..sample::udp() };
        let records: Vec<_> = (1..6).map(numbered).collect();
        let mut receipt = Receipt::default();
        let call = std::panic::AssertUnwindSafe(|| output.export(&records, &mut receipt));
        assert!(std::panic::catch_unwind(call).is_err());
        assert_eq!((output.after_panic(), &receipt), (Some(2), &Receipt::default()));
        assert_eq!(output.open.bytes(), 2, "of the third nothing is left");
        // Nobody listens there: what is dispatched stays under way.
        output.quarantine(&records[2], &mut receipt).unwrap();
        assert_eq!(receipt.dropped[QUARANTINE], Amount::of(&records[2]));
        assert_eq!((output.sender.under_way(), output.in_order.settled), (1, 0));
        assert_eq!(output.in_order.ahead.iter().collect::<Vec<_>>(), [(&2, &3)]);
        output.export(&records[3..], &mut receipt).unwrap();
        output.interrupter().unwrap().store(true, std::sync::atomic::Ordering::Release);
        output.flush(&mut receipt).unwrap();
        assert_eq!(receipt.dropped[TOO_LATE].records, 4);
    }

    #[test]
    fn what_is_settled_behind_a_gap_counts_when_the_gap_is_closed() {
        let mut in_order = InOrder::default();
        let mut after = |records| {
            in_order.settle(records);
            in_order.settled
        };
        assert_eq!([after(4..8), after(10..12), after(0..2), after(2..4), after(8..10)], [0, 0, 2, 8, 12]);
        assert!(in_order.ahead.is_empty());
    }
}
