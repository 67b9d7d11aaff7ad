//! Records through encoder and messages, read by a decoder that shares no code with them.

mod decoder;
mod delivery;
mod session;

use super::encode::{Encoder, Part, each};
use super::session::{Identity, Session, Version};
use super::window::Window;
use crate::attributes::{ATTRIBUTES, Kind};
use crate::format::Format;
use crate::json::JsonLines;
use crate::sample;
use decoder::{Collector, Decoded};
use mermin_flow::{Amount, FlowRecord, Receipt};
use serde_json::{Map, Value};
use std::net::{Ipv4Addr, Ipv6Addr};

const PEN: u32 = 32_473;
const REVERSE: u32 = 29_305;

pub(super) const IDENTITY: Identity =
    Identity { version: Version::Ipfix, domain: 7, enterprise: PEN, booted: 0 };

/// All messages of what a window has.
pub(super) fn messages(session: &mut Session, window: &mut Window, limit: usize) -> Vec<Vec<u8>> {
    let (mut messages, mut receipt) = (Vec::new(), Receipt::default());
    loop {
        let mut message = Vec::new();
        let made = session.make(window, limit, 1_767_225_600_123, "too_large", &mut message);
        window.settle(made.items, &mut receipt);
        if !session.made_something() {
            return messages;
        }
        assert!(message.len() <= limit);
        session.commit();
        messages.push(message);
    }
}

/// Data records of flows that come of these parts.
fn through(parts: &[(&FlowRecord, Part)], limit: usize) -> Vec<Decoded> {
    let (mut encoder, mut window) = (Encoder::new(sample::points()), Window::default());
    for (record, part) in parts {
        let mut row = Vec::new();
        let shape = encoder.push(record, *part, &mut row);
        window.push(shape, &row, Some(Amount::of(record)));
    }
    let (mut session, mut collector) = (Session::new(IDENTITY), Collector::default());
    let messages = messages(&mut session, &mut window, limit);
    let decoded: Vec<_> = messages.iter().flat_map(|message| collector.take(message)).collect();
    assert_eq!((collector.gaps, collector.unknown), (0, 0));
    decoded.into_iter().filter(|decoded| decoded.scope == 0).collect()
}

fn number(octets: &[u8]) -> u64 {
    octets.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet))
}

fn text(octets: &[u8]) -> Value {
    std::str::from_utf8(octets).unwrap().into()
}

fn time(octets: &[u8]) -> Value {
    let time = number(octets);
    let nanos = ((time & 0xffff_ffff) * 1_000_000_000) >> 32;
    let text = { crate::form::Clock::FIRST }
        .moment(((time >> 32) - 2_208_988_800) * 1_000_000_000 + nanos)
        .rfc3339();
    self::text(&text)
}

/// The value of a closed set with this number.
fn chosen(name: &str, octets: &[u8]) -> Value {
    let attribute = ATTRIBUTES.iter().find(|attribute| attribute.name == name).unwrap();
    let Kind::Text(values) = attribute.kind else { panic!("{name} is a text") };
    values[octets[0] as usize - 1].into()
}

fn flags(octets: &[u8]) -> Value {
    let set = (0..8).filter(|bit| octets[0] >> bit & 1 == 1).map(|bit| crate::json::FLAG_NAMES[bit]);
    set.collect::<Vec<_>>().into()
}

fn mac(octets: &[u8]) -> Value {
    octets.iter().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().join("-").into()
}

/// The elements of our own whose values are one of a set, texts, and numbers are told apart by the golden list.
fn own_names() -> std::collections::HashMap<u16, (String, String)> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipfix-elements.txt");
    let golden = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let mut parts = line.split(' ');
        let (number, name) = (parts.next().unwrap().parse().unwrap(), parts.next().unwrap().to_owned());
        (number, (name, parts.next().unwrap().to_owned()))
    };
    golden.lines().map(line).collect()
}

/// The JSON line that a data record stands for, without what it leaves out.
fn as_json(decoded: &Decoded) -> Map<String, Value> {
    let mut json = Map::new();
    let names = own_names();
    for ((enterprise, element), octets) in &decoded.values {
        let way = if *enterprise == REVERSE { "flow.reverse." } else { "flow." };
        let mut add =
            |name: String, value: Value| assert!(json.insert(name.clone(), value).is_none(), "{name}");
        match (*enterprise, *element) {
            (PEN, own) => {
                let (name, kind) = &names[&own];
                let is_choice = ATTRIBUTES.iter().any(|attribute| {
                    attribute.name == *name
                        && matches!(attribute.kind, Kind::Text(values) if !values.is_empty())
                });
                match kind.as_str() {
                    "octetArray" => add(
                        name.clone(),
                        format!("{:032x}", u128::from_be_bytes(octets[..].try_into().unwrap())).into(),
                    ),
                    "signed64" => add(name.clone(), (number(octets) as i64).into()),
                    _ if is_choice => add(name.clone(), chosen(name, octets)),
                    _ if name.ends_with(".labels") => {
                        let end = name.split('.').next().unwrap();
                        for line in std::str::from_utf8(octets).unwrap().lines() {
                            let (label, value) = line.split_once('=').unwrap();
                            add(format!("{end}.{label}"), value.into());
                        }
                    }
                    _ if name.ends_with(".hops") => {
                        add(name.clone(), serde_json::from_slice(octets).unwrap());
                    }
                    _ if name.ends_with(".nat.before") => {
                        let (address, port) = std::str::from_utf8(octets).unwrap().split_once(' ').unwrap();
                        let end = name.strip_suffix("before").unwrap();
                        add(format!("{end}ip"), address.into());
                        add(format!("{end}port"), port.parse::<u16>().unwrap().into());
                    }
                    "string" => add(name.clone(), text(octets)),
                    _ => add(name.clone(), number(octets).into()),
                }
            }
            (0 | REVERSE, element) => match element {
                2 => add(format!("{way}packets.delta"), number(octets).into()),
                86 => add(format!("{way}packets.total"), number(octets).into()),
                1 => add(format!("{way}bytes.delta"), number(octets).into()),
                85 => add(format!("{way}bytes.total"), number(octets).into()),
                352 => add(format!("{way}frame_bytes.delta"), number(octets).into()),
                353 => add(format!("{way}frame_bytes.total"), number(octets).into()),
                5 => {
                    add(format!("{way}dscp"), (octets[0] >> 2).into());
                    add(format!("{way}ecn"), (octets[0] & 3).into());
                }
                52 => add(format!("{way}ttl.min"), octets[0].into()),
                53 => add(format!("{way}ttl.max"), octets[0].into()),
                6 => add(format!("{way}tcp.flags"), flags(octets)),
                156 => add("flow.start_time".to_owned(), time(octets)),
                157 => add("flow.end_time".to_owned(), time(octets)),
                // Less of the same.
                152 | 153 | 239 => {}
                136 => add("flow.end_reason".to_owned(), chosen("flow.end_reason", octets)),
                60 => add("network.type".to_owned(), format!("ipv{}", octets[0]).into()),
                4 => add("network.transport.number".to_owned(), octets[0].into()),
                8 | 12 | 225 | 226 => {
                    let address = Ipv4Addr::from(<[u8; 4]>::try_from(&octets[..]).unwrap());
                    add(address_name(element).to_owned(), address.to_string().into());
                }
                27 | 28 | 281 | 282 => {
                    let address = Ipv6Addr::from(<[u8; 16]>::try_from(&octets[..]).unwrap());
                    add(address_name(element).to_owned(), address.to_string().into());
                }
                227 => add("source.nat.port".to_owned(), number(octets).into()),
                228 => add("destination.nat.port".to_owned(), number(octets).into()),
                7 => add("source.port".to_owned(), number(octets).into()),
                11 => add("destination.port".to_owned(), number(octets).into()),
                32 | 139 => {
                    add("icmp.type".to_owned(), octets[0].into());
                    add("icmp.code".to_owned(), octets[1].into());
                }
                56 => add("source.mac".to_owned(), mac(octets)),
                80 => add("destination.mac".to_owned(), mac(octets)),
                243 => add("network.vlan.id".to_owned(), number(octets).into()),
                245 => add("network.inner.vlan.id".to_owned(), number(octets).into()),
                82 => add("network.interface.name".to_owned(), text(octets)),
                10 | 14 => add("network.interface.index".to_owned(), number(octets).into()),
                61 => {
                    add(
                        "network.interface.hook".to_owned(),
                        ["ingress", "egress"][octets[0] as usize].into(),
                    );
                }
                other => panic!("element {other}"),
            },
            other => panic!("element {other:?}"),
        }
    }
    json
}

fn address_name(element: u16) -> &'static str {
    match element {
        8 | 27 => "source.address",
        12 | 28 => "destination.address",
        225 | 281 => "source.nat.ip",
        _ => "destination.nat.ip",
    }
}

fn line(record: &FlowRecord) -> Map<String, Value> {
    let mut line = Vec::new();
    JsonLines::new(sample::points()).push(record, &mut line);
    serde_json::from_slice(&line).unwrap()
}

/// What follows from other attributes and isn't said twice.
fn without_derived(mut line: Map<String, Value>) -> Map<String, Value> {
    line.remove("network.transport");
    line.remove("network.io.direction");
    line
}

fn is_silent(line: &Map<String, Value>) -> bool {
    line.get("flow.reverse.packets.total") == Some(&Value::from(0))
}

#[test]
fn a_data_record_with_both_directions_says_all_that_a_json_line_says() {
    let mut wide = sample::tcp();
    wide.reverse.total.bytes = 1 << 40;
    for record in sample::all().iter().chain([&wide]) {
        let decoded = through(&[(record, Part::Both)], 1_472);
        assert_eq!(decoded.len(), 1);
        let mut expected = without_derived(line(record));
        if is_silent(&expected) {
            // Without a packet there are no reverse elements: their counts are 0.
            expected.retain(|name, _| !name.starts_with("flow.reverse."));
        }
        assert_eq!(Value::from(as_json(&decoded[0])), Value::from(expected));
        assert_eq!(decoded[0].values[&(0, 239)], [1], "the source is the initiator");
    }
}

#[test]
fn a_data_record_for_each_direction_has_its_sender_as_source() {
    let record = sample::passed();
    let parts: Vec<_> = each(&record).map(|part| (&record, part)).collect();
    let decoded = through(&parts, 1_472);
    let [forward, reverse] = &decoded[..] else { panic!("two") };
    let whole = without_derived(line(&record));
    let (forward, back) = (as_json(forward), as_json(reverse));
    for (name, value) in &forward {
        assert_eq!(Some(value), whole.get(name), "{name}");
    }
    assert!(!forward.contains_key("flow.reverse.packets.delta"));
    for (name, value) in &back {
        let turned = match name.split_once('.').unwrap() {
            ("source", rest) => format!("destination.{rest}"),
            ("destination", rest) => format!("source.{rest}"),
            ("flow", rest) if whole.contains_key(&format!("flow.reverse.{rest}")) => {
                format!("flow.reverse.{rest}")
            }
            _ => name.clone(),
        };
        assert_eq!(Some(value), whole.get(&turned), "{name}");
    }
    assert_eq!(reverse.values[&(0, 239)], [2], "the source is the responder");
    let names: std::collections::BTreeSet<_> = forward.keys().chain(back.keys()).collect();
    assert!(names.contains(&"flow.hops".to_owned()));
}

#[test]
fn a_direction_without_packets_has_no_record_of_its_own_but_an_event_has_one() {
    let parts = |record: &FlowRecord| each(record).collect::<Vec<_>>();
    let (mut forward, mut reverse) = (sample::tcp(), sample::tcp());
    forward.reverse.delta.packets = 0;
    reverse.forward.delta.packets = 0;
    assert_eq!(parts(&sample::tcp()), [Part::Forward, Part::Reverse]);
    assert_eq!(parts(&forward), [Part::Forward]);
    assert_eq!(parts(&reverse), [Part::Reverse]);
    assert_eq!(parts(&sample::bare()), [Part::Forward], "the start of a flow");
}

#[test]
fn an_estimate_is_that_of_its_direction() {
    let record = sample::sampled();
    let values = line(&record);
    let parts: Vec<_> = each(&record).map(|part| (&record, part)).collect();
    let decoded = through(&parts, 1_472);
    for (decoded, way) in decoded.iter().zip(["flow.", "flow.reverse."]) {
        let json = as_json(decoded);
        for name in ["packets.estimate", "packets.estimate_error", "bytes.estimate", "frame_bytes.estimate"] {
            assert_eq!(json.get(&format!("flow.{name}")), values.get(&format!("{way}{name}")), "{way}{name}");
        }
    }
}

#[test]
fn counts_take_four_octets_where_they_fit() {
    let narrow = sample::tcp();
    let mut wide = sample::tcp();
    wide.forward.total.frame_bytes = 1 << 32;
    let decoded = through(&[(&narrow, Part::Both), (&wide, Part::Both)], 1_472);
    let length = |decoded: &Decoded| decoded.values[&(0, 1)].len();
    assert_eq!((length(&decoded[0]), length(&decoded[1])), (4, 8));
    assert_ne!(decoded[0].template, decoded[1].template);
}
