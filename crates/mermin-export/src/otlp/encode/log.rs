//! A log record per flow record: the event `flow`.

use super::span::{span_id, trace_id};
use super::{AttributeKeys, Encode, ITEM};
use crate::attributes::visit::Walk;
use crate::form::push_end;
use crate::otlp::wire::{push_bytes, push_fixed64, push_message, varint_field};
use crate::protocols::keyword;
use mermin_flow::{FlowRecord, ObservationPoints};
use std::sync::Arc;

/// Fields of `LogRecord`.
const TIME: u8 = 1;
const SEVERITY_NUMBER: u8 = 2;
const SEVERITY_TEXT: u8 = 3;
const BODY: u8 = 5;
const ATTRIBUTES: u8 = 6;
const TRACE_ID: u8 = 9;
const SPAN_ID: u8 = 10;
const OBSERVED: u8 = 11;
const EVENT_NAME: u8 = 12;

/// `AnyValue.string_value`.
const STRING: u8 = 1;

/// `SEVERITY_NUMBER_INFO`.
const INFO: u8 = 9;

/// Writes log records.
#[derive(Debug)]
pub(crate) struct Logs {
    walk: Walk,
    keys: AttributeKeys,
    now: u64,
    text: Vec<u8>,
}

impl Logs {
    pub(crate) fn new(points: Arc<ObservationPoints>) -> Self {
        Self { walk: Walk::new(points), keys: AttributeKeys::new(), now: 0, text: Vec::new() }
    }

    /// For people: `end tcp 192.0.2.1:40000 -> 192.0.2.2:443`.
    fn sentence(&mut self, record: &FlowRecord) {
        let text = &mut self.text;
        text.clear();
        text.extend_from_slice(record.event.name().as_bytes());
        text.push(b' ');
        text.extend_from_slice(keyword(record.protocol).unwrap_or("flow").as_bytes());
        text.push(b' ');
        push_end(text, record.source.address, record.source.port);
        text.extend_from_slice(b" -> ");
        push_end(text, record.destination.address, record.destination.port);
    }
}

impl Encode for Logs {
    fn begin(&mut self, now: u64) {
        self.now = now;
    }

    fn push(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
        self.sentence(record);
        push_message(out, ITEM, |out| {
            push_fixed64(out, TIME, record.end_time);
            out.extend_from_slice(&[varint_field(SEVERITY_NUMBER), INFO]);
            push_bytes(out, SEVERITY_TEXT, b"INFO");
            push_message(out, BODY, |out| push_bytes(out, STRING, &self.text));
            self.walk.over(record, &mut self.keys.writer(ATTRIBUTES, out));
            push_bytes(out, TRACE_ID, &trace_id(record.id));
            push_bytes(out, SPAN_ID, &span_id(record.id, record.sequence));
            push_fixed64(out, OBSERVED, self.now);
            push_bytes(out, EVENT_NAME, b"flow");
        });
    }
}
