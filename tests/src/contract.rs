//! The rules that records and statistics promise their readers, checked on what a run wrote: form and values of each
//! record, how the records of a flow fit together, and the three books.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

const REQUIRED: [&str; 11] = [
    "flow.id",
    "flow.sequence",
    "flow.community_id",
    "flow.event",
    "flow.start_time",
    "flow.end_time",
    "flow.initiator",
    "network.type",
    "network.transport.number",
    "source.address",
    "destination.address",
];
const END_REASONS: [&str; 5] =
    ["idle timeout", "active timeout", "end of flow detected", "forced end", "lack of resources"];
const INITIATORS: [&str; 6] = ["syn", "syn_ack", "service port", "multicast", "icmp request", "first seen"];
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
const TCP_STATES: [&str; 8] =
    ["syn_sent", "syn_received", "established", "fin_wait_1", "fin_wait_2", "closing", "time_wait", "closed"];
/// Prefixes of the counters; each ends in `.delta` and `.total`.
const COUNTERS: [&str; 6] = [
    "flow.packets",
    "flow.bytes",
    "flow.frame_bytes",
    "flow.reverse.packets",
    "flow.reverse.bytes",
    "flow.reverse.frame_bytes",
];
const VERDICTS: [&str; 5] = ["metered", "secondary", "unmetered", "filtered", "sampled_out"];
const UNITS: [&str; 4] = ["packets", "bytes", "buffers", "buffer_bytes"];

type Object = Map<String, Value>;

/// Rules that were broken, each with how often and where first.
#[derive(Default)]
struct Broken(BTreeMap<String, (usize, String)>);

impl Broken {
    fn unless(&mut self, holds: bool, rule: &str, place: &str) {
        if !holds {
            self.0.entry(rule.to_owned()).or_insert_with(|| (0, place.to_owned())).0 += 1;
        }
    }

    fn lines(self) -> Vec<String> {
        let line = |(rule, (times, place))| format!("{times} × {rule} (first: {place})");
        self.0.into_iter().map(line).collect()
    }
}

const STATISTICS: &str = "statistics";

/// What the records of one flow have told so far.
struct Flow {
    next_sequence: u64,
    ended: bool,
    fixed: Vec<Value>,
    sums: [u64; 6],
}

/// Checks all records of a run, and its statistics where there are any. Gives a line for each broken rule.
#[must_use]
pub fn check(lines: &str, statistics: Option<&Value>) -> Vec<String> {
    let mut broken = Broken::default();
    let mut flows = BTreeMap::new();
    for (index, line) in lines.lines().enumerate() {
        let place = format!("line {}", index + 1);
        match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(record)) => {
                broken.unless(compact(&record) == line, "a line is not compact", &place);
                check_record(&record, &mut broken, &place);
                check_flow(&record, &mut flows, &mut broken, &place);
            }
            _ => broken.unless(false, "a line is not one JSON object", &place),
        }
    }
    for (id, flow) in &flows {
        broken.unless(flow.ended, "a flow without an end", id);
    }
    if let Some(statistics) = statistics {
        check_statistics(statistics, &mut broken);
        check_together(statistics, &flows, &mut broken);
    }
    broken.lines()
}

/// Checks the books of a run whose records went elsewhere. Gives a line for each broken rule.
#[must_use]
pub fn check_books(statistics: &Value) -> Vec<String> {
    let mut broken = Broken::default();
    check_statistics(statistics, &mut broken);
    broken.lines()
}

fn check_record(record: &Object, broken: &mut Broken, place: &str) {
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
    for key in REQUIRED {
        broken.unless(record.contains_key(key), &format!("{key} is missing"), place);
    }
    broken.unless(!record.values().any(Value::is_null), "a null", place);
    let hexadecimal = |sign: char| sign.is_ascii_digit() || ('a'..='f').contains(&sign);
    let id = text("flow.id");
    broken.unless(id.len() == 32 && id.chars().all(hexadecimal), "flow.id is not 32 hex digits", place);
    broken.unless(is_community_id(text("flow.community_id")), "flow.community_id is no version 1 id", place);
    broken.unless(["start", "update", "end"].contains(&text("flow.event")), "flow.event is unknown", place);
    let reason_fits = match record.get("flow.end_reason").and_then(Value::as_str) {
        None => text("flow.event") == "start",
        Some(reason) => text("flow.event") != "start" && END_REASONS.contains(&reason),
    };
    broken.unless(reason_fits, "flow.end_reason does not fit the event", place);
    for key in ["flow.start_time", "flow.end_time"] {
        broken.unless(is_time(text(key)), &format!("{key} is not RFC 3339 with nine digits"), place);
    }
    // Set back meanwhile, the clock may show an earlier time at the end.
    let set_back = record.get("flow.clock_step").and_then(Value::as_i64).is_some_and(|step| step < 0);
    let in_order = text("flow.start_time") <= text("flow.end_time");
    broken.unless(in_order || set_back, "a flow ends before it starts", place);
    broken.unless(INITIATORS.contains(&text("flow.initiator")), "flow.initiator is unknown", place);
    check_ends(record, broken, place);
    check_tcp(record, broken, place);
}

fn check_ends(record: &Object, broken: &mut Broken, place: &str) {
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
    let family = text("network.type");
    broken.unless(["ipv4", "ipv6"].contains(&family), "network.type is neither ipv4 nor ipv6", place);
    let protocol = record.get("network.transport.number").and_then(Value::as_u64);
    broken.unless(
        protocol.is_some_and(|number| number < 256),
        "network.transport.number is no protocol",
        place,
    );
    let keyword = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|sign| sign.is_ascii_digit() || sign.is_ascii_lowercase() || ".+-".contains(sign))
    };
    let named = record.get("network.transport").is_none_or(|name| name.as_str().is_some_and(keyword));
    broken.unless(named, "network.transport is no lower-case keyword", place);
    for key in ["source.address", "destination.address"] {
        broken.unless(is_address(text(key), family), &format!("{key} is not as RFC 5952 writes it"), place);
    }
    let port = |key: &str| record.get(key).map(|port| port.as_u64().is_some_and(|port| port < 65536));
    let (source, destination) = (port("source.port"), port("destination.port"));
    broken.unless(source != Some(false) && destination != Some(false), "a port is no port", place);
    broken.unless(source.is_some() == destination.is_some(), "one port without the other", place);
    let icmp = matches!(protocol, Some(1 | 58));
    broken.unless(!icmp || source.is_none(), "ICMP with a port", place);
    let typed = record.contains_key("icmp.type");
    broken.unless(
        typed == record.contains_key("icmp.code") && (icmp || !typed),
        "icmp.type does not fit",
        place,
    );
}

fn check_tcp(record: &Object, broken: &mut Broken, place: &str) {
    let tcp = record.get("network.transport.number").and_then(Value::as_u64) == Some(6);
    for key in ["flow.tcp.flags", "flow.reverse.tcp.flags"] {
        let known = |flag: &Value| flag.as_str().is_some_and(|flag| FLAGS.contains(&flag));
        let good = |value: &Value| tcp && value.as_array().is_some_and(|flags| flags.iter().all(known));
        broken.unless(
            record.get(key).is_none_or(good),
            &format!("{key} is no list of a TCP flow's flags"),
            place,
        );
    }
    let state = |value: &Value| tcp && value.as_str().is_some_and(|state| TCP_STATES.contains(&state));
    broken.unless(record.get("flow.tcp.state").is_none_or(state), "flow.tcp.state is no TCP state", place);
}

fn check_flow(record: &Object, flows: &mut BTreeMap<String, Flow>, broken: &mut Broken, place: &str) {
    let count = |prefix: &str, end: &str| record.get(&format!("{prefix}{end}")).and_then(Value::as_u64);
    let deltas = COUNTERS.map(|prefix| count(prefix, ".delta"));
    let totals = COUNTERS.map(|prefix| count(prefix, ".total"));
    let complete = deltas.iter().chain(&totals).all(Option::is_some);
    broken.unless(complete, "a counter is missing or not whole", place);
    if !complete {
        return;
    }
    let (deltas, totals) = (deltas.map(Option::unwrap_or_default), totals.map(Option::unwrap_or_default));
    let fixed = [
        "flow.start_time",
        "flow.community_id",
        "source.address",
        "source.port",
        "destination.address",
        "destination.port",
    ]
    .map(|key| record.get(key).cloned().unwrap_or_default())
    .to_vec();
    let id = record.get("flow.id").map(ToString::to_string).unwrap_or_default();
    let flow = flows.entry(id).or_insert_with(|| Flow {
        next_sequence: 0,
        ended: false,
        fixed: fixed.clone(),
        sums: [0; 6],
    });
    broken.unless(!flow.ended, "a record after its flow's end", place);
    let sequence = record.get("flow.sequence").and_then(Value::as_u64);
    broken.unless(sequence == Some(flow.next_sequence), "flow.sequence does not count up from 0", place);
    flow.next_sequence += 1;
    broken.unless(flow.fixed == fixed, "a flow's start or ends change", place);
    for (sum, delta) in flow.sums.iter_mut().zip(deltas) {
        *sum += delta;
    }
    broken.unless(flow.sums == totals, "deltas do not add up to the totals", place);
    let (moved, in_all) = (deltas[0] + deltas[3], totals[0] + totals[3]);
    let event = record.get("flow.event").and_then(Value::as_str).unwrap_or_default();
    broken.unless(event != "start" || in_all == 0, "a start with packets", place);
    broken.unless(event != "update" || moved > 0, "an update without packets", place);
    broken.unless(event == "start" || in_all > 0, "a flow without packets", place);
    for side in [0, 3] {
        let empty = totals[side] == 0;
        broken.unless((totals[side + 2] == 0) == empty, "frame bytes without packets", place);
        broken.unless(totals[side + 1] <= totals[side + 2], "more IP bytes than frame bytes", place);
    }
    flow.ended |= event == "end";
}

fn check_statistics(statistics: &Value, broken: &mut Broken) {
    const PLACE: &str = STATISTICS;
    for key in [
        "flows",
        "packets_processed",
        "ethertypes",
        "ledger",
        "stages",
        "outputs",
        "duration_seconds",
        "version",
    ] {
        broken.unless(statistics.get(key).is_some(), &format!("{key} is missing"), PLACE);
    }
    let ledger = &statistics["ledger"];
    let of = |term: &str, unit: &str| total(&ledger[term], unit);
    for term in VERDICTS.into_iter().chain(["seen", "in_flight", "lost", "resident", "released"]) {
        broken.unless(ledger[term].is_object(), &format!("ledger.{term} is missing"), PLACE);
    }
    for unit in UNITS {
        broken.unless(ledger["seen"][unit].is_u64(), &format!("ledger.seen.{unit} is missing"), PLACE);
        let out: u64 = VERDICTS.into_iter().chain(["in_flight", "lost"]).map(|term| of(term, unit)).sum();
        broken.unless(of("seen", unit) == out, &format!("sightings do not balance in {unit}"), PLACE);
        let left = of("resident", unit) + of("released", unit);
        broken.unless(of("metered", unit) == left, &format!("metering does not balance in {unit}"), PLACE);
        broken.unless(
            of("in_flight", unit) + of("resident", unit) == 0,
            "something is left inside at the end",
            PLACE,
        );
    }
    let given: u64 = VERDICTS.into_iter().map(|term| of(term, "packets")).sum();
    broken.unless(
        statistics["packets_processed"] == given,
        "packets_processed is not the verdicts given",
        PLACE,
    );
    for (name, book) in statistics["outputs"].as_object().into_iter().flatten() {
        for unit in ["records", "packets", "bytes"] {
            let of = |term: &str| total(&book[term], unit);
            let merged = if unit == "records" { of("merged") } else { 0 };
            let out = of("delivered") + of("queued") + of("spooled") + of("dropped") + merged;
            broken.unless(
                of("handed") + of("recovered") == out,
                &format!("output {name} does not balance in {unit}"),
                PLACE,
            );
            broken.unless(of("queued") == 0, &format!("output {name} has {unit} queued at the end"), PLACE);
        }
    }
    let count = &statistics["flows"];
    broken.unless(
        count["active"] == 0 && count["created"] == count["released"],
        "flows are active at the end",
        PLACE,
    );
}

/// What the records say and what the statistics say is the same.
fn check_together(statistics: &Value, flows: &BTreeMap<String, Flow>, broken: &mut Broken) {
    let released = &statistics["flows"]["released"];
    broken.unless(*released == flows.len(), "flows.released is not the flows in the records", STATISTICS);
    for (unit, at) in [("packets", 0), ("bytes", 2)] {
        let recorded: u64 = flows.values().map(|flow| flow.sums[at] + flow.sums[at + 3]).sum();
        broken.unless(
            recorded == total(&statistics["ledger"]["released"], unit),
            &format!("records and ledger differ in {unit}"),
            STATISTICS,
        );
    }
}

/// The sum over a term's stages or reasons, or the term itself.
fn total(term: &Value, unit: &str) -> u64 {
    let Some(object) = term.as_object() else { return 0 };
    match object.get(unit) {
        Some(count) if !count.is_object() => count.as_u64().unwrap_or_default(),
        _ => object.values().map(|part| total(part, unit)).sum(),
    }
}

fn is_community_id(text: &str) -> bool {
    let Some(digest) = text.strip_prefix("1:").and_then(|rest| rest.strip_suffix('=')) else { return false };
    digest.len() == 27 && digest.chars().all(|sign| sign.is_ascii_alphanumeric() || "+/".contains(sign))
}

fn compact(record: &Object) -> String {
    serde_json::to_string(record).expect("keys are strings")
}

/// `2023-11-14T22:13:20.000000000Z`.
fn is_time(text: &str) -> bool {
    let shape = |(index, sign): (usize, char)| match index {
        4 | 7 => sign == '-',
        10 => sign == 'T',
        13 | 16 => sign == ':',
        19 => sign == '.',
        29 => sign == 'Z',
        _ => sign.is_ascii_digit(),
    };
    text.len() == 30 && text.chars().enumerate().all(shape)
}

/// RFC 5952 has one form for each address; only IPv4-mapped ones are dotted.
fn is_address(text: &str, family: &str) -> bool {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => family == "ipv4" && address.to_string() == text,
        Ok(IpAddr::V6(address)) => family == "ipv6" && canonical(address) == text,
        Err(_) => false,
    }
}

fn canonical(address: Ipv6Addr) -> String {
    let groups = address.segments();
    if let Some(mapped) = address.to_ipv4_mapped() {
        return format!("::ffff:{mapped}");
    }
    // The first of the longest runs of at least two zero groups.
    let run = |start: usize| groups[start..].iter().take_while(|group| **group == 0).count();
    let (start, length) = (0..8)
        .map(|start| (start, run(start)))
        .fold((0, 0), |best, run| if run.1 > best.1 { run } else { best });
    let join = |groups: &[u16]| groups.iter().map(|group| format!("{group:x}")).collect::<Vec<_>>().join(":");
    if length < 2 {
        return join(&groups);
    }
    format!("{}::{}", join(&groups[..start]), join(&groups[start + length..]))
}

#[cfg(test)]
mod tests {
    use super::{canonical, check};
    use serde_json::{Value, json};

    fn record() -> Value {
        let mut record = json!({
            "flow.id": "0123456789abcdef0123456789abcdef", "flow.sequence": 0,
            "flow.community_id": "1:wCb3OG7yAFWelaUydu0D+125CLM=", "flow.event": "end",
            "flow.end_reason": "forced end", "flow.start_time": "2023-11-14T22:13:20.000000000Z",
            "flow.end_time": "2023-11-14T22:13:21.000000000Z", "network.type": "ipv4", "network.transport": "tcp",
            "network.transport.number": 6, "source.address": "1.2.3.4", "source.port": 1122,
            "destination.address": "5.6.7.8", "destination.port": 3344, "flow.initiator": "syn",
            "flow.tcp.flags": ["SYN"],
        });
        for (prefix, value) in super::COUNTERS.into_iter().zip([2, 120, 148, 1, 60, 74]) {
            record[format!("{prefix}.delta")] = value.into();
            record[format!("{prefix}.total")] = value.into();
        }
        record
    }

    fn statistics() -> Value {
        let three = json!({"packets": 3, "bytes": 222, "buffers": 3, "buffer_bytes": 222});
        let none = json!({"packets": 0, "bytes": 0, "buffers": 0, "buffer_bytes": 0});
        let book = json!({"records": 1, "packets": 3, "bytes": 222});
        json!({
            "flows": {"active": 0, "created": 1, "released": 1}, "packets_processed": 3, "ethertypes": {},
            "stages": {}, "duration_seconds": 0.1, "capture_seconds": 1.0, "version": "0.1.0",
            "ledger": {"seen": three, "in_flight": {"ring": none}, "metered": three, "secondary": none,
                "unmetered": {"arp": none}, "filtered": {}, "sampled_out": none, "lost": {"ring_full": none},
                "resident": {"flow_table": none}, "released": three},
            "outputs": {"json": {"handed": book, "delivered": book, "queued": {}, "spooled": {}, "dropped": {}, "merged": {}}},
        })
    }

    #[test]
    fn what_keeps_the_contract_passes() {
        assert_eq!(check(&record().to_string(), Some(&statistics())), Vec::<String>::new());
    }

    #[test]
    fn every_broken_record_is_found() {
        let changes: &[(&str, Value)] = &[
            ("flow.id", json!("0123")),
            ("flow.sequence", json!(1)),
            ("flow.community_id", json!("wCb3OG7yAFWelaUydu0D+125CLM=")),
            ("flow.event", json!("update")),
            ("flow.event", json!("stop")),
            ("flow.end_reason", json!("idle")),
            ("flow.start_time", json!("2023-11-14T22:13:20.000Z")),
            ("flow.end_time", json!("2023-11-14T22:13:19.000000000Z")),
            ("network.type", json!("ipv6")),
            ("network.transport", json!("TCP")),
            ("network.transport.number", json!(256)),
            ("network.transport.number", json!(1)),
            ("source.address", json!("1.2.3.04")),
            ("source.port", json!(65536)),
            ("source.port", Value::Null),
            ("flow.initiator", json!("client")),
            ("flow.tcp.flags", json!(["NS"])),
            ("flow.tcp.state", json!("ESTABLISHED")),
            ("icmp.type", json!(8)),
            ("flow.packets.delta", json!(1)),
            ("flow.packets.delta", json!("2")),
            ("flow.reverse.bytes.total", json!(61)),
        ];
        for (key, value) in changes {
            let mut record = record();
            record[*key] = value.clone();
            assert!(!check(&record.to_string(), None).is_empty(), "{key}: {value} was not found");
        }
    }

    #[test]
    fn records_of_a_flow_must_fit_together() {
        let line = record().to_string();
        assert!(!check(&format!("{line}\n{line}"), None).is_empty(), "a second end");
        let mut update = record();
        update["flow.event"] = "update".into();
        assert!(!check(&update.to_string(), None).is_empty(), "no end");
        assert!(!check(&line.replace("\":", "\": "), None).is_empty(), "not compact");
    }

    #[test]
    fn every_unbalanced_book_is_found() {
        for pointer in [
            "/ledger/seen/buffers",
            "/ledger/seen/packets",
            "/ledger/metered/bytes",
            "/ledger/unmetered/arp/packets",
            "/ledger/lost/ring_full/buffer_bytes",
            "/ledger/resident/flow_table/packets",
            "/ledger/in_flight/ring/buffers",
            "/ledger/released/bytes",
            "/outputs/json/handed/records",
            "/outputs/json/delivered/bytes",
            "/packets_processed",
            "/flows/active",
            "/flows/released",
        ] {
            let mut statistics = statistics();
            *statistics.pointer_mut(pointer).unwrap() = 7.into();
            assert!(!check(&record().to_string(), Some(&statistics)).is_empty(), "{pointer} was not found");
        }
        let mut statistics = statistics();
        statistics["ledger"].as_object_mut().unwrap().remove("lost");
        assert!(!check(&record().to_string(), Some(&statistics)).is_empty(), "a missing term was not found");
    }

    #[test]
    fn addresses_have_one_form() {
        for form in [
            "::",
            "::1",
            "1::",
            "2001:db8::1:0:0:1",
            "1:0:2:3:4:5:6:7",
            "::ffff:1.2.3.4",
            "::102:304",
            "fe80::1",
        ] {
            assert_eq!(canonical(form.parse().unwrap()), form);
        }
    }
}
