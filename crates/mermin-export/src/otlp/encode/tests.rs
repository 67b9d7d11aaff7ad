//! Spans and log records against the official types and the JSON line.

use super::*;
use crate::format::Format;
use crate::json::JsonLines;
use crate::sample;
use hyper::body::Bytes;
use mermin_flow::{Counts, FlowDirection, FlowId};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message;
use serde_json::{Map, Value};
use std::collections::HashSet;

fn resource() -> Resource {
    let value = Some(AnyValue { value: Some(Any::StringValue("mermin".into())) });
    let attribute = KeyValue { key: "service.name".into(), value, ..KeyValue::default() };
    Resource { attributes: vec![attribute], ..Resource::default() }
}

/// The request as bytes, decoded and encoded again by the official types without a difference.
fn request<R: Message + Default>(mut encoder: impl Encode, records: &[FlowRecord]) -> R {
    let mut items = Vec::new();
    encoder.begin(7);
    records.iter().for_each(|record| encoder.push(record, &mut items));
    let bytes = Envelope::new(&resource()).around(Bytes::from(items)).concat();
    let decoded = R::decode(&bytes[..]).expect("the official types read it");
    assert!(decoded.encode_to_vec() == bytes, "the official types write the same bytes");
    decoded
}

fn spans(records: &[FlowRecord]) -> Vec<Span> {
    let request: ExportTraceServiceRequest = request(Spans::new(sample::points()), records);
    let of_resource = &request.resource_spans[0];
    assert_eq!((request.resource_spans.len(), of_resource.scope_spans.len()), (1, 1));
    assert_eq!(of_resource.resource, Some(resource()));
    assert_eq!(of_resource.scope_spans[0].scope.as_ref().unwrap().name, "mermin");
    of_resource.scope_spans[0].spans.clone()
}

fn logs(records: &[FlowRecord]) -> Vec<LogRecord> {
    let request: ExportLogsServiceRequest = request(Logs::new(sample::points()), records);
    request.resource_logs[0].scope_logs[0].log_records.clone()
}

/// Attributes as the JSON line has them.
fn object(attributes: &[KeyValue]) -> Map<String, Value> {
    fn json(value: &AnyValue) -> Value {
        match value.value.as_ref().unwrap() {
            Any::StringValue(text) => text.as_str().into(),
            Any::IntValue(number) => (*number).into(),
            Any::BoolValue(truth) => (*truth).into(),
            Any::ArrayValue(list) => list.values.iter().map(json).collect(),
            Any::KvlistValue(list) => Value::Object(object(&list.values)),
            other => panic!("{other:?}"),
        }
    }
    let pair = |attribute: &KeyValue| (attribute.key.clone(), json(attribute.value.as_ref().unwrap()));
    let object: Map<_, _> = attributes.iter().map(pair).collect();
    assert_eq!(object.len(), attributes.len(), "no key twice");
    object
}

fn line(record: &FlowRecord) -> Map<String, Value> {
    let mut line = Vec::new();
    JsonLines::new(sample::points()).push(record, &mut line);
    serde_json::from_slice(&line).unwrap()
}

#[test]
fn spans_and_log_records_hold_what_the_json_line_holds() {
    let records = sample::all();
    let (spans, logs) = (spans(&records), logs(&records));
    assert_eq!((spans.len(), logs.len()), (records.len(), records.len()));
    for ((record, span), log) in records.iter().zip(&spans).zip(&logs) {
        let line = line(record);
        assert_eq!(object(&span.attributes), line);
        assert_eq!(object(&log.attributes), line);
        assert_eq!(
            (span.start_time_unix_nano, span.end_time_unix_nano),
            (record.start_shown(), record.end_shown().max(record.start_shown()))
        );
        assert_eq!((log.time_unix_nano, log.observed_time_unix_nano), (record.end_shown(), 7));
        assert_eq!(
            (log.event_name.as_str(), log.severity_text.as_str(), log.severity_number),
            ("flow", "INFO", 9)
        );
        assert_eq!((&log.trace_id, &log.span_id), (&span.trace_id, &span.span_id));
        assert_eq!(span.trace_id, record.id.0.to_be_bytes());
    }
    let body = |log: &LogRecord| match log.body.clone().unwrap().value.unwrap() {
        Any::StringValue(text) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(body(&logs[0]), "start flow 192.0.2.1 -> 198.51.100.254");
    assert_eq!(body(&logs[1]), "end tcp 10.1.2.3:43210 -> 203.0.113.80:443");
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    let expected = [
        "flow",
        "flow tcp",
        "flow ipv6-icmp",
        "flow udp",
        "flow udp",
        "flow udp",
        "flow udp",
        "flow tcp",
        "flow tcp",
        "flow tcp",
        "flow udp",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_records_of_a_flow_are_one_trace_below_its_first_record() {
    let records: Vec<_> = (0..1_000).map(|sequence| FlowRecord { sequence, ..sample::tcp() }).collect();
    let spans = spans(&records);
    let ids: HashSet<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    assert_eq!(ids.len(), 1_000);
    assert!(spans.iter().all(|span| span.trace_id == spans[0].trace_id));
    assert_eq!(spans[0].parent_span_id, Vec::<u8>::new());
    assert!(spans[1..].iter().all(|span| span.parent_span_id == spans[0].span_id));
    let zero = self::spans(&[FlowRecord { id: FlowId(0), ..sample::bare() }]);
    assert_eq!(zero[0].trace_id, 1_u128.to_be_bytes(), "no trace is 0");
}

#[test]
fn a_flow_is_a_clients_where_it_begins_and_a_servers_where_it_ends() {
    use FlowDirection::{Inbound, Outbound, Transit, WithinNode};
    let kinds = [None, Some(Outbound), Some(Inbound), Some(WithinNode), Some(Transit)].map(|direction| {
        let mut record = sample::udp();
        record.enrichment.direction = direction;
        spans(&[record])[0].kind
    });
    assert_eq!(kinds, [1, 3, 2, 1, 1]);
}

proptest! {
    /// Whatever a record holds: lengths of one byte and of two, numbers of every size.
    #[test]
    fn any_record_is_read_back_as_its_line(
        counts in prop::array::uniform6(any::<u64>()), shift in 0_u32..64,
        name in "[\\x00-\\u{300}]{0,200}", id: u128, sequence: u32, flags: (u8, u8), ports: (u16, u16),
    ) {
        let mut record = sample::kubernetes();
        let count = |n: usize| (counts[n] >> shift).min(i64::MAX as u64);
        (record.id, record.sequence) = (FlowId(id), sequence);
        record.forward.delta = Counts { packets: count(0), bytes: count(1), frame_bytes: count(2) };
        record.reverse.total = Counts { packets: count(3), bytes: count(4), frame_bytes: count(5) };
        (record.forward.tcp_flags, record.reverse.tcp_flags) = (Some(flags.0), Some(flags.1));
        (record.source.port, record.destination.port) = (Some(ports.0), Some(ports.1));
        record.source.identity.name = Some(name.as_str().into());
        record.destination.identity.name = Some(name.repeat(5).into());
        let expected = line(&record);
        prop_assert_eq!(object(&spans(std::slice::from_ref(&record))[0].attributes), expected.clone());
        prop_assert_eq!(object(&logs(&[record])[0].attributes), expected);
    }
}
