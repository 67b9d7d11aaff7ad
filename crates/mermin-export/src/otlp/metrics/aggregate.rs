//! The sums themselves: a bounded number of series, and one for all that found no room.

use super::choice::Choice;
use super::points::{ATTRIBUTES, Point, SUMS};
use crate::attributes::visit::Walk;
use crate::error::ExportError;
use crate::otlp::config::{OtlpMetrics, OtlpTemporality};
use crate::otlp::encode::AttributeKeys;
use crate::protobuf::sheet::Sheet;
use mermin_flow::{Amount, FlowEvent, FlowRecord, ObservationPoints};
use std::collections::HashMap;
use std::sync::Arc;

/// OpenTelemetry's mark of the series that stands for all others.
const OVERFLOW: &str = "otel.metric.overflow";

/// Records, gathered.
pub(crate) struct Aggregate {
    walk: Walk,
    keys: AttributeKeys,
    choice: Choice,
    limit: usize,
    temporality: OtlpTemporality,
    /// By encoded attributes: a place in `series`.
    places: HashMap<Arc<[u8]>, usize>,
    series: Vec<Series>,
    overflow: Option<usize>,
    sheet: Sheet,
}

struct Series {
    attributes: Arc<[u8]>,
    sums: [u64; SUMS],
    /// Records that no request has carried.
    pending: Amount,
}

impl Aggregate {
    pub(crate) fn new(
        config: &OtlpMetrics,
        temporality: OtlpTemporality,
        points: Arc<ObservationPoints>,
    ) -> Result<Self, ExportError> {
        Ok(Self {
            walk: Walk::new(points),
            keys: AttributeKeys::new(ATTRIBUTES),
            choice: Choice::of(&config.attributes)?,
            limit: config.cardinality_limit.get(),
            temporality,
            places: HashMap::new(),
            series: Vec::new(),
            overflow: None,
            sheet: Sheet::default(),
        })
    }

    /// Whether nothing was ever counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    pub(crate) fn add(&mut self, record: &FlowRecord) {
        self.sheet.clear();
        let writer = self.keys.writer(&mut self.sheet);
        self.walk.over(record, &mut self.choice.filter(writer));
        let place = match self.places.get(self.sheet.written()) {
            Some(place) => *place,
            None => self.new_place(),
        };
        let series = &mut self.series[place];
        series.pending += Amount::of(record);
        // Sums of many flows are what sampling is good at.
        let [forward, reverse] = record.estimates();
        let counts = [
            forward.packets,
            forward.bytes,
            forward.frame_bytes,
            reverse.packets,
            reverse.bytes,
            reverse.frame_bytes,
            1,
            u64::from(record.event == FlowEvent::End),
        ];
        series.sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }

    /// A series for the attributes in `sheet`; that of the overflow, when only one more has room.
    fn new_place(&mut self) -> usize {
        let overflows =
            self.series.len() + 1 >= self.limit && self.overflow.is_none() || self.series.len() >= self.limit;
        if !overflows {
            let attributes: Arc<[u8]> = self.sheet.written().into();
            let place = self.push(Arc::clone(&attributes));
            self.places.insert(attributes, place);
            return place;
        }
        if let Some(place) = self.overflow {
            return place;
        }
        self.sheet.clear();
        self.keys.writer(&mut self.sheet).truth(OVERFLOW);
        let place = self.push(self.sheet.written().into());
        self.overflow = Some(place);
        place
    }

    fn push(&mut self, attributes: Arc<[u8]>) -> usize {
        self.series.push(Series { attributes, sums: [0; SUMS], pending: Amount::default() });
        self.series.len() - 1
    }

    /// The sums as they are now, with the records that they carry for the first time. `delta` begins anew.
    pub(crate) fn collect(&mut self) -> Vec<Point> {
        let point = |(series, known): (usize, &mut Series)| Point {
            series,
            attributes: Arc::clone(&known.attributes),
            sums: known.sums,
            carried: std::mem::take(&mut known.pending),
        };
        let points = self.series.iter_mut().enumerate().map(point).collect();
        if self.temporality == OtlpTemporality::Delta {
            self.places.clear();
            self.series.clear();
            self.overflow = None;
        }
        points
    }

    /// The request with this point was not taken. Cumulative sums say it again; whether these do.
    pub(crate) fn give_back(&mut self, point: &Point) -> bool {
        let again = self.temporality == OtlpTemporality::Cumulative;
        if again {
            self.series[point.series].pending += point.carried;
        }
        again
    }
}
