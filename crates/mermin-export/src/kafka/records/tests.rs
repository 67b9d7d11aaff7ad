//! Against librdkafka's own cluster in memory, which fails as it is told. Real brokers: `tests/black_box/kafka`.

mod refusals;

use super::*;
use crate::agent::Agent;
use crate::kafka::KafkaEncoding;
use crate::sample;
use mermin_flow::DeliveryState;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Errors};
use std::collections::{BTreeMap, BTreeSet};

const TOPIC: &str = "flows";
const PARTITIONS: i32 = 4;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    cluster
}

fn output(cluster: &Cluster, change: impl FnOnce(&mut KafkaConfig)) -> Records {
    let mut config = KafkaConfig {
        brokers: cluster.bootstrap_servers().split(',').map(str::to_owned).collect(),
        topic: TOPIC.to_owned(),
        encoding: KafkaEncoding::Json,
        ..KafkaConfig::default()
    };
    config.batch.delay = mermin_flow::Interval::milliseconds(5);
    change(&mut config);
    let headers = Headers::new(config.encoding, "n1", &Agent { id: "a1".to_owned(), clock: None });
    Records::new(config, &sample::points(), headers, Duration::from_secs(1)).unwrap()
}

/// Records of so many flows, one after the other.
fn records(range: std::ops::Range<u32>, flows: u32) -> Vec<FlowRecord> {
    let record = |sequence| {
        let mut record = FlowRecord { sequence, ..sample::tcp() };
        record.community_id.0[..4].copy_from_slice(&(sequence % flows).to_be_bytes());
        record
    };
    range.map(record).collect()
}

fn book(records: &[FlowRecord]) -> Amount {
    let mut sum = Amount::default();
    records.iter().for_each(|record| sum += Amount::of(record));
    sum
}

/// What the topic has: partition, key and sequence of each message, as read.
fn read(cluster: &Cluster, expected: usize) -> Vec<(i32, String, u64)> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "g");
    config.set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    (0..PARTITIONS).for_each(|partition| {
        list.add_partition_offset(TOPIC, partition, rdkafka::Offset::Beginning).unwrap();
    });
    consumer.assign(&list).unwrap();
    let (mut found, until) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    // A second of silence after the last one that should come: there must not be more.
    let mut quiet = None;
    while Instant::now() < until
        && quiet.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(1))
    {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            if found.len() >= expected {
                quiet.get_or_insert_with(Instant::now);
            }
            continue;
        };
        let message = message.unwrap();
        let value: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
        assert_eq!(value["flow.community_id"], *key);
        assert_eq!(message.timestamp().to_millis(), Some((sample::tcp().end_time / 1_000_000) as i64));
        let headers = message.headers().unwrap();
        assert_eq!((headers.count(), headers.get(0).value), (5, Some(&b"mermin.flow.v1"[..])));
        found.push((message.partition(), key, value["flow.sequence"].as_u64().unwrap()));
    }
    found
}

/// Each of the sequences once, and those of a key in order, in one partition.
fn assert_each_once_in_order(found: &[(i32, String, u64)], expected: std::ops::Range<u32>) {
    let sequences: BTreeSet<_> = found.iter().map(|(_, _, sequence)| *sequence).collect();
    assert_eq!(found.len(), sequences.len(), "none twice");
    assert!(sequences.into_iter().eq(expected.map(u64::from)));
    let mut last: BTreeMap<&str, (i32, u64)> = BTreeMap::new();
    for (partition, key, sequence) in found {
        if let Some((before, earlier)) = last.insert(key, (*partition, *sequence)) {
            assert!(before == *partition && earlier < *sequence, "{key}: {earlier} before {sequence}");
        }
    }
}

#[test]
fn each_record_is_delivered_once_and_those_of_a_key_in_order() {
    let cluster = cluster();
    let mut output = output(&cluster, |_| {});
    let (all, mut receipt) = (records(0..5_000, 100), Receipt::default());
    for part in all.chunks(64) {
        output.export(part, &mut receipt).unwrap();
    }
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt, Receipt { delivered: book(&all), ..Receipt::default() });
    assert_eq!((output.settled_in_order(), output.after_panic()), (Some(5_000), Some(0)));
    assert_eq!(output.delivery().unwrap().condition(), (DeliveryState::Delivering, None));
    let found = read(&cluster, 5_000);
    assert_each_once_in_order(&found, 0..5_000);
    assert_eq!(found.iter().map(|(partition, ..)| partition).collect::<BTreeSet<_>>().len(), 4);
}

/// As Java's clients: `Utils.toPositive(Utils.murmur2(key)) % 4`.
#[test]
fn a_key_has_the_partition_that_other_producers_find() {
    fn murmur2(data: &[u8]) -> u32 {
        const M: u32 = 0x5bd1_e995;
        let mut h = 0x9747_b28c_u32 ^ data.len() as u32;
        let (words, rest) = data.as_chunks::<4>();
        for word in words {
            let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
            k = (k ^ k >> 24).wrapping_mul(M);
            h = h.wrapping_mul(M) ^ k;
        }
        for (place, byte) in rest.iter().enumerate().rev() {
            h ^= u32::from(*byte) << (8 * place);
        }
        if !rest.is_empty() {
            h = h.wrapping_mul(M);
        }
        h = (h ^ h >> 13).wrapping_mul(M);
        h ^ h >> 15
    }
    // Of the tests of Kafka's own clients.
    assert_eq!(murmur2(b"21").cast_signed(), -973_932_308);
    let cluster = cluster();
    let mut output = output(&cluster, |_| {});
    let mut receipt = Receipt::default();
    output.export(&records(0..200, 200), &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    for (partition, key, _) in read(&cluster, 200) {
        assert_eq!(partition, ((murmur2(key.as_bytes()) & 0x7fff_ffff) % 4) as i32, "{key}");
    }
}

#[test]
fn a_batch_that_is_too_large_is_sent_in_smaller_ones() {
    let cluster = cluster();
    let mut output = output(&cluster, |_| {});
    let error = Errors::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(Api::Produce, &[error, error]);
    let (all, mut receipt) = (records(0..1_000, 10), Receipt::default());
    output.export(&all, &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt, Receipt { delivered: book(&all), ..Receipt::default() });
    assert!(output.batch_bytes < 1_000_000);
    let found = read(&cluster, 1_000);
    assert_eq!(found.len(), 1_000);
}

#[test]
fn a_record_that_is_too_large_by_itself_is_dropped_alone() {
    let cluster = cluster();
    let mut output = output(&cluster, |config| config.message_bytes = mermin_flow::ByteSize(1_700));
    let mut long = sample::kubernetes();
    long.source.identity.name = Some("x".repeat(250).into());
    let (all, mut receipt) = (records(0..3, 3), Receipt::default());
    output.export(&all[..1], &mut receipt).unwrap();
    let failure = output.export(&[long.clone()], &mut receipt).unwrap_err();
    assert_eq!(failure.reason, TOO_LARGE);
    assert!(failure.error.to_string().ends_with("more than export.kafka.message_bytes"));
    output.export(&all[1..], &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    assert_eq!((receipt.delivered, receipt.dropped[TOO_LARGE]), (book(&all), Amount::of(&long)));
    assert_eq!(output.settled_in_order(), Some(4));
}

#[test]
fn a_producer_that_cannot_go_on_is_made_anew_and_nothing_is_lost() {
    let cluster = cluster();
    let mut output = output(&cluster, |_| {});
    let (all, mut receipt) = (records(0..400, 10), Receipt::default());
    output.export(&all[..200], &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    cluster.request_errors(Api::Produce, &[Errors::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH]);
    output.export(&all[200..], &mut receipt).unwrap();
    let _ = output.flush(&mut receipt);
    assert_eq!(receipt, Receipt { delivered: book(&all), ..Receipt::default() });
    let found: BTreeSet<_> = read(&cluster, 400).into_iter().map(|(_, _, sequence)| sequence).collect();
    assert_eq!(found.len(), 400);
}

#[test]
fn records_wait_while_no_broker_answers_and_come_once() {
    let cluster = cluster();
    let mut output = output(&cluster, |_| {});
    let (all, mut receipt) = (records(0..600, 10), Receipt::default());
    output.export(&all[..200], &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    cluster.broker_down(1).unwrap();
    output.export(&all[200..], &mut receipt).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while output.delivery.condition().0 != DeliveryState::Retrying {
        assert!(Instant::now() < until, "{:?}", output.delivery.condition());
        let soon = output.idle(&mut receipt).unwrap();
        std::thread::sleep(soon.unwrap());
    }
    assert_eq!(receipt.delivered, book(&all[..200]));
    cluster.broker_up(1).unwrap();
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt, Receipt { delivered: book(&all), ..Receipt::default() });
    assert_eq!(output.delivery.condition(), (DeliveryState::Delivering, None));
    assert_each_once_in_order(&read(&cluster, 600), 0..600);
}

#[test]
fn when_time_is_up_what_is_held_is_given_up_and_counted() {
    let cluster = cluster();
    cluster.broker_down(1).unwrap();
    let mut output = output(&cluster, |_| {});
    let interrupter = output.interrupter().unwrap();
    // More than may be under way: the call waits until it is told that time is up.
    let all = records(0..(super::super::settings::MESSAGES_MAX as u32 + 500), 1_000);
    let mut receipt = Receipt::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(1_500));
            interrupter.store(true, Ordering::Release);
        });
        output.export(&all, &mut receipt).unwrap();
    });
    output.flush(&mut receipt).unwrap();
    assert_eq!((receipt.dropped[TOO_LATE], receipt.delivered), (book(&all), Amount::default()));
    assert_eq!(output.settled_in_order(), Some(all.len() as u64));
}

#[test]
fn a_topic_that_is_not_there_is_named_at_once_and_given_up_later() {
    let cluster = cluster();
    cluster.topic_error("missing", Errors::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let mut output = output(&cluster, |config| config.topic = "missing".to_owned());
    let (all, mut receipt) = (records(0..20, 20), Receipt::default());
    output.export(&all, &mut receipt).unwrap();
    let (mut failure, until) = (None, Instant::now() + Duration::from_secs(30));
    while failure.is_none() && Instant::now() < until {
        failure = output.idle(&mut receipt).err();
    }
    let failure = failure.unwrap();
    assert_eq!(failure.reason, NO_TOPIC);
    assert!(failure.error.to_string().starts_with("there is no topic missing: make it"), "{}", failure.error);
    let _ = output.flush(&mut receipt);
    assert_eq!(receipt.dropped.keys().collect::<Vec<_>>(), [&NO_TOPIC]);
    assert_eq!(receipt.dropped[NO_TOPIC], book(&all));
    assert!(output.passing_reasons().contains(&NO_TOPIC), "on disk they are kept");
}

#[test]
fn rights_that_are_missing_are_told_and_given_up() {
    let cluster = cluster();
    let error = Errors::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    cluster.request_errors(Api::InitProducerId, &[error; 200]);
    let mut output = output(&cluster, |_| {});
    let (all, mut receipt) = (records(0..20, 20), Receipt::default());
    output.export(&all, &mut receipt).unwrap();
    let result = output.flush(&mut receipt);
    assert_eq!(result.unwrap_err().reason, NO_ACCESS);
    assert_eq!(receipt.dropped[NO_ACCESS], book(&all));
    assert!(output.delivery.condition().1.unwrap().contains("IdempotentWrite"));
}

#[test]
fn a_record_that_it_panics_at_leaves_no_trace_and_has_its_place_in_order() {
    let cluster = cluster();
    let mut output = output(&cluster, |_| {});
    let (all, mut receipt) = (records(0..3, 3), Receipt::default());
    output.export(&all[..1], &mut receipt).unwrap();
    // As if the second had panicked between its number and its message.
    output.unsent = Some(output.window.push(Amount::of(&all[1]), 0));
    let settled = receipt.delivered.records;
    assert_eq!(output.after_panic().map(|held| held + settled), Some(1));
    output.quarantine(&all[1], &mut receipt).unwrap();
    output.export(&all[2..], &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    assert_eq!((receipt.dropped[QUARANTINE], receipt.delivered.records), (Amount::of(&all[1]), 2));
    assert_eq!(output.settled_in_order(), Some(3));
}
