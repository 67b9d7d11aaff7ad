//! The agent's own metrics to the collector, beside its records: all of them at an interval, cumulative, so that a request
//! which is lost costs a moment and no count.

use super::Since;
use super::batch::Parcel;
use super::encode::{Envelope, ITEM};
use super::sender::{News, Sender, Verdict};
use super::transport::Transport;
use crate::protobuf::wire::push_bytes;
use hyper::body::Bytes;
use mermin_flow::{Amount, Family, MetricKind, Sample, Value};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};
use prost::Message;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tracing::warn;

/// How long a turn with a request under way lasts: then it is looked whether the run has ended.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last request may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A refusal that lasts is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// See the module's text.
pub struct AgentMetrics {
    sender: Sender<Figures>,
    interval: Duration,
    /// Since when the counters count.
    since: Since,
    said: Option<Instant>,
}

impl AgentMetrics {
    pub(super) fn new(transport: Transport, envelope: Envelope, interval: Duration) -> io::Result<Self> {
        let sender = Sender::new("otlp:agent", transport, envelope, 1)?;
        Ok(Self { sender, interval, since: Since::now(), said: None })
    }

    /// Sends what `gather` gives, at the configured interval and once more when something comes from `ended`, or
    /// nobody holds its other end any more. While a request is under way none is added.
    pub fn run(mut self, gather: impl Fn() -> Vec<Family>, ended: &Receiver<()>) {
        while !self.ends_within(self.interval, ended) {
            if self.sender.is_idle() {
                self.send(&gather());
            }
        }
        if self.sender.wait_for(0, Some(LAST_WORDS)) && self.sender.is_idle() {
            self.send(&gather());
            self.sender.wait_for(0, Some(LAST_WORDS));
        }
        self.note();
    }

    /// Lets a request get on for `time`; whether the end comes within it.
    fn ends_within(&mut self, time: Duration, ended: &Receiver<()>) -> bool {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if self.sender.is_idle() { left } else { Duration::ZERO };
            match ended.recv_timeout(wait) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return false,
                Err(RecvTimeoutError::Timeout) => {
                    self.sender.wait_for(0, Some(LOOK.min(left)));
                    self.note();
                }
            }
        }
    }

    fn send(&mut self, families: &[Family]) {
        let window = self.since.window();
        let metrics = families.iter().map(|family| Bytes::from(metric(family, window).encode_to_vec()));
        self.sender.send(Figures(metrics.collect()));
    }

    fn note(&mut self) {
        for news in self.sender.news() {
            let why = match news {
                News::Settled(_, Verdict::Accepted { rejected: 0, .. }) | News::Split { .. } => continue,
                News::Settled(_, Verdict::Accepted { rejected, why, .. }) => {
                    format!("the collector rejects {rejected} points: {why}")
                }
                News::Settled(_, Verdict::Refused { why } | Verdict::TooLarge { why }) => {
                    format!("the collector refuses them: {why}")
                }
                News::Settled(_, Verdict::Panicked { why }) => {
                    format!("sending them has panicked, a bug: {why}")
                }
            };
            if self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                self.said = Some(Instant::now());
                warn!("The agent's own metrics do not reach the collector: {why}");
            }
        }
    }
}

/// Encoded metrics.
#[derive(Debug)]
struct Figures(Arc<[Bytes]>);

impl Parcel for Figures {
    fn items(&self) -> usize {
        self.0.len()
    }

    fn amount(&self) -> Amount {
        Amount::default()
    }

    fn encoded(&self) -> Bytes {
        let mut out = Vec::new();
        self.0.iter().for_each(|metric| push_bytes(&mut out, ITEM, metric));
        Bytes::from(out)
    }

    fn halves(&self) -> (Self, Self) {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        (Self(first.into()), Self(second.into()))
    }
}

fn metric(family: &Family, window: (u64, u64)) -> Metric {
    let temporality = AggregationTemporality::Cumulative.into();
    let numbers = || family.samples.iter().map(|sample| number(sample, window)).collect();
    let data = match family.metric.kind {
        MetricKind::Counter => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        MetricKind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        MetricKind::Histogram => Data::Histogram(Histogram {
            data_points: family.samples.iter().filter_map(|sample| distribution(sample, window)).collect(),
            aggregation_temporality: temporality,
        }),
    };
    Metric {
        name: family.metric.name.to_owned(),
        description: family.metric.help.to_owned(),
        unit: family.metric.unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn attributes(sample: &Sample) -> Vec<KeyValue> {
    let attribute = |(name, value): &mermin_flow::Label| KeyValue {
        key: (*name).to_owned(),
        value: Some(AnyValue { value: Some(Any::StringValue(value.to_string())) }),
        ..KeyValue::default()
    };
    sample.labels.iter().map(attribute).collect()
}

fn number(sample: &Sample, (start, time): (u64, u64)) -> NumberDataPoint {
    let value = match sample.value {
        Value::Count(count) => Some(Number::AsInt(i64::try_from(count).unwrap_or(i64::MAX))),
        Value::Number(number) => Some(Number::AsDouble(number)),
        Value::Distribution { .. } => None,
    };
    NumberDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: start,
        time_unix_nano: time,
        value,
        ..NumberDataPoint::default()
    }
}

fn distribution(sample: &Sample, (start, time): (u64, u64)) -> Option<HistogramDataPoint> {
    let Value::Distribution { buckets, sum } = &sample.value else { return None };
    let bounds = buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite());
    Some(HistogramDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: start,
        time_unix_nano: time,
        count: buckets.iter().map(|(_, count)| count).sum(),
        sum: Some(*sum),
        bucket_counts: buckets.iter().map(|(_, count)| *count).collect(),
        explicit_bounds: bounds.collect(),
        ..HistogramDataPoint::default()
    })
}
