//! What a broker refuses: said clearly, with what to do, and in the book to the record.

use super::{Listener, PASSWORD, TOPIC, broker, capture_from, kept, now, ready, replay, with_password};
use crate::otlp::{amount, book, capture};
use mermin_tests::need;
use mermin_tests::program::{Outcome, Program, binary, plain};
use std::time::Duration;

/// Of a capture file.
const FILE_HEADER: usize = 24;

const FLOWS: u64 = 3_000;

/// All records under one reason.
fn all_dropped(outcome: &Outcome, reason: &str) {
    let book = book(outcome, "kafka");
    assert_eq!(amount(&book["dropped"][reason]), amount(&book["handed"]), "{book}");
    assert_eq!(book["dropped"].as_object().unwrap().len(), 1, "{book}");
    assert_eq!((amount(&book["handed"])[0], amount(&book["delivered"])), (FLOWS, [0; 3]), "{book}");
}

#[test]
fn a_wrong_password_is_said_and_costs_no_count() {
    need!(ready());
    let broker = broker(&[]);
    let outcome =
        with_password(&broker, "scram-sha-512", "guessed").input(capture(FLOWS)).run().kept_books(74);
    all_dropped(&outcome, "no_access");
    let said = "brokers refuse the login, see export.kafka.sasl.username and password_file";
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("guessed") && !outcome.stderr.contains(PASSWORD), "{}", outcome.stderr);
    assert!(outcome.took >= Duration::from_secs(30), "it may be about to be the right one");
    assert!(broker.consume(TOPIC).is_empty());
}

#[test]
fn a_certificate_of_another_authority_is_said() {
    need!(ready());
    let broker = broker(&[]);
    // The host's own authorities don't know the test's.
    let outcome = replay(&broker, Listener::Tls).set("export.kafka.tls={}").input(capture(FLOWS)).run();
    let outcome = outcome.kept_books(74);
    all_dropped(&outcome, "no_access");
    assert!(outcome.stderr.contains("TLS with a broker fails, see export.kafka.tls"), "{}", outcome.stderr);
}

#[test]
fn a_topic_that_is_not_there_is_not_made() {
    need!(ready());
    // A broker that would make it, were it asked to.
    let broker = mermin_tests::servers::kafka::Kafka::start_with(
        &mermin_tests::servers::place::Place::Here,
        &[("auto.create.topics.enable", "true")],
    );
    let outcome = replay(&broker, Listener::Plain).input(capture(FLOWS)).run().kept_books(74);
    all_dropped(&outcome, "no_topic");
    assert!(outcome.stderr.contains("there is no topic mermin.flows: make it"), "{}", outcome.stderr);
    // Known a second time: still not there.
    let again = replay(&broker, Listener::Plain).input(capture(FLOWS)).start_reading();
    crate::otlp::says(&again, "there is no topic mermin.flows: make it");
    broker.create_topic(TOPIC, 4, &[]);
    let outcome = again.wait(super::LONG).kept_books(0);
    assert_eq!(amount(&book(&outcome, "kafka")["delivered"])[0], FLOWS);
    assert_eq!(kept(&broker.consume(TOPIC), "protobuf").len() as u64, FLOWS);
}

#[test]
fn records_that_are_too_large_are_dropped_and_no_others() {
    need!(ready());
    let broker = broker(&[("max.message.bytes", "600")]);
    // The second of the crowd's hosts gets a name as long as names may be: its records have 300 bytes more than the others.
    let (flows, of_the_first) = (5_000, 4_096);
    let outcome = replay(&broker, Listener::Plain)
        .set(&format!("enrich.names={{\"10.0.0.1/32\": {}}}", "x".repeat(255)))
        .set("export.kafka.compression=none")
        .set("export.kafka.batch.bytes=64kB")
        .input(capture(flows))
        .run()
        .kept_books(74);
    let book = book(&outcome, "kafka");
    assert_eq!(amount(&book["dropped"]["too_large"])[0], flows - of_the_first, "{book}");
    assert_eq!(amount(&book["delivered"])[0], of_the_first, "{book}");
    assert!(
        outcome.stderr.contains("is more than the topic takes: raise max.message.bytes"),
        "{}",
        outcome.stderr
    );
    let lines = kept(&broker.consume(TOPIC), "protobuf");
    assert_eq!(lines.len() as u64, of_the_first);
    assert!(lines.iter().all(|line| line["source.address"] == "10.0.0.0"));
}

#[test]
fn of_a_batch_only_the_record_that_the_broker_names_is_dropped() {
    need!(ready());
    let broker = broker(&[]);
    // A thousand, and the last packet comes ten days late: brokers take times up to an hour ahead.
    let mut capture = capture_from(now(), 999);
    let late = capture_from(now() + 10 * 86_400 * 1_000_000_000, 1);
    capture.extend_from_slice(&late[FILE_HEADER..]);
    let outcome = replay(&broker, Listener::Plain)
        .set("export.kafka.batch.delay=1s")
        .input(capture)
        .run()
        .kept_books(74);
    let book = book(&outcome, "kafka");
    assert_eq!(amount(&book["dropped"]["refused"])[0], 1, "{book} {}", outcome.stderr);
    assert_eq!(amount(&book["delivered"])[0], 999, "{book}");
    assert_eq!(book["dropped"].as_object().unwrap().len(), 1, "{book}");
    assert!(outcome.stderr.contains("brokers refuse a record: "), "{}", outcome.stderr);
    assert_eq!(kept(&broker.consume(TOPIC), "protobuf").len(), 999);
}

#[test]
fn what_cannot_be_is_said_before_anything_runs() {
    need!(ready());
    for (setting, what) in [
        ("export.kafka.brokers=[nowhere]", "`nowhere` is not a broker"),
        ("export.kafka.topic=a/b", "`a/b` is not the name of a topic"),
        ("export.kafka.tls.ca=/nowhere/ca.pem", "can't read /nowhere/ca.pem"),
        ("export.kafka.tls.ca=/etc/hostname", "librdkafka does not take the settings"),
    ] {
        let outcome = Program::new("replay").output("kafka").arg("-").set(setting).run();
        assert_eq!(outcome.code, 64, "{setting}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(what) && outcome.stderr.contains("help: "), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("--> export.kafka"), "{}", outcome.stderr);
    }
}

#[test]
fn records_that_may_come_too_late_at_the_end_are_told_of() {
    need!(ready());
    let check = |timeout: &str| {
        let mut check = plain(binary());
        check.args(["check", "--set", "export.kafka={}", "--set", "export.kafka.batch.delay=5s", "--set"]);
        let output = check.arg(format!("pipeline.shutdown_timeout={timeout}")).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = "kafka: the last records wait 5s for their batch, and pipeline.shutdown_timeout is 9s: give it 10s at least";
    let found = check("9s");
    assert!(found.contains(said), "{found}");
    let enough = check("10s");
    assert!(enough.contains("protobuf to topic") && !enough.contains("the last records wait"), "{enough}");
}
