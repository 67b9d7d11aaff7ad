//! Flow records as read back from JSON lines.

use crate::tuple::{Counts, Table, Tuple, icmp_counterpart, icmp_ports, is_icmp_request};
use serde_json::{Map, Value};
use std::net::IpAddr;

/// One record; keys as in its line.
#[derive(Clone, Debug, PartialEq)]
pub struct Record(pub Map<String, Value>);

impl Record {
    /// Reads lines of JSON.
    ///
    /// # Panics
    /// When a line is no JSON object.
    #[must_use]
    pub fn parse_lines(text: &str) -> Vec<Self> {
        let parse = |line: &str| {
            serde_json::from_str(line).map(Self).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        text.lines().map(parse).collect()
    }

    /// The text under a key, where it is there.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    /// The text under a key.
    ///
    /// # Panics
    /// When it is absent.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_else(|| panic!("no {key} in {:?}", self.0))
    }

    /// The number under a key, where it is there.
    #[must_use]
    pub fn whole(&self, key: &str) -> Option<u64> {
        self.0.get(key).and_then(Value::as_u64)
    }

    /// A counter.
    ///
    /// # Panics
    /// When it is absent.
    #[must_use]
    pub fn count(&self, key: &str) -> u64 {
        self.whole(key).unwrap_or_else(|| panic!("no {key} in {:?}", self.0))
    }

    /// The deltas of one direction.
    #[must_use]
    pub fn deltas(&self, reverse: bool) -> Counts {
        let key = |what: &str| format!("flow.{}{what}.delta", if reverse { "reverse." } else { "" });
        Counts {
            packets: self.count(&key("packets")),
            bytes: self.count(&key("bytes")),
            frame_bytes: self.count(&key("frame_bytes")),
        }
    }

    /// The tuple of source to destination.
    #[must_use]
    pub fn forward(&self) -> Tuple {
        let address = |key: &str| -> IpAddr { self.text(key).parse().expect("an address") };
        let protocol = u8::try_from(self.count("network.transport.number")).expect("a protocol number");
        let port = |key: &str| self.whole(key).and_then(|port| u16::try_from(port).ok());
        let ports = self.icmp_forward(protocol).or_else(|| port("source.port").zip(port("destination.port")));
        Tuple {
            source: address("source.address"),
            destination: address("destination.address"),
            protocol,
            ports,
        }
    }

    /// The record has the first packet's type, which may have been the answer to the source's request.
    fn icmp_forward(&self, protocol: u8) -> Option<(u16, u16)> {
        let word = |key: &str| self.whole(key).and_then(|value| u16::try_from(value).ok());
        let (kind, code) = word("icmp.type").zip(word("icmp.code"))?;
        let answered = self.text("flow.initiator") == "icmp request" && !is_icmp_request(protocol, kind);
        let kind = if answered { icmp_counterpart(protocol, kind).unwrap_or(kind) } else { kind };
        Some(icmp_ports(protocol, kind, code))
    }
}

/// All deltas of the records, by directed tuple.
#[must_use]
pub fn by_tuple(records: &[Record]) -> Table {
    let mut table = Table::new();
    for record in records {
        let forward = record.forward();
        let back = Tuple {
            source: forward.destination,
            destination: forward.source,
            ports: forward.ports.map(|(from, to)| (to, from)),
            ..forward
        };
        for (tuple, counts) in [(forward, record.deltas(false)), (back, record.deltas(true))] {
            if counts != Counts::default() {
                *table.entry(tuple).or_default() += counts;
            }
        }
    }
    table
}
