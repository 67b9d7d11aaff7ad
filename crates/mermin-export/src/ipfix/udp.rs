//! Messages as UDP datagrams that are never fragmented: the path's MTU is asked of the kernel, and what has become too
//! large for it comes back.
//!
//! Nobody acknowledges a datagram. What the network can say is that nobody listens (ICMP's port unreachable): on this host
//! before the call that sends returns, from another one a round trip later.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Headers of IPv4 (without options) or IPv6, and UDP.
const HEADERS: [usize; 2] = [20 + 8, 40 + 8];
/// What a datagram has room for on any path: its length takes two octets, over IPv4 with all headers.
const DATAGRAM_MAX: usize = 65_535 - HEADERS[0];

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Udp {
    socket: UdpSocket,
    collector: SocketAddr,
}

/// What became of a datagram.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It is with the network.
    Yes,
    /// It is, and one that was sent before has met a path that takes less.
    Narrower,
    /// The kernel has no room just now.
    Later,
    /// It isn't: it is larger than the path's MTU, or one before was.
    TooLarge,
    /// It isn't.
    No(io::Error),
}

/// What came back of datagrams that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    /// The path takes less than one of them had.
    Narrower,
}

impl Udp {
    pub(crate) fn connect(collector: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match collector {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        match collector {
            SocketAddr::V4(_) => {
                sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::DO)?;
            }
            SocketAddr::V6(_) => {
                sockopt::set_ipv6_mtu_discover(&socket, sockopt::Ipv6PathMtuDiscovery::DO)?;
            }
        }
        socket.connect(collector)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, collector })
    }

    /// Octets that a datagram can have now.
    pub(crate) fn room(&self) -> io::Result<usize> {
        let (mtu, headers) = match self.collector {
            SocketAddr::V4(_) => (sockopt::ip_mtu(&self.socket)?, HEADERS[0]),
            SocketAddr::V6(_) => (sockopt::ipv6_mtu(&self.socket)?, HEADERS[1]),
        };
        Ok((mtu as usize).saturating_sub(headers).min(DATAGRAM_MAX))
    }

    /// Where it goes.
    pub(crate) const fn collector(&self) -> SocketAddr {
        self.collector
    }

    /// Whether the collector is on this host, so that a refusal is known at once.
    pub(crate) fn is_local(&self) -> bool {
        let own = self.socket.local_addr().map(|own| own.ip());
        self.collector.ip().is_loopback() || own.is_ok_and(|own| own == self.collector.ip())
    }

    pub(crate) fn send(&self, message: &[u8]) -> Sent {
        match self.socket.send(message) {
            // An error that came back meanwhile is of this datagram or of one before.
            Ok(_) => match self.heard(Duration::ZERO) {
                Ok(Heard::Nothing) => Sent::Yes,
                Ok(Heard::Narrower) => Sent::Narrower,
                Err(error) => Sent::No(error),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Later,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::MSGSIZE) => Sent::TooLarge,
                Some(Errno::NOBUFS) => Sent::Later,
                _ => Sent::No(error),
            },
        }
    }

    /// What comes back within `wait`.
    ///
    /// # Errors
    /// Nobody takes datagrams.
    pub(crate) fn heard(&self, wait: Duration) -> io::Result<Heard> {
        if !wait.is_zero() {
            let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
            // Errors are always reported.
            poll(&mut [PollFd::new(&self.socket, PollFlags::empty())], Some(&wait))?;
        }
        match self.socket.take_error()? {
            None => Ok(Heard::Nothing),
            Some(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => Ok(Heard::Narrower),
            Some(error) => Err(error),
        }
    }
}
