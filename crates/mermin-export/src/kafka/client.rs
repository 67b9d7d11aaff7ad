//! librdkafka's producer, and what it tells.
//!
//! It has threads of its own, which talk to the brokers; what they find out waits in a queue until [`Client::poll`] takes it,
//! on the output's thread. So nothing here is called from another thread.

use super::config::KafkaConfig;
use super::refusal::{Fate, NO_TOPIC, Obstacle};
use super::settings::client_config;
use mermin_flow::Delivery;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::debug;

/// A message that is not delivered yet. Its time doesn't come back with it.
#[derive(Debug)]
pub(super) struct Parcel {
    /// Of the record.
    pub(super) number: u64,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Report {
    Delivered(u64),
    Dropped {
        number: u64,
        reason: &'static str,
        why: String,
    },
    /// The batch was too large for the topic.
    TooLarge(Parcel),
    /// A record of its batch has a time that the broker does not take.
    Untimely(Parcel),
    /// Whether the brokers have it is not known, or they don't.
    Back(Parcel),
}

/// What was told since it was last looked.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) reports: Vec<Report>,
    pub(super) obstacle: Option<Obstacle>,
    /// The producer can't go on.
    pub(super) fatal: bool,
}

impl Told {
    fn is_nothing(&self) -> bool {
        self.reports.is_empty() && self.obstacle.is_none() && !self.fatal
    }
}

/// What is heard of in vain: rdkafka 0.39 tells of each error twice, in one call.
#[derive(Debug, Default)]
struct Echo(Option<(Code, String)>);

impl Echo {
    /// Whether this is the second of two.
    fn is(&mut self, code: Code, reason: &str) -> bool {
        let before = self.0.take().is_some_and(|before| before == (code, reason.to_owned()));
        if !before {
            self.0 = Some((code, reason.to_owned()));
        }
        before
    }
}

/// Hears what librdkafka tells.
pub(super) struct Ear {
    told: Mutex<Told>,
    delivery: Arc<Delivery>,
    before: Mutex<Totals>,
    echo: Mutex<Echo>,
}

/// Cumulative counts of a client.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    requests: u64,
    retries: u64,
    bytes: u64,
    connections: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Ear {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes as an error, too, and is said once a minute there.
        debug!("librdkafka: {facility} {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        if lock(&self.echo).is(code, reason) {
            return;
        }
        debug!("librdkafka: {code:?}: {reason}");
        let mut told = lock(&self.told);
        told.fatal |= code == Code::Fatal;
        if let Some(obstacle) = Obstacle::of(code, reason) {
            self.delivery.failures.fetch_add(1, Relaxed);
            // That all are away says less than why one is.
            if !matches!((&told.obstacle, &obstacle), (Some(_), Obstacle::AllDown(_))) {
                told.obstacle = Some(obstacle);
            }
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice(statistics) {
            Ok(statistics) => self.count(&statistics),
            Err(error) => debug!("librdkafka: statistics: {error}"),
        }
    }
}

impl Ear {
    /// That messages come back because something is not allowed, said once for all of them.
    fn hear_denial(&self, code: Code) {
        let Some(obstacle) = Obstacle::of_message(code) else { return };
        let mut told = lock(&self.told);
        if told.obstacle.as_ref() != Some(&obstacle) {
            self.delivery.failures.fetch_add(1, Relaxed);
            told.obstacle = Some(obstacle);
        }
    }

    /// How requests go. A broker's answers of a second count as one, with their mean time.
    fn count(&self, statistics: &Statistics) {
        let brokers = || statistics.brokers.values();
        let sum = |of: fn(&rdkafka::statistics::Broker) -> u64| brokers().map(of).sum::<u64>();
        let now = Totals {
            requests: sum(|broker| broker.tx),
            retries: sum(|broker| broker.txretries),
            bytes: sum(|broker| broker.txbytes),
            connections: sum(|broker| {
                let connects = broker.connects.unwrap_or_default() - broker.disconnects.unwrap_or_default();
                // Those that are there: attempts that failed are connects and disconnects, too.
                u64::try_from(connects).unwrap_or_default()
            }),
        };
        let mut before = lock(&self.before);
        let add = |count: &std::sync::atomic::AtomicU64, now: u64, before: u64| {
            count.fetch_add(now.saturating_sub(before), Relaxed);
        };
        add(&self.delivery.requests, now.requests, before.requests);
        add(&self.delivery.retries, now.retries, before.retries);
        add(&self.delivery.bytes, now.bytes, before.bytes);
        add(&self.delivery.connections, now.connections, before.connections);
        *before = Totals { connections: before.connections.max(now.connections), ..now };
        let waiting: i64 = brokers().map(|broker| broker.waitresp_cnt.max(0)).sum();
        self.delivery.in_flight.store(waiting.unsigned_abs(), Relaxed);
        for rtt in brokers().filter_map(|broker| broker.rtt.as_ref()).filter(|rtt| rtt.cnt > 0) {
            self.delivery.answered(Duration::from_micros(rtt.avg.unsigned_abs()));
        }
    }
}

impl ProducerContext for Ear {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let number = number as u64;
        let report = match result {
            Ok(_) => Report::Delivered(number),
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                let parcel = || Parcel {
                    number,
                    key: message.key().unwrap_or_default().to_vec(),
                    value: message.payload().unwrap_or_default().to_vec(),
                };
                match Fate::of(code) {
                    Fate::Dropped(reason) => Report::Dropped { number, reason, why: code.to_string() },
                    Fate::Untimely => Report::Untimely(parcel()),
                    Fate::BatchTooLarge => Report::TooLarge(parcel()),
                    Fate::Back => {
                        self.hear_denial(code);
                        Report::Back(parcel())
                    }
                }
            }
        };
        lock(&self.told).reports.push(report);
    }
}

/// What came of handing a message over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// A report will follow.
    Taken,
    /// There is no room at the moment.
    Full,
    /// It is longer than `export.kafka.message_bytes`.
    TooLarge,
    /// It will not be taken, for this reason.
    Refused(&'static str, Code),
    /// Nor will any other, by this client: it asks no more for a topic that is not there, or that it may not write to.
    Denied(Code),
    /// The producer can't go on.
    Broken,
}

/// See the module's text.
pub(super) struct Client {
    producer: BaseProducer<Ear>,
    topic: String,
}

impl Client {
    /// With batches of at most so many bytes, and this patience with a topic that isn't there. Connects in the background.
    pub(super) fn new(
        config: &KafkaConfig,
        batch_bytes: u64,
        patience: Duration,
        delivery: &Arc<Delivery>,
    ) -> io::Result<Self> {
        let ear = Ear {
            told: Mutex::default(),
            delivery: Arc::clone(delivery),
            before: Mutex::default(),
            echo: Mutex::default(),
        };
        let settings = client_config(config, batch_bytes, patience)?;
        let producer = BaseProducer::from_config_and_context(&settings, ear).map_err(io::Error::other)?;
        Ok(Self { producer, topic: config.topic.clone() })
    }

    /// Hands a message over; it is copied.
    #[inline]
    pub(super) fn send(
        &self,
        number: u64,
        (key, value, timestamp): (&[u8], &[u8], i64),
        headers: OwnedHeaders,
    ) -> Handed {
        let message = BaseRecord::with_opaque_to(&self.topic, number as usize);
        let message = message.key(key).payload(value).timestamp(timestamp).headers(headers);
        match self.producer.send(message) {
            Ok(()) => Handed::Taken,
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(Code::QueueFull) => Handed::Full,
                Some(Code::MessageSizeTooLarge) => Handed::TooLarge,
                Some(code) if self.fatal_error().is_none() => match Fate::of(code) {
                    Fate::Dropped(reason) if reason != NO_TOPIC => Handed::Refused(reason, code),
                    _ => Handed::Denied(code),
                },
                _ => Handed::Broken,
            },
        }
    }

    /// What was told so far; if that is nothing, what there is after `at_most`. It sleeps meanwhile: rdkafka's own wait goes
    /// round without rest in its last millisecond, which of a wait of 2 ms is half.
    pub(super) fn poll(&self, at_most: Duration) -> Told {
        let told = self.told();
        if at_most.is_zero() || !told.is_nothing() {
            return told;
        }
        std::thread::sleep(at_most);
        self.told()
    }

    fn told(&self) -> Told {
        let ear = self.producer.context();
        let mut told = Told::default();
        // One call takes one event, and each partition's answer is one.
        loop {
            self.producer.poll(Duration::ZERO);
            let more = std::mem::take(&mut *lock(&ear.told));
            let is_last = more.reports.is_empty();
            told.reports.extend(more.reports);
            told.obstacle = match more.obstacle {
                Some(Obstacle::AllDown(_)) | None if told.obstacle.is_some() => told.obstacle,
                more => more,
            };
            told.fatal |= more.fatal;
            if is_last {
                return told;
            }
        }
    }

    /// Messages that have no report yet.
    pub(super) fn under_way(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or_default()
    }

    /// Has all messages come back.
    pub(super) fn let_go(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }

    /// What is wrong with a producer that can't go on.
    pub(super) fn fatal_error(&self) -> Option<(Code, String)> {
        self.producer.client().fatal_error()
    }

    /// Whether brokers say that there is no such topic. Asks them, for a short time.
    pub(super) fn misses_topic(&self, at_most: Duration) -> bool {
        let metadata = self.producer.client().fetch_metadata(Some(&self.topic), at_most);
        let missing = Code::UnknownTopicOrPartition;
        metadata.is_ok_and(|metadata| {
            metadata
                .topics()
                .iter()
                .any(|topic| topic.error().is_some_and(|error| Code::from(error) == missing))
        })
    }
}
