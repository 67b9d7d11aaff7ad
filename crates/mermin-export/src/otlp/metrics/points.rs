//! Points of a moment, and their form on the wire.

use crate::otlp::batch::Parcel;
use crate::otlp::config::OtlpTemporality;
use crate::otlp::encode::ITEM;
use crate::protobuf::wire::{push_bytes, push_fixed64, push_message, varint_field};
use hyper::body::Bytes;
use mermin_flow::Amount;
use std::sync::Arc;

/// What is summed: name, unit and description, in the order of [`Point::sums`].
pub(crate) const METRICS: [(&str, &str, &str); SUMS] = [
    ("flow.packets", "{packet}", "Packets from source to destination."),
    ("flow.bytes", "By", "IP bytes from source to destination."),
    ("flow.frame_bytes", "By", "Bytes on the link from source to destination."),
    ("flow.reverse.packets", "{packet}", "Packets from destination to source."),
    ("flow.reverse.bytes", "By", "IP bytes from destination to source."),
    ("flow.reverse.frame_bytes", "By", "Bytes on the link from destination to source."),
    ("flow.records", "{record}", "Flow records."),
    ("flow.ended", "{flow}", "Flows that have ended."),
];

/// How many there are.
pub(crate) const SUMS: usize = 8;

/// Fields of `Metric`, `Sum` and `NumberDataPoint`.
const NAME: u8 = 1;
const DESCRIPTION: u8 = 2;
const UNIT: u8 = 3;
const SUM: u8 = 7;
const DATA_POINTS: u8 = 1;
const TEMPORALITY: u8 = 2;
const MONOTONIC: u8 = 3;
const START: u8 = 2;
const TIME: u8 = 3;
const AS_INT: u8 = 6;
pub(super) const ATTRIBUTES: u8 = 7;

/// Bytes that a number takes beside its attributes.
const POINT: usize = 32;

/// One series at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// Its place in the aggregate.
    pub(super) series: usize,
    /// Encoded, each with its field.
    pub(super) attributes: Arc<[u8]>,
    pub(super) sums: [u64; SUMS],
    /// Records that no earlier request carried.
    pub(super) carried: Amount,
}

/// What a request says of some series.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    pub(super) points: Vec<Point>,
    /// From when to when, nanoseconds since 1970.
    pub(super) window: (u64, u64),
    pub(super) temporality: OtlpTemporality,
}

impl Points {
    /// In requests of at most `bytes`, as far as one series isn't more.
    pub(super) fn in_parts(self, bytes: usize) -> Vec<Self> {
        let (mut parts, mut part, mut size) = (Vec::new(), Vec::new(), 0);
        let (window, temporality) = (self.window, self.temporality);
        let whole = |points| Self { points, window, temporality };
        for point in self.points {
            let more = SUMS * (point.attributes.len() + POINT);
            if size + more > bytes && !part.is_empty() {
                parts.push(whole(std::mem::take(&mut part)));
                size = 0;
            }
            size += more;
            part.push(point);
        }
        if !part.is_empty() {
            parts.push(whole(part));
        }
        parts
    }
}

impl Parcel for Points {
    fn items(&self) -> usize {
        self.points.len()
    }

    fn amount(&self) -> Amount {
        let mut sum = Amount::default();
        self.points.iter().for_each(|point| sum += point.carried);
        sum
    }

    fn encoded(&self) -> Bytes {
        let mut out = Vec::new();
        for (number, (name, unit, description)) in METRICS.iter().enumerate() {
            push_message(&mut out, ITEM, |out| {
                push_bytes(out, NAME, name.as_bytes());
                push_bytes(out, DESCRIPTION, description.as_bytes());
                push_bytes(out, UNIT, unit.as_bytes());
                push_message(out, SUM, |out| self.push_sum(number, out));
            });
        }
        Bytes::from(out)
    }

    fn halves(&self) -> (Self, Self) {
        let (first, second) = self.points.split_at(self.points.len() / 2);
        let part = |points: &[Point]| Self { points: points.to_vec(), ..*self };
        (part(first), part(second))
    }
}

impl Points {
    fn push_sum(&self, number: usize, out: &mut Vec<u8>) {
        for point in &self.points {
            push_message(out, DATA_POINTS, |out| {
                push_fixed64(out, START, self.window.0);
                push_fixed64(out, TIME, self.window.1);
                push_fixed64(out, AS_INT, point.sums[number]);
                out.extend_from_slice(&point.attributes);
            });
        }
        let temporality = match self.temporality {
            OtlpTemporality::Delta => 1,
            OtlpTemporality::Cumulative => 2,
        };
        out.extend_from_slice(&[varint_field(TEMPORALITY), temporality, varint_field(MONOTONIC), 1]);
    }
}
