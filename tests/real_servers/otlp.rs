//! Requests as an exporter sends them, each with two items that count 5 and 7 packets.

use mermin_tests::servers::faulty_collector::{Protocol, Signal};
use mermin_tests::servers::http::{Client, Request, Response};
use mermin_tests::servers::place::Place;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

pub(crate) const SIGNALS: [Signal; 3] = [Signal::Traces, Signal::Logs, Signal::Metrics];
/// What the items' [`KEY`] adds up to.
pub(crate) const SUM: u64 = 12;
pub(crate) const KEY: &str = "flow.packets.delta";

/// A client of `http://HOST:PORT`.
pub(crate) fn client(endpoint: &str, protocol: Protocol) -> Client {
    let (_, address) = endpoint.split_once("://").unwrap();
    let client = Client::plain(&Place::Here, address.parse().unwrap());
    Client { http2: protocol == Protocol::Grpc, ..client }
}

pub(crate) fn send(client: &Client, signal: Signal) -> Result<Response, String> {
    let message = message(signal);
    client.send(if client.http2 {
        let service = match signal {
            Signal::Traces => "trace.v1.TraceService",
            Signal::Logs => "logs.v1.LogsService",
            Signal::Metrics => "metrics.v1.MetricsService",
        };
        let length = u32::try_from(message.len()).unwrap();
        Request {
            method: "POST",
            path: format!("/opentelemetry.proto.collector.{service}/Export"),
            content_type: "application/grpc",
            body: [&[0][..], &length.to_be_bytes(), &message].concat(),
        }
    } else {
        let path = match signal {
            Signal::Traces => "/v1/traces",
            Signal::Logs => "/v1/logs",
            Signal::Metrics => "/v1/metrics",
        };
        Request { method: "POST", path: path.into(), content_type: "application/x-protobuf", body: message }
    })
}

/// The code of a gRPC answer, the status of another.
pub(crate) fn status(response: &Response) -> u16 {
    response.header("grpc-status").map_or(response.status, |code| code.parse().unwrap())
}

fn message(signal: Signal) -> Vec<u8> {
    let attributes = |number| {
        let value = Some(AnyValue { value: Some(Value::IntValue(number)) });
        vec![KeyValue { key: KEY.into(), value, ..KeyValue::default() }]
    };
    match signal {
        Signal::Traces => {
            let span = |number| Span {
                trace_id: vec![1; 16],
                span_id: vec![2; 8],
                attributes: attributes(number),
                ..Span::default()
            };
            let scope = ScopeSpans { spans: vec![span(5), span(7)], ..ScopeSpans::default() };
            let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
            ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec()
        }
        Signal::Logs => {
            let record = |number| LogRecord { attributes: attributes(number), ..LogRecord::default() };
            let scope = ScopeLogs { log_records: vec![record(5), record(7)], ..ScopeLogs::default() };
            let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
            ExportLogsServiceRequest { resource_logs: vec![resource] }.encode_to_vec()
        }
        Signal::Metrics => {
            let point = |number| NumberDataPoint {
                attributes: attributes(number),
                value: Some(Number::AsInt(number)),
                ..NumberDataPoint::default()
            };
            let sum =
                Sum { data_points: vec![point(5), point(7)], aggregation_temporality: 1, is_monotonic: true };
            let metric = Metric { name: KEY.into(), data: Some(Data::Sum(sum)), ..Metric::default() };
            let scope = ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() };
            let resource = ResourceMetrics { scope_metrics: vec![scope], ..ResourceMetrics::default() };
            ExportMetricsServiceRequest { resource_metrics: vec![resource] }.encode_to_vec()
        }
    }
}
