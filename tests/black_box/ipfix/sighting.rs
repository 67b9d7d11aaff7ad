//! One data record as every witness can tell it, and tables of these.

use super::Form;
use mermin_tests::ipfix::{Data, OWN, REVERSE};
use mermin_tests::record::Record;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Packets and IP bytes.
pub(super) type Count = [u64; 2];

/// Ends and deltas. Ports are 0 where there are none; a uniflow has nothing on the way back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sighting {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) ports: [u64; 2],
    /// Milliseconds since 1970.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) forward: Count,
    pub(super) reverse: Count,
}

/// How often each occurs: the same flow may be in two captures.
pub(super) type Table = BTreeMap<Sighting, usize>;

pub(super) fn table(sightings: impl IntoIterator<Item = Sighting>) -> Table {
    let mut table = Table::new();
    for sighting in sightings {
        *table.entry(sighting).or_default() += 1;
    }
    table
}

/// Both are the same, or what is only in one is shown.
pub(super) fn same(witness: &str, expected: &Table, got: &Table) {
    let only = |one: &Table, other: &Table| -> Vec<String> {
        let differ = one.iter().filter(|(sighting, count)| other.get(*sighting) != Some(*count));
        differ.take(5).map(|(sighting, count)| format!("{count} of {sighting:?}")).collect()
    };
    assert!(
        expected == got,
        "{witness}: {} kinds of records, {} expected; not there: {:#?}; not expected: {:#?}",
        got.len(),
        expected.len(),
        only(expected, got),
        only(got, expected)
    );
}

/// Sums: data records, packets and bytes forward and back.
pub(super) fn sums(table: &Table) -> [u64; 5] {
    let mut sums = [0; 5];
    for (Sighting { forward, reverse, .. }, count) in table {
        let parts = [1, forward[0], forward[1], reverse[0], reverse[1]];
        sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part * *count as u64);
    }
    sums
}

/// What a record becomes.
pub(super) fn of_record(record: &Record, form: Form) -> Vec<Sighting> {
    let address = |key: &str| -> IpAddr { record.text(key).parse().unwrap() };
    let port = |key: &str| record.whole(key).unwrap_or(0);
    let [forward, reverse] = [false, true].map(|reverse| record.deltas(reverse));
    let [start, end] = ["flow.start_time", "flow.end_time"].map(|key| milliseconds(record.text(key)));
    let both = Sighting {
        source: address("source.address"),
        destination: address("destination.address"),
        ports: [port("source.port"), port("destination.port")],
        start,
        end,
        forward: [forward.packets, forward.bytes],
        reverse: [reverse.packets, reverse.bytes],
    };
    if form == Form::Both {
        return vec![both];
    }
    let back = Sighting {
        source: both.destination,
        destination: both.source,
        ports: [both.ports[1], both.ports[0]],
        forward: both.reverse,
        reverse: [0; 2],
        ..both
    };
    let there = Sighting { reverse: [0; 2], ..both };
    let mut parts = Vec::new();
    if there.forward[0] > 0 || back.forward[0] == 0 {
        parts.push(there);
    }
    if back.forward[0] > 0 {
        parts.push(back);
    }
    parts
}

/// `2023-11-14T22:13:20.000000000Z`.
fn milliseconds(text: &str) -> u64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<u64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days since 1970 of a date in the Gregorian calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + number(11..13)) * 60 + number(14..16)) * 60 + number(17..19);
    seconds * 1000 + number(20..23)
}

/// As the tests' own reader has it.
pub(super) fn of_data(data: &Data) -> Sighting {
    let iana = |number: u16| data.unsigned((0, number));
    let back = |number: u16| data.unsigned((REVERSE, number)).unwrap_or(0);
    Sighting {
        source: data.address(8, 27).unwrap(),
        destination: data.address(12, 28).unwrap(),
        ports: [iana(7).unwrap_or(0), iana(11).unwrap_or(0)],
        start: iana(152).unwrap(),
        end: iana(153).unwrap(),
        forward: [iana(2).unwrap(), iana(1).unwrap()],
        reverse: [back(2), back(1)],
    }
}

/// Which record a data record tells of: `flow.id` and `flow.sequence`.
pub(super) fn identity(data: &Data) -> (String, u64) {
    let id = data.octets((OWN, 1)).unwrap().iter().map(|octet| format!("{octet:02x}")).collect();
    (id, data.unsigned((OWN, 2)).unwrap())
}

/// The same of a JSON line.
pub(super) fn identity_of(record: &Record) -> (String, u64) {
    (record.text("flow.id").to_owned(), record.count("flow.sequence"))
}

/// As goflow2 writes it, with [`MAPPING`].
pub(super) fn of_goflow2(line: &Value) -> Sighting {
    let number = |key: &str| line[key].as_u64().unwrap_or(0);
    let address = |key: &str| line[key].as_str().unwrap().parse().unwrap();
    Sighting {
        source: address("src_addr"),
        destination: address("dst_addr"),
        ports: [number("src_port"), number("dst_port")],
        start: number("time_flow_start_ns") / 1_000_000,
        end: number("time_flow_end_ns") / 1_000_000,
        forward: [number("packets"), number("bytes")],
        reverse: [number("reverse_packets"), number("reverse_bytes")],
    }
}

/// What goflow2 is to write, with the reverse elements that it doesn't know by itself.
pub(super) const MAPPING: &str = "
formatter:
  fields: [src_addr, dst_addr, src_port, dst_port, time_flow_start_ns, time_flow_end_ns, packets, bytes, reverse_packets, reverse_bytes]
  protobuf:
  - {name: reverse_packets, index: 1001, type: varint}
  - {name: reverse_bytes, index: 1002, type: varint}
ipfix:
  mapping:
  - {field: 2, penprovided: true, pen: 29305, destination: reverse_packets}
  - {field: 1, penprovided: true, pen: 29305, destination: reverse_bytes}
";

/// As nfdump writes it.
pub(super) fn of_nfdump(flow: &Value) -> Sighting {
    let number = |key: &str| flow[key].as_u64().unwrap_or(0);
    let address = |keys: [&str; 2]| keys.iter().find_map(|key| flow[*key].as_str()?.parse().ok()).unwrap();
    let time = |key: &str| milliseconds(&format!("{}000000Z", flow[key].as_str().unwrap()));
    Sighting {
        source: address(["src4_addr", "src6_addr"]),
        destination: address(["dst4_addr", "dst6_addr"]),
        ports: [number("src_port"), number("dst_port")],
        start: time("first"),
        end: time("last"),
        forward: [number("in_packets"), number("in_bytes")],
        reverse: [number("out_packets"), number("out_bytes")],
    }
}
