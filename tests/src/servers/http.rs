//! A small HTTP client that blocks: for what a test asks of a server, not for what the program under test does.

use super::place::Place;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server that hangs makes the request fail, not the test wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reaches one server.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where the server is.
    pub place: Place,
    /// Its address there.
    pub address: SocketAddr,
    /// Speaks TLS by this.
    pub tls: Option<Arc<ClientConfig>>,
    /// Sent as `Authorization`: `Bearer …`, `Basic …`.
    pub authorization: Option<String>,
    /// Speaks HTTP/2 from the first byte on, as gRPC does.
    pub http2: bool,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// Of the body.
    pub content_type: &'static str,
    /// Empty where there is none.
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header fields and trailers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Request {
    /// Asks for a path.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), content_type: "application/json", body: Vec::new() }
    }
}

impl Response {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// A client of a server that speaks plain HTTP.
    #[must_use]
    pub fn plain(place: &Place, address: SocketAddr) -> Self {
        Self { place: place.clone(), address, tls: None, authorization: None, http2: false }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// What went wrong on the way; an answer of any status is none.
    pub fn send(&self, request: Request) -> Result<Response, String> {
        self.send_all(vec![request], 1).pop().expect("an answer for each request")
    }

    /// Sends requests over up to `connections` connections at once; answers are in the requests' order.
    ///
    /// # Panics
    /// When the system gives no runtime.
    #[must_use]
    pub fn send_all(&self, requests: Vec<Request>, connections: usize) -> Vec<Result<Response, String>> {
        let answers: Vec<_> = requests.iter().map(|_| Err("not sent".to_owned())).collect();
        let (queue, answers) = (Mutex::new(requests.into_iter().enumerate()), Mutex::new(answers));
        self.place.inside(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("the system gives a runtime");
            runtime.block_on(async {
                let lane = || self.work_off(&queue, &answers);
                let mut lanes = Vec::from_iter((0..connections).map(|_| Box::pin(lane())));
                // Polled side by side by this one thread: nothing has to be sent elsewhere.
                std::future::poll_fn(|context| {
                    lanes.retain_mut(|lane| lane.as_mut().poll(context).is_pending());
                    if lanes.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                })
                .await;
            });
        });
        answers.into_inner().expect("no holder panics")
    }

    async fn work_off(
        &self,
        queue: &Mutex<impl Iterator<Item = (usize, Request)>>,
        answers: &Mutex<Vec<Result<Response, String>>>,
    ) {
        let mut connection = None;
        loop {
            let next = queue.lock().expect("no holder panics").next();
            let Some((number, request)) = next else { return };
            let answer = tokio::time::timeout(PATIENCE, self.ask(&mut connection, request)).await;
            let answer = answer.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}")));
            if answer.is_err() {
                connection = None;
            }
            answers.lock().expect("no holder panics")[number] = answer;
        }
    }

    async fn ask(&self, connection: &mut Option<Connection>, request: Request) -> Result<Response, String> {
        if connection.is_none() {
            *connection = Some(self.connect().await?);
        }
        let connection = connection.as_mut().expect("it was just made");
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut builder = hyper::Request::builder().method(request.method);
        builder = match connection {
            Connection::Http1(_) => builder.uri(request.path).header("host", self.address.to_string()),
            // In HTTP/2 scheme and host belong to the request's target.
            Connection::Http2(_) => {
                builder.uri(format!("{scheme}://{}{}", self.address, request.path)).header("te", "trailers")
            }
        };
        builder = builder.header("content-type", request.content_type);
        if let Some(authorization) = &self.authorization {
            builder = builder.header("authorization", authorization);
        }
        let whole = builder.body(Full::new(Bytes::from(request.body))).map_err(|error| error.to_string())?;
        let response = connection.send(whole).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        let text =
            |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let trailers = body.trailers().into_iter().flatten();
        let headers =
            head.headers.iter().chain(trailers).map(|(name, value)| (name.to_string(), text(value)));
        let headers = headers.collect();
        Ok(Response { status: head.status.as_u16(), headers, body: body.to_bytes().to_vec() })
    }

    async fn connect(&self) -> Result<Connection, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => self.over(stream).await,
            Some(tls) => {
                let mut config = ClientConfig::clone(tls);
                if self.http2 {
                    config.alpn_protocols = vec![b"h2".to_vec()];
                }
                let connector = TlsConnector::from(Arc::new(config));
                let stream = connector.connect(self.address.ip().into(), stream).await;
                self.over(stream.map_err(|error| error.to_string())?).await
            }
        }
    }

    async fn over<S>(&self, stream: S) -> Result<Connection, String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        if self.http2 {
            let made = http2::handshake(TokioExecutor::new(), stream).await;
            let (sender, connection) = made.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            Ok(Connection::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            Ok(Connection::Http1(sender))
        }
    }
}

enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn send(
        &mut self,
        request: hyper::Request<Full<Bytes>>,
    ) -> hyper::Result<hyper::Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}
