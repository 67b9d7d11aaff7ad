//! A log record per flow record: the event `flow`.

use super::span::{span_id, trace_id};
use super::{AttributeKeys, Encode, ITEM};
use crate::attributes::visit::Walk;
use crate::form::push_end;
use crate::protobuf::sheet::{BLOCK, Sheet};
use crate::protobuf::wire::{length_field, push_bytes, varint_field, varint_len};
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
    sheet: Sheet,
}

impl Logs {
    pub(crate) fn new(points: Arc<ObservationPoints>) -> Self {
        Self {
            walk: Walk::new(points),
            keys: AttributeKeys::new(ATTRIBUTES),
            now: 0,
            text: Vec::new(),
            sheet: Sheet::default(),
        }
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
        let (sheet, text) = (&mut self.sheet, &self.text);
        sheet.clear();
        sheet.reserve(2 * BLOCK + text.len());
        sheet.fixed64(TIME, record.end_shown());
        sheet.block(&[varint_field(SEVERITY_NUMBER), INFO, length_field(SEVERITY_TEXT), 4], 4);
        sheet.block(b"INFO", 4);
        sheet.block(&[length_field(BODY)], 1);
        sheet.varint((1 + varint_len(text.len() as u64) + text.len()) as u64);
        sheet.block(&[length_field(STRING)], 1);
        sheet.varint(text.len() as u64);
        sheet.bytes(text);
        self.walk.over(record, &mut self.keys.writer(sheet));
        sheet.reserve(2 * BLOCK);
        sheet.block(&[length_field(TRACE_ID), 16], 2);
        sheet.block(&trace_id(record.id), 16);
        sheet.block(&[length_field(SPAN_ID), 8], 2);
        sheet.block(&span_id(record.id, record.sequence), 8);
        sheet.fixed64(OBSERVED, self.now);
        sheet.block(&[length_field(EVENT_NAME), 4], 2);
        sheet.block(b"flow", 4);
        push_bytes(out, ITEM, sheet.written());
    }
}
