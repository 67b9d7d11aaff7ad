//! Sums against the records that they are sums of.

use super::aggregate::Aggregate;
use super::choice::Choice;
use super::points::{METRICS, Points};
use crate::otlp::batch::Parcel;
use crate::otlp::config::{OtlpMetrics, OtlpTemporality};
use crate::otlp::encode::Envelope;
use crate::sample;
use mermin_flow::{Amount, FlowEvent, FlowRecord};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, Sum};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use std::collections::BTreeMap;

const WINDOW: (u64, u64) = (1_000, 2_000);

fn aggregate(attributes: &[&str], limit: usize, temporality: OtlpTemporality) -> Aggregate {
    let config = OtlpMetrics {
        attributes: attributes.iter().map(|name| (*name).to_owned()).collect(),
        cardinality_limit: limit.try_into().unwrap(),
        ..OtlpMetrics::default()
    };
    Aggregate::new(&config, temporality, sample::points()).unwrap()
}

fn points(aggregate: &mut Aggregate, temporality: OtlpTemporality) -> Points {
    Points { points: aggregate.collect(), window: WINDOW, temporality }
}

/// The sums of a request by metric, as the official types read it; they write the same bytes.
fn sums(points: &Points) -> BTreeMap<String, Sum> {
    let bytes = Envelope::new(&Resource::default()).around(points.encoded()).concat();
    let request = ExportMetricsServiceRequest::decode(&bytes[..]).unwrap();
    assert!(request.encode_to_vec() == bytes, "the official types write the same bytes");
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let sum = |data: &Option<Data>| match data {
        Some(Data::Sum(sum)) => sum.clone(),
        other => panic!("{other:?}"),
    };
    metrics.iter().map(|metric| (metric.name.clone(), sum(&metric.data))).collect()
}

fn number(point: &NumberDataPoint) -> u64 {
    match point.value {
        Some(Value::AsInt(number)) => number.try_into().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn total(sum: &Sum) -> u64 {
    sum.data_points.iter().map(number).sum()
}

/// `name=value` of a point's attributes.
fn labels(point: &NumberDataPoint) -> Vec<String> {
    let text = |value: &Any| match value {
        Any::StringValue(text) => text.clone(),
        Any::IntValue(number) => number.to_string(),
        Any::BoolValue(truth) => truth.to_string(),
        other => panic!("{other:?}"),
    };
    let value = |attribute: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        text(attribute.value.as_ref().unwrap().value.as_ref().unwrap())
    };
    point.attributes.iter().map(|attribute| format!("{}={}", attribute.key, value(attribute))).collect()
}

fn many() -> Vec<FlowRecord> {
    let mut records = Vec::new();
    for n in 0..50_u16 {
        for mut record in sample::all() {
            record.source.port = Some(n);
            record.forward.delta.packets += u64::from(n);
            record.tally.packets += u64::from(n);
            records.push(record);
        }
    }
    records
}

fn check(sums: &BTreeMap<String, Sum>, records: &[FlowRecord]) {
    let of = |part: fn(&FlowRecord) -> u64| records.iter().map(part).sum::<u64>();
    for (name, expected) in [
        ("flow.packets", of(|record| record.estimates()[0].packets)),
        ("flow.bytes", of(|record| record.estimates()[0].bytes)),
        ("flow.frame_bytes", of(|record| record.estimates()[0].frame_bytes)),
        ("flow.reverse.packets", of(|record| record.estimates()[1].packets)),
        ("flow.reverse.bytes", of(|record| record.estimates()[1].bytes)),
        ("flow.reverse.frame_bytes", of(|record| record.estimates()[1].frame_bytes)),
        ("flow.records", records.len() as u64),
        ("flow.ended", of(|record| u64::from(record.event == FlowEvent::End))),
    ] {
        assert_eq!(total(&sums[name]), expected, "{name}");
    }
    assert_eq!(sums.len(), METRICS.len());
}

#[test]
fn sums_are_those_of_the_records_whatever_tells_them_apart() {
    let records = many();
    for (attributes, series) in [
        (&[][..], 1),
        (&["network.transport"], 4),
        (&["network.transport", "source.port"], 4 * 50),
        (&["source.k8s.pod.label.app"], 2),
        (&["flow.tcp.flags", "network.vlan.id"], 2),
    ] {
        let temporality = OtlpTemporality::Cumulative;
        let mut aggregate = aggregate(attributes, 2_000, temporality);
        records.iter().for_each(|record| aggregate.add(record));
        let points = points(&mut aggregate, temporality);
        let sums = sums(&points);
        check(&sums, &records);
        let packets = &sums["flow.packets"];
        assert_eq!(packets.data_points.len(), series, "{attributes:?}");
        assert!(packets.is_monotonic && packets.aggregation_temporality == 2);
        let point = &packets.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), WINDOW);
        let mut carried = Amount::default();
        records.iter().for_each(|record| carried += Amount::of(record));
        assert_eq!(points.amount(), carried);
    }
}

#[test]
fn what_finds_no_room_is_counted_together() {
    let records = many();
    let temporality = OtlpTemporality::Cumulative;
    let mut aggregate = aggregate(&["source.port"], 10, temporality);
    records.iter().for_each(|record| aggregate.add(record));
    let sums = sums(&points(&mut aggregate, temporality));
    check(&sums, &records);
    let series: Vec<_> =
        sums["flow.records"].data_points.iter().map(|point| (labels(point), number(point))).collect();
    let each = sample::all().len() as u64;
    assert_eq!(series.len(), 10);
    for (n, (labels, records)) in series[..9].iter().enumerate() {
        assert_eq!((labels, *records), (&vec![format!("source.port={n}")], each));
    }
    assert_eq!(series[9], (vec!["otel.metric.overflow=true".to_owned()], 41 * each));
}

#[test]
fn cumulative_sums_go_on_and_deltas_begin_anew() {
    let record = sample::udp();
    for (temporality, second) in [(OtlpTemporality::Cumulative, 3), (OtlpTemporality::Delta, 2)] {
        let mut aggregate = aggregate(&["network.transport"], 10, temporality);
        aggregate.add(&record);
        let first = points(&mut aggregate, temporality);
        assert_eq!((total(&sums(&first)["flow.records"]), first.amount().records), (1, 1));
        aggregate.add(&record);
        aggregate.add(&record);
        let points = points(&mut aggregate, temporality);
        assert_eq!(total(&sums(&points)["flow.records"]), second);
        assert_eq!(points.amount(), Amount { records: 2, packets: 4, bytes: 478 });
    }
}

#[test]
fn what_was_refused_is_carried_by_the_next_cumulative_request() {
    let record = sample::udp();
    let mut sums = aggregate(&["network.transport"], 10, OtlpTemporality::Cumulative);
    sums.add(&record);
    let refused = points(&mut sums, OtlpTemporality::Cumulative);
    assert!(sums.give_back(&refused.points[0]));
    sums.add(&record);
    assert_eq!(points(&mut sums, OtlpTemporality::Cumulative).amount().records, 2);
    assert_eq!(points(&mut sums, OtlpTemporality::Cumulative).amount().records, 0);
    let mut deltas = aggregate(&[], 10, OtlpTemporality::Delta);
    deltas.add(&record);
    let refused = points(&mut deltas, OtlpTemporality::Delta);
    assert!(!deltas.give_back(&refused.points[0]));
}

#[test]
fn parts_say_what_the_whole_says() {
    let records = many();
    let temporality = OtlpTemporality::Cumulative;
    let mut aggregate = aggregate(&["source.port"], 2_000, temporality);
    records.iter().for_each(|record| aggregate.add(record));
    let whole = points(&mut aggregate, temporality);
    let (items, amount) = (whole.items(), whole.amount());
    let bound = 4_000;
    let parts = whole.in_parts(bound);
    assert!(parts.len() > 3 && parts.iter().all(|part| part.encoded().len() <= bound + 1_000));
    let halves = parts.iter().flat_map(|part| <[Points; 2]>::from(part.halves()));
    let (mut sum, mut count, mut records) = (Amount::default(), 0, 0);
    for half in halves {
        sum += half.amount();
        count += half.items();
        records += total(&sums(&half)["flow.records"]);
    }
    assert_eq!((sum, count, records), (amount, items, amount.records));
}

#[test]
fn names_that_cant_be_chosen_are_errors_with_a_way_out() {
    for (name, what, help) in [
        ("source.prt", "no attribute", "did you mean `source.port`?"),
        ("flow.id", "different in every record", "many records share"),
        ("flow.bytes.delta", "different in every record", "many records share"),
        ("nonsense entirely", "no attribute", "docs/reference/records.md"),
    ] {
        let error = Choice::of(&[name.to_owned()]).unwrap_err();
        assert_eq!(error.place(), Some("export.otlp.metrics.attributes"));
        assert!(error.to_string().contains(what) && error.help().unwrap().contains(help), "{error}");
    }
    assert!(Choice::of(&OtlpMetrics::default().attributes).is_ok());
}
