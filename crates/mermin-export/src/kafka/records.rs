//! The output `kafka`: each record a message.

mod giving_up;
mod news;
mod renewal;
mod successor;
#[cfg(test)]
mod tests;
mod times;

use super::client::{Client, Handed, Parcel};
use super::config::KafkaConfig;
use super::encode::Encoder;
use super::headers::Headers;
use super::refusal::{NO_ACCESS, NO_TOPIC, REFUSED, TOO_LARGE, TOO_LATE};
use super::window::{PLACES_MAX, Window};
use crate::error::ExportError;
use crate::secure::Watched;
use crate::trouble::Trouble;
use giving_up::Refusal;
use mermin_flow::{Amount, Delivery, Exporter, Failure, FlowRecord, ObservationPoints, QUARANTINE, Receipt};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use successor::{Successor, files};
use times::message_time;

/// How long a wait lasts until it is looked again what has come.
const STEP: Duration = Duration::from_millis(2);

/// How long it may take until it is looked what has become of messages, where nothing waits for that.
const PATIENCE: Duration = Duration::from_millis(10);

/// How long brokers may refuse the agent, or say that there is no topic, before records are given up. It may pass:
/// credentials are rolled out one after the other, topics are made beside agents.
pub(super) const REFUSAL_PATIENCE: Duration = Duration::from_secs(30);

/// Records that are held for so long without news: it is looked whether there is a topic at all.
const SILENCE: Duration = Duration::from_secs(2);

/// Sends records.
pub(super) struct Records {
    config: KafkaConfig,
    encoder: Encoder,
    headers: Headers,
    files: Watched,
    /// When it was last looked whether they have changed.
    looked: Instant,
    client: Client,
    successor: Option<Successor>,
    delivery: Arc<Delivery>,
    interrupted: Arc<AtomicBool>,
    window: Window,
    /// Batches of more bytes were too large for the topic.
    batch_bytes: u64,
    /// Messages to be sent again.
    again: Vec<Parcel>,
    /// In smaller batches.
    shrinks: bool,
    /// A number was given that no message carries yet.
    unsent: Option<u64>,
    trouble: Trouble,
    refused: Option<Refusal>,
    /// When something was heard of a record, or none was held.
    heard: Instant,
    is_well: bool,
    /// Clients in a row that could not go on.
    broken: u32,
    /// Records that are dropped where a batch has one whose time is refused.
    suspects: usize,
    /// Records that had come to an end when messages were last sent again.
    settled: u64,
    patience: Duration,
}

impl Records {
    pub(super) fn new(
        config: KafkaConfig,
        points: &Arc<ObservationPoints>,
        headers: Headers,
        patience: Duration,
    ) -> Result<Self, ExportError> {
        let delivery = Arc::new(Delivery::default());
        let batch_bytes = config.batch.bytes.0;
        let files = Watched::new(files(&config));
        let client =
            Client::new(&config, batch_bytes, patience, &delivery).map_err(|error| ExportError::Setting {
                place: "export.kafka".to_owned(),
                what: format!("librdkafka does not take the settings: {error}"),
                help: "see whether the files of export.kafka.tls hold what they should".to_owned(),
            })?;
        Ok(Self {
            encoder: Encoder::new(config.encoding, Arc::clone(points)),
            headers,
            files,
            looked: Instant::now(),
            config,
            client,
            successor: None,
            delivery,
            interrupted: Arc::default(),
            window: Window::new(PLACES_MAX),
            batch_bytes,
            again: Vec::new(),
            shrinks: false,
            unsent: None,
            trouble: Trouble::default(),
            refused: None,
            heard: Instant::now(),
            is_well: false,
            broken: 0,
            suspects: 1,
            settled: 0,
            patience,
        })
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Hands a record over, when there is room.
    fn push(&mut self, record: &FlowRecord, receipt: &mut Receipt) -> Result<(), Failure> {
        let amount = Amount::of(record);
        let mut result = Ok(());
        // What is delivered behind a partition that takes nothing keeps its place.
        // And what is under way arrives before another client begins.
        while (self.window.is_full() || self.successor.is_some()) && !self.is_interrupted() {
            result = result.and(self.wait(STEP, receipt));
        }
        if self.is_interrupted() {
            let number = self.window.push(amount, 0);
            self.window.settle(number);
            return result.and(drop_as(TOO_LATE, amount, "out of time".to_owned(), receipt));
        }
        let time = message_time(record.end_shown());
        let key = record.community_id.text();
        if self.window.is_empty() {
            self.heard = Instant::now();
        }
        self.encoder.value(record);
        let number = self.window.push(amount, time);
        self.unsent = Some(number);
        loop {
            result = result.and(self.judge(receipt));
            // Given up, with all that is held.
            if self.window.is_empty() {
                break;
            }
            // What came before goes before.
            if !self.again.is_empty() {
                result = result.and(self.wait(STEP, receipt));
                continue;
            }
            let message = (&key[..], self.encoder.written(), time);
            match self.client.send(number, message, self.headers.of_message()) {
                Handed::Taken => break,
                Handed::TooLarge => {
                    let bytes = self.encoder.written().len();
                    let why = format!("a record of {bytes} bytes is more than export.kafka.message_bytes");
                    self.window.settle(number);
                    result = result.and(drop_as(TOO_LARGE, amount, why, receipt));
                    break;
                }
                Handed::Full => result = result.and(self.wait(STEP, receipt)),
                Handed::Refused(reason, code) => {
                    self.window.settle(number);
                    let why = self.words(reason, &code.to_string());
                    result = result.and(drop_as(reason, amount, why, receipt));
                    break;
                }
                Handed::Denied(code) if self.denied(code) => result = result.and(self.send_again(receipt)),
                Handed::Denied(_) | Handed::Broken => result = result.and(self.renew(receipt)),
            }
        }
        self.unsent = None;
        result
    }

    /// Lets messages get on, and notes what has become of them.
    fn wait(&mut self, at_most: Duration, receipt: &mut Receipt) -> Result<(), Failure> {
        let told = self.client.poll(at_most);
        let mut result = self.note(told, receipt);
        if !self.again.is_empty() {
            result = result.and(self.send_again(receipt));
        }
        self.follow_files();
        if self.is_successor_due() {
            result = result.and(self.renew(receipt));
        }
        if self.window.is_empty() {
            self.heard = Instant::now();
        } else if self.heard.elapsed() >= SILENCE {
            self.ask_for_topic();
        }
        result.and(self.judge(receipt))
    }
}

fn failure(reason: &'static str, why: String) -> Failure {
    Failure { reason, closed: false, error: io::Error::other(why) }
}

fn drop_as(reason: &'static str, amount: Amount, why: String, receipt: &mut Receipt) -> Result<(), Failure> {
    *receipt.dropped.entry(reason).or_default() += amount;
    if reason == TOO_LATE {
        // That time was up says whoever set it.
        return Ok(());
    }
    Err(failure(reason, why))
}

impl Exporter for Records {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        let mut result = Ok(());
        self.headers.refresh();
        for record in records {
            result = result.and(self.push(record, receipt));
        }
        result.and(self.wait(Duration::ZERO, receipt))
    }

    fn flush(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        let mut result = Ok(());
        while !self.window.is_empty() {
            // What waits for a batch has `batch.delay` for that, here too.
            result = result.and(self.wait(PATIENCE, receipt));
        }
        result
    }

    fn idle(&mut self, receipt: &mut Receipt) -> Result<Option<Duration>, Failure> {
        // Also when nothing is held: what the client tells waits in its memory.
        self.wait(Duration::ZERO, receipt)?;
        Ok((!self.window.is_empty()).then_some(PATIENCE))
    }

    fn after_panic(&mut self) -> Option<u64> {
        if let Some(number) = self.unsent.take() {
            self.window.forget(number);
        }
        Some(self.window.held().records)
    }

    fn quarantine(&mut self, record: &FlowRecord, receipt: &mut Receipt) -> Result<(), Failure> {
        let amount = Amount::of(record);
        let number = self.window.push(amount, 0);
        self.window.settle(number);
        *receipt.dropped.entry(QUARANTINE).or_default() += amount;
        self.wait(Duration::ZERO, receipt)
    }

    fn drop_reasons(&self) -> &'static [&'static str] {
        &[NO_ACCESS, NO_TOPIC, REFUSED, TOO_LARGE, TOO_LATE]
    }

    fn passing_reasons(&self) -> &'static [&'static str] {
        &[NO_ACCESS, NO_TOPIC, TOO_LATE]
    }

    fn settled_in_order(&self) -> Option<u64> {
        Some(self.window.settled_in_order())
    }

    fn interrupter(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.interrupted))
    }

    fn delivery(&self) -> Option<Arc<Delivery>> {
        Some(Arc::clone(&self.delivery))
    }
}
