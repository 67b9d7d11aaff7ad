//! Sockets to ctnetlink (linux/netfilter/nfnetlink.h): one that hears of connections, one that asks for all.

use crate::conntrack::ConntrackError;
use crate::conntrack::message::{ALL, GET};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `NFNLGRP_CONNTRACK_NEW` (1) and `NFNLGRP_CONNTRACK_DESTROY` (3), as a mask.
const GROUPS: u32 = 1 | 1 << 2;
/// What may wait in the kernel: events of 10 000 connections, roughly. It takes the memory when they wait.
const QUEUE: usize = 16 << 20;
/// How long a wait for events lasts, ms: then the queue is known to be empty, so that is how exactly the time of the next event
/// is known. And how long one for an answer lasts that the kernel owes.
const WAIT: i64 = 250;
const ANSWER: i64 = 5_000;

const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
/// Something changed during a dump: parts may be missing.
const INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;
const HEADER: usize = 16;

/// More than the kernel puts into one datagram.
pub(super) const DATAGRAM: usize = 64 << 10;

/// Hears of connections that begin and end.
pub(super) fn subscribe() -> Result<OwnedFd, ConntrackError> {
    let events = open(WAIT)?;
    // Without the right to go beyond `net.core.rmem_max`, up to it.
    if setsockopt(&events, RcvBufForce, &QUEUE).is_err() {
        setsockopt(&events, RcvBuf, &QUEUE).map_err(io::Error::from)?;
    }
    bind(events.as_raw_fd(), &NetlinkAddr::new(0, GROUPS)).map_err(ConntrackError::of)?;
    Ok(events)
}

fn open(wait: i64) -> Result<OwnedFd, ConntrackError> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter);
    let socket = socket.map_err(ConntrackError::of)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(wait)).map_err(io::Error::from)?;
    Ok(socket)
}

/// Whether the kernel would tell.
pub(super) fn attempt() -> Result<(), ConntrackError> {
    subscribe()?;
    Look::begin()?.next(&mut vec![0; DATAGRAM], |_, _| {}).map(|_| ())
}

/// What a read of events gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A datagram of this length.
    Datagram(usize),
    /// Nothing, up to now.
    Nothing,
    /// Some were lost: more came than were read.
    Overrun,
}

/// Reads events: waits a moment for some, or not at all.
pub(super) fn hear(events: &OwnedFd, buffer: &mut [u8], waits: bool) -> io::Result<Heard> {
    let flags = if waits { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    match recv(events.as_raw_fd(), buffer, flags) {
        Ok(length) => Ok(Heard::Datagram(length.min(buffer.len()))),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Heard::Nothing),
        Err(Errno::ENOBUFS) => Ok(Heard::Overrun),
        Err(error) => Err(error.into()),
    }
}

/// A request for all connections, whose answer comes datagram by datagram.
#[derive(Debug)]
pub(super) struct Look {
    socket: OwnedFd,
    is_done: bool,
    /// Nothing was left out so far.
    pub(super) is_whole: bool,
}

impl Look {
    pub(super) fn begin() -> Result<Self, ConntrackError> {
        let socket = open(ANSWER)?;
        let mut request = ((HEADER + ALL.len()) as u32).to_ne_bytes().to_vec();
        request.extend(GET.to_ne_bytes());
        request.extend((REQUEST | DUMP).to_ne_bytes());
        // Sequence and port: the socket asks once.
        request.extend([0; 8]);
        request.extend(ALL);
        send(socket.as_raw_fd(), &request, MsgFlags::empty()).map_err(ConntrackError::of)?;
        Ok(Self { socket, is_done: false, is_whole: true })
    }

    /// Takes the next datagram of the answer; `false`: there is none.
    pub(super) fn next(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(u16, &[u8]),
    ) -> Result<bool, ConntrackError> {
        if self.is_done {
            return Ok(false);
        }
        let length = match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => length.min(buffer.len()),
            Err(Errno::EINTR) => return Ok(true),
            Err(error) => return Err(ConntrackError::of(error)),
        };
        for message in messages(&buffer[..length]) {
            self.is_whole &= message.flags & INTERRUPTED == 0;
            match message.kind {
                ERROR => {
                    let code = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return Err(ConntrackError::of(Errno::from_raw(code.wrapping_neg())));
                }
                DONE => self.is_done = true,
                OVERRUN => self.is_whole = false,
                kind => take(kind, message.body),
            }
        }
        Ok(true)
    }
}

/// A message of a datagram: its type and what follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    pub(super) body: &'a [u8],
}

/// The messages of a datagram, as far as they are whole.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let half = |at: usize| datagram.get(at..)?.first_chunk().map(|half| u16::from_ne_bytes(*half));
        let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        let body = datagram.get(HEADER..length)?;
        let message = Message { kind: half(4)?, flags: half(6)?, body };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_datagrams_messages_are_found_as_far_as_they_are_whole() {
        let message = |kind: u16, body: &[u8]| {
            let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let datagram = [message(7, &[1, 2, 3]), message(8, &[]), message(9, &[4])].concat();
        let read = |length: usize| {
            messages(&datagram[..length])
                .map(|message| (message.kind, message.body.to_vec()))
                .collect::<Vec<_>>()
        };
        assert_eq!(read(datagram.len()), [(7, vec![1, 2, 3]), (8, vec![]), (9, vec![4])]);
        assert_eq!(read(datagram.len() - 4), [(7, vec![1, 2, 3]), (8, vec![])]);
        assert_eq!(read(3), []);
    }

    proptest! {
        /// Whatever comes, walking it ends and stays inside.
        #[test]
        fn any_bytes_can_be_walked(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let inside: usize = messages(&bytes).map(|message| HEADER + message.body.len()).sum();
            prop_assert!(inside <= bytes.len());
        }
    }
}
