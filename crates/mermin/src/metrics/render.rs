//! Families as text: OpenMetrics for who asks for it, else the classic form of Prometheus.
//!
//! The encoders are prometheus-client's; a collector hands them the values that were just gathered.

use mermin_flow::{Family, MetricKind, Value};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Version 0.0.4.
    Classic,
    OpenMetrics,
}

impl Form {
    /// What an `Accept` header asks for: OpenMetrics where it stands there and is not refused, whatever the order.
    pub(crate) fn accepted(header: &str) -> Self {
        let wanted = header.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            kind.eq_ignore_ascii_case("application/openmetrics-text") && !refused
        });
        if wanted { Self::OpenMetrics } else { Self::Classic }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The families as text.
    ///
    /// # Errors
    /// Those of the encoder, which has none for what [`Family`] can hold.
    pub(crate) fn render(self, families: Vec<Family>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Gathered(families)));
        let mut page = String::with_capacity(32 << 10);
        match self {
            Self::Classic => prometheus_text::encode(&mut page, &registry)?,
            Self::OpenMetrics => text::encode(&mut page, &registry)?,
        }
        Ok(page)
    }
}

#[derive(Debug)]
struct Gathered(Vec<Family>);

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            encode(family, &mut encoder)?;
        }
        Ok(())
    }
}

fn encode(family: &Family, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let metric = family.metric;
    // The encoder puts the unit behind the name itself.
    let unit = match metric.unit {
        "s" => Some(Unit::Seconds),
        "By" => Some(Unit::Bytes),
        _ => None,
    };
    let suffix = unit.as_ref().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
    let name = metric.name.strip_suffix(&suffix).unwrap_or(metric.name);
    let kind = match metric.kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    };
    let mut encoder = encoder.encode_descriptor(name, metric.help, unit.as_ref(), kind)?;
    for sample in &family.samples {
        let labels = sample.labels.as_slice();
        if labels.is_empty() {
            value(metric.kind, &sample.value, &mut encoder)?;
        } else {
            value(metric.kind, &sample.value, &mut encoder.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn value(kind: MetricKind, value: &Value, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match (kind, value) {
        (MetricKind::Counter, Value::Count(count)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(count, None)
        }
        (MetricKind::Counter, Value::Number(number)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(number, None)
        }
        (MetricKind::Gauge, Value::Count(count)) => encoder.encode_gauge(count),
        (MetricKind::Gauge, Value::Number(number)) => encoder.encode_gauge(number),
        (_, Value::Distribution { buckets, sum }) => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
        }
        (MetricKind::Histogram, _) => Err(fmt::Error),
    }
}
