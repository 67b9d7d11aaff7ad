//! When records that are held are given up: time is up, or brokers have refused the agent for too long.

use super::super::refusal::{NO_ACCESS, TOO_LATE};
use super::{Records, failure};
use mermin_flow::{Amount, DeliveryState, Failure, Receipt};
use std::time::{Duration, Instant};

/// A refusal that was not repeated for so long is over: brokers are asked at least every five seconds, and librdkafka tells
/// of the same answer once in thirty.
const MEMORY: Duration = Duration::from_secs(45);

/// Brokers refuse the agent, and have taken nothing since.
#[derive(Debug)]
pub(super) struct Refusal {
    since: Instant,
    last: Instant,
    why: String,
}

impl Refusal {
    /// Refused at `now`, maybe not for the first time.
    pub(super) fn again(before: Option<Self>, now: Instant, why: &str) -> Self {
        Self { since: before.map_or(now, |before| before.since), last: now, why: why.to_owned() }
    }

    /// Whether they said so at the beginning of a time as long as `patience`, and still at its end. That nobody answers
    /// after a refusal is no second one.
    fn lasts(&self, patience: Duration) -> bool {
        self.last.duration_since(self.since) >= patience
    }

    fn is_over(&self) -> bool {
        self.last.elapsed() >= MEMORY
    }
}

impl Records {
    /// Gives up what is held, where it is time to.
    pub(super) fn judge(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        if self.refused.as_ref().is_some_and(Refusal::is_over) {
            self.refused = None;
        }
        if self.window.is_empty() {
            return Ok(());
        }
        if self.is_interrupted() {
            return self.give_up(TOO_LATE, "out of time", receipt);
        }
        let Some(refusal) = self.refused.take_if(|refusal| refusal.lasts(self.patience)) else {
            return Ok(());
        };
        let result = self.give_up(NO_ACCESS, &refusal.why, receipt);
        // A password that has changed meanwhile is read.
        result.and(self.renew(receipt))
    }

    pub(super) fn is_refused_for_long(&self) -> bool {
        self.refused.as_ref().is_some_and(|refusal| refusal.lasts(self.patience))
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
        self.shrinks = false;
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
