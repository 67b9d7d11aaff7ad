//! When something was last read from a connection.
//!
//! Nothing having been told for a minute means two things: nothing happened, or nobody is there. HTTP/2 pings tell them
//! apart at the price of a frame a second: hyper sends them, and what is read here (an answer, or anything else) shows
//! that the server was alive. A connection of the pool hands its pulse to each response that came over it.

use crate::clock::Clock;
use crate::kubernetes::object::Time;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tower::{BoxError, Service};

/// A sign of life of one connection, or of the probe that stands for it.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Arc<Beat>);

#[derive(Debug)]
struct Beat {
    clock: Clock,
    last: AtomicU64,
    notify: Notify,
}

impl Pulse {
    /// That beats now.
    pub(crate) fn new(clock: Clock) -> Self {
        let last = AtomicU64::new(clock.now());
        Self(Arc::new(Beat { clock, last, notify: Notify::new() }))
    }

    /// Something was heard at `time`.
    pub(crate) fn beat_at(&self, time: Time) {
        self.0.last.fetch_max(time, Ordering::Relaxed);
        self.0.notify.notify_waiters();
    }

    /// When something was last heard.
    pub(crate) fn last(&self) -> Time {
        self.0.last.load(Ordering::Relaxed)
    }

    /// The first beat after `seen`, or the last one where there were several: none is missed by who looks late.
    pub(crate) async fn after(&self, seen: Time) -> Time {
        loop {
            // Before the look: it hears of beats from here on.
            let next = self.0.notify.notified();
            let last = self.last();
            if last > seen {
                return last;
            }
            next.await;
        }
    }
}

/// Makes connections with a pulse.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    inner: HttpsConnector<HttpConnector>,
    clock: Clock,
    /// For name resolution, TCP and TLS together: a server that is stopped completes none but TCP.
    timeout: Duration,
}

impl Connector {
    pub(crate) fn new(inner: HttpsConnector<HttpConnector>, clock: Clock, timeout: Duration) -> Self {
        Self { inner, clock, timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = Pulsing;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Pulsing, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.inner.call(to));
        let clock = self.clock;
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
            Ok(Pulsing { stream: connecting.await.map_err(late)??, pulse: Pulse::new(clock) })
        })
    }
}

/// A connection whose reads are its pulse.
pub(crate) struct Pulsing {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    pulse: Pulse,
}

impl Connection for Pulsing {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.pulse.clone())
    }
}

impl Read for Pulsing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        // The end of the stream, too, is told by somebody.
        if matches!(polled, Poll::Ready(Ok(()))) {
            let now = self.pulse.0.clock.now();
            self.pulse.beat_at(now);
        }
        polled
    }
}

impl Write for Pulsing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_beat_is_not_missed_by_who_looks_late() {
        let pulse = Pulse::new(Clock::new());
        let first = pulse.last();
        assert_eq!(pulse.after(0).now_or_never(), Some(first));
        assert_eq!(pulse.after(first).now_or_never(), None);
        pulse.beat_at(first + 5);
        pulse.beat_at(first + 7);
        assert_eq!(pulse.after(first).now_or_never(), Some(first + 7));
        assert_eq!(pulse.after(first + 7).now_or_never(), None);
    }

    #[test]
    fn who_waits_hears_the_next_beat() {
        let pulse = Pulse::new(Clock::new());
        let (first, other) = (pulse.last(), pulse.clone());
        let mut waits = Box::pin(pulse.after(first));
        assert_eq!(waits.as_mut().now_or_never(), None);
        other.beat_at(first + 1);
        assert_eq!(waits.now_or_never(), Some(first + 1));
    }
}
