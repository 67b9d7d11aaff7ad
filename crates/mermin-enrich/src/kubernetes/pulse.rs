//! When something was last read from a connection.
//!
//! Nothing having been told for a minute means two things: nothing happened, or nobody is there. HTTP/2 pings tell them
//! apart at the price of a frame a second: hyper sends them, and what is read here (an answer, or anything else) shows
//! that the server was alive. A connection of the pool hands its pulse to each response that came over it.

use crate::kubernetes::clock::Clock;
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

    /// Waits for the next beat.
    pub(crate) async fn next(&self) {
        self.0.notify.notified().await;
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
