//! JSON lines: the golden records, keys against the attribute table, escaping, numbers and addresses.

use super::*;
use crate::attributes::{ATTRIBUTES, KEY, Kind, Presence, find};
use crate::sample;
use mermin_flow::{FlowEndReason, FlowEvent, Initiator, TcpState};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::HashSet;

fn line(record: &FlowRecord) -> String {
    let mut out = Vec::new();
    JsonLines::new(sample::points()).push(record, &mut out);
    String::from_utf8(out).unwrap()
}

fn value(record: &FlowRecord) -> serde_json::Map<String, Value> {
    serde_json::from_str(&line(record)).unwrap()
}

#[test]
fn golden() {
    let mut json = JsonLines::new(sample::points());
    let mut out = Vec::new();
    sample::all().iter().for_each(|record| json.push(record, &mut out));
    sample::assert_golden("records.jsonl", &out);
}

/// Every record's keys are the table's, in its order; what is always there is, and every attribute occurs.
#[test]
fn keys_are_the_tables_in_order() {
    let mut met = HashSet::new();
    for record in sample::all() {
        let object = value(&record);
        let mut last = None;
        for (key, value) in &object {
            let attribute = find(key).unwrap_or_else(|| panic!("{key} is not in the table"));
            let place = ATTRIBUTES.iter().position(|known| known == attribute);
            let in_place = if attribute.name.ends_with(KEY) { place >= last } else { place > last };
            assert!(in_place, "{key} is not in its place");
            last = place;
            let allowed = |allowed: &[&str], value: &Value| {
                value.as_str().is_some_and(|text| allowed.is_empty() || allowed.contains(&text))
            };
            assert!(
                match attribute.kind {
                    Kind::Count => value.is_u64(),
                    Kind::Signed => value.is_i64(),
                    Kind::Text(values) => allowed(values, value),
                    Kind::Hops => value.as_array().unwrap().iter().all(Value::is_object),
                    Kind::List(values) => value.as_array().unwrap().iter().all(|item| allowed(values, item)),
                },
                "{key}: {value}"
            );
            met.insert(attribute.name);
        }
        for always in ATTRIBUTES.iter().filter(|attribute| attribute.presence == Presence::Always) {
            assert!(object.contains_key(always.name), "{} is missing", always.name);
        }
    }
    let table: HashSet<_> = ATTRIBUTES.iter().map(|attribute| attribute.name).collect();
    assert_eq!(met, table);
}

#[test]
fn it_is_compact_json() {
    for record in sample::all() {
        let line = line(&record);
        assert_eq!(format!("{}\n", serde_json::from_str::<Value>(&line).unwrap()), line);
    }
}

/// Each closed set of values in the table is that of the domain.
#[test]
fn enumerations_are_the_tables() {
    use FlowEndReason::{ActiveTimeout, EndOfFlowDetected, ForcedEnd, IdleTimeout, LackOfResources};
    let values = |name: &str| match ATTRIBUTES.iter().find(|attribute| attribute.name == name).unwrap().kind {
        Kind::Text(values) | Kind::List(values) => values,
        Kind::Count | Kind::Signed | Kind::Hops => panic!("{name}"),
    };
    let text = |record: &FlowRecord, name: &str| value(record)[name].as_str().unwrap().to_owned();
    let mut record = sample::tcp();
    for (n, event) in [FlowEvent::Start, FlowEvent::Update, FlowEvent::End].into_iter().enumerate() {
        record.event = event;
        assert_eq!(text(&record, "flow.event"), values("flow.event")[n]);
    }
    for (n, reason) in
        [IdleTimeout, ActiveTimeout, EndOfFlowDetected, ForcedEnd, LackOfResources].into_iter().enumerate()
    {
        record.end_reason = Some(reason);
        assert_eq!(text(&record, "flow.end_reason"), values("flow.end_reason")[n]);
    }
    use Initiator::{FirstSeen, IcmpRequest, Multicast, ServicePort, Syn, SynAck};
    for (n, initiator) in
        [Syn, SynAck, ServicePort, Multicast, IcmpRequest, FirstSeen].into_iter().enumerate()
    {
        record.initiator = initiator;
        assert_eq!(text(&record, "flow.initiator"), values("flow.initiator")[n]);
    }
    let mut enriched = sample::kubernetes();
    use FlowDirection::{Inbound, Outbound, Transit, WithinNode};
    use mermin_flow::{FlowDirection, Resolution};
    for (n, direction) in [Inbound, Outbound, WithinNode, Transit].into_iter().enumerate() {
        enriched.enrichment.direction = Some(direction);
        assert_eq!(text(&enriched, "flow.direction"), values("flow.direction")[n]);
        if let Some(network_io) = direction.network_io() {
            assert_eq!(network_io, values("network.io.direction")[n]);
            assert_eq!(text(&enriched, "network.io.direction"), network_io);
        } else {
            assert!(!value(&enriched).contains_key("network.io.direction"));
        }
    }
    for (n, resolution) in
        [Resolution::Exact, Resolution::Ambiguous, Resolution::Unknown].into_iter().enumerate()
    {
        enriched.source.identity.kubernetes.as_mut().unwrap().resolution = resolution;
        assert_eq!(text(&enriched, "source.k8s.resolution"), values("source.k8s.resolution")[n]);
    }
    use TcpState::{Closed, Closing, Established, FinWait1, FinWait2, SynReceived, SynSent, TimeWait};
    let states = [SynSent, SynReceived, Established, FinWait1, FinWait2, Closing, TimeWait, Closed];
    for (n, state) in states.into_iter().enumerate() {
        record.tcp_state = state;
        assert_eq!(text(&record, "flow.tcp.state"), values("flow.tcp.state")[n]);
    }
    for bit in 0..8 {
        record.forward.tcp_flags = Some(1 << bit);
        assert_eq!(value(&record)["flow.tcp.flags"], serde_json::json!([values("flow.tcp.flags")[bit]]));
    }
    record.forward.tcp_flags = Some(0);
    assert_eq!(value(&record)["flow.tcp.flags"], serde_json::json!([]));
}

#[test]
fn a_point_that_comes_up_later_is_named() {
    let points = Arc::new(ObservationPoints::default());
    let mut json = JsonLines::new(Arc::clone(&points));
    let mut interfaces = Vec::new();
    for name in [None, Some("\u{1b}eth\"0")] {
        if let Some(name) = name {
            points
                .number(mermin_flow::ObservationPoint { interface: Some(name.into()), ..Default::default() });
        }
        let mut out = Vec::new();
        json.push(&sample::tcp(), &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        interfaces.push(value.get("network.interface.name").cloned());
    }
    assert_eq!(interfaces, [None, Some(Value::from("\u{1b}eth\"0"))]);
}

#[test]
fn a_renamed_point_has_its_new_name_and_an_older_flow_none_of_another_point() {
    let points = Arc::new(ObservationPoints::default());
    let mut json = JsonLines::new(Arc::clone(&points));
    let mut name = |record: &FlowRecord| {
        let mut out = Vec::new();
        json.push(record, &mut out);
        serde_json::from_slice::<Value>(&out).unwrap().get("network.interface.name").cloned()
    };
    let point =
        |name: &str| mermin_flow::ObservationPoint { interface: Some(name.into()), ..Default::default() };
    let record = sample::tcp();
    while points.register(point("a"), 0).is_some() {}
    assert_eq!(name(&record), Some(Value::from("a")));
    points.rename(record.point, &"b".into());
    assert_eq!(name(&record), Some(Value::from("b")));
    points.retire(record.point);
    assert_eq!(points.register(point("c"), record.start_time + 1), Some(record.point));
    assert_eq!(name(&record), None);
    let later = FlowRecord { start_time: record.start_time + 1, ..record };
    assert_eq!(name(&later), Some(Value::from("c")));
}

proptest! {
    /// Numbers and texts read back as they were.
    #[test]
    fn values_read_back(counts in prop::array::uniform6(any::<u64>()), name in "[\\x00-\\u{300}]{0,40}", id: u128, ports: (u16, u16)) {
        let mut record = sample::tcp();
        record.id = mermin_flow::FlowId(id);
        record.forward.delta = Counts { packets: counts[0], bytes: counts[1], frame_bytes: counts[2] };
        record.reverse.total = Counts { packets: counts[3], bytes: counts[4], frame_bytes: counts[5] };
        (record.source.port, record.destination.port) = (Some(ports.0), Some(ports.1));
        record.source.identity.name = Some(name.as_str().into());
        let object = value(&record);
        for (key, expected) in [
            ("flow.packets.delta", counts[0]), ("flow.bytes.delta", counts[1]), ("flow.frame_bytes.delta", counts[2]),
            ("flow.reverse.packets.total", counts[3]), ("flow.reverse.bytes.total", counts[4]),
            ("flow.reverse.frame_bytes.total", counts[5]),
            ("source.port", u64::from(ports.0)), ("destination.port", u64::from(ports.1)),
        ] {
            prop_assert_eq!(object[key].as_u64(), Some(expected), "{}", key);
        }
        prop_assert_eq!(object["source.name"].as_str(), Some(name.as_str()));
        let id = format!("{id:032x}");
        prop_assert_eq!(object["flow.id"].as_str(), Some(id.as_str()));
    }
}
