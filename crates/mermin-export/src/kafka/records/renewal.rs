//! Messages that the client gives back: to another client, or given up.

use super::super::client::{Client, Handed, Told};
use super::super::refusal::{Obstacle, TOO_LARGE, TOO_LATE};
use super::{PATIENCE, Records, STEP, drop_as};
use mermin_flow::{Amount, Failure, Receipt};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long messages that are let go of may take to come back until it is said, or until they are given up when time is up.
const RETURN_PATIENCE: Duration = Duration::from_secs(2);

/// The longest pause before a producer that can't go on is made anew.
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl Records {
    /// Messages that came back are sent again, in smaller batches where theirs was too large, when all others have come to an
    /// end: whether those are written is known then.
    pub(super) fn send_again(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        let mut result = Ok(());
        while self.client.under_way() > 0 && !self.is_interrupted() && !self.is_refused_for_long() {
            let told = self.client.poll(PATIENCE);
            result = result.and(self.note(told, receipt));
        }
        if !std::mem::take(&mut self.shrinks) {
            // Also should a broker say of a batch that each of its records suffers from another one.
            let settled = self.window.settled();
            if self.refused.is_some() || std::mem::replace(&mut self.settled, settled) == settled {
                self.pause();
            }
            return result.and(self.renew(receipt));
        }
        let largest = self.again.iter().map(|parcel| parcel.key.len() + parcel.value.len()).max();
        let least = largest.unwrap_or_default() as u64;
        // Its batches would be too large, too.
        self.successor = None;
        // So that the last try has each by itself.
        self.batch_bytes = (self.batch_bytes / 4).max(least.min(self.batch_bytes / 2)).max(1);
        result.and(self.renew(receipt))
    }

    /// A new client in the place of this one, which gets what this one has not delivered.
    pub(super) fn renew(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        let mut result = self.take_back(receipt);
        if let Some((code, reason)) = self.client.fatal_error() {
            let why = format!("the producer can't go on, and is made anew: {reason}");
            let obstacle = Obstacle::of(code, &reason).unwrap_or(Obstacle::Away(why));
            self.ill(&obstacle);
            self.delivery.failures.fetch_add(1, Ordering::Relaxed);
            self.pause();
        }
        loop {
            if self.is_interrupted() {
                return result.and(self.give_up(TOO_LATE, "out of time", receipt));
            }
            let made = if let Some(successor) = self.successor.take() {
                // What the one before was refused is not held against it.
                self.refused = None;
                Ok(successor.client)
            } else {
                // It reads them as they are: no reason for another one.
                let _ = self.files.have_changed();
                Client::new(&self.config, self.batch_bytes, self.patience, &self.delivery)
            };
            match made {
                Ok(client) => {
                    self.client = client;
                    break;
                }
                Err(error) => {
                    self.say(format!("no client can be made: {error}"));
                    self.pause();
                }
            }
        }
        // All have come back. Should one be missing, then nobody will hear of it any more: it may be taken later.
        // The record that is just being handed over never was in a client.
        self.again.sort_unstable_by_key(|parcel| parcel.number);
        let mut kept: Vec<_> = self.again.iter().map(|parcel| parcel.number).collect();
        kept.extend(self.unsent);
        let gone = self.window.settle_but(&kept);
        if gone != Amount::default() {
            let why = "a client has not given its messages back".to_owned();
            result = result.and(drop_as(TOO_LATE, gone, why, receipt));
        }
        result.and(self.resend(receipt))
    }

    /// Messages that came back go to the present client. Those that it does not take are kept, for the next one.
    pub(super) fn resend(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        let mut result = Ok(());
        self.again.sort_unstable_by_key(|parcel| Reverse(parcel.number));
        while let Some(parcel) = self.again.pop() {
            let number = parcel.number;
            let Some(time) = self.window.time(number) else { continue };
            let message = (&parcel.key[..], &parcel.value[..], time);
            let (reason, why) = match self.client.send(number, message, self.headers.of_message()) {
                Handed::Taken => continue,
                Handed::Full => {
                    self.again.push(parcel);
                    let kept = self.again.len();
                    let told = self.client.poll(STEP);
                    let is_over = told.fatal || self.is_interrupted();
                    result = result.and(self.note(Told { fatal: false, ..told }, receipt));
                    if is_over || self.again.len() > kept {
                        return result;
                    }
                    continue;
                }
                Handed::Denied(code) => {
                    self.denied(code);
                    self.again.push(parcel);
                    return result;
                }
                Handed::Broken => {
                    self.again.push(parcel);
                    return result;
                }
                Handed::TooLarge => {
                    (TOO_LARGE, "a record is more than export.kafka.message_bytes".to_owned())
                }
                Handed::Refused(reason, code) => (reason, self.words(reason, &code.to_string())),
            };
            let amount = self.window.settle(number).unwrap_or_default();
            result = result.and(drop_as(reason, amount, why, receipt));
        }
        result
    }

    /// The client takes no messages to its topic any more; whether because it may not.
    pub(super) fn denied(&mut self, code: Code) -> bool {
        let Some(obstacle) = Obstacle::of_message(code) else { return false };
        self.delivery.failures.fetch_add(1, Ordering::Relaxed);
        self.ill(&obstacle);
        true
    }

    /// Longer each time, until something is delivered.
    fn pause(&mut self) {
        let pause = Duration::from_millis(100).saturating_mul(1 << self.broken.min(6)).min(PAUSE_MAX);
        self.broken = self.broken.saturating_add(1);
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.is_interrupted() {
            std::thread::sleep(PATIENCE);
        }
    }

    /// Has the client give back what it holds. All comes back, soon unless a thread of the client hangs (in a name's resolution);
    /// when time is up that is not waited for.
    pub(super) fn take_back(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        self.client.let_go();
        let (mut result, mut until) = (Ok(()), Instant::now() + RETURN_PATIENCE);
        loop {
            let told = self.client.poll(STEP);
            // That it can't go on is known.
            result = result.and(self.note(Told { fatal: false, ..told }, receipt));
            if self.client.under_way() == 0 {
                return result;
            }
            if Instant::now() >= until {
                if self.is_interrupted() {
                    return result;
                }
                self.say("the client keeps messages that it should give back".to_owned());
                until += RETURN_PATIENCE;
            }
        }
    }
}
