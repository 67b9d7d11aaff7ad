//! The connection to a collector, and the call.

use super::answer::{self, Answer, Status, plain};
use super::chunks::Chunks;
use super::gathered::Gathered;
use super::message::Message;
use crate::error::ExportError;
use crate::otlp::config::OtlpProtocol;
use crate::otlp::settings::Settings;
use crate::secure::Watched;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mermin_flow::Delivery;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Bytes of an answer that are kept: as much as gRPC's clients take. The rest is read, but for the trailers behind it.
const ANSWER_MAX: usize = 4 << 20;

/// How often files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Bytes of a request that wait for the socket; the default of 400 KiB means more turns.
const SEND_BUFFER: usize = 1 << 20;

type Http = Client<Counted, Chunks>;

/// Sends requests of one signal. Calls may run side by side.
pub(crate) struct Transport {
    name: String,
    settings: Settings,
    delivery: Arc<Delivery>,
    link: Mutex<Link>,
    /// Whether what came with an acceptance was told once.
    told: AtomicBool,
}

/// What a request goes over, and what changes with files.
struct Link {
    client: Http,
    tls: ClientConfig,
    certificates: Watched,
    authorization: Option<HeaderValue>,
    secret: Watched,
    looked: Instant,
}

impl Transport {
    /// Reads certificates and secrets; connects to nothing yet.
    pub(crate) fn new(
        name: String,
        settings: Settings,
        delivery: Arc<Delivery>,
    ) -> Result<Self, ExportError> {
        let tls = tls(&settings)?;
        let authorization = settings
            .credentials
            .header()
            .map_err(|why| crate::otlp::settings::problem("export.otlp", why, "look at the file"))?;
        let link = Link {
            client: client(&settings, tls.clone(), &delivery),
            tls,
            certificates: Watched::new(settings.tls.paths()),
            authorization,
            secret: Watched::new(settings.credentials.file()),
            looked: Instant::now(),
        };
        Ok(Self { name, settings, delivery, link: Mutex::new(link), told: AtomicBool::new(false) })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// One request. Takes `timeout` at most.
    pub(crate) async fn send(&self, message: &Message) -> Answer {
        let (client, authorization) = self.current();
        let request = self.request(message, authorization);
        let _in_flight = InFlight::new(&self.delivery);
        self.delivery.requests.fetch_add(1, Ordering::Relaxed);
        self.delivery.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        let (began, timeout) = (Instant::now(), self.settings.timeout);
        let answer = match tokio::time::timeout(timeout, self.call(&client, request)).await {
            Ok(answer) => answer,
            Err(_) => Answer::None { why: format!("no answer within {timeout:?}") },
        };
        if !matches!(answer, Answer::Accepted { .. }) {
            self.delivery.failures.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(answer, Answer::None { .. }) {
            // Whatever ails that connection, the next request goes over another one.
            let mut link = self.lock();
            link.client = client_of(&self.settings, &link, &self.delivery);
        } else {
            self.delivery.answered(began.elapsed());
        }
        if let Answer::Accepted { rejected: 0, why } = &answer
            && !why.is_empty()
            && !self.told.swap(true, Ordering::Relaxed)
        {
            warn!("{}: {} accepts all, but: {why}", self.name, self.settings.endpoint);
        }
        answer
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Client and credentials, after a look at the files that they come from.
    fn current(&self) -> (Http, Option<HeaderValue>) {
        let mut link = self.lock();
        if link.looked.elapsed() >= LOOK {
            link.looked = Instant::now();
            if link.secret.have_changed() {
                match self.settings.credentials.header() {
                    Ok(authorization) => link.authorization = authorization,
                    Err(why) => warn!("{}: {why}; the secret that was read before is still used", self.name),
                }
            }
            if link.certificates.have_changed() {
                match tls(&self.settings) {
                    Ok(config) => {
                        info!("{}: certificates have changed; connecting anew", self.name);
                        link.tls = config;
                        link.client = client_of(&self.settings, &link, &self.delivery);
                    }
                    Err(error) => warn!("{}: {error}; those read before are still used", self.name),
                }
            }
        }
        (link.client.clone(), link.authorization.clone())
    }

    fn request(&self, message: &Message, authorization: Option<HeaderValue>) -> Request<Chunks> {
        let mut request = Request::new(message.body());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.settings.url.clone();
        let headers = request.headers_mut();
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        for (name, value) in &self.settings.headers {
            headers.insert(name.clone(), value.clone());
        }
        let constant = HeaderValue::from_static;
        headers.insert(USER_AGENT, constant(concat!("mermin/", env!("CARGO_PKG_VERSION"))));
        let encoding = self.settings.compression.encoding().map(constant);
        match self.settings.protocol {
            OtlpProtocol::Grpc => {
                headers.insert(CONTENT_TYPE, constant("application/grpc"));
                headers.insert(TE, constant("trailers"));
                encoding.into_iter().for_each(|encoding| drop(headers.insert("grpc-encoding", encoding)));
            }
            OtlpProtocol::Http => {
                headers.insert(CONTENT_TYPE, constant("application/x-protobuf"));
                encoding.into_iter().for_each(|encoding| drop(headers.insert(CONTENT_ENCODING, encoding)));
            }
        }
        request
    }

    async fn call(&self, client: &Http, request: Request<Chunks>) -> Answer {
        let response = match client.request(request).await {
            Ok(response) => response,
            Err(error) => {
                let what = if error.is_connect() { "can't connect" } else { "the connection broke" };
                return Answer::None { why: format!("{what}: {}", root(&error)) };
            }
        };
        match Reply::read(response).await {
            Ok(reply) => reply.meaning(self.settings.protocol),
            Err(why) => Answer::None { why },
        }
    }
}

/// What was answered.
struct Reply {
    head: http::response::Parts,
    body: Bytes,
    trailers: HeaderMap,
}

impl Reply {
    async fn read(response: Response<Incoming>) -> Result<Self, String> {
        let (head, mut frames) = response.into_parts();
        let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
        while let Some(frame) = frames.frame().await {
            let frame =
                frame.map_err(|error| format!("the connection broke within the answer: {}", root(&error)))?;
            match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data[..data.len().min(ANSWER_MAX - body.len())]),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok(Self { head, body: body.into(), trailers })
    }

    fn meaning(&self, protocol: OtlpProtocol) -> Answer {
        if !self.head.status.is_success() {
            let message = Status::decode(self.body.clone()).map(|status| status.message);
            let retry_after = self.head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            return answer::http(self.head.status, &message.unwrap_or_default(), retry_after);
        }
        match protocol {
            OtlpProtocol::Http => self.accepted(self.body.clone()),
            OtlpProtocol::Grpc => self.grpc(),
        }
    }

    /// The answers of all three signals have one form on the wire. Something else is an acceptance too, if an odd one:
    /// there are receivers that say `OK`. But a page for people is from somebody who takes no records.
    fn accepted(&self, body: Bytes) -> Answer {
        let Ok(answer) = ExportTraceServiceResponse::decode(body) else {
            let kind = self.head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let kind = plain(kind.unwrap_or("of no type"));
            if kind.to_ascii_lowercase().starts_with("text/html") {
                let why = "the answer is a web page: no collector is at this address".to_owned();
                return Answer::Refused { why };
            }
            let why = format!("what it answers ({kind}) can't be read, so what it rejects isn't known");
            return Answer::Accepted { rejected: 0, why };
        };
        let partial = answer.partial_success.unwrap_or_default();
        Answer::Accepted {
            rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(),
            why: plain(&partial.error_message),
        }
    }

    fn grpc(&self) -> Answer {
        // An answer without a body has its status among the headers.
        let text = |name: &str| {
            let value = self.trailers.get(name).or_else(|| self.head.headers.get(name));
            value.and_then(|value| value.to_str().ok())
        };
        let Some(code) = text("grpc-status").and_then(|code| code.trim().parse().ok()) else {
            return Answer::None { why: "an answer without a gRPC status".to_owned() };
        };
        if code == 0 {
            // One byte says whether it is compressed, which it isn't, as nobody asked for that; four its length.
            return self.accepted(if self.body.len() > 5 { self.body.slice(5..) } else { Bytes::new() });
        }
        let message = percent_decoded(text("grpc-message").unwrap_or_default());
        let details = text("grpc-status-details-bin")
            .and_then(|details| STANDARD_NO_PAD.decode(details.trim_end_matches('=')).ok())
            .and_then(|details| Status::decode(&details[..]).ok());
        answer::grpc(code, &message, details.as_ref())
    }
}

/// gRPC's form of texts in headers.
fn percent_decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let decoded =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The cause of causes, which says most.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    let text = plain(&error.to_string());
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Reads certificates, where they are needed.
fn tls(settings: &Settings) -> Result<ClientConfig, ExportError> {
    if settings.is_secure() {
        return settings.tls.config();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("ring has every version");
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn client_of(settings: &Settings, link: &Link, delivery: &Arc<Delivery>) -> Http {
    client(settings, link.tls.clone(), delivery)
}

fn client(settings: &Settings, tls: ClientConfig, delivery: &Arc<Delivery>) -> Http {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(settings.timeout));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let is_grpc = settings.protocol == OtlpProtocol::Grpc;
    let connector = if is_grpc {
        connector.enable_http2().wrap_connector(tcp)
    } else {
        connector.enable_all_versions().wrap_connector(tcp)
    };
    let connector = Counted { connector, is_grpc, delivery: Arc::clone(delivery) };
    Client::builder(TokioExecutor::new())
        .http2_only(is_grpc)
        .http2_max_send_buf_size(SEND_BUFFER)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .build(connector)
}

/// Counts requests that have no answer yet, also when they are given up.
struct InFlight<'d>(&'d AtomicU64);

impl<'d> InFlight<'d> {
    fn new(delivery: &'d Delivery) -> Self {
        delivery.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(&delivery.in_flight)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts connections.
#[derive(Clone)]
struct Counted {
    connector: HttpsConnector<HttpConnector>,
    is_grpc: bool,
    delivery: Arc<Delivery>,
}

impl tower_service::Service<http::Uri> for Counted {
    type Response = Gathered<<HttpsConnector<HttpConnector> as tower_service::Service<http::Uri>>::Response>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let (connecting, is_grpc, delivery) =
            (self.connector.call(uri), self.is_grpc, Arc::clone(&self.delivery));
        Box::pin(async move {
            let connection = connecting.await?;
            delivery.connections.fetch_add(1, Ordering::Relaxed);
            Ok(Gathered::new(connection, is_grpc))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(headers: &[(&'static str, &str)], body: &[u8], trailers: &[(&'static str, &str)]) -> Reply {
        let map = |pairs: &[(&'static str, &str)]| {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let (mut head, ()) = Response::new(()).into_parts();
        head.headers = map(headers);
        Reply { head, body: Bytes::copy_from_slice(body), trailers: map(trailers) }
    }

    #[test]
    fn a_grpc_status_is_found_among_trailers_or_headers() {
        let message = ("grpc-message", "not%20now%2c %zz");
        let unavailable = Answer::Retry { after: None, why: "UNAVAILABLE: not now, %zz".into() };
        assert_eq!(reply(&[], &[], &[("grpc-status", "14"), message]).grpc(), unavailable);
        assert_eq!(reply(&[("grpc-status", "14"), message], &[], &[]).grpc(), unavailable);
        let ok = Answer::Accepted { rejected: 0, why: String::new() };
        assert_eq!(reply(&[], &[0, 0, 0, 0, 0], &[("grpc-status", "0")]).grpc(), ok);
        assert!(matches!(reply(&[], &[], &[]).grpc(), Answer::None { .. }));
    }

    #[test]
    fn retry_info_travels_in_the_details() {
        // Made by grpc-go: code 14, "busy", RetryInfo of 2 s; without padding.
        let info = answer::RetryInfo { retry_delay: Some(answer::Delay { seconds: 2, nanos: 0 }) };
        let detail = answer::Detail {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: info.encode_to_vec(),
        };
        let status = Status { code: 14, message: "busy".into(), details: vec![detail] };
        let bytes = STANDARD_NO_PAD.encode(status.encode_to_vec());
        for details in [bytes.clone(), format!("{bytes}==")] {
            let trailers = [("grpc-status", "14"), ("grpc-status-details-bin", details.as_str())];
            let expected =
                Answer::Retry { after: Some(Duration::from_secs(2)), why: "UNAVAILABLE".to_owned() };
            assert_eq!(reply(&[], &[], &trailers).grpc(), expected);
        }
    }

    #[test]
    fn partial_success_is_read_in_both_protocols() {
        let mut answer = ExportTraceServiceResponse::default();
        let partial = answer.partial_success.insert(Default::default());
        (partial.rejected_spans, partial.error_message) = (3, "too\nold".into());
        let body = answer.encode_to_vec();
        let expected = Answer::Accepted { rejected: 3, why: "too old".into() };
        assert_eq!(reply(&[], &body, &[]).meaning(OtlpProtocol::Http), expected);
        let framed = [&[0, 0, 0, 0, body.len() as u8][..], &body].concat();
        assert_eq!(reply(&[], &framed, &[("grpc-status", "0")]).meaning(OtlpProtocol::Grpc), expected);
    }

    #[test]
    fn an_answer_that_is_none_of_otlps_is_not_simply_an_acceptance() {
        let http =
            |kind: &str, body: &[u8]| reply(&[("content-type", kind)], body, &[]).meaning(OtlpProtocol::Http);
        let nothing = Answer::Accepted { rejected: 0, why: String::new() };
        assert_eq!(http("text/html", b""), nothing);
        assert_eq!(http("application/x-protobuf", b""), nothing);
        let page = http("text/HTML; charset=utf-8", b"<html>Sign in</html>");
        assert!(matches!(&page, Answer::Refused { why } if why.contains("web page")), "{page:?}");
        for (kind, body) in [("text/plain", &b"OK"[..]), ("application/json", b"{}")] {
            let odd = http(kind, body);
            assert!(matches!(&odd, Answer::Accepted { rejected: 0, why } if why.contains(kind)), "{odd:?}");
        }
        let odd = reply(&[], b"\0\0\0\0\x02OK", &[("grpc-status", "0")]).grpc();
        assert!(matches!(&odd, Answer::Accepted { rejected: 0, why } if !why.is_empty()), "{odd:?}");
    }
}
