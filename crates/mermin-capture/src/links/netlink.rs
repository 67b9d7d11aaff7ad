//! Netlink messages and sockets (RFC 3549; linux/netlink.h), as far as links and their filters need them.
//!
//! Written out here because a netlink crate brings an async runtime for what fits a screen.

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
const DUMP: u16 = 0x300;
/// A dump was interrupted by a change: parts may be missing.
const INTERRUPTED: u16 = 0x10;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;

const HEADER: usize = 16;
/// More than the kernel puts into one datagram.
pub(super) const DATAGRAM: usize = 64 << 10;

/// A message under construction: what follows the header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    /// Begins with a family's own header.
    pub(crate) fn new(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    /// Appends an attribute, padded to four bytes.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).expect("attributes here are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends an attribute that holds a text and a zero.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends an attribute that holds a number.
    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute that holds others.
    pub(crate) fn nested(self, kind: u16, attributes: &Self) -> Self {
        self.attribute(kind, &attributes.0)
    }
}

/// A message of a datagram: its type and what follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    flags: u16,
    pub(crate) body: &'a [u8],
}

/// The messages of a datagram, as far as they are whole.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(datagram, 0)?).ok()?;
        let body = datagram.get(HEADER..length)?;
        let message = Message { kind: half(datagram, 4)?, flags: half(datagram, 6)?, body };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`, by number, as far as they are whole.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Marks of nesting and byte order.
    const NUMBER: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let value = bytes.get(4..length)?;
        let kind = half(bytes, 2)? & NUMBER;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A number in the machine's byte order.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|half| u16::from_ne_bytes(*half))
}

/// A text before its zero.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// A connection to the network namespace of the thread that opens it, for requests one at a time.
#[derive(Debug)]
pub(crate) struct Requests {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// A socket that hears the multicast groups of `groups`.
pub(super) fn open(groups: u32) -> io::Result<OwnedFd> {
    // No protocol is NETLINK_ROUTE.
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    bind(&fd, &SocketAddrNetlink::new(0, groups))?;
    Ok(fd)
}

impl Requests {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { fd: open(0)?, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Sends one request and waits until the kernel has done it.
    pub(crate) fn request(&mut self, kind: u16, flags: u16, body: &Body) -> io::Result<()> {
        self.exchange(kind, ACK | flags, body, |_| {}).map(|_| ())
    }

    /// Asks for one thing: the first message of the answer goes to `take`.
    pub(crate) fn ask(&mut self, kind: u16, body: &Body, take: impl FnMut(Message<'_>)) -> io::Result<()> {
        self.exchange(kind, ACK, body, take).map(|_| ())
    }

    /// Asks for all of a kind. `false`: something changed meanwhile, and the answer may have gaps.
    pub(crate) fn dump(&mut self, kind: u16, body: &Body, take: impl FnMut(Message<'_>)) -> io::Result<bool> {
        self.exchange(kind, DUMP, body, take)
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &Body,
        mut take: impl FnMut(Message<'_>),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + body.0.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(&body.0);
        send(&self.fd, &message, SendFlags::empty())?;
        let mut whole = true;
        loop {
            let length = match recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, length)) => length.min(DATAGRAM),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let datagram = &self.buffer[..length];
            // An answer to an earlier request that failed half-way.
            if word(datagram, 8) != Some(self.sequence) {
                continue;
            }
            for message in messages(datagram) {
                whole &= message.flags & INTERRUPTED == 0;
                match message.kind {
                    ERROR => {
                        let code = word(message.body, 0).unwrap_or_default() as i32;
                        return if code == 0 { Ok(whole) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    DONE => return Ok(whole),
                    OVERRUN => return Err(io::Error::other("netlink lost a message")),
                    _ => take(message),
                }
            }
        }
    }
}

impl AsFd for Requests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_read_back() {
        let inner = Body::default().text(7, "mermin").number(8, 1);
        let body = Body::new(&[9; 4]).text(1, "bpf").nested(2, &inner);
        let outer: Vec<_> = attributes(&body.0[4..]).collect();
        assert_eq!(outer[0], (1, &b"bpf\0"[..]));
        let inner: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!((text(inner[0].1).as_str(), word(inner[1].1, 0)), ("mermin", Some(1)));
        assert_eq!(body.0.len() % 4, 0);
    }

    #[test]
    fn the_kernel_lists_links_and_refuses_what_it_does_not_know() {
        let mut requests = Requests::open().unwrap();
        let mut links = 0;
        let header = Body::new(&[0; 16]);
        assert!(requests.dump(18, &header, |message| links += usize::from(message.kind == 16)).unwrap());
        assert!(links > 0, "every namespace has lo");
        let mut absent = [0; 16];
        absent[4..8].copy_from_slice(&999_999_u32.to_ne_bytes());
        let error = requests.ask(18, &Body::new(&absent), |_| {}).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    proptest! {
        /// Whatever comes, walking it ends and stays inside.
        #[test]
        fn any_bytes_can_be_walked(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                let _ = attributes(message.body).count();
            }
            let _ = attributes(&bytes).count();
        }
    }
}
