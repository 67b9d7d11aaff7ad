//! A session's begin: the collector is looked up and connected to; over UDP a first message asks whether somebody listens.

use super::datagrams::HELD;
use super::{ASK_AGAIN, CONNECT, GRACE, Ipfix, Link, Step, TOO_LARGE, now_ms};
use crate::ipfix::config::IpfixTransport;
use crate::ipfix::session::{Made, Session};
use crate::ipfix::stream::Stream;
use crate::ipfix::udp::{Heard, Sent, Udp};
use crate::ipfix::window::Window;
use rustls_pki_types::ServerName;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long it is tried to get a first message out.
const PROBE: Duration = Duration::from_secs(2);

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

    /// Sends one message without flows, to hear whether nobody listens and whether the path takes as much. One that comes back
    /// was read by nobody: the next one has its number.
    fn probe(&mut self) -> io::Result<()> {
        let (mut none, until) = (Window::default(), Instant::now() + PROBE);
        while !self.is_interrupted() {
            if Instant::now() >= until {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no message is small enough for the path",
                ));
            }
            self.session.make(&mut none, self.room, now_ms(), TOO_LARGE, &mut self.message);
            let Link::Udp(udp) = &self.link else { return Ok(()) };
            let wait = if udp.is_local() { Duration::ZERO } else { GRACE };
            let heard = match udp.send(&self.message) {
                Sent::Yes => udp.heard(wait),
                Sent::Narrower | Sent::TooLarge => Ok(Heard::Narrower),
                Sent::No(error) => Err(error),
                Sent::Later => {
                    self.session.take_back();
                    std::thread::sleep(ASK_AGAIN);
                    continue;
                }
            };
            if matches!(heard, Ok(Heard::Nothing)) {
                self.sent(Made::default());
                return Ok(());
            }
            self.session.take_back();
            heard?;
            self.room = self.settings.message.min(udp.room()?);
            std::thread::sleep(ASK_AGAIN);
        }
        Err(io::ErrorKind::Interrupted.into())
    }
}
