//! What the client tells: of records into the book, of brokers into condition and log.

use super::super::client::{Report, Told};
use super::super::refusal::{NO_TOPIC, Obstacle, TOO_LARGE};
use super::giving_up::Refusal;
use super::{Records, drop_as};
use mermin_flow::{DeliveryState, Failure, Receipt};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long that may take.
const QUESTION: Duration = Duration::from_millis(500);

impl Records {
    pub(super) fn note(&mut self, told: Told, receipt: &mut Receipt) -> Result<(), Failure> {
        let mut result = Ok(());
        let mut delivered = false;
        let mut untimely = Vec::new();
        if !told.reports.is_empty() {
            self.heard = Instant::now();
        }
        for report in told.reports {
            match report {
                Report::Delivered(number) => {
                    receipt.delivered += self.window.settle(number).unwrap_or_default();
                    delivered = true;
                }
                Report::Dropped { number, reason, why } => {
                    if let Some(amount) = self.window.settle(number) {
                        result = result.and(drop_as(reason, amount, self.words(reason, &why), receipt));
                    }
                }
                Report::TooLarge(parcel) => {
                    let bytes = parcel.key.len() + parcel.value.len();
                    if bytes as u64 >= self.batch_bytes {
                        // It was alone in its batch.
                        let why = format!(
                            "a record of {bytes} bytes is more than the topic takes: raise max.message.bytes of {}",
                            self.config.topic
                        );
                        if let Some(amount) = self.window.settle(parcel.number) {
                            result = result.and(drop_as(TOO_LARGE, amount, why, receipt));
                        }
                    } else {
                        self.again.push(parcel);
                        self.shrinks = true;
                    }
                }
                Report::Untimely(parcel) => untimely.push(parcel),
                Report::Back(parcel) => self.again.push(parcel),
            }
        }
        if delivered {
            self.well();
        }
        if !untimely.is_empty() {
            result = result.and(self.refuse_untimely(untimely, receipt));
        }
        if let Err(failure) = &result {
            self.is_well = false;
            self.delivery.turn(DeliveryState::Failing, Some(failure.error.to_string()));
        }
        if let Some(obstacle) = told.obstacle {
            self.ill(&obstacle);
        }
        if told.fatal {
            result = result.and(self.renew(receipt));
        }
        result
    }

    /// What to say of a record that is dropped.
    pub(super) fn words(&self, reason: &str, why: &str) -> String {
        let topic = &self.config.topic;
        match reason {
            NO_TOPIC => no_topic(topic),
            _ => format!("brokers refuse a record: {why}"),
        }
    }

    fn well(&mut self) {
        (self.refused, self.broken, self.suspects) = (None, 0, 1);
        if !self.is_well {
            self.is_well = true;
            self.delivery.turn(DeliveryState::Delivering, None);
        }
        if let Some(after) = self.trouble.ends(Instant::now()) {
            info!("kafka: records are taken again, after {after:.1?}");
        }
    }

    /// Something failed in a way that may pass.
    pub(super) fn ill(&mut self, obstacle: &Obstacle) {
        self.is_well = false;
        match obstacle {
            Obstacle::NoAccess(why) => {
                self.refused = Some(Refusal::again(self.refused.take(), Instant::now(), why));
            }
            // One may be away beside others that refuse, and what can be done is about those.
            Obstacle::Away(_) | Obstacle::AllDown(_) if self.refused.is_some() => return,
            Obstacle::Away(_) | Obstacle::AllDown(_) => {}
        }
        self.say(obstacle.why().to_owned());
    }

    pub(super) fn say(&mut self, why: String) {
        if self.trouble.begins(Instant::now()) {
            warn!("kafka: {why}; trying again");
        }
        self.delivery.turn(DeliveryState::Retrying, Some(why));
    }

    /// Nothing was heard for a while: is it because there is no topic? librdkafka says so after half a minute.
    pub(super) fn ask_for_topic(&mut self) {
        self.heard = Instant::now();
        if self.refused.is_none() && self.client.misses_topic(QUESTION) {
            self.is_well = false;
            self.delivery.failures.fetch_add(1, Ordering::Relaxed);
            self.say(no_topic(&self.config.topic));
        }
    }
}

fn no_topic(topic: &str) -> String {
    format!(
        "there is no topic {topic}: make it, for example with kafka-topics.sh --create --topic {topic} --partitions 12"
    )
}
