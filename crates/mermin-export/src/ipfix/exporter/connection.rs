//! Over TCP: messages go as the connection takes them, and stay in the window until the collector's host has acknowledged
//! them over a connection that stands.

use super::{ASK_AGAIN, Flight, Ipfix, LOOK, Link, Step, UNWRITTEN};
use mermin_flow::Receipt;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tracing::warn;

impl Ipfix {
    pub(super) fn step_connecting(&mut self, now: Instant) -> io::Result<Step> {
        let Link::Connecting(mut stream, until) = std::mem::replace(&mut self.link, Link::Down(now)) else {
            return Ok(Step::Again);
        };
        if stream.turn()? {
            if !stream.tells_acknowledged() && !std::mem::replace(&mut self.said, true) {
                warn!(
                    "Output {}: this kernel doesn't tell what a collector has acknowledged; records count as delivered when the kernel has them",
                    self.name
                );
            }
            self.delivery.connections.fetch_add(1, Ordering::Relaxed);
            self.link = Link::Stream(stream);
            return Ok(Step::Again);
        }
        if now >= until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long to connect"));
        }
        self.link = Link::Connecting(stream, until);
        Ok(Step::Wait(LOOK))
    }

    pub(super) fn step_stream(
        &mut self,
        force: bool,
        receipt: &mut Receipt,
        now: Instant,
    ) -> io::Result<Step> {
        let Link::Stream(stream) = &mut self.link else { return Ok(Step::Again) };
        // Where this fails, nobody knows whether what was acknowledged just now was read: it goes again.
        stream.turn()?;
        let stands = stream.stands(now);
        if stands && !self.flights.is_empty() {
            let acknowledged = stream.acknowledged()?;
            self.land(acknowledged, receipt, now);
        }
        if stands {
            self.stand(now);
        }
        self.keep_told(now);
        let ask = Step::Wait(if stands { ASK_AGAIN } else { LOOK });
        let Link::Stream(stream) = &self.link else { return Ok(Step::Again) };
        if !self.is_due(force) || stream.unwritten() >= UNWRITTEN {
            return Ok(if self.flights.is_empty() { self.rest() } else { ask });
        }
        let made = self.make();
        let Link::Stream(stream) = &mut self.link else { return Ok(Step::Again) };
        let end = if self.session.made_something() {
            let end = stream.push(&self.message)?;
            self.sent(made);
            end
        } else if made.exhausted && made.items == 0 {
            if !self.flights.is_empty() {
                return Ok(ask);
            }
            stream.close();
            self.link = Link::Down(now);
            return Ok(Step::Again);
        } else {
            stream.made()
        };
        self.window.advance(made.items);
        self.waiting_since = self.window.has_unsent().then_some(now);
        self.flights.push_back(Flight { end, items: made.items, since: now });
        self.delivery.in_flight.store(self.flights.len() as u64, Ordering::Relaxed);
        Ok(Step::Again)
    }

    /// What ends at or before this octet of the connection is delivered.
    fn land(&mut self, acknowledged: u64, receipt: &mut Receipt, now: Instant) {
        while let Some(flight) = self.flights.front().copied()
            && flight.end <= acknowledged
        {
            self.flights.pop_front();
            self.delivery.answered(now - flight.since);
            self.settle(flight.items, receipt);
        }
        self.delivery.in_flight.store(self.flights.len() as u64, Ordering::Relaxed);
    }
}
