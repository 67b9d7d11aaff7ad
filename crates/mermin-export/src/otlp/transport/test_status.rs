//! What a stand-in answers, in bytes.

use super::answer::{Delay, Detail, RetryInfo, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use std::time::Duration;

/// A success, but for so many items.
pub(crate) fn partial(rejected: i64) -> Vec<u8> {
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: "too old".into() };
    let partial = (rejected > 0).then_some(partial);
    ExportTraceServiceResponse { partial_success: partial }.encode_to_vec()
}

/// Three items are rejected, after so many bytes that say why.
pub(crate) fn long(bytes: usize) -> Vec<u8> {
    let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "x".repeat(bytes) };
    ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec()
}

/// `grpc-status-details-bin` with a `RetryInfo`.
pub(crate) fn details(code: i32, delay: Duration) -> String {
    let delay = Delay { seconds: delay.as_secs() as i64, nanos: delay.subsec_nanos() as i32 };
    let info = RetryInfo { retry_delay: Some(delay) };
    let detail =
        Detail { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
    let status = Status { code, message: String::new(), details: vec![detail] };
    STANDARD_NO_PAD.encode(status.encode_to_vec())
}
