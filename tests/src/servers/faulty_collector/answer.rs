//! What the stand-in may answer, and how each protocol says it.

use super::wire::{Protocol, Signal, frame};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Frame};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;

pub(super) type Body = BoxBody<Bytes, io::Error>;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken.
    Accept,
    /// Taken after a while.
    AcceptAfter(Duration),
    /// Taken but for the last items; says how many, and why.
    Partial {
        /// Items that are not taken.
        rejected: usize,
        /// Why.
        message: String,
    },
    /// Taken, with a warning: a partial success that rejects nothing.
    Warn(String),
    /// Not taken.
    Refuse {
        /// The status over HTTP.
        http: u16,
        /// The status over gRPC.
        grpc: u16,
        /// When to come again: `Retry-After` in whole seconds, or `RetryInfo`.
        retry_after: Option<Duration>,
    },
    /// Read, not taken, and never answered.
    Hang,
    /// Not taken; the answer begins and breaks off: a reset stream over HTTP/2, a cut connection over HTTP/1.1.
    BreakOff,
    /// Not taken; the connection is closed without a word.
    Disconnect,
    /// Taken, but the connection is closed before that is said: whoever sent it must send it again.
    AcceptAndDisconnect,
}

impl Answer {
    /// 429 Too Many Requests, or RESOURCE_EXHAUSTED (which is to be tried again only with a hint).
    #[must_use]
    pub fn too_many(retry_after: Option<Duration>) -> Self {
        Self::Refuse { http: 429, grpc: 8, retry_after }
    }

    /// 503 Service Unavailable, or UNAVAILABLE.
    #[must_use]
    pub fn unavailable(retry_after: Option<Duration>) -> Self {
        Self::Refuse { http: 503, grpc: 14, retry_after }
    }

    /// 400 Bad Request, or INVALID_ARGUMENT: never to be tried again.
    #[must_use]
    pub fn invalid() -> Self {
        Self::Refuse { http: 400, grpc: 3, retry_after: None }
    }

    /// How many of the first items are taken.
    pub(super) fn kept_of(&self, items: usize) -> usize {
        match self {
            Self::Accept | Self::AcceptAfter(_) | Self::Warn(_) | Self::AcceptAndDisconnect => items,
            Self::Partial { rejected, .. } => items.saturating_sub(*rejected),
            Self::Refuse { .. } | Self::Hang | Self::BreakOff | Self::Disconnect => 0,
        }
    }

    pub(super) async fn give(self, protocol: Protocol, signal: Signal, cutter: &Notify) -> Response<Body> {
        match self {
            Self::Accept => success(protocol, Vec::new()),
            Self::AcceptAfter(time) => {
                tokio::time::sleep(time).await;
                success(protocol, Vec::new())
            }
            Self::Partial { rejected, message } => success(protocol, partial(signal, rejected, message)),
            Self::Warn(message) => success(protocol, partial(signal, 0, message)),
            Self::Refuse { http, grpc, retry_after } => refusal(protocol, http, grpc, retry_after),
            Self::Hang => std::future::pending().await,
            Self::BreakOff => broken_off(protocol),
            Self::Disconnect | Self::AcceptAndDisconnect => {
                cutter.notify_one();
                std::future::pending().await
            }
        }
    }
}

/// To what is no OTLP request.
pub(super) fn not_understood() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn success(protocol: Protocol, message: Vec<u8>) -> Response<Body> {
    let no_error = |never: std::convert::Infallible| match never {};
    let body = match protocol {
        Protocol::Http => Full::new(Bytes::from(message)).map_err(no_error).boxed(),
        Protocol::Grpc => {
            let status =
                HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from(0))]);
            let trailers = std::future::ready(Some(Ok(status)));
            Full::new(Bytes::from(frame(&message))).with_trailers(trailers).map_err(no_error).boxed()
        }
    };
    typed(Response::new(body), protocol)
}

fn refusal(protocol: Protocol, http: u16, grpc: u16, retry_after: Option<Duration>) -> Response<Body> {
    let message = "as the script says";
    let retry = retry_after.map(|delay| {
        let delay =
            Delay { seconds: delay.as_secs().cast_signed(), nanos: delay.subsec_nanos().cast_signed() };
        let info = RetryInfo { retry_delay: Some(delay) };
        Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() }
    });
    let status = Status { code: grpc.into(), message: message.into(), details: retry.into_iter().collect() };
    let details = status.encode_to_vec();
    match protocol {
        Protocol::Http => {
            let no_error = |never: std::convert::Infallible| match never {};
            let mut response = Response::new(Full::new(Bytes::from(details)).map_err(no_error).boxed());
            *response.status_mut() = StatusCode::from_u16(http).expect("a status");
            if let Some(delay) = retry_after {
                response.headers_mut().insert("retry-after", delay.as_secs().into());
            }
            typed(response, protocol)
        }
        Protocol::Grpc => {
            // "Trailers only": the status stands in the one header block.
            let mut response = Response::new(empty());
            let headers = response.headers_mut();
            headers.insert("grpc-status", grpc.into());
            headers.insert("grpc-message", HeaderValue::from_static("as%20the%20script%20says"));
            let details = BASE64_STANDARD_NO_PAD.encode(details);
            headers.insert("grpc-status-details-bin", details.parse().expect("base64 is a header's value"));
            typed(response, protocol)
        }
    }
}

fn broken_off(protocol: Protocol) -> Response<Body> {
    typed(Response::new(BrokenOff::Begins.boxed()), protocol)
}

/// Part of a message is sent, then the body ends with an error.
enum BrokenOff {
    Begins,
    /// What was given goes out before the error is told; otherwise only the error would be seen.
    Waits,
    Breaks,
}

impl hyper::body::Body for BrokenOff {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match *self {
            Self::Begins => {
                *self = Self::Waits;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 9, 10])))))
            }
            Self::Waits => {
                *self = Self::Breaks;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Breaks => Poll::Ready(Some(Err(io::Error::other("as the script says")))),
        }
    }
}

fn typed(mut response: Response<Body>, protocol: Protocol) -> Response<Body> {
    let value = match protocol {
        Protocol::Http => "application/x-protobuf",
        Protocol::Grpc => "application/grpc",
    };
    response.headers_mut().insert("content-type", HeaderValue::from_static(value));
    response
}

fn empty() -> Body {
    Empty::new().map_err(|never: std::convert::Infallible| match never {}).boxed()
}

fn partial(signal: Signal, rejected: usize, error_message: String) -> Vec<u8> {
    let rejected = i64::try_from(rejected).expect("fewer items than that");
    match signal {
        Signal::Traces => {
            let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message };
            ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
        }
        Signal::Logs => {
            let partial = ExportLogsPartialSuccess { rejected_log_records: rejected, error_message };
            ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec()
        }
        Signal::Metrics => {
            let partial = ExportMetricsPartialSuccess { rejected_data_points: rejected, error_message };
            ExportMetricsServiceResponse { partial_success: Some(partial) }.encode_to_vec()
        }
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}
