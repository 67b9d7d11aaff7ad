//! Messages that the client gives back: to another client, or given up.

use super::super::client::{Client, Handed, Told};
use super::super::refusal::{Obstacle, REFUSED, TOO_LATE};
use super::{PATIENCE, Records, STEP, drop_as, failure};
use mermin_flow::{Amount, DeliveryState, Failure, Receipt};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long messages that are let go of may take to come back.
const RETURN_PATIENCE: Duration = Duration::from_secs(2);

/// The longest pause before a producer that can't go on is made anew.
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl Records {
    /// Messages that came back are sent again, in smaller batches where theirs was too large, when all others have come to an
    /// end: whether those are written is known then.
    pub(super) fn send_again(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        let mut result = Ok(());
        while self.client.under_way() > 0 && !self.is_interrupted() {
            let told = self.client.poll(PATIENCE);
            result = result.and(self.note(told, receipt));
        }
        if !std::mem::take(&mut self.shrinks) {
            return result.and(self.renew(receipt));
        }
        let largest = self.again.iter().map(|parcel| parcel.key.len() + parcel.value.len()).max();
        let least = largest.unwrap_or_default() as u64;
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
            match Client::new(&self.config, self.batch_bytes, self.patience, &self.delivery) {
                Ok(client) => self.client = client,
                Err(error) => {
                    self.say(format!("no client can be made: {error}"));
                    if !self.is_interrupted() {
                        self.pause();
                        continue;
                    }
                }
            }
            break;
        }
        let mut parcels = std::mem::take(&mut self.again);
        parcels.sort_by_key(|parcel| parcel.number);
        // What did not come back in time is gone with its client. The record that is just being handed over never was in one.
        let mut kept: Vec<_> = parcels.iter().map(|parcel| parcel.number).collect();
        kept.extend(self.unsent);
        let gone = self.window.settle_but(&kept);
        if gone != Amount::default() {
            let why = "a client does not give its messages back".to_owned();
            result = result.and(drop_as(REFUSED, gone, why, receipt));
        }
        for parcel in parcels {
            let Some(time) = self.window.time(parcel.number) else { continue };
            let message = (&parcel.key[..], &parcel.value[..], time);
            // It holds no more than the one before did: there is room.
            match self.client.send(parcel.number, message, self.headers.of_message()) {
                Handed::Taken => {}
                Handed::TooLarge | Handed::Full | Handed::Refused(_) | Handed::Broken => {
                    let amount = self.window.settle(parcel.number).unwrap_or_default();
                    let why = "the client does not take a message again".to_owned();
                    result = result.and(drop_as(REFUSED, amount, why, receipt));
                }
            }
        }
        result
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

    /// Has the client give back what it holds.
    fn take_back(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        self.client.let_go();
        let (mut result, until) = (Ok(()), Instant::now() + RETURN_PATIENCE);
        loop {
            let told = self.client.poll(STEP);
            // That it can't go on is known.
            result = result.and(self.note(Told { fatal: false, ..told }, receipt));
            if self.client.under_way() == 0 || Instant::now() >= until {
                return result;
            }
        }
    }

    /// All that is held is dropped.
    pub(super) fn give_up(
        &mut self,
        reason: &'static str,
        why: &str,
        receipt: &mut Receipt,
    ) -> Result<(), Failure> {
        let result = self.take_back(receipt);
        self.delivery.turn(DeliveryState::Failing, Some(why.to_owned()));
        self.again.clear();
        let held = self.window.clear();
        if held == Amount::default() {
            return result;
        }
        *receipt.dropped.entry(reason).or_default() += held;
        if reason == TOO_LATE {
            return result;
        }
        result.and(Err(failure(reason, why.to_owned())))
    }
}
