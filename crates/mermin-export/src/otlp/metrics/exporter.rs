//! Collects at its interval, one collection under way at a time.

use super::aggregate::Aggregate;
use super::points::Points;
use crate::otlp::Since;
use crate::otlp::batch::Parcel;
use crate::otlp::config::{OtlpConfig, OtlpTemporality};
use crate::otlp::encode::Envelope;
use crate::otlp::records::{PATIENCE, REFUSED, REJECTED, TOO_LARGE, TOO_LATE, minus};
use crate::otlp::sender::{News, Sender, Verdict};
use crate::otlp::settings::Sums;
use crate::otlp::transport::Transport;
use mermin_flow::{Amount, Delivery, Exporter, Failure, FlowRecord, QUARANTINE, Receipt};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tracing::warn;

/// A refusal that lasts is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Sends sums.
pub(crate) struct Metrics {
    name: String,
    aggregate: Aggregate,
    sender: Sender<Points>,
    sums: Sums,
    /// When the next collection is due.
    next: Instant,
    /// Where the present sums begin.
    since: Since,
    /// Of a request, at most.
    bytes: usize,
    /// Without a receipt.
    held: Amount,
    /// Of those, not in a request under way.
    pending: Amount,
    /// The run ends: what is refused now is not said again.
    ends: bool,
    said: Option<Instant>,
}

impl Metrics {
    pub(crate) fn new(
        name: String,
        aggregate: Aggregate,
        config: &OtlpConfig,
        sums: Sums,
        transport: Transport,
        envelope: Envelope,
    ) -> io::Result<Self> {
        let sender = Sender::new(&name, transport, envelope, config.requests_in_flight.get())?;
        Ok(Self {
            name,
            aggregate,
            sender,
            sums,
            next: Instant::now() + sums.interval,
            since: Since::now(),
            bytes: usize::try_from(config.batch.bytes.0).unwrap_or(usize::MAX),
            held: Amount::default(),
            pending: Amount::default(),
            ends: false,
            said: None,
        })
    }

    /// Sends the sums as they are.
    fn collect(&mut self) {
        self.next = Instant::now() + self.sums.interval;
        let points = self.aggregate.collect();
        self.pending = Amount::default();
        let temporality = self.sums.temporality;
        let window = self.since.window();
        if temporality == OtlpTemporality::Delta {
            self.since = Since { began: Instant::now(), shown: window.1 };
        }
        for part in (Points { points, window, temporality }).in_parts(self.bytes) {
            self.sender.send(part);
        }
    }

    fn collect_if_due(&mut self) {
        if Instant::now() < self.next || !self.sender.is_idle() {
            return;
        }
        if self.aggregate.is_empty() {
            // Nothing to say at this time; without a next one there would be no end of asking.
            self.next = Instant::now() + self.sums.interval;
        } else {
            self.collect();
        }
    }

    fn settle(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        let mut result = Ok(());
        for news in self.sender.news() {
            if let News::Settled(points, verdict) = news {
                result = result.and(self.book(&points, verdict, receipt));
            }
        }
        if self.sender.is_interrupted() {
            let held = std::mem::take(&mut self.held);
            if held != Amount::default() {
                *receipt.dropped.entry(TOO_LATE).or_default() += held;
            }
        }
        result
    }

    fn book(&mut self, points: &Points, verdict: Verdict, receipt: &mut Receipt) -> Result<(), Failure> {
        let amount = points.amount();
        let (reason, why) = match verdict {
            Verdict::Accepted { rejected: 0, .. } => {
                receipt.delivered += amount;
                self.held = minus(self.held, amount);
                return Ok(());
            }
            Verdict::Accepted { rejected, why, .. } => {
                (REJECTED, format!("the collector rejects {rejected} points: {why}"))
            }
            Verdict::Refused { why } => (REFUSED, format!("the collector refuses sums: {why}")),
            Verdict::Panicked { why } => (QUARANTINE, format!("sending sums has panicked, a bug: {why}")),
            Verdict::TooLarge { why } => {
                (TOO_LARGE, format!("a single sum is too large for the collector: {why}"))
            }
        };
        let said_again = |aggregate: &mut Aggregate| {
            points.points.iter().map(|point| aggregate.give_back(point)).fold(false, |any, one| any | one)
        };
        if reason != REJECTED && !self.ends && said_again(&mut self.aggregate) {
            self.pending += amount;
            if self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                self.said = Some(Instant::now());
                warn!("{}: {why}; the next request says them again", self.name);
            }
            return Ok(());
        }
        self.held = minus(self.held, amount);
        *receipt.dropped.entry(reason).or_default() += amount;
        if reason == REJECTED {
            // Points are rejected, not records, and which ones the collector doesn't say: all may be.
            receipt.inexact.extend([
                "delivered.records",
                "delivered.packets",
                "delivered.bytes",
                "dropped.rejected.records",
                "dropped.rejected.packets",
                "dropped.rejected.bytes",
            ]);
        }
        Err(Failure { reason, closed: false, error: io::Error::other(why) })
    }
}

impl Exporter for Metrics {
    fn name(&self) -> &str {
        &self.name
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        for record in records {
            self.aggregate.add(record);
            self.held += Amount::of(record);
            self.pending += Amount::of(record);
        }
        self.sender.reap();
        self.collect_if_due();
        self.settle(receipt)
    }

    fn flush(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        self.sender.wait_for(0, None);
        let before = self.settle(receipt);
        self.ends = true;
        if self.pending != Amount::default() && !self.sender.is_interrupted() {
            self.collect();
            self.sender.wait_for(0, None);
        }
        before.and(self.settle(receipt))
    }

    /// Series are bounded, and a collection that fails is repeated with what came since.
    fn sums_up(&self) -> bool {
        true
    }

    fn idle(&mut self, receipt: &mut Receipt) -> Result<Option<Duration>, Failure> {
        self.collect_if_due();
        if self.sender.is_idle() {
            self.sender.turn();
        } else {
            let left = self.sender.under_way() - 1;
            self.sender.wait_for(left, Some(PATIENCE));
        }
        self.settle(receipt)?;
        let until_due = self.next.saturating_duration_since(Instant::now());
        Ok(if self.sender.is_idle() { Some(until_due) } else { Some(Duration::ZERO) })
    }

    fn after_panic(&mut self) -> Option<u64> {
        Some(self.held.records)
    }

    fn drop_reasons(&self) -> &'static [&'static str] {
        &[REJECTED, REFUSED, TOO_LARGE, TOO_LATE]
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

    #[test]
    fn sums_of_nothing_are_waited_for_without_a_spin() {
        let (config, environment) = (OtlpConfig::default(), Environment::default());
        let settings = Settings::of(OtlpSignal::Metrics, &config, &environment).unwrap();
        let transport = Transport::new("test".to_owned(), settings, Arc::default()).unwrap();
        let sums = Sums { temporality: OtlpTemporality::Cumulative, interval: Duration::from_secs(3_600) };
        let aggregate = Aggregate::new(&config.metrics, sums.temporality, sample::points()).unwrap();
        let envelope = Envelope::new(&Resource::default());
        let mut metrics =
            Metrics::new("test".to_owned(), aggregate, &config, sums, transport, envelope).unwrap();
        metrics.next = Instant::now();
        let wait = metrics.idle(&mut Receipt::default()).unwrap().unwrap();
        assert!(wait > Duration::from_secs(3_000), "due, and nothing to say: {wait:?}");
        assert!(metrics.sender.is_idle());
    }
}
