//! How many octets of a TCP connection its peer has not acknowledged: asked of the kernel over netlink (`sock_diag`(7)),
//! where the answer is what `ioctl(SIOCOUTQ)` gives, without unsafe code. One socket is looked up by its addresses, so the
//! question costs the same however many sockets there are.

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
/// Lengths of `struct nlmsghdr` and `struct inet_diag_req_v2`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
/// Where `idiag_wqueue` is in `struct inet_diag_msg`, behind the header.
const WRITE_QUEUE: usize = HEADER + 60;

/// Asks about one connection.
#[derive(Debug)]
pub(crate) struct Question {
    netlink: OwnedFd,
    request: [u8; HEADER + REQUEST],
    sequence: u32,
}

impl Question {
    /// About the connection between these.
    pub(crate) fn new(own: SocketAddr, peer: SocketAddr) -> io::Result<Self> {
        let netlink = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::SOCK_DIAG),
        )?;
        rustix::net::connect(&netlink, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { netlink, request: request(own, peer), sequence: 0 })
    }

    /// Octets that were written and not acknowledged.
    pub(crate) fn unacknowledged(&mut self) -> io::Result<u64> {
        self.sequence = self.sequence.wrapping_add(1);
        self.request[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        rustix::net::send(&self.netlink, &self.request, SendFlags::empty())?;
        let mut answer = [0; 1_024];
        loop {
            // The kernel answers before it returns from the call that asks.
            let (length, _) = rustix::net::recv(&self.netlink, &mut answer[..], RecvFlags::empty())?;
            let answer = &answer[..length];
            if number::<4>(answer, 8).map(u32::from_ne_bytes) != Some(self.sequence) {
                continue;
            }
            return match number::<2>(answer, 4).map(u16::from_ne_bytes) {
                Some(NLMSG_ERROR) => {
                    let code = number::<4>(answer, HEADER).map_or(0, i32::from_ne_bytes);
                    Err(io::Error::from_raw_os_error(-code))
                }
                _ => number::<4>(answer, WRITE_QUEUE)
                    .map(|queue| u32::from_ne_bytes(queue).into())
                    .ok_or_else(|| io::ErrorKind::InvalidData.into()),
            };
        }
    }
}

fn number<const N: usize>(answer: &[u8], at: usize) -> Option<[u8; N]> {
    answer.get(at..at + N)?.try_into().ok()
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2`.
fn request(own: SocketAddr, peer: SocketAddr) -> [u8; HEADER + REQUEST] {
    let mut request = [0; HEADER + REQUEST];
    let mut at = 0;
    let mut push = |bytes: &[u8]| {
        request[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    push(&((HEADER + REQUEST) as u32).to_ne_bytes());
    push(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    push(&NLM_F_REQUEST.to_ne_bytes());
    push(&[0; 8]);
    let family = if own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    push(&[family.as_raw() as u8, IPPROTO_TCP, 0, 0]);
    // In any state.
    push(&u32::MAX.to_ne_bytes());
    push(&own.port().to_be_bytes());
    push(&peer.port().to_be_bytes());
    for address in [own.ip(), peer.ip()] {
        let mut field = [0; 16];
        match address {
            IpAddr::V4(v4) => field[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => field.copy_from_slice(&v6.octets()),
        }
        push(&field);
    }
    // The interface: any, or that of a link-local address. Then a cookie that fits every socket.
    let scope = match own {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    push(&scope.to_ne_bytes());
    push(&[0xff; 8]);
    debug_assert_eq!(at, HEADER + REQUEST);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn octets_that_the_peer_has_no_room_for_are_not_acknowledged() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let mut own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let mut question = Question::new(own.local_addr().unwrap(), own.peer_addr().unwrap()).unwrap();
            assert_eq!(question.unacknowledged().unwrap(), 0, "{address}");
            own.set_nonblocking(true).unwrap();
            let mut written = 0;
            while let Ok(more) = own.write(&[7; 65_536]) {
                written += more as u64;
            }
            let waiting = question.unacknowledged().unwrap();
            assert!(waiting > 0 && waiting < written, "{waiting} of {written}");
            let mut left = written;
            let mut buffer = vec![0; 1 << 20];
            while left > 0 {
                left -= peer.read(&mut buffer).unwrap() as u64;
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            while question.unacknowledged().unwrap() > 0 {
                assert!(Instant::now() < deadline);
            }
            drop(own);
        }
    }

    #[test]
    fn a_connection_that_is_not_there_is_an_error() {
        let mut question =
            Question::new("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()).unwrap();
        assert_eq!(question.unacknowledged().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
