//! Collectors over TCP and TLS: what they have acknowledged is not sent again, what they haven't is.

use super::collectors::{parts, slowly};
use super::sighting::{identity, identity_of, of_data, of_record, same, table};
use super::{Form, all_delivered, replay, tshark};
use crate::otlp::{amount, book, capture};
use mermin_tests::ipfix::Reader;
use mermin_tests::need;
use mermin_tests::need::{namespaces, tool};
use mermin_tests::netns::{Net, RIGHT};
use mermin_tests::program::Program;
use mermin_tests::record::Record;
use mermin_tests::servers::certificates::{Authority, Pair};
use mermin_tests::servers::ipfix_receiver::{Connection, Receiver};
use mermin_tests::servers::place::Place;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

fn read(connections: &[Connection]) -> Vec<Reader> {
    let reader = |connection: &Connection| {
        assert_eq!(connection.error, None);
        let mut reader = Reader::default();
        if let Some(first) = connection.messages.first() {
            assert_eq!(Reader::number(first), Some(0), "a session begins with 0");
        }
        for message in &connection.messages {
            reader.take(message).unwrap();
        }
        assert_eq!(reader.unknown_sets, 0, "templates go first in each session");
        reader
    };
    connections.iter().map(reader).collect()
}

fn tcp(collector: SocketAddr) -> Program {
    replay(collector, Form::Both).set("export.ipfix.transport=tcp")
}

/// What becomes of a collector.
enum Turn {
    There,
    Away(Instant),
    Back,
}

#[test]
fn a_collector_that_was_away_gets_all_that_it_had_not_acknowledged() {
    need!(namespaces(), tool("nft"), tool("tshark"));
    let net = Net::new("ipfix", false);
    let place = Place::Namespace(net.right.name.clone());
    let address: SocketAddr = format!("{RIGHT}:4739").parse().unwrap();
    let mut receiver = Receiver::start(&place, address, None);
    let mut turn = Turn::There;
    let mut lines = String::new();
    let outcome = tcp(address).inside(&net.left.name).arg("-").run_watched(
        slowly(parts(60, 100), Duration::from_millis(30)),
        |mut stdout| stdout.read_to_string(&mut lines).map(drop),
        |_| match turn {
            // What comes while it is cut off is not acknowledged; what came before it still reads.
            Turn::There if receiver.connections().iter().any(|connection| connection.messages.len() > 3) => {
                let chain = "cut input { type filter hook input priority 0; policy drop; }";
                let _ = net.right.run("nft add table ip cut");
                let _ = net.right.run(&format!("nft add chain ip {chain}"));
                std::thread::sleep(Duration::from_millis(150));
                receiver.go();
                turn = Turn::Away(Instant::now());
            }
            Turn::Away(since) if since.elapsed() > Duration::from_millis(300) => {
                let _ = net.right.run("nft delete table ip cut");
                receiver.come_back();
                turn = Turn::Back;
            }
            _ => (),
        },
    );
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let connections = receiver.finish();
    let readers = read(&connections);
    assert!(readers.len() >= 2, "{} connections", readers.len());
    assert!(readers.iter().filter(|reader| reader.flows.len() > 100).count() >= 2, "both have had records");
    let records = Record::parse_lines(&lines);
    let mut got: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for data in readers.iter().flat_map(|reader| &reader.flows) {
        *got.entry(identity(data)).or_default() += 1;
    }
    let lost: Vec<_> = records.iter().map(identity_of).filter(|record| !got.contains_key(record)).collect();
    assert_eq!((lost.len(), got.len()), (0, records.len()), "{lost:?}");
    let book = book(&outcome, "ipfix");
    assert_eq!(amount(&book["delivered"])[0], records.len() as u64, "{book}");
    // What was read, and whose acknowledgement was cut off, comes twice.
    let twice = got.values().filter(|count| **count > 1).count();
    println!("{} records, {twice} of them twice, over {} connections", records.len(), readers.len());
    let messages = connections.iter().zip(40_000..).flat_map(|(connection, port)| {
        connection.messages.iter().map(move |message| (port, message.as_slice()))
    });
    let testimony = tshark::witness(messages);
    assert_eq!(testimony.complaints, Vec::<String>::new());
    let data = readers.iter().flat_map(|reader| &reader.flows).map(of_data);
    let sums = super::sighting::sums(&table(data));
    assert_eq!(testimony.forward, [sums[1], sums[2]]);
}

fn tls(collector: SocketAddr, authority: &Path, shows: Option<&Pair>) -> Program {
    let program = tcp(collector).set(&format!("export.ipfix.tls.ca={}", authority.display()));
    match shows {
        Some(pair) => program
            .set(&format!("export.ipfix.tls.cert={}", pair.certificate.display()))
            .set(&format!("export.ipfix.tls.key={}", pair.key.display())),
        None => program,
    }
}

#[test]
fn records_go_over_tls_to_whom_the_authority_knows() {
    const FLOWS: u64 = 3_000;
    let authority = Authority::new();
    let server = authority.server("collector", &[]);
    let client = authority.client("agent", &[]);
    for mutual in [false, true] {
        let address = Place::Here.free_address();
        let receiver = Receiver::start(&Place::Here, address, Some(authority.serving(&server, mutual)));
        let program = tls(address, authority.certificate(), mutual.then_some(&client));
        let outcome = program.arg("-").input(capture(FLOWS)).run();
        all_delivered(&outcome);
        let connections = receiver.finish();
        assert!(
            connections.iter().all(|connection| connection.ended && connection.rest == 0),
            "it closes well"
        );
        let readers = read(&connections);
        let got = table(readers.iter().flat_map(|reader| &reader.flows).map(of_data));
        let records = outcome.records();
        let expected = table(records.iter().flat_map(|record| of_record(record, Form::Both)));
        same("TLS", &expected, &got);
    }
}

/// With TLS 1.3 a client hears of a refusal after it may have written: what it wrote then is not delivered.
#[test]
fn nothing_is_delivered_to_whom_the_authority_does_not_know() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.server("collector", &[]);
    let another = stranger.client("agent", &[]);
    for (trusts, shows, mutual, what) in [
        (&stranger, None, false, "an authority that it doesn't know"),
        (&authority, None, true, "no certificate"),
        (&authority, Some(&another), true, "another authority's certificate"),
    ] {
        let address = Place::Here.free_address();
        let receiver = Receiver::start(&Place::Here, address, Some(authority.serving(&server, mutual)));
        let program = tls(address, trusts.certificate(), shows).set("pipeline.shutdown_timeout=500ms");
        let running = program.arg("-").input(capture(10)).start_reading();
        let began = Instant::now();
        while receiver.connections().iter().all(|connection| connection.error.is_none()) {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}: nobody came");
            std::thread::sleep(Duration::from_millis(5));
        }
        let outcome = running.interrupt();
        let book = book(&outcome, "ipfix");
        assert_eq!(book["dropped"]["shutdown_timeout"]["records"], 10, "{what}: {book}");
        assert!(receiver.finish().iter().all(|connection| connection.messages.is_empty()), "nothing came");
    }
}
