//! A broker that dies under load and comes back: within the buffer's bound nothing is lost, and nothing is there twice.

use super::{LONG, Listener, TOPIC, broker, capture_from, kept, now, ready, replay};
use crate::otlp::{amount, book, capture, says};
use mermin_tests::need;
use mermin_tests::record::Record;
use rustix::process::Signal;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const FLOWS: u64 = 200_000;

#[test]
fn a_broker_that_is_killed_under_load_and_comes_back_gets_everything_once() {
    need!(ready());
    let mut broker = broker(&[]);
    let running = replay(&broker, Listener::Plain).input(capture_from(now(), FLOWS)).start_reading();
    // Some of it is there, and the rest is not.
    for _ in 0..2 {
        let until = Instant::now() + LONG;
        let mut before = broker.consume(TOPIC).len();
        while before == 0 {
            assert!(Instant::now() < until, "nothing arrives");
            before = broker.consume(TOPIC).len();
        }
        broker.kill();
        std::thread::sleep(Duration::from_millis(300));
        broker.restart();
        assert!((before as u64) < FLOWS);
    }
    let outcome = running.wait(LONG).kept_books(0);
    let book = book(&outcome, "kafka");
    assert_eq!(amount(&book["delivered"])[0], FLOWS, "{book}");
    assert_eq!(book["dropped"], serde_json::json!({}));
    assert_eq!(kept(&broker.consume(TOPIC), "protobuf").len() as u64, FLOWS);
}

#[test]
fn a_broker_that_hangs_and_goes_on_gets_everything_once() {
    need!(ready());
    let broker = broker(&[]);
    let running = replay(&broker, Listener::Plain).input(capture(FLOWS)).start_reading();
    broker.hang();
    std::thread::sleep(Duration::from_secs(3));
    broker.resume();
    let outcome = running.wait(LONG).kept_books(0);
    assert_eq!(amount(&book(&outcome, "kafka")["delivered"])[0], FLOWS);
    assert_eq!(kept(&broker.consume(TOPIC), "protobuf").len() as u64, FLOWS);
}

#[test]
fn without_backpressure_the_queue_is_the_bound_and_what_is_missing_is_counted() {
    need!(ready());
    let mut broker = broker(&[]);
    let program = replay(&broker, Listener::Plain).set("pipeline.enable_backpressure=false");
    let program = program.set("export.queue_capacity=1000");
    broker.kill();
    let running = program.input(capture(FLOWS)).start_reading();
    says(&running, "; trying again");
    broker.restart();
    let outcome = running.wait(LONG).kept_books(0);
    let book = book(&outcome, "kafka");
    let delivered = amount(&book["delivered"])[0];
    let dropped = book["dropped"].as_object().unwrap();
    assert!(dropped.keys().all(|reason| reason == "queue_full" || reason == "breaker_open"), "{book}");
    let dropped: u64 = dropped.values().map(|term| amount(term)[0]).sum();
    assert_eq!(delivered + dropped + amount(&book["merged"])[0], amount(&book["handed"])[0], "{book}");
    assert_eq!(kept(&broker.consume(TOPIC), "protobuf").len() as u64, delivered);
}

#[test]
fn what_waits_on_disk_while_the_broker_is_away_is_delivered_by_the_next_run() {
    need!(ready());
    let parent = tempfile::tempdir().unwrap();
    let folder = format!("export.disk_buffer.folder={}", parent.path().join("buffer").display());
    let mut broker = broker(&[]);
    broker.kill();
    let program = |capture| {
        let program = replay(&broker, Listener::Plain).args(["-o", "json"]).input(capture);
        program.set("export.kafka.buffer=disk").set(&folder)
    };
    let (first, second) = (program(capture_from(now(), 20_000)), program(capture(1)));
    let running = first.start_reading();
    says(&running, "; trying again");
    running.signal(Signal::TERM);
    let outcome = running.wait(LONG).kept_books(0);
    let before = book(&outcome, "kafka");
    assert!(amount(&before["handed"])[0] > 0);
    assert_eq!((&before["spooled"], &before["dropped"]), (&before["handed"], &serde_json::json!({})));
    broker.restart();
    let next = second.run().kept_books(0);
    let after = book(&next, "kafka");
    assert_eq!(after["recovered"], before["spooled"], "{after}");
    assert_eq!(amount(&after["delivered"])[0], amount(&after["recovered"])[0] + 1, "{after}");
    // What both runs wrote to standard output, too, and nothing else.
    let identities = |lines: Vec<Map<String, Value>>| -> BTreeSet<_> {
        lines.iter().map(|line| (line["flow.id"].to_string(), line["flow.sequence"].to_string())).collect()
    };
    let lines = Record::parse_lines(&(outcome.stdout.clone() + &next.stdout))
        .into_iter()
        .map(|record| record.0)
        .collect();
    let there = kept(&broker.consume(TOPIC), "protobuf");
    assert_eq!(there.len() as u64, amount(&after["delivered"])[0]);
    assert_eq!(identities(there), identities(lines));
}
