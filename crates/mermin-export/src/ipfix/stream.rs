//! Messages over TCP, plain or with TLS, on a socket that never blocks.
//!
//! Octets go through a buffer of our own, so that it is known behind which octet of the connection each message ends: it is
//! acknowledged when the peer's kernel has that octet. With TLS these are the octets of its records.

use super::acknowledged::Question;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType, ipproto, sockopt};
use rustls::{ClientConnection, ProtocolVersion};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What is not acknowledged for so long breaks a connection: then it is sent again over the next one.
const USER_TIMEOUT_MS: u32 = 30_000;
/// An idle connection whose peer has gone without a word is noticed after about this time.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What is read in a turn, at most.
const READ_MAX: usize = 64 << 10;
/// A connection that has been there for so long stands: who accepts, and closes because he has nobody to hand on to, has done so.
const STANDS: Duration = Duration::from_secs(1);
/// The same of TLS 1.3 with a server that says nothing: it may still be at the client's certificate.
const STANDS_IN_SILENCE: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    connected: bool,
    /// Since when messages can be put in.
    ready: Option<Instant>,
    tls: Option<Box<ClientConnection>>,
    out: VecDeque<u8>,
    /// Octets that were put into `out`, and that have left it.
    made: u64,
    written: u64,
    /// `None`: this kernel doesn't tell what is acknowledged.
    question: Option<Question>,
}

impl Stream {
    /// Begins to connect.
    pub(crate) fn connect(collector: SocketAddr, tls: Option<ClientConnection>) -> io::Result<Self> {
        let family = if collector.is_ipv4() {
            rustix::net::AddressFamily::INET
        } else {
            rustix::net::AddressFamily::INET6
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        sockopt::set_tcp_user_timeout(&socket, USER_TIMEOUT_MS)?;
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, KEEP_ALIVE)?;
        match rustix::net::connect(&socket, &collector) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self {
            socket: socket.into(),
            connected: false,
            ready: None,
            tls: tls.map(Box::new),
            out: VecDeque::new(),
            made: 0,
            written: 0,
            question: None,
        })
    }

    /// Waits until something may have changed.
    pub(crate) fn wait(&self, at_most: Duration) -> io::Result<()> {
        let mut events = PollFlags::IN;
        if !self.connected || !self.out.is_empty() {
            events |= PollFlags::OUT;
        }
        let wait = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos().into() };
        poll(&mut [PollFd::new(&self.socket, events)], Some(&wait))?;
        Ok(())
    }

    /// Gets on as far as that takes no waiting. Whether messages can be put in.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        if !self.connected {
            let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            if fds[0].revents().is_empty() {
                return Ok(false);
            }
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            self.connected = true;
            let (own, peer) = (self.socket.local_addr()?, self.socket.peer_addr()?);
            let question = Question::new(own, peer);
            self.question =
                question.and_then(|mut question| question.unacknowledged().map(|_| question)).ok();
        }
        self.read()?;
        self.take_from_tls()?;
        self.write()?;
        let is_ready = self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking());
        if is_ready {
            self.ready.get_or_insert_with(Instant::now);
        }
        Ok(is_ready)
    }

    /// Whether the collector has accepted the connection, so that it counts what its host acknowledges.
    ///
    /// With TLS 1.3 a client may write before the server has judged the client's certificate. Servers tell that they are
    /// through with it by session tickets (RFC 8446 section 4.6.1; some send them before, but not when they asked for a
    /// certificate); of one that sends none it can only be waited for a refusal.
    pub(crate) fn stands(&self, now: Instant) -> bool {
        let Some(ready) = self.ready else { return false };
        let needed = match &self.tls {
            None => STANDS,
            Some(tls) if tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) => {
                if tls.tls13_tickets_received() > 0 { Duration::ZERO } else { STANDS_IN_SILENCE }
            }
            // Before, the server has the last word of a handshake.
            Some(_) => Duration::ZERO,
        };
        now.saturating_duration_since(ready) >= needed
    }

    fn read(&mut self) -> io::Result<()> {
        // A collector says nothing (RFC 7011 section 10.4.2); what comes all the same is read and thrown away.
        let (mut ignored, mut read) = ([0; 4_096], 0);
        while read < READ_MAX {
            let got = match &mut self.tls {
                None => self.socket.read(&mut ignored),
                Some(tls) => tls.read_tls(&mut self.socket),
            };
            match got {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionReset,
                        "the collector has closed the connection",
                    ));
                }
                Ok(length) => read += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if let Some(tls) = &mut self.tls {
                let state = tls
                    .process_new_packets()
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                if state.peer_has_closed() {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionReset,
                        "the collector has closed the connection",
                    ));
                }
                while let Ok(1..) = tls.reader().read(&mut ignored) {}
            }
        }
        Ok(())
    }

    /// Takes what TLS has to send.
    fn take_from_tls(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                self.made += tls.write_tls(&mut self.out)? as u64;
            }
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let (front, _) = self.out.as_slices();
            match self.socket.write(front) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.out.drain(..written);
                    self.written += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts a message in. The answer is behind which octet it ends.
    pub(crate) fn push(&mut self, mut message: &[u8]) -> io::Result<u64> {
        if let Some(tls) = &mut self.tls {
            while !message.is_empty() {
                let taken = tls.writer().write(message)?;
                message = &message[taken..];
                while tls.wants_write() {
                    self.made += tls.write_tls(&mut self.out)? as u64;
                }
            }
        } else {
            self.out.extend(message);
            self.made += message.len() as u64;
        }
        Ok(self.made)
    }

    /// The octet behind which the last message ends.
    pub(crate) const fn made(&self) -> u64 {
        self.made
    }

    /// Octets that have not left for the kernel.
    pub(crate) fn unwritten(&self) -> usize {
        self.out.len()
    }

    /// Octets that the peer's kernel has; where this kernel doesn't say, those that it has itself.
    pub(crate) fn acknowledged(&mut self) -> io::Result<u64> {
        match &mut self.question {
            Some(question) => Ok(self.written.saturating_sub(question.unacknowledged()?)),
            None => Ok(self.written),
        }
    }

    /// Whether this kernel says what is acknowledged.
    pub(crate) const fn tells_acknowledged(&self) -> bool {
        self.question.is_some()
    }

    /// Says that nothing more comes.
    pub(crate) fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        // Whoever has gone doesn't hear it.
        let _ = self.take_from_tls().and_then(|()| self.write());
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }
}
