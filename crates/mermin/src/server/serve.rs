//! Connections: their limits, and what a request goes through before it is answered.

use super::Bound;
use super::answer::{Answer, PATHS, Question};
use super::places::Places;
use crate::agent::Agent;
use crate::exit::{Exit, Stop};
use http::header::{ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// Looks into the pipeline at once; others wait for them.
const LOOKS_MAX: usize = 2;
/// How long a TLS handshake, or a request's head, may take; also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection lasts: whoever reads slowly does not keep its place for ever.
const CONNECTION_MAX: Duration = Duration::from_secs(300);
/// How long a connection that has lasted so long, or the runtime at its end, may take to finish.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// A request's head, with the answer's buffer.
const BUFFER_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// How long to look away when no connection can be taken (no file descriptor left).
const PAUSE: Duration = Duration::from_millis(100);

/// A server that answers. Letting go of it ends it.
pub(crate) struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Server {
    bound: Arc<Bound>,
    agent: Arc<Agent>,
    places: Arc<Places>,
}

impl Serving {
    /// Answers from now on.
    pub(crate) fn start(bound: Arc<Bound>, agent: Arc<Agent>) -> Result<Self, Stop> {
        let failed = |error: std::io::Error| {
            Stop::new(Exit::Unavailable, format!("can't start the server: {}", crate::config::lower(&error)))
                .at("server")
        };
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(LOOKS_MAX)
            .thread_name("http")
            .build()
            .map_err(failed)?;
        let listener = bound.listener.try_clone().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        info!("Serving metrics, health and status on {}", bound.url());
        if let Some(warning) = bound.warning() {
            warn!("{warning}");
        }
        let server = Arc::new(Server { bound, agent, places: Arc::default() });
        let (stop, stopped) = oneshot::channel();
        let work = move || run(runtime, listener, server, stopped);
        let thread = thread::Builder::new().name("http".to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has been told by its own message.
            let _ = thread.join();
        }
    }
}

fn run(
    runtime: Runtime,
    listener: std::net::TcpListener,
    server: Arc<Server>,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        tokio::select! {
            () = accept(&listener, &server) => {}
            _ = stopped => {}
        }
    });
    // A look into a pipeline that has ended comes back within its own patience.
    runtime.shutdown_timeout(Duration::from_millis(50));
}

async fn accept(listener: &TcpListener, server: &Arc<Server>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!("no connection: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        // What comes on top is told so and closed.
        let Some(place) = server.places.take(peer.ip()) else {
            debug!("no place for a connection from {peer}");
            tokio::spawn(timeout(HEAD_TIMEOUT, refuse(stream, server.bound.tls.is_some())));
            continue;
        };
        let server = Arc::clone(server);
        tokio::spawn(async move {
            server.talk(stream).await;
            drop(place);
        });
    }
}

/// Says that there is no place, where that can be said without a handshake.
async fn refuse(mut stream: TcpStream, tls: bool) {
    if !tls {
        let sentence = "too many connections at once\n";
        let head = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: text/plain\r\n";
        let answer = format!("{head}content-length: {}\r\n\r\n{sentence}", sentence.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
    let _ = stream.shutdown().await;
}

impl Server {
    async fn talk(self: Arc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.bound.tls else { return self.converse(stream).await };
        match timeout(HEAD_TIMEOUT, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => self.converse(stream).await,
            Ok(Err(error)) => debug!("a handshake failed: {error}"),
            Err(_) => debug!("a handshake took too long"),
        }
    }

    async fn converse(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.respond(&request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(BUFFER_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = sleep(CONNECTION_MAX) => {
                connection.as_mut().graceful_shutdown();
                timeout(LAST_WORDS, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = result {
            debug!("a connection ended: {error}");
        }
    }

    async fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let head = request.method() == Method::HEAD;
        let mut response = into_response(self.answer(request).await);
        if head {
            let length = response.body().size_hint().exact().unwrap_or_default();
            response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
            *response.body_mut() = Full::default();
        }
        if !request.body().is_end_stream() {
            // What follows on the connection is a body that nobody reads.
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Answer::sentence(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here");
        }
        if !request.body().is_end_stream() {
            return Answer::sentence(StatusCode::PAYLOAD_TOO_LARGE, "a request has no body here");
        }
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let token = self.bound.token.as_ref();
        let question = Question {
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            accept: text(ACCEPT).unwrap_or_default().to_owned(),
            trusted: token.is_none_or(|token| token.is_shown(text(AUTHORIZATION))),
        };
        // Health is told even while looks into the pipeline are held up.
        if question.is_quick() || !PATHS.iter().any(|(path, _)| *path == question.path) {
            return question.answer(&self.agent);
        }
        let agent = Arc::clone(&self.agent);
        tokio::task::spawn_blocking(move || question.answer(&agent)).await.unwrap_or_else(|_| {
            Answer::sentence(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed: a bug in mermin")
        })
    }
}

fn into_response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if answer.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}
