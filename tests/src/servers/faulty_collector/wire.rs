//! Requests as they come: gRPC's and HTTP's form of OTLP, compressed or not.

use super::Asked;
use super::kept::Batch;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use std::io::Read;
use std::time::Instant;

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Data points.
    Metrics,
}

/// How it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `application/grpc`.
    Grpc,
    /// `application/x-protobuf`.
    Http,
}

const PATHS: [(&str, Signal, Protocol); 6] = [
    ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", Signal::Traces, Protocol::Grpc),
    ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", Signal::Logs, Protocol::Grpc),
    ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", Signal::Metrics, Protocol::Grpc),
    ("/v1/traces", Signal::Traces, Protocol::Http),
    ("/v1/logs", Signal::Logs, Protocol::Http),
    ("/v1/metrics", Signal::Metrics, Protocol::Http),
];

/// Reads a request to its end; nothing where it is no OTLP.
pub(super) async fn read(request: Request<Incoming>) -> Option<(Asked, Batch)> {
    let (head, body) = request.into_parts();
    let &(_, signal, protocol) = PATHS.iter().find(|(path, ..)| *path == head.uri.path())?;
    let header = |name: &str| head.headers.get(name)?.to_str().ok().map(str::to_owned);
    let (expected, encoding) = match protocol {
        Protocol::Grpc => ("application/grpc", "grpc-encoding"),
        Protocol::Http => ("application/x-protobuf", "content-encoding"),
    };
    if head.method != "POST" || !header("content-type")?.starts_with(expected) {
        return None;
    }
    let body = body.collect().await.ok()?.to_bytes();
    let encoding = header(encoding).filter(|encoding| encoding != "identity");
    let (message, encoding) = match protocol {
        Protocol::Grpc => {
            let (compressed, message) = unframe(&body)?;
            (message, encoding.filter(|_| compressed))
        }
        Protocol::Http => (&body[..], encoding),
    };
    let batch = Batch::decode(signal, &unpacked(message, encoding.as_deref())?)?;
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let asked = Asked {
        number: 0,
        signal,
        protocol,
        items: batch.items(),
        encoding,
        wire_bytes: message.len(),
        headers: headers.collect(),
        at: Instant::now(),
    };
    Some((asked, batch))
}

/// A gRPC message: whether it is compressed, its length, itself; and no second one.
fn unframe(body: &[u8]) -> Option<(bool, &[u8])> {
    let (flag, rest) = body.split_first()?;
    let (length, message) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    (message.len() == length && *flag < 2).then_some((*flag == 1, message))
}

/// The same for an answer, never compressed.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("answers are short");
    [&[0][..], &length.to_be_bytes(), message].concat()
}

fn unpacked(bytes: &[u8], encoding: Option<&str>) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    match encoding {
        None => plain.extend_from_slice(bytes),
        Some("gzip") => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).ok()?),
        Some("zstd") => drop(zstd::Decoder::new(bytes).ok()?.read_to_end(&mut plain).ok()?),
        Some(_) => return None,
    }
    Some(plain)
}
