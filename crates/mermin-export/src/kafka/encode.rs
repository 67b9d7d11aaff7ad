//! A record as a message's value.

use super::config::KafkaEncoding;
use crate::format::Format as _;
use crate::json::JsonLines;
use crate::schema::Messages;
use mermin_flow::{FlowRecord, ObservationPoints};
use std::sync::Arc;

/// Writes values, one at a time.
#[derive(Debug)]
pub(super) enum Encoder {
    Protobuf(Box<Messages>),
    Json(Box<JsonLines>, Vec<u8>),
}

impl Encoder {
    /// For records whose points are among `points`.
    pub(super) fn new(encoding: KafkaEncoding, points: Arc<ObservationPoints>) -> Self {
        match encoding {
            KafkaEncoding::Protobuf => Self::Protobuf(Box::new(Messages::new(points))),
            KafkaEncoding::Json => Self::Json(Box::new(JsonLines::new(points)), Vec::new()),
        }
    }

    /// Writes the value of a record; of the one before nothing is left.
    pub(super) fn value(&mut self, record: &FlowRecord) {
        match self {
            Self::Protobuf(messages) => messages.write(record),
            Self::Json(lines, line) => {
                line.clear();
                lines.push(record, line);
            }
        }
    }

    /// What was written.
    pub(super) fn written(&self) -> &[u8] {
        match self {
            Self::Protobuf(messages) => messages.written(),
            Self::Json(_, line) => line.trim_ascii_end(),
        }
    }
}
