//! A session's begin: the collector is looked up and connected to; over UDP a first message asks whether somebody listens.

use super::datagrams::HELD;
use super::{ASK_AGAIN, CONNECT, GRACE, Ipfix, Link, Step, TOO_LARGE, now_ms};
use crate::ipfix::config::IpfixTransport;
use crate::ipfix::session::{Made, Session};
use crate::ipfix::stream::Stream;
use crate::ipfix::udp::{Sent, Udp};
use crate::ipfix::window::Window;
use rustls_pki_types::ServerName;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What asks whether somebody listens has at most so many octets: that much every path takes (RFC 7011 section 10.3.3).
const PROBE: usize = 512;

impl Ipfix {
    /// Of the collector's addresses the next one after each failure.
    fn address(&self) -> io::Result<SocketAddr> {
        let found = (self.settings.host.as_str(), self.settings.port).to_socket_addrs()?;
        let found: Vec<_> = found.collect();
        let place = self.attempt.checked_rem(found.len());
        place
            .map(|place| found[place])
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    }

    /// Begins a session.
    pub(super) fn open(&mut self, now: Instant) -> io::Result<Step> {
        let collector = self.address()?;
        self.stands = false;
        match self.settings.transport {
            IpfixTransport::Udp => {
                let udp = match self.refused.take() {
                    Some(udp) if udp.collector() == collector => {
                        self.session.announce();
                        udp
                    }
                    _ => {
                        self.session = self.session.successor();
                        Udp::connect(collector)?
                    }
                };
                self.room = self.settings.message.min(udp.room()?);
                self.held = if udp.is_local() { Duration::ZERO } else { HELD };
                self.link = Link::Udp(udp);
            }
            IpfixTransport::Tcp => {
                let tls = self.tls()?;
                let stream = Stream::connect(collector, tls)?;
                self.session = Session::new(self.identity);
                self.link = Link::Connecting(Box::new(stream), now + CONNECT);
            }
        }
        self.session.tell_of_draws(self.rates);
        self.ledger.ask();
        (self.announcing, self.announced) = (true, now);
        if matches!(self.link, Link::Udp(_)) {
            self.probe()?;
            self.delivery.connections.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Step::Again)
    }

    fn tls(&self) -> io::Result<Option<rustls::ClientConnection>> {
        let Some(files) = &self.settings.tls else { return Ok(None) };
        let config = files.config().map_err(|error| io::Error::other(error.to_string()))?;
        let name = ServerName::try_from(self.settings.host.clone()).map_err(io::Error::other)?;
        let connection = rustls::ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        Ok(Some(connection))
    }

    /// Sends one small message without flows, to hear whether nobody listens.
    fn probe(&mut self) -> io::Result<()> {
        let mut none = Window::default();
        loop {
            let room = self.room.min(PROBE);
            self.session.make(&mut none, room, now_ms(), TOO_LARGE, &mut self.message);
            let Link::Udp(udp) = &self.link else { return Ok(()) };
            let sent = udp.send(&self.message);
            if matches!(sent, Sent::Yes | Sent::Narrower) {
                let wait = if udp.is_local() { Duration::ZERO } else { GRACE };
                let heard = if matches!(sent, Sent::Yes) { udp.heard(wait).map(drop) } else { Ok(()) };
                self.sent(Made::default());
                return heard;
            }
            self.session.take_back();
            match sent {
                Sent::No(error) => return Err(error),
                Sent::TooLarge if self.message.len() > self.settings.message.min(udp.room()?) => {
                    return Err(io::Error::other("the path to the collector takes less than 512 octets"));
                }
                _ => std::thread::sleep(ASK_AGAIN),
            }
            if self.is_interrupted() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }
}
