//! Certificates and passwords that are renewed while the agent runs.

use super::{LONG, Listener, PASSWORD, TOPIC, broker, ready, replay, with_password};
use crate::otlp::{amount, book, capture, says};
use mermin_tests::need;
use mermin_tests::program::{Program, Running};
use mermin_tests::servers::certificates::{Authority, Pair};
use mermin_tests::servers::kafka::Kafka;
use std::path::Path;
use std::time::Duration;

const FLOWS: u64 = 3_000;

/// What comes in the place of a file is there at once.
fn put(contents: &[u8], path: &Path) {
    let new = path.with_extension("new");
    std::fs::write(&new, contents).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// The agent is refused first; then it is given the right files, and all arrives, once.
fn all_arrive_with_what_comes_later(
    broker: &Kafka,
    program: Program,
    said: &str,
    renew: impl FnOnce(&Running),
) {
    let running = program.input(capture(FLOWS)).start_reading();
    says(&running, said);
    renew(&running);
    let outcome = running.wait(LONG).kept_books(0);
    let book = book(&outcome, "kafka");
    assert_eq!((amount(&book["delivered"])[0], &book["dropped"]), (FLOWS, &serde_json::json!({})), "{book}");
    assert_eq!(broker.consume(TOPIC).len() as u64, FLOWS);
}

#[test]
fn a_password_that_is_put_right_is_read_before_anything_is_given_up() {
    need!(ready());
    let broker = broker(&[]);
    let program = with_password(&broker, "scram-sha-512", "of yesterday");
    let file = program.folder().join("password");
    all_arrive_with_what_comes_later(&broker, program, "brokers refuse the login", |_| {
        // Late, but before what is held is given up.
        std::thread::sleep(Duration::from_secs(20));
        put(PASSWORD.as_bytes(), &file);
    });
}

#[test]
fn a_certificate_that_is_renewed_is_shown_to_brokers() {
    need!(ready());
    let broker = broker(&[]);
    // In place of one that has run out: the broker does not take it either.
    let other = Authority::new();
    let stranger = other.client("agent", &[]);
    let program = replay(&broker, Listener::Mutual);
    let own = ["tls.crt", "tls.key"].map(|name| program.folder().join(name));
    let show = |pair: &Pair, part: usize| {
        put(&std::fs::read([&pair.certificate, &pair.key][part]).unwrap(), &own[part]);
    };
    (0..2).for_each(|part| show(&stranger, part));
    let program = program
        .set(&format!("export.kafka.tls.ca={}", broker.authority().display()))
        .set(&format!("export.kafka.tls.cert={}", own[0].display()))
        .set(&format!("export.kafka.tls.key={}", own[1].display()));
    all_arrive_with_what_comes_later(&broker, program, "see export.kafka.tls: ", |running| {
        // A certificate that is there before its key is none yet.
        show(broker.client_pair(), 0);
        says(running, "no client can be made of the files that are there now");
        show(broker.client_pair(), 1);
    });
}
