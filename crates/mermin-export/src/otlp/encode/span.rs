//! A span per record. All records of a flow are in one trace, whose id is the flow's.
//!
//! The flow's first record is the root, the others are its children: backends then show one tree per flow. A span
//! reaches from the flow's first packet to the last one that the record knows of; a record doesn't say when the one before
//! it was written.

use super::{AttributeKeys, Encode, ITEM};
use crate::attributes::visit::Walk;
use crate::protobuf::sheet::{BLOCK, Sheet};
use crate::protobuf::wire::{length_field, push_bytes, varint_field};
use crate::protocols::keyword;
use mermin_flow::{FlowDirection, FlowId, FlowRecord, ObservationPoints};
use std::sync::Arc;

/// Fields of `Span`.
const TRACE_ID: u8 = 1;
const SPAN_ID: u8 = 2;
const PARENT: u8 = 4;
const NAME: u8 = 5;
const KIND: u8 = 6;
const START: u8 = 7;
const END: u8 = 8;
const ATTRIBUTES: u8 = 9;

/// `Span.SpanKind`.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;

/// Writes spans.
#[derive(Debug)]
pub(crate) struct Spans {
    walk: Walk,
    keys: AttributeKeys,
    /// `flow tcp`, by protocol number.
    names: Box<[Box<str>]>,
    sheet: Sheet,
}

impl Spans {
    pub(crate) fn new(points: Arc<ObservationPoints>) -> Self {
        let name = |number| match keyword(number) {
            Some(keyword) => format!("flow {keyword}").into_boxed_str(),
            None => "flow".into(),
        };
        Self {
            walk: Walk::new(points),
            keys: AttributeKeys::new(ATTRIBUTES),
            names: (0..=u8::MAX).map(name).collect(),
            sheet: Sheet::default(),
        }
    }
}

/// The trace of a flow. OpenTelemetry has no trace 0.
pub(super) const fn trace_id(id: FlowId) -> [u8; 16] {
    let id = if id.0 == 0 { 1 } else { id.0 };
    id.to_be_bytes()
}

/// The span of a record: different for each of a flow. The id is a hash, so its halves are mixed and a sequence number is
/// added in steps that leave no two the same; the finish is that of SplitMix64, which is one to one.
pub(super) const fn span_id(id: FlowId, sequence: u32) -> [u8; 8] {
    let folded = (id.0 as u64) ^ ((id.0 >> 64) as u64).rotate_left(32);
    let mut word = folded.wrapping_add((sequence as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^= word >> 31;
    if word == 0 { 1_u64.to_be_bytes() } else { word.to_be_bytes() }
}

/// Of a flow's initiator on this node the flow is a client's, of its other end a server's.
const fn kind(record: &FlowRecord) -> u8 {
    match record.enrichment.direction {
        Some(FlowDirection::Outbound) => CLIENT,
        Some(FlowDirection::Inbound) => SERVER,
        Some(FlowDirection::WithinNode | FlowDirection::Transit) | None => INTERNAL,
    }
}

impl Encode for Spans {
    fn begin(&mut self, _now: u64) {}

    fn push(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
        let sheet = &mut self.sheet;
        sheet.clear();
        sheet.reserve(4 * BLOCK);
        sheet.block(&[length_field(TRACE_ID), 16], 2);
        sheet.block(&trace_id(record.id), 16);
        sheet.block(&[length_field(SPAN_ID), 8], 2);
        sheet.block(&span_id(record.id, record.sequence), 8);
        if record.sequence > 0 {
            sheet.block(&[length_field(PARENT), 8], 2);
            sheet.block(&span_id(record.id, 0), 8);
        }
        let name = self.names[usize::from(record.protocol)].as_bytes();
        sheet.block(&[length_field(NAME), name.len() as u8], 2);
        sheet.bytes(name);
        sheet.block(&[varint_field(KIND), kind(record)], 2);
        sheet.fixed64(START, record.start_shown());
        // A span never ends before it starts, whatever was done to the clock meanwhile.
        sheet.fixed64(END, record.end_shown().max(record.start_shown()));
        self.walk.over(record, &mut self.keys.writer(sheet));
        push_bytes(out, ITEM, sheet.written());
    }
}
