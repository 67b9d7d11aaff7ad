//! Figures of the running agent as plain data: what a scrape renders and an OTLP request carries.
//!
//! A [`Metric`] says once what a figure is; a [`Family`] has its values at one moment.

use std::borrow::Cow;

/// How a figure behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Only rises, from 0 at the agent's start.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Durations by how long they were, since the agent's start.
    Histogram,
}

/// What a figure is: the same for all its values, in every form in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The full name, with its unit and, of a counter, without the `_total` that Prometheus wants behind it.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// UCUM, as OpenTelemetry writes units: `s`, `By`, `{packet}`, `1`.
    pub unit: &'static str,
    /// What it tells, as a sentence without full stop.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
}

/// A label: the name is one of [`Metric::labels`].
pub type Label = (&'static str, Cow<'static, str>);

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Count(u64),
    /// Any number.
    Number(f64),
    /// Of a [`MetricKind::Histogram`].
    Distribution {
        /// Upper bound (the last is infinite) and how many are in the bucket: each bucket by itself.
        buckets: Vec<(f64, u64)>,
        /// Of all that was observed.
        sum: f64,
    },
}

/// A value with its labels; labels that don't apply are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// In the order of [`Metric::labels`].
    pub labels: Vec<Label>,
    /// The value.
    pub value: Value,
}

/// All values of one metric at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// What they are.
    pub metric: &'static Metric,
    /// At least one; no two with the same labels.
    pub samples: Vec<Sample>,
}
