//! The ledger: two books in packets, bytes and buffers. A third for each output is beside it in the statistics.
//!
//! Sightings: `seen = in_flight + metered + secondary + unmetered + filtered + sampled_out + lost`. Metering:
//! `metered = resident + released`. `seen` is counted in buffers before anything is parsed and by nobody who counts
//! the right side; its packets and bytes, known only after parsing, are the sum of the right side.

use crate::observer::SOURCE_UNKNOWN;
use crate::snapshot::Parts;
use mermin_flow::{Loss, Tally};
use mermin_wire::Unmetered;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// All packets that reached an observation point.
    pub seen: Tally,
    /// Seen and without verdict yet, by where they wait.
    pub in_flight: BTreeMap<&'static str, Tally>,
    /// In flows.
    pub metered: Tally,
    /// Counted by another observation point of this host.
    pub secondary: Tally,
    /// Not flow traffic, or not decodable, by reason.
    pub unmetered: BTreeMap<&'static str, Tally>,
    /// By rule.
    pub filtered: BTreeMap<Arc<str>, Tally>,
    /// Left out by sampling.
    pub sampled_out: Tally,
    /// By reason.
    pub lost: BTreeMap<&'static str, Tally>,
    /// Metered and not released, by where they are.
    pub resident: BTreeMap<&'static str, Tally>,
    /// Handed to the outputs.
    pub released: Tally,
    /// Dotted paths of counts that can't be known.
    pub inexact: Vec<&'static str>,
}

fn sum<N>(parts: &BTreeMap<N, Tally>) -> Tally {
    parts.values().copied().sum()
}

impl Ledger {
    pub(crate) fn of(parts: &Parts) -> Self {
        let (reader, meter, source) = (&parts.reader, &parts.meter, &parts.reader.sightings);
        let mut lost: BTreeMap<_, _> =
            source.lost.iter().map(|(loss, tally)| (loss.name(), *tally)).collect();
        for (loss, tally) in
            [(Loss::PacketChannelFull, reader.lost), (Loss::WorkerQuarantine, meter.quarantined)]
        {
            if tally != Tally::ZERO {
                *lost.entry(loss.name()).or_default() += tally;
            }
        }
        let unmetered = Unmetered::ALL
            .iter()
            .map(|reason| (reason.name(), source.unmetered[*reason as usize]))
            .filter(|(_, tally)| *tally != Tally::ZERO)
            .collect();
        let mut ledger = Self {
            seen: Tally::ZERO,
            in_flight: BTreeMap::from([
                ("kernel_table", source.in_kernel_table),
                ("ring", source.in_ring),
                ("packet_channel", reader.waiting),
            ]),
            metered: meter.metered,
            secondary: meter.secondary,
            unmetered,
            filtered: source.filtered.clone(),
            sampled_out: reader.sampled_out,
            lost,
            resident: BTreeMap::from([
                ("flow_table", parts.resident),
                ("enrichment_channel", parts.in_enrichment),
            ]),
            released: parts.released,
            inexact: source.inexact.clone(),
        };
        let verdicts = ledger.sightings();
        ledger.seen = Tally { packets: verdicts.packets, bytes: verdicts.bytes, ..source.seen };
        ledger
    }

    /// The right side of the first book.
    #[must_use]
    pub fn sightings(&self) -> Tally {
        sum(&self.in_flight)
            + self.metered
            + self.secondary
            + sum(&self.unmetered)
            + sum(&self.filtered)
            + self.sampled_out
            + sum(&self.lost)
    }

    /// Packets that were given a verdict other than lost.
    #[must_use]
    pub fn processed(&self) -> u64 {
        (self.metered + self.secondary + sum(&self.unmetered) + sum(&self.filtered) + self.sampled_out)
            .packets
    }

    /// Whether both books balance.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.sightings_balance() && self.metering_balances()
    }

    /// Whether every buffer that was seen stands somewhere. Without the source's own count nothing would be proven.
    #[must_use]
    pub fn sightings_balance(&self) -> bool {
        let sightings = self.sightings();
        (sightings.buffers, sightings.buffer_bytes) == (self.seen.buffers, self.seen.buffer_bytes)
            && self.has_sources_book()
    }

    /// Whether the source has told what it saw. It hasn't where it did not answer in time, or the reader panicked.
    #[must_use]
    pub fn has_sources_book(&self) -> bool {
        !self.inexact.contains(&SOURCE_UNKNOWN[0])
    }

    /// Whether everything metered is resident or released.
    #[must_use]
    pub fn metering_balances(&self) -> bool {
        self.metered == sum(&self.resident) + self.released
    }

    /// Whether nothing is under way any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        sum(&self.in_flight) == Tally::ZERO && sum(&self.resident) == Tally::ZERO
    }

    /// As in the statistics.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let term = |path: &str, tally: &Tally| {
            let counts = [
                ("packets", tally.packets),
                ("bytes", tally.bytes),
                ("buffers", tally.buffers),
                ("buffer_bytes", tally.buffer_bytes),
            ];
            let known = |name: &str| !self.inexact.iter().any(|inexact| *inexact == format!("{path}.{name}"));
            let value = |(name, count): (&str, u64)| {
                (name.to_owned(), if known(name) { json!(count) } else { Value::Null })
            };
            Value::Object(counts.into_iter().map(value).collect())
        };
        let members = |path: &str, parts: &mut dyn Iterator<Item = (&str, &Tally)>| {
            let member =
                |(name, tally): (&str, &Tally)| (name.to_owned(), term(&format!("{path}.{name}"), tally));
            Value::Object(parts.map(member).collect::<Map<_, _>>())
        };
        let terms = |path: &str, parts: &BTreeMap<&'static str, Tally>| {
            if parts.is_empty() && self.inexact.contains(&path) {
                return Value::Null;
            }
            members(path, &mut parts.iter().map(|(name, tally)| (*name, tally)))
        };
        let mut ledger = json!({
            "seen": term("seen", &self.seen),
            "in_flight": terms("in_flight", &self.in_flight),
            "metered": term("metered", &self.metered),
            "secondary": term("secondary", &self.secondary),
            "unmetered": terms("unmetered", &self.unmetered),
            "filtered": members("filtered", &mut self.filtered.iter().map(|(name, tally)| (&**name, tally))),
            "sampled_out": term("sampled_out", &self.sampled_out),
            "lost": terms("lost", &self.lost),
            "resident": terms("resident", &self.resident),
            "released": term("released", &self.released),
        });
        if !self.inexact.is_empty() {
            ledger["inexact"] = json!(self.inexact);
        }
        ledger
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mermin_flow::MeterBook;

    fn parts() -> Parts {
        let mut parts = Parts::default();
        parts.reader.sightings.seen = Tally { packets: 0, bytes: 0, buffers: 10, buffer_bytes: 1_000 };
        parts.reader.sightings.reject(Unmetered::Arp, Tally::frame(100));
        parts.reader.observed = Tally { packets: 9, bytes: 900, buffers: 9, buffer_bytes: 900 };
        let metered = parts.reader.observed;
        parts.meter =
            MeterBook { metered, reported: metered, created: 1, released: 1, ..MeterBook::default() };
        parts.released = metered;
        parts
    }

    #[test]
    fn balances_when_every_packet_stands_somewhere() {
        let ledger = Ledger::of(&parts());
        assert!(ledger.balances() && ledger.is_settled());
        assert_eq!((ledger.seen.packets, ledger.processed()), (10, 10));
        // Packets and bytes from the right side, buffers from the left.
        assert_eq!(ledger.seen, Tally { packets: 10, bytes: 1_000, buffers: 10, buffer_bytes: 1_000 });
        assert_eq!(
            ledger.unmetered,
            BTreeMap::from([("arp", Tally::frame(100))]),
            "no reason without packets"
        );
        assert_eq!(ledger.lost, BTreeMap::new());
    }

    #[test]
    fn what_is_metered_is_resident_or_released() {
        let mut parts = parts();
        parts.released = parts.released - Tally::frame(100) - Tally::frame(100) - Tally::frame(100);
        parts.resident = Tally::frame(100) + Tally::frame(100);
        assert!(!Ledger::of(&parts).metering_balances());
        parts.in_enrichment = Tally::frame(100);
        let ledger = Ledger::of(&parts);
        assert!(ledger.metering_balances() && ledger.balances() && !ledger.is_settled());
    }

    #[test]
    fn without_the_sources_own_count_nothing_is_proven() {
        let mut parts = parts();
        parts.reader.sightings.inexact = SOURCE_UNKNOWN.to_vec();
        let ledger = Ledger::of(&parts);
        assert!(!ledger.sightings_balance() && !ledger.balances() && ledger.metering_balances());
        parts.reader.sightings.inexact = vec!["lost.socket_drop.bytes"];
        assert!(Ledger::of(&parts).balances());
    }

    #[test]
    fn every_term_counts_once() {
        let term =
            |n: u64| Tally { packets: n, bytes: n * 100, buffers: n * 10_000, buffer_bytes: n * 1_000_000 };
        let ledger = Ledger {
            in_flight: BTreeMap::from([("ring", term(1)), ("packet_channel", term(2))]),
            metered: term(4),
            secondary: term(8),
            unmetered: BTreeMap::from([("arp", term(16))]),
            filtered: BTreeMap::from([("rule".into(), term(32))]),
            sampled_out: term(64),
            lost: BTreeMap::from([("socket_drop", term(128))]),
            ..Ledger::default()
        };
        assert_eq!(ledger.sightings(), term(255));
        assert_eq!(ledger.processed(), 4 + 8 + 16 + 32 + 64);
        assert!(!ledger.is_settled());
    }

    #[test]
    fn settled_means_that_nothing_is_in_flight_and_nothing_resident() {
        let rest = Ledger::of(&parts());
        let mut flying = rest.clone();
        flying.in_flight.insert("ring", Tally::frame(1));
        let mut resident = rest.clone();
        resident.resident.insert("flow_table", Tally::frame(1));
        assert_eq!([&rest, &flying, &resident].map(Ledger::is_settled), [true, false, false]);
    }

    #[test]
    fn what_source_reader_and_workers_have_lost_is_added_up_by_reason() {
        let mut parts = parts();
        parts.reader.sightings.lost.insert(Loss::RingFull, Tally::frame(60));
        parts.reader.sightings.lost.insert(Loss::PacketChannelFull, Tally::frame(70));
        parts.reader.lost = Tally::frame(80);
        parts.meter.quarantined = Tally::frame(90);
        let lost = Ledger::of(&parts).lost;
        let expected = BTreeMap::from([
            ("packet_channel_full", Tally::frame(70) + Tally::frame(80)),
            ("ring_full", Tally::frame(60)),
            ("worker_quarantine", Tally::frame(90)),
        ]);
        assert_eq!(lost, expected);
    }

    #[test]
    fn what_was_left_out_by_sampling_has_its_place() {
        let mut parts = parts();
        let left_out = Tally::frame(100) + Tally::frame(100);
        parts.meter.metered = parts.meter.metered - left_out;
        parts.released = parts.meter.metered;
        assert!(!Ledger::of(&parts).balances());
        parts.reader.sampled_out = left_out;
        let ledger = Ledger::of(&parts);
        assert!(ledger.balances() && ledger.is_settled());
        assert_eq!((ledger.sampled_out, ledger.seen.packets, ledger.processed()), (left_out, 10, 10));
    }

    #[test]
    fn a_packet_that_vanished_shows() {
        let mut vanished_in_worker = parts();
        vanished_in_worker.meter.metered = vanished_in_worker.meter.metered - Tally::frame(100);
        let ledger = Ledger::of(&vanished_in_worker);
        assert!(!ledger.balances());
        let mut vanished_in_source = parts();
        vanished_in_source.reader.sightings.seen.buffers += 1;
        assert!(!Ledger::of(&vanished_in_source).balances());
        let mut vanished_in_enrichment = parts();
        vanished_in_enrichment.released = vanished_in_enrichment.released - Tally::frame(100);
        assert!(!Ledger::of(&vanished_in_enrichment).balances());
    }

    #[test]
    fn what_cannot_be_known_is_null() {
        let mut parts = parts();
        parts.reader.sightings.lost.insert(Loss::SocketDrop, Tally { packets: 3, ..Tally::ZERO });
        parts.reader.sightings.inexact = vec!["lost.socket_drop.bytes"];
        let json = Ledger::of(&parts).to_json();
        assert_eq!(json["lost"]["socket_drop"]["bytes"], Value::Null);
        assert_eq!(json["lost"]["socket_drop"]["packets"], json!(3));
        assert_eq!(json["inexact"], json!(["lost.socket_drop.bytes"]));
        parts.reader.sightings.inexact.clear();
        let exact = Ledger::of(&parts).to_json();
        assert_eq!(
            exact["lost"]["socket_drop"],
            json!({"packets": 3, "bytes": 0, "buffers": 0, "buffer_bytes": 0})
        );
        assert_eq!(exact.get("inexact"), None);
    }
}
