//! What the stand-in has accepted, and sums over it.

use super::wire::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use prost::Message;
use std::collections::BTreeMap;

/// A decoded request.
#[derive(Clone, Debug)]
pub(super) enum Batch {
    Traces(ExportTraceServiceRequest),
    Logs(ExportLogsServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

/// What was accepted: requests as they came, without the items that were rejected.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Spans.
    pub traces: Vec<ExportTraceServiceRequest>,
    /// Log records.
    pub logs: Vec<ExportLogsServiceRequest>,
    /// Data points.
    pub metrics: Vec<ExportMetricsServiceRequest>,
}

/// Sums over items of one signal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Spans, log records or data points.
    pub items: u64,
    /// Of each whole-numbered attribute, by its key.
    pub attributes: BTreeMap<String, i128>,
}

impl Batch {
    pub(super) fn decode(signal: Signal, bytes: &[u8]) -> Option<Self> {
        match signal {
            Signal::Traces => ExportTraceServiceRequest::decode(bytes).map(Self::Traces).ok(),
            Signal::Logs => ExportLogsServiceRequest::decode(bytes).map(Self::Logs).ok(),
            Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).map(Self::Metrics).ok(),
        }
    }

    pub(super) fn items(&self) -> usize {
        match self {
            Self::Traces(request) => spans(request).count(),
            Self::Logs(request) => records(request).count(),
            Self::Metrics(request) => metrics(request).map(points).sum(),
        }
    }

    /// Leaves the first items in.
    fn truncate(&mut self, mut room: usize) {
        let mut part = |length: usize| {
            let taken = length.min(room);
            room -= taken;
            taken
        };
        match self {
            Self::Traces(request) => {
                for scope in request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans)
                {
                    scope.spans.truncate(part(scope.spans.len()));
                }
            }
            Self::Logs(request) => {
                for scope in request.resource_logs.iter_mut().flat_map(|resource| &mut resource.scope_logs) {
                    scope.log_records.truncate(part(scope.log_records.len()));
                }
            }
            Self::Metrics(request) => {
                let scopes =
                    request.resource_metrics.iter_mut().flat_map(|resource| &mut resource.scope_metrics);
                for metric in scopes.flat_map(|scope| &mut scope.metrics) {
                    let length = part(points(metric));
                    match &mut metric.data {
                        Some(Data::Gauge(data)) => data.data_points.truncate(length),
                        Some(Data::Sum(data)) => data.data_points.truncate(length),
                        Some(Data::Histogram(data)) => data.data_points.truncate(length),
                        Some(Data::ExponentialHistogram(data)) => data.data_points.truncate(length),
                        Some(Data::Summary(data)) => data.data_points.truncate(length),
                        None => {}
                    }
                }
            }
        }
    }
}

impl Kept {
    /// Takes the first `items` of a batch.
    pub(super) fn take(&mut self, mut batch: Batch, items: usize) {
        if items == 0 {
            return;
        }
        batch.truncate(items);
        match batch {
            Batch::Traces(request) => self.traces.push(request),
            Batch::Logs(request) => self.logs.push(request),
            Batch::Metrics(request) => self.metrics.push(request),
        }
    }

    /// Over all spans.
    #[must_use]
    pub fn span_sums(&self) -> Sums {
        Sums::over(self.traces.iter().flat_map(spans).map(|span| &span.attributes[..]))
    }

    /// Over all log records.
    #[must_use]
    pub fn log_sums(&self) -> Sums {
        Sums::over(self.logs.iter().flat_map(records).map(|record| &record.attributes[..]))
    }

    /// All metrics, in the order that they came.
    pub fn metrics(&self) -> impl Iterator<Item = &Metric> {
        self.metrics.iter().flat_map(metrics)
    }
}

impl Sums {
    /// Over items, each given by its attributes.
    fn over<'a>(items: impl Iterator<Item = &'a [KeyValue]>) -> Self {
        let mut sums = Self::default();
        for attributes in items {
            sums.items += 1;
            for attribute in attributes {
                let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
                if let Some(Value::IntValue(number)) = value {
                    *sums.attributes.entry(attribute.key.clone()).or_default() += i128::from(*number);
                }
            }
        }
        sums
    }

    /// The sum of one attribute; 0 where no item has it.
    #[must_use]
    pub fn of(&self, key: &str) -> i128 {
        self.attributes.get(key).copied().unwrap_or_default()
    }
}

fn spans(
    request: &ExportTraceServiceRequest,
) -> impl Iterator<Item = &opentelemetry_proto::tonic::trace::v1::Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans)
}

fn records(
    request: &ExportLogsServiceRequest,
) -> impl Iterator<Item = &opentelemetry_proto::tonic::logs::v1::LogRecord> {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.flat_map(|scope| &scope.log_records)
}

fn metrics(request: &ExportMetricsServiceRequest) -> impl Iterator<Item = &Metric> {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    scopes.flat_map(|scope| &scope.metrics)
}

/// How many data points a metric has.
fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
        None => 0,
    }
}
