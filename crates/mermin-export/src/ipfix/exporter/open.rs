//! A session's begin: the collector is looked up and connected to; over UDP templates ask whether somebody listens.

use super::{ASK_AGAIN, CONNECT, GRACE, Ipfix, Link, Step, TOO_LARGE, now_ms};
use crate::backoff::Backoff;
use crate::ipfix::config::IpfixTransport;
use crate::ipfix::session::{Made, Session};
use crate::ipfix::stream::Stream;
use crate::ipfix::udp::{Sent, Udp};
use crate::ipfix::window::Window;
use mermin_flow::DeliveryState;
use rustls_pki_types::ServerName;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Ipfix {
    fn addresses(&self) -> io::Result<SocketAddr> {
        let mut found = (self.settings.host.as_str(), self.settings.port).to_socket_addrs()?;
        found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    }

    /// Begins a session.
    pub(super) fn open(&mut self, now: Instant) -> io::Result<Step> {
        let collector = self.addresses()?;
        self.session = Session::new(self.identity);
        self.session.tell_of_draws(self.rates);
        self.ledger.ask();
        self.announced = now;
        match self.settings.transport {
            IpfixTransport::Udp => {
                let udp = Udp::connect(collector)?;
                self.room = self.settings.message.min(udp.room()?);
                self.probe(&udp)?;
                self.delivery.connections.fetch_add(1, Ordering::Relaxed);
                self.delivery.turn(DeliveryState::Delivering, None);
                self.backoff = Backoff::default();
                self.link = Link::Udp(udp);
            }
            IpfixTransport::Tcp => {
                let tls = self.tls()?;
                let stream = Stream::connect(collector, tls)?;
                self.link = Link::Connecting(Box::new(stream), now + CONNECT);
            }
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

    /// Sends templates, before any flow, to hear whether nobody listens.
    fn probe(&mut self, udp: &Udp) -> io::Result<()> {
        let mut none = Window::default();
        while self.session.has_pending() {
            self.session.make(&mut none, self.room, now_ms(), TOO_LARGE, &mut self.message);
            match udp.send(&self.message) {
                Sent::Yes => self.sent(Made::default()),
                Sent::No(error) => return Err(error),
                Sent::Later => {
                    self.session.take_back();
                    std::thread::sleep(ASK_AGAIN);
                    if self.is_interrupted() {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                }
                Sent::TooLarge => {
                    self.session.take_back();
                    self.shrink(udp.room()?)?;
                }
            }
        }
        udp.refused(if udp.is_local() { Duration::ZERO } else { GRACE })
    }

    /// The path takes less than was thought: so many octets.
    pub(super) fn shrink(&mut self, room: usize) -> io::Result<()> {
        let room = self.settings.message.min(room);
        if room >= self.room {
            return Err(io::Error::other("a message is too large, though the path's MTU has room for it"));
        }
        self.room = room;
        Ok(())
    }
}
