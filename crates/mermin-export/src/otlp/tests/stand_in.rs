//! A collector that does as a test tells it: what the real one can't be made to do. Whether the real one understands what
//! is sent is for the tests with the real one.

use super::super::transport::test_status;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// What it answers.
#[derive(Clone, Debug)]
pub(super) enum Reaction {
    /// Takes it, but for so many items.
    Take { rejected: i64 },
    /// Takes it, but for three items, and needs so many bytes to say so.
    TakeLong { bytes: usize },
    /// A gRPC status, with the delay of a `RetryInfo`.
    Grpc(i32, &'static str, Option<Duration>),
    /// An HTTP status, with a `Retry-After`.
    Http(u16, Option<&'static str>),
    /// Never answers.
    Hang,
    /// Breaks the connection.
    Break,
}

pub(super) const TAKE: Reaction = Reaction::Take { rejected: 0 };

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// Without gRPC's frame and without compression.
    pub(super) message: Vec<u8>,
}

type Script = Arc<dyn Fn(usize, &Got) -> Reaction + Send + Sync>;

pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A port of this host that nobody listens on.
pub(super) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl StandIn {
    /// Answers the n-th request, counted from 0, as `script` says.
    pub(super) fn start(script: impl Fn(usize, &Got) -> Reaction + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script)
    }

    pub(super) fn start_at(
        address: SocketAddr,
        script: impl Fn(usize, &Got) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (got, script): (Arc<Mutex<Vec<Got>>>, Script) = (Arc::default(), Arc::new(script));
        let (stop, stopped) = oneshot::channel();
        let taken = Arc::clone(&got);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, taken, script) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, got, stop: Some(stop), thread: Some(thread) }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()),
            "the stand-in panicked"
        );
    }
}

async fn serve(listener: TcpListener, got: Arc<Mutex<Vec<Got>>>, script: Script) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (got, script) = (Arc::clone(&got), Arc::clone(&script));
        let service = service_fn(move |request| answer(request, Arc::clone(&got), Arc::clone(&script)));
        tokio::spawn(async move {
            // A connection that breaks is part of what is tested.
            drop(
                auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("as the script says")
    }
}

impl std::error::Error for Broken {}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    all: Arc<Mutex<Vec<Got>>>,
    script: Script,
) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let grpc = head.headers["content-type"] == "application/grpc";
    let encoding = if grpc { "grpc-encoding" } else { "content-encoding" };
    let encoding = head.headers.get(encoding).map(|value| value.to_str().unwrap());
    let got = Got {
        path: head.uri.path().to_owned(),
        message: plain(if grpc { &body[5..] } else { &body }, encoding),
        headers: head.headers.clone(),
    };
    if grpc {
        assert_eq!(u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize, body.len() - 5);
        assert_eq!(body[0] == 1, encoding.is_some());
    }
    let reaction = {
        let mut all = all.lock().unwrap();
        all.push(got);
        script(all.len() - 1, all.last().unwrap())
    };
    Ok(match reaction {
        Reaction::Hang => std::future::pending().await,
        Reaction::Break => return Err(Broken),
        Reaction::Http(status, after) => {
            let mut response = Response::new(Full::default().boxed());
            *response.status_mut() = status.try_into().unwrap();
            after.map(|after| response.headers_mut().insert("retry-after", HeaderValue::from_static(after)));
            response
        }
        Reaction::Take { rejected } if grpc => taken(&test_status::partial(rejected)),
        Reaction::TakeLong { bytes } if grpc => taken(&test_status::long(bytes)),
        Reaction::TakeLong { bytes } => Response::new(Full::from(test_status::long(bytes)).boxed()),
        Reaction::Take { rejected } => Response::new(Full::from(test_status::partial(rejected)).boxed()),
        Reaction::Grpc(code, message, delay) => {
            let mut trailers = vec![("grpc-status", code.to_string()), ("grpc-message", message.to_owned())];
            trailers
                .extend(delay.map(|delay| ("grpc-status-details-bin", test_status::details(code, delay))));
            with_trailers(Vec::new(), &trailers)
        }
    })
}

fn taken(body: &[u8]) -> Response<Body> {
    let length = u32::try_from(body.len()).unwrap();
    let framed = [&[0][..], &length.to_be_bytes(), body].concat();
    with_trailers(framed, &[("grpc-status", "0".to_owned())])
}

fn with_trailers(body: Vec<u8>, trailers: &[(&'static str, String)]) -> Response<Body> {
    let trailers: HeaderMap =
        trailers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let frames = [Frame::data(Bytes::from(body)), Frame::trailers(trailers)].map(Ok);
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(futures::stream::iter(frames))));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn plain(bytes: &[u8], encoding: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        None => out.extend_from_slice(bytes),
        Some("gzip") => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap()),
        Some("zstd") => out = zstd::decode_all(bytes).unwrap(),
        Some(other) => panic!("{other}"),
    }
    out
}
