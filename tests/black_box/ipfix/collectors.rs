//! Collectors as they are met: one that takes a burst with the buffer it has, one that comes late, one that isn't there yet.

use super::sighting::{of_data, of_goflow2, of_nfdump, of_record, same, table};
use super::{Form, all_delivered, replay, sessions};
use crate::otlp::capture;
use mermin_tests::capture_file::{EPOCH, SECOND, pcap};
use mermin_tests::frame::{Ends, ethernet, udp};
use mermin_tests::need;
use mermin_tests::record::Record;
use mermin_tests::servers::goflow2::Goflow2;
use mermin_tests::servers::ipfix_tap::{Tap, send_on};
use mermin_tests::servers::nfcapd::Nfcapd;
use mermin_tests::servers::place::Place;
use std::io::{Read, Write};
use std::time::Duration;

/// More than a default receive buffer takes several times over.
const BURST: u64 = 10_000;
/// A collector that does not get to run for a sixth of a second, on a machine that runs other tests, still has room.
const RATE: &str = "export.ipfix.message_rate=500";

#[test]
fn a_burst_loses_nothing_in_goflow2() {
    need!(Goflow2::installed());
    let collector = Goflow2::start(Some(super::sighting::MAPPING));
    let outcome = replay(collector.address(), Form::Each).set(RATE).arg("-").input(capture(BURST)).run();
    all_delivered(&outcome);
    let lost = collector.socket().dropped;
    assert_eq!((collector.errors(), lost), (0, 0), "goflow2");
    let records = outcome.records();
    let expected = table(records.iter().flat_map(|record| of_record(record, Form::Each)));
    same("goflow2", &expected, &table(collector.records().iter().map(of_goflow2)));
}

#[test]
fn a_burst_loses_nothing_in_nfcapd() {
    need!(Nfcapd::installed());
    let collector = Nfcapd::start();
    let outcome = replay(collector.address(), Form::Both).set(RATE).arg("-").input(capture(BURST)).run();
    all_delivered(&outcome);
    assert_eq!(collector.socket().dropped, 0);
    let captured = collector.finish();
    assert_eq!((captured.sequence_errors, captured.bad_packets), (0, 0), "{}", captured.log);
    let records = outcome.records();
    let expected = table(records.iter().flat_map(|record| of_record(record, Form::Both)));
    same("nfcapd", &expected, &table(captured.flows.iter().map(of_nfdump)));
}

/// Parts of a capture, an hour apart: what a part has ends when the next one comes.
pub(super) fn parts(parts: u8, flows: u8) -> Vec<Vec<u8>> {
    let part = |part: u8| {
        let frame = |flow: u8| {
            let ends = Ends::new(&format!("10.1.{part}.{flow}:4000"), "192.0.2.53:53");
            (EPOCH + u64::from(part) * 3600 * SECOND, ethernet(&udp(ends, b"question")))
        };
        let bytes = pcap(&(0..flows).map(frame).collect::<Vec<_>>());
        // The file's header stands before the first.
        if part == 0 { bytes } else { bytes[24..].to_vec() }
    };
    (0..parts).map(part).collect()
}

/// Writes parts one after another, with a pause before each.
pub(super) fn slowly(
    parts: Vec<Vec<u8>>,
    pause: Duration,
) -> impl FnOnce(std::process::ChildStdin) -> std::io::Result<()> {
    move |mut stdin| {
        for part in parts {
            std::thread::sleep(pause);
            stdin.write_all(&part)?;
            stdin.flush()?;
        }
        Ok(())
    }
}

#[test]
fn a_collector_that_comes_late_decodes_after_the_refresh() {
    need!(Goflow2::installed());
    let tap = Tap::start();
    let program = replay(tap.address(), Form::Both).set("export.ipfix.template_refresh=1s").arg("-");
    let mut lines = String::new();
    let outcome = program.run_watched(
        slowly(parts(60, 20), Duration::from_millis(50)),
        |mut stdout| stdout.read_to_string(&mut lines).map(drop),
        |_| (),
    );
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let datagrams = tap.finish();
    let [(_, all)] = sessions(&datagrams).try_into().unwrap_or_else(|_| panic!("one session"));
    assert_eq!(all.flows.len(), Record::parse_lines(&lines).len());
    let began = datagrams[0].at;
    // The templates went first; a collector that comes behind them has to wait for the next ones.
    let late =
        datagrams.iter().position(|datagram| datagram.at - began > Duration::from_millis(400)).unwrap();
    let again = *all.with_templates.iter().find(|message| **message >= late).expect("templates come again");
    let waited = datagrams[again].at - began;
    assert!((0.9..1.6).contains(&waited.as_secs_f64()), "templates came again after {waited:?}");
    assert!(late < again && again + 20 < datagrams.len(), "{late} {again} {}", datagrams.len());
    let collector = Goflow2::start(Some(super::sighting::MAPPING));
    send_on(&datagrams[late..], collector.address(), || collector.socket().waiting);
    let without = all.flows.iter().filter(|data| (late..again).contains(&data.message)).count();
    assert!(without > 0, "nothing came before the templates");
    let got = table(collector.records().iter().map(of_goflow2));
    let expected = all.flows.iter().filter(|data| data.message >= again).map(of_data);
    same("goflow2", &table(expected), &got);
}

#[test]
fn records_wait_while_nobody_listens() {
    need!(Goflow2::installed());
    let address = Place::Here.free_address();
    let running = replay(address, Form::Each).arg("-").input(capture(2_000)).start_reading();
    // Long enough for it to look several times whether somebody listens.
    std::thread::sleep(Duration::from_secs(1));
    let collector = Goflow2::start_at(&Place::Here, address, Some(super::sighting::MAPPING));
    let outcome = running.wait(Duration::from_secs(30));
    all_delivered(&outcome);
    let records = outcome.records();
    let expected = table(records.iter().flat_map(|record| of_record(record, Form::Each)));
    assert_eq!(collector.errors(), 0);
    same("goflow2", &expected, &table(collector.records().iter().map(of_goflow2)));
}
