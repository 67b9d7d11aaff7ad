//! A stand-in for a collector, for what the real one can't be made to do when a test wants it: answer the third request
//! with 429 and a hint, accept all items but two, hang, break off in the middle of an answer.
//!
//! It is no mock of our own exporter's idea of OTLP: it speaks HTTP/2 and HTTP/1.1 by hyper, decodes each request with
//! the official protobuf types and keeps what it accepted. Whatever the real collector can do is tested with that one
//! (`collector.rs`). One port takes gRPC and HTTP, in clear or by TLS.

mod answer;
mod kept;
mod wire;

pub use answer::Answer;
pub use kept::{Kept, Sums};
pub use wire::{Protocol, Signal};

use super::certificates::{Authority, Pair};
use super::place::Place;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::{ClientConfig, ServerConfig};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// What the script is told of a request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// 0 for the first request to this collector, also across restarts.
    pub number: usize,
    /// Traces, logs or metrics.
    pub signal: Signal,
    /// How it came.
    pub protocol: Protocol,
    /// Spans, log records or data points.
    pub items: usize,
    /// `gzip`, `zstd`, or nothing where it came as it is.
    pub encoding: Option<String>,
    /// Bytes of the message as they came.
    pub wire_bytes: usize,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// When it was complete.
    pub at: Instant,
}

impl Asked {
    /// A header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

type Script = dyn Fn(&Asked) -> Answer + Send + Sync;

/// What all connections share.
struct Shared {
    script: Box<Script>,
    log: Mutex<Vec<(Asked, Answer)>>,
    kept: Mutex<Kept>,
}

/// A running stand-in.
pub struct FaultyCollector {
    shared: Arc<Shared>,
    place: Place,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    authority: Authority,
    client: Pair,
    /// Nothing while it is down.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for FaultyCollector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FaultyCollector").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FaultyCollector {
    /// Starts one that answers each request as `script` says.
    #[must_use]
    pub fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_in(&Place::Here, None, script)
    }

    /// Starts one in a place; with TLS, mutual or not.
    ///
    /// # Panics
    /// When it can't listen.
    #[must_use]
    pub fn start_in(
        place: &Place,
        tls: Option<super::collector::Tls>,
        script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new();
        let server = authority.server("faulty-collector", &[]);
        let tls = tls.map(|tls| {
            let mut config = authority.serving(&server, tls == super::collector::Tls::Mutual);
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Arc::new(config)
        });
        let shared = Shared { script: Box::new(script), log: Mutex::default(), kept: Mutex::default() };
        let mut collector = Self {
            shared: Arc::new(shared),
            place: place.clone(),
            address: place.free_address(),
            tls,
            client: authority.client("agent", &[]),
            authority,
            runtime: None,
        };
        collector.restart();
        collector
    }

    /// For `export.otlp.endpoint`, with either protocol.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// The file with the authority that signed its certificate.
    #[must_use]
    pub fn authority(&self) -> &std::path::Path {
        self.authority.certificate()
    }

    /// What a client may show to it.
    #[must_use]
    pub fn client_pair(&self) -> &Pair {
        &self.client
    }

    /// A TLS client that trusts it, and shows a certificate or doesn't.
    #[must_use]
    pub fn trusting(&self, shows: bool) -> Arc<ClientConfig> {
        self.authority.trusting(shows.then_some(&self.client))
    }

    /// Every request so far and what was answered, in the order of the answers.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    #[must_use]
    pub fn log(&self) -> Vec<(Asked, Answer)> {
        self.shared.log.lock().expect("no holder panics").clone()
    }

    /// What it has accepted so far.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.shared.kept.lock().expect("no holder panics").clone()
    }

    /// Closes its port and all connections; new ones are refused.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Returns when the sockets are closed: the port can be taken again.
            runtime.shutdown_timeout(std::time::Duration::from_secs(10));
        }
    }

    /// Listens at its address again; what it had accepted is kept.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn restart(&mut self) {
        self.stop();
        let listener = self.place.inside(|| TcpListener::bind(self.address)).expect("the address is free");
        listener.set_nonblocking(true).expect("a socket can be");
        let runtime = RuntimeBuilder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("the system gives a runtime");
        let (shared, tls) = (self.shared.clone(), self.tls.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("within a runtime");
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(connection(stream, tls.clone(), shared.clone()));
            }
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for FaultyCollector {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn connection(stream: TcpStream, tls: Option<Arc<ServerConfig>>, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve(stream, shared).await,
        Some(config) => {
            // A client that doesn't trust us, or shows nothing: the handshake's failure is what the test wants.
            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                serve(stream, shared).await;
            }
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, shared: Arc<Shared>) {
    let cut = Arc::new(Notify::new());
    let cutter = cut.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (shared, cutter) = (shared.clone(), cutter.clone());
        async move { handle(request, &shared, &cutter).await }
    });
    let builder = Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        () = cut.notified() => {}
    }
}

async fn handle(
    request: hyper::Request<Incoming>,
    shared: &Shared,
    cutter: &Notify,
) -> Result<hyper::Response<answer::Body>, std::convert::Infallible> {
    let Some((mut asked, batch)) = wire::read(request).await else {
        return Ok(answer::not_understood());
    };
    let protocol = asked.protocol;
    let (signal, answer) = {
        // In one go: numbers, log and what is kept agree.
        let mut log = shared.log.lock().expect("no holder panics");
        asked.number = log.len();
        let answer = (shared.script)(&asked);
        let kept = answer.kept_of(asked.items);
        shared.kept.lock().expect("no holder panics").take(batch, kept);
        let signal = asked.signal;
        log.push((asked, answer.clone()));
        (signal, answer)
    };
    Ok(answer.give(protocol, signal, cutter).await)
}
