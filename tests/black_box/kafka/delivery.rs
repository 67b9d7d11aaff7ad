//! Every record that is acknowledged is in the topic once, whatever its form and the way to the broker.

use super::{Listener, PARTITIONS, PASSWORD, TOPIC, broker, kept, ready, replay, with_password};
use crate::otlp::{amount, book, capture};
use mermin_tests::need;
use mermin_tests::program::Program;
use mermin_tests::record::Record;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const FLOWS: u64 = 20_000;

/// By flow and sequence.
fn by_identity(lines: Vec<Map<String, Value>>) -> BTreeMap<(String, u64), Map<String, Value>> {
    let identity = |line: &Map<String, Value>| {
        (line["flow.id"].as_str().unwrap().to_owned(), line["flow.sequence"].as_u64().unwrap())
    };
    lines.into_iter().map(|line| (identity(&line), line)).collect()
}

#[test]
fn what_is_acknowledged_is_in_the_topic_once_and_says_what_the_file_says() {
    need!(ready(), need::captures());
    let ndpi = need::captures().unwrap().join("ndpi");
    let captures = ["zoom.pcap", "youtubeupload.pcap", "tinc.pcap"].map(|name| ndpi.join(name));
    for encoding in ["protobuf", "json"] {
        let broker = broker(&[]);
        let program = Program::new("replay")
            .args(&captures)
            .output(&format!("kafka:{}/{TOPIC}", broker.address(Listener::Plain)))
            .args(["-o", "json"])
            .set(&format!("export.kafka.encoding={encoding}"))
            .set("flow.active_timeout=1s")
            .set("flow.start_records=true");
        let outcome = program.run().kept_books(0);
        let messages = broker.consume(TOPIC);
        assert_eq!(book(&outcome, "kafka")["delivered"]["records"], messages.len(), "{encoding}");
        let times: BTreeMap<_, _> =
            messages.iter().map(|message| (message.key.clone(), message.timestamp)).collect();
        assert!(times.values().all(|time| *time > 0 && *time < 1_700_000_000_000), "event time");
        let read = by_identity(kept(&messages, encoding));
        let file = Record::parse_lines(&outcome.stdout).into_iter().map(|record| record.0);
        // An empty list is no field.
        let file = file.map(|mut line| {
            line.retain(|_, value| {
                encoding == "json" || value.as_array().is_none_or(|list| !list.is_empty())
            });
            line
        });
        assert!(read == by_identity(file.collect()), "{encoding}");
        assert!(messages.len() > 100, "{} records", messages.len());
        let partitions: BTreeSet<_> = messages.iter().map(|message| message.partition).collect();
        assert_eq!(partitions.len(), usize::from(PARTITIONS));
    }
}

#[test]
fn by_every_compression_and_every_way_to_the_broker_all_arrive() {
    need!(ready());
    let broker = broker(&[]);
    let pair = broker.client_pair();
    let tls = |listener| {
        replay(&broker, listener).set(&format!("export.kafka.tls.ca={}", broker.authority().display()))
    };
    let mutual = tls(Listener::Mutual)
        .set(&format!("export.kafka.tls.cert={}", pair.certificate.display()))
        .set(&format!("export.kafka.tls.key={}", pair.key.display()));
    let ways = [
        ("none", replay(&broker, Listener::Plain)),
        ("lz4", tls(Listener::Tls)),
        ("zstd", mutual),
        ("gzip", with_password(&broker, "scram-sha-512", PASSWORD)),
        ("snappy", with_password(&broker, "scram-sha-256", PASSWORD)),
        ("lz4", with_password(&broker, "plain", PASSWORD)),
    ];
    let mut before = 0;
    for (compression, program) in ways {
        let program = program.set(&format!("export.kafka.compression={compression}")).input(capture(FLOWS));
        let outcome = program.run().kept_books(0);
        assert_eq!(amount(&book(&outcome, "kafka")["delivered"])[0], FLOWS, "{compression}");
        assert!(!outcome.stderr.contains(PASSWORD));
        let messages = broker.consume(TOPIC);
        assert_eq!(messages.len() as u64 - before, FLOWS, "{compression}");
        before = messages.len() as u64;
    }
}
