//! A connection whose small writes are gathered.
//!
//! HTTP/2 cuts a request into frames of 16 KiB, unless the receiver allows more, and its library hands each to the
//! socket as soon as it is made: 64 system calls and as many segments for a megabyte, which cost more than the bytes do.
//! Here frames are copied one behind the other and written when they fill `ROOM`, or when the connection's task has its
//! next turn: it begins each with reading, and being asked to flush wakes it. So nothing waits for a timer, and nothing
//! that is written stays behind.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Bytes that are gathered at most.
const ROOM: usize = 128 << 10;

/// See the module's text.
pub(super) struct Gathered<S> {
    stream: S,
    /// What has been taken and not been written: all from `begin` on.
    buffer: Vec<u8>,
    begin: usize,
    /// Whether the stream took less than it was given, or isn't flushed: it will wake the task.
    is_behind: bool,
}

impl<S: Connection + Write + Unpin> Gathered<S> {
    /// Of a connection that has just been made. Only HTTP/2 needs it.
    pub(super) fn new(stream: S, is_http2: bool) -> Self {
        let room = if is_http2 || stream.connected().is_negotiated_h2() { ROOM } else { 0 };
        Self { stream, buffer: Vec::with_capacity(room), begin: 0, is_behind: false }
    }

    /// Writes everything.
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_behind = true;
        while self.begin < self.buffer.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.buffer[self.begin..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begin += written;
        }
        self.buffer.clear();
        self.begin = 0;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.is_behind = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: Connection + Write + Unpin> Write for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = parts.iter().map(|part| part.len()).sum();
        if self.buffer.len() + len > self.buffer.capacity() && !self.buffer.is_empty() {
            ready!(self.drain(context))?;
        }
        if len > self.buffer.capacity() {
            return Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        }
        parts.iter().for_each(|part| self.buffer.extend_from_slice(part));
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        self.buffer.capacity() > 0 || self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_behind {
            return self.drain(context);
        }
        if self.buffer.is_empty() {
            return Pin::new(&mut self.stream).poll_flush(context);
        }
        context.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Connection + Read + Write + Unpin> Read for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty()
            && let Poll::Ready(Err(error)) = self.drain(context)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(context, bytes)
    }
}

impl<S: Connection> Connection for Gathered<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::rt::ReadBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    /// A socket that takes `room` bytes.
    #[derive(Default)]
    struct Socket {
        room: usize,
        writes: Vec<Vec<u8>>,
        flushes: usize,
        is_shut: bool,
    }

    impl Write for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let len = bytes.len().min(self.room);
            if len == 0 {
                return Poll::Pending;
            }
            self.room -= len;
            self.writes.push(bytes[..len].to_vec());
            Poll::Ready(Ok(len))
        }
        fn poll_flush(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.is_shut = true;
            Poll::Ready(Ok(()))
        }
    }

    /// Nothing comes in.
    impl Read for Socket {
        fn poll_read(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            _bytes: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl Connection for Socket {
        fn connected(&self) -> Connected {
            Connected::new()
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn gathered(room: usize) -> Gathered<Socket> {
        Gathered::new(Socket { room, ..Socket::default() }, true)
    }

    fn write(stream: &mut Gathered<Socket>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<usize> {
        Pin::new(stream).poll_write(context, bytes).map(Result::unwrap)
    }

    fn flush(stream: &mut Gathered<Socket>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(stream).poll_flush(context).map(Result::unwrap)
    }

    fn read(stream: &mut Gathered<Socket>, context: &mut Context<'_>) {
        let mut buffer = [0; 8];
        assert!(Pin::new(stream).poll_read(context, ReadBuf::new(&mut buffer).unfilled()).is_pending());
    }

    #[test]
    fn frames_of_a_turn_are_one_write_when_the_next_one_begins() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let (mut stream, mut context) = (gathered(usize::MAX), Context::from_waker(&waker));
        for byte in 0..4 {
            assert_eq!(write(&mut stream, &mut context, &[byte; 1_000]), Poll::Ready(1_000));
            assert_eq!(flush(&mut stream, &mut context), Poll::Ready(()));
        }
        assert!(
            stream.stream.writes.is_empty() && woken.0.load(Ordering::Relaxed) > 0,
            "there will be a turn"
        );
        read(&mut stream, &mut context);
        let expected: Vec<u8> = (0..4).flat_map(|byte| [byte; 1_000]).collect();
        assert_eq!((&stream.stream.writes[..], stream.stream.flushes), (&[expected][..], 1));
        let before = woken.0.load(Ordering::Relaxed);
        assert_eq!(flush(&mut stream, &mut context), Poll::Ready(()));
        assert_eq!(woken.0.load(Ordering::Relaxed), before, "nothing to do, nobody to wake");
    }

    #[test]
    fn what_fills_the_room_is_written_at_once_and_what_is_larger_not_copied() {
        let mut context = Context::from_waker(Waker::noop());
        let mut stream = gathered(usize::MAX);
        for _ in 0..9 {
            assert_eq!(write(&mut stream, &mut context, &[1; ROOM / 8]), Poll::Ready(ROOM / 8));
        }
        assert_eq!(stream.stream.writes.iter().map(Vec::len).collect::<Vec<_>>(), [ROOM]);
        assert_eq!(write(&mut stream, &mut context, &[2; ROOM + 1]), Poll::Ready(ROOM + 1));
        assert_eq!(stream.stream.writes.iter().map(Vec::len).collect::<Vec<_>>(), [ROOM, ROOM / 8, ROOM + 1]);
    }

    /// A task that wakes itself while the socket takes nothing spins a core.
    #[test]
    fn a_full_socket_is_waited_for_without_waking() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let (mut stream, mut context) = (gathered(5), Context::from_waker(&waker));
        assert_eq!(write(&mut stream, &mut context, &[1; 8]), Poll::Ready(8));
        read(&mut stream, &mut context);
        assert_eq!(flush(&mut stream, &mut context), Poll::Pending);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        stream.stream.room = 100;
        assert_eq!(flush(&mut stream, &mut context), Poll::Ready(()));
        assert_eq!(stream.stream.writes, [vec![1; 5], vec![1; 3]]);
        assert!(write(&mut stream, &mut context, &[2; 8]).is_ready() && !stream.stream.is_shut);
        assert!(Pin::new(&mut stream).poll_shutdown(&mut context).is_ready());
        assert_eq!((stream.stream.writes.last(), stream.stream.is_shut), (Some(&vec![2; 8]), true));
    }

    #[test]
    fn http1_is_left_as_it_is() {
        let mut context = Context::from_waker(Waker::noop());
        let mut stream = Gathered::new(Socket { room: usize::MAX, ..Socket::default() }, false);
        assert_eq!(write(&mut stream, &mut context, &[1; 8]), Poll::Ready(8));
        assert_eq!(stream.stream.writes, [vec![1; 8]]);
        assert_eq!((flush(&mut stream, &mut context), stream.stream.flushes), (Poll::Ready(()), 1));
    }
}
