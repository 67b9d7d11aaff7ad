//! Over UDP: messages go at their pace, and stay in the window for a time in which the network may say that nobody takes
//! them, or that the path takes less than they have. Then they go again.

use super::{ASK_AGAIN, Flight, Ipfix, Link, Step, WINDOW};
use crate::ipfix::udp::{Heard, Sent};
use mermin_flow::Receipt;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Hosts send ICMP errors to one address once a second (Linux' icmp_ratelimit), after a few at once: an answer to what is
/// sent so long after the last one comes at once.
pub(super) const BETWEEN_REFUSALS: Duration = Duration::from_millis(1_100);
/// How long a datagram to another host is held. On this host a refusal is known before the call that sends returns.
pub(super) const HELD: Duration = Duration::from_secs(1);
/// How much is held at most: a second's messages at the default rate.
const HELD_MAX: usize = WINDOW / 4 * 3;

impl Ipfix {
    pub(super) fn step_udp(&mut self, force: bool, receipt: &mut Receipt, now: Instant) -> io::Result<Step> {
        let Link::Udp(udp) = &self.link else { return Ok(Step::Again) };
        if !self.flights.is_empty() && udp.heard(Duration::ZERO)? == Heard::Narrower {
            return self.narrow();
        }
        self.let_go(receipt, now);
        self.keep_told(now);
        if !self.is_due(force) {
            return Ok(self.rest_udp(now));
        }
        if let Some(wait) = self.pace.wait(now) {
            return Ok(Step::Wait(wait));
        }
        let made = self.make();
        let Link::Udp(udp) = &self.link else { return Ok(Step::Again) };
        let sent = if self.session.made_something() {
            udp.send(&self.message)
        } else if made.exhausted && made.items == 0 {
            return Ok(self.next_session(now));
        } else {
            Sent::Yes
        };
        match sent {
            Sent::Yes | Sent::Narrower => {
                if self.session.made_something() {
                    self.pace.take(now);
                    self.sent(made);
                }
                self.window.advance(made.items);
                self.flights.push_back(Flight { end: 0, items: made.items, since: now });
                self.waiting_since = self.window.has_unsent().then_some(now);
                if matches!(sent, Sent::Narrower) {
                    return self.narrow();
                }
                self.let_go(receipt, now);
                Ok(Step::Again)
            }
            Sent::Later => {
                self.session.take_back();
                Ok(Step::Wait(ASK_AGAIN))
            }
            Sent::TooLarge => {
                self.session.take_back();
                self.narrow()
            }
            Sent::No(error) => {
                self.session.take_back();
                Err(error)
            }
        }
    }

    /// A session is full: the next one is another socket's, when nothing is held of this one.
    fn next_session(&mut self, now: Instant) -> Step {
        match self.flights.front() {
            Some(flight) => Step::Wait((flight.since + self.held).saturating_duration_since(now)),
            None => {
                self.link = Link::Down(now);
                Step::Again
            }
        }
    }

    fn rest_udp(&self, now: Instant) -> Step {
        let held =
            self.flights.front().map(|flight| (flight.since + self.held).saturating_duration_since(now));
        match (self.rest(), held) {
            (Step::Wait(wait), Some(held)) => Step::Wait(wait.min(held)),
            (_, Some(held)) => Step::Wait(held),
            (step, None) => step,
        }
    }

    /// What was held for long enough is delivered, and the oldest of what there is no room to hold.
    fn let_go(&mut self, receipt: &mut Receipt, now: Instant) {
        while let Some(flight) = self.flights.front().copied() {
            if now.saturating_duration_since(flight.since) >= self.held {
                self.stand(now);
            } else if self.window.sent_octets() < HELD_MAX {
                return;
            }
            self.flights.pop_front();
            self.settle(flight.items, receipt);
        }
    }

    /// The path takes less than a message had: what went of late goes again, in messages that fit. An answer to what went
    /// before the path was known to be so changes nothing.
    pub(super) fn narrow(&mut self) -> io::Result<Step> {
        let Link::Udp(udp) = &self.link else { return Ok(Step::Again) };
        let room = self.settings.message.min(udp.room()?);
        if room >= self.room {
            return Ok(Step::Wait(ASK_AGAIN));
        }
        self.room = room;
        self.delivery.retries.fetch_add(self.flights.len() as u64, Ordering::Relaxed);
        self.flights.clear();
        self.window.rewind();
        self.session.announce();
        Ok(Step::Again)
    }
}
