//! What an answer means (<https://opentelemetry.io/docs/specs/otlp/#failures>).

use http::StatusCode;
use prost::Message;
use std::time::{Duration, SystemTime};

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The collector has it, but for `rejected` items.
    Accepted { rejected: u64, why: String },
    /// It may be taken later, at the earliest after this time.
    Retry { after: Option<Duration>, why: String },
    /// It is more than the collector takes at a time.
    TooLarge { why: String },
    /// It will never be taken.
    Refused { why: String },
    /// No answer, or none that means anything: the connection is not to be trusted any more.
    None { why: String },
}

/// Characters of a collector's text that are shown.
const TEXT_MAX: usize = 200;

/// A hint longer than this is cut: a record waits in a bounded queue.
const HINT_MAX: Duration = Duration::from_secs(300);

/// A collector's text for a log line: bounded, on one line.
pub(crate) fn plain(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    match clean.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

/// `google.rpc.Status`: gRPC's details, and the body of an HTTP answer that is an error.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Detail {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(crate) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Delay {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl Status {
    fn retry_delay(&self) -> Option<Duration> {
        let info = self.details.iter().find(|detail| detail.type_url.ends_with("google.rpc.RetryInfo"))?;
        let delay = RetryInfo::decode(&info.value[..]).ok()?.retry_delay.unwrap_or_default();
        let seconds = u64::try_from(delay.seconds).unwrap_or_default();
        let nanos = u32::try_from(delay.nanos).unwrap_or_default();
        Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())).min(HINT_MAX))
    }
}

/// gRPC's names of its codes.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

const RESOURCE_EXHAUSTED: usize = 8;
const OUT_OF_RANGE: usize = 11;

/// Whether a text says that the message is too large.
fn speaks_of_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["larger than max", "too large", "exceeds maximum", "message size", "length too large"]
        .iter()
        .any(|part| message.contains(part))
}

/// A gRPC status that is not OK.
pub(crate) fn grpc(code: usize, message: &str, details: Option<&Status>) -> Answer {
    let name = CODES.get(code).copied().unwrap_or("an unknown status");
    let message = plain(message);
    let why = if message.is_empty() { name.to_owned() } else { format!("{name}: {message}") };
    let after = details.and_then(Status::retry_delay);
    match code {
        // gRPC has no code for it: most servers take the first, tonic the second.
        RESOURCE_EXHAUSTED | OUT_OF_RANGE if after.is_none() && speaks_of_size(&message) => {
            Answer::TooLarge { why }
        }
        1 | 4 | 10 | OUT_OF_RANGE | 14 | 15 => Answer::Retry { after, why },
        RESOURCE_EXHAUSTED if after.is_some() => Answer::Retry { after, why },
        _ => Answer::Refused { why },
    }
}

/// An HTTP status that is not a success.
pub(crate) fn http(status: StatusCode, message: &str, retry_after: Option<&str>) -> Answer {
    let message = plain(message);
    let name = format!("HTTP status {}", status.as_u16());
    let why = if message.is_empty() { name } else { format!("{name}: {message}") };
    match status.as_u16() {
        429 | 502 | 503 | 504 => Answer::Retry { after: retry_after.and_then(delay), why },
        413 => Answer::TooLarge { why },
        _ => Answer::Refused { why },
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.
fn delay(text: &str) -> Option<Duration> {
    let text = text.trim();
    let delay = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(SystemTime::now()).unwrap_or_default()
        }
    };
    Some(delay.min(HINT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_delay(seconds: i64, nanos: i32) -> Status {
        let info = RetryInfo { retry_delay: Some(Delay { seconds, nanos }) };
        let other = Detail { type_url: "type.googleapis.com/google.rpc.Help".into(), value: vec![1] };
        let info = Detail {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: info.encode_to_vec(),
        };
        Status { details: vec![other, info], ..Status::default() }
    }

    #[test]
    fn exactly_the_codes_of_the_specification_are_tried_again() {
        let again = |code| matches!(grpc(code, "", None), Answer::Retry { after: None, .. });
        let codes: Vec<_> = (1..20).filter(|code| again(*code)).collect();
        assert_eq!(codes, [1, 4, 10, 11, 14, 15]);
        let hinted = grpc(8, "slow down", Some(&with_delay(1, 500_000_000)));
        let why = "RESOURCE_EXHAUSTED: slow down".to_owned();
        assert_eq!(hinted, Answer::Retry { after: Some(Duration::from_millis(1_500)), why });
        let statuses: Vec<_> = (300..600)
            .filter(|status| {
                let status = StatusCode::from_u16(*status).unwrap();
                matches!(http(status, "", None), Answer::Retry { .. })
            })
            .collect();
        assert_eq!(statuses, [429, 502, 503, 504]);
    }

    #[test]
    fn what_is_too_large_is_not_refused() {
        let message = "grpc: received message larger than max (5 vs. 4)";
        assert!(matches!(grpc(8, message, None), Answer::TooLarge { .. }));
        assert!(matches!(grpc(8, "quota", None), Answer::Refused { .. }));
        let message = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
        assert!(matches!(grpc(11, message, None), Answer::TooLarge { .. }));
        assert!(matches!(http(StatusCode::PAYLOAD_TOO_LARGE, "", None), Answer::TooLarge { .. }));
    }

    #[test]
    fn hints_are_read_and_bounded() {
        let after = |text| match http(StatusCode::SERVICE_UNAVAILABLE, "", text) {
            Answer::Retry { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after(None), None);
        assert_eq!(after(Some(" 7 ")), Some(Duration::from_secs(7)));
        assert_eq!(after(Some("86400")), Some(HINT_MAX));
        assert_eq!(after(Some("Wed, 21 Oct 2015 07:28:00 GMT")), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let soon = after(Some(&soon)).unwrap();
        assert!((55..=60).contains(&soon.as_secs()), "{soon:?}");
        assert_eq!(after(Some("soon")), None);
        assert_eq!(with_delay(-5, -1).retry_delay(), Some(Duration::ZERO));
        assert_eq!(with_delay(i64::MAX, 0).retry_delay(), Some(HINT_MAX));
    }

    #[test]
    fn texts_of_a_collector_stay_on_one_short_line() {
        let Answer::Refused { why } = grpc(3, &format!("a\n\u{1b}[31mb{}", "c".repeat(500)), None) else {
            panic!("refused")
        };
        assert!(why.starts_with("INVALID_ARGUMENT: a [31mbccc") && why.ends_with('…'), "{why}");
        assert!(why.chars().count() < 230);
    }
}
