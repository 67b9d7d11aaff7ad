//! All captures, in every form, before every witness: each sees the records that the JSON lines have.

use super::sighting::{
    MAPPING, Sighting, Table, of_data, of_goflow2, of_nfdump, of_record, same, sums, table,
};
use super::{FORMS, Form, all_delivered, replay, sessions, tshark};
use crate::captures;
use mermin_tests::need;
use mermin_tests::need::tool;
use mermin_tests::servers::goflow2::Goflow2;
use mermin_tests::servers::ipfix_tap::{Datagram, Tap, send_on};
use mermin_tests::servers::nfcapd::Nfcapd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What the program sent of all captures in one form, and what it is to be.
struct Sent {
    form: Form,
    datagrams: Vec<Datagram>,
    expected: Table,
}

/// A run for each folder of captures, with an observation domain of its own: as many sessions. Done once per form.
fn sent(form: Form) -> &'static Sent {
    static SENT: [OnceLock<Sent>; 3] = [const { OnceLock::new() }; 3];
    let at = FORMS.iter().position(|other| *other == form).unwrap();
    SENT[at].get_or_init(|| {
        let files = captures::shared();
        let mut folders: Vec<&Path> = files.iter().filter_map(|file| file.parent()).collect();
        folders.dedup();
        assert!(folders.len() > 2, "{folders:?}");
        let (tap, mut expected) = (Tap::start(), Table::new());
        for (domain, folder) in folders.iter().enumerate() {
            let files: Vec<&PathBuf> = files.iter().filter(|file| file.parent() == Some(folder)).collect();
            let program = replay(tap.address(), form).args(files);
            let outcome = program.set(&format!("export.ipfix.observation_domain={}", domain + 1)).run();
            all_delivered(&outcome);
            let sightings = outcome.records();
            let sightings = sightings.iter().flat_map(|record| of_record(record, form));
            let of_run = table(sightings);
            let [_, packets, _, back, _] = sums(&of_run);
            assert_eq!(packets + back, outcome.number("/ledger/released/packets"), "{}", folder.display());
            of_run.into_iter().for_each(|(sighting, count)| *expected.entry(sighting).or_default() += count);
        }
        Sent { form, datagrams: tap.finish(), expected }
    })
}

#[test]
fn the_tests_own_reader_finds_nothing_against_the_standard() {
    need!(need::captures());
    for form in FORMS {
        let sent = sent(form);
        let sessions = sessions(&sent.datagrams);
        assert_eq!(sessions.iter().map(|(_, reader)| reader.unknown_sets).sum::<usize>(), 0);
        let got = table(sessions.iter().flat_map(|(_, reader)| &reader.flows).map(of_data));
        same(&format!("{:?}", sent.form), &sent.expected, &got);
        for (from, reader) in &sessions {
            let said = reader.options.iter().rev().find_map(|data| data.unsigned((0, 42)));
            assert_eq!(said, Some(reader.flows.len() as u64), "{from} says how many records it has sent");
        }
    }
}

#[test]
fn tshark_finds_nothing_malformed_and_no_gap() {
    need!(tool("tshark"), need::captures());
    for form in FORMS {
        let sent = sent(form);
        let messages = sent.datagrams.iter().map(|datagram| (datagram.from.port(), &datagram.bytes[..]));
        let testimony = tshark::witness(messages);
        assert_eq!(testimony.complaints, Vec::<String>::new(), "{form:?}");
        assert_eq!(testimony.messages, sent.datagrams.len(), "{form:?}");
        let [_, packets, bytes, back, bytes_back] = sums(&sent.expected);
        assert_eq!(
            (testimony.forward, testimony.reverse),
            ([packets, bytes], [back, bytes_back]),
            "{form:?}"
        );
    }
}

/// Without times.
fn without_times(table: &Table) -> Table {
    let mut without = Table::new();
    for (sighting, count) in table {
        *without.entry(Sighting { start: 0, end: 0, ..sighting.clone() }).or_default() += count;
    }
    without
}

#[test]
fn goflow2_writes_every_record() {
    need!(Goflow2::installed(), need::captures());
    for form in FORMS {
        let sent = sent(form);
        let collector = Goflow2::start(Some(MAPPING));
        send_on(&sent.datagrams, collector.address(), || collector.socket().waiting);
        assert_eq!((collector.errors(), collector.socket().dropped), (0, 0), "{form:?}");
        let got = table(collector.records().iter().map(of_goflow2));
        // In version 9 it knows times since the system was started alone, which old captures have none of.
        if form == Form::NetFlow9 {
            same(&format!("{form:?}"), &without_times(&sent.expected), &without_times(&got));
        } else {
            same(&format!("{form:?}"), &sent.expected, &got);
        }
    }
}

#[test]
fn nfcapd_keeps_every_record_and_sees_no_gap() {
    need!(Nfcapd::installed(), need::captures());
    for form in FORMS {
        let sent = sent(form);
        let collector = Nfcapd::start();
        send_on(&sent.datagrams, collector.address(), || collector.socket().waiting);
        assert_eq!(collector.socket().dropped, 0, "{form:?}");
        let captured = collector.finish();
        assert_eq!((captured.sequence_errors, captured.bad_packets), (0, 0), "{form:?}: {}", captured.log);
        let got = table(captured.flows.iter().map(of_nfdump));
        same(&format!("{form:?}"), &sent.expected, &got);
    }
}
