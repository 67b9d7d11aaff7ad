//! When an output is let be: after failures, and when it answers late.
//!
//! ```text
//!          failures in a row, or a call that takes too long
//!  closed ────────────────────────────────────────────────▶ open
//!    ▲                                                        │ after a pause
//!    │ something was delivered in time                        ▼
//!    └──────────────────────────────────────────────────  half-open: one batch is tried
//!                                                              │ it fails, or takes too long: open, for longer
//! ```
//!
//! While it is open, records wait in the output's queue, where they are merged, instead of being spent on a receiver that
//! is known not to take them. A pure machine: time and chance are arguments. What was delivered while it is open (an
//! exporter that repeats requests by itself goes on with that) closes it too: whoever made the attempt, it succeeded.

use mermin_flow::Interval;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// When an output is let be for a while instead of tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// `false`: an output is tried again at once, however often it fails.
    pub enabled: bool,
    /// Failures in a row, answers that come too late among them, after which it is let be.
    #[schemars(range(min = 1))]
    pub failures: NonZeroU32,
    /// A write or an answer that takes longer is too late. One that is under way for so long suffices.
    pub slow: Interval,
    /// The first pause, after which one batch is tried; each failure of that doubles it. Up to half of each pause is left out by
    /// chance, so that a thousand agents don't come back at once.
    pub pause: Interval,
    /// The longest pause.
    pub pause_max: Interval,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            failures: NonZeroU32::new(5).expect("the default is not zero"),
            slow: Interval::seconds(5),
            pause: Interval::seconds(1),
            pause_max: Interval::seconds(30),
        }
    }
}

/// How an output is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// It gets its records.
    #[default]
    Closed,
    /// It gets none.
    Open,
    /// It is tried with one batch.
    HalfOpen,
}

impl BreakerState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What an output's thread may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Hand records over.
    Free,
    /// Hand one batch over and see what becomes of it.
    Probe,
    /// Nothing, for so long.
    Pause(Duration),
}

/// What is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// From now on the output is let be.
    Opened,
    /// It takes records again, after so long.
    Closed(Duration),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    state: BreakerState,
    /// In a row, while closed.
    failures: u32,
    /// Pauses since it was closed.
    pauses: u32,
    /// When the present pause ends.
    until: Instant,
    /// When it was opened, coming from closed.
    since: Instant,
    /// How often it was.
    opened: u64,
}

impl Breaker {
    pub(super) const fn new(config: BreakerConfig, now: Instant) -> Self {
        let state = BreakerState::Closed;
        Self { config, state, failures: 0, pauses: 0, until: now, since: now, opened: 0 }
    }

    /// From now on it goes by this. A pause under way is no longer than the longest one; where it is not to be let be at all,
    /// it is not let be any more.
    pub(super) fn change(&mut self, config: BreakerConfig, now: Instant) {
        self.config = config;
        self.until = self.until.min(now + self.config.pause_max.0);
        if !self.config.enabled {
            (self.state, self.failures, self.pauses) = (BreakerState::Closed, 0, 0);
        }
    }

    pub(super) const fn state(&self) -> BreakerState {
        self.state
    }

    /// How often it was opened, coming from closed.
    pub(super) const fn opened(&self) -> u64 {
        self.opened
    }

    /// What takes longer is too late.
    pub(super) const fn slow(&self) -> Duration {
        self.config.slow.0
    }

    pub(super) fn permit(&mut self, now: Instant) -> Permit {
        match self.state {
            BreakerState::Closed => Permit::Free,
            BreakerState::HalfOpen => Permit::Probe,
            BreakerState::Open if now >= self.until => {
                self.state = BreakerState::HalfOpen;
                Permit::Probe
            }
            BreakerState::Open => Permit::Pause(self.until - now),
        }
    }

    /// Something was delivered, in time.
    pub(super) fn succeeded(&mut self, now: Instant) -> Option<Change> {
        (self.failures, self.pauses) = (0, 0);
        match std::mem::take(&mut self.state) {
            BreakerState::Closed => None,
            BreakerState::Open | BreakerState::HalfOpen => {
                Some(Change::Closed(now.saturating_duration_since(self.since)))
            }
        }
    }

    /// Attempts failed, or something was delivered too late. `random`: any number.
    pub(super) fn failed(&mut self, attempts: u32, now: Instant, random: u64) -> Option<Change> {
        self.failures = self.failures.saturating_add(attempts);
        match self.state {
            BreakerState::Closed if self.failures < self.config.failures.get() => None,
            _ => self.open(now, random),
        }
    }

    /// A call takes too long, whether it has returned by now or not.
    pub(super) fn open(&mut self, now: Instant, random: u64) -> Option<Change> {
        if !self.config.enabled || self.state == BreakerState::Open {
            return None;
        }
        let first = self.state == BreakerState::Closed;
        let whole = self.config.pause.0.saturating_mul(1 << self.pauses.min(16)).min(self.config.pause_max.0);
        let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
        self.until = now + whole.mul_f64(0.5 + share / 2.0);
        self.state = BreakerState::Open;
        self.pauses = self.pauses.saturating_add(1);
        if first {
            (self.since, self.opened) = (now, self.opened + 1);
        }
        first.then_some(Change::Opened)
    }
}

#[cfg(test)]
mod tests;
