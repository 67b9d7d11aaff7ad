//! goflow2, and nfcapd with nfdump: collectors of IPFIX.

use crate::ends_with;
use mermin_tests::need;
use mermin_tests::servers::goflow2::Goflow2;
use mermin_tests::servers::nfcapd::Nfcapd;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// Elements of RFC 7012 with their lengths: addresses, ports, protocol, bytes, packets, begin and end in milliseconds.
const ELEMENTS: [(u16, u16); 9] =
    [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8), (152, 8), (153, 8)];
const TEMPLATE: u16 = 256;
const SECOND: u64 = 1_700_000_000;

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + body.len()).unwrap();
    [&id.to_be_bytes(), &length.to_be_bytes(), body].concat()
}

fn message(sequence: u32, set: &[u8]) -> Vec<u8> {
    let length = u16::try_from(16 + set.len()).unwrap();
    let mut bytes = [10_u16.to_be_bytes(), length.to_be_bytes()].concat();
    for word in [u32::try_from(SECOND).unwrap(), sequence, 7] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(set);
    bytes
}

fn template() -> Vec<u8> {
    let mut body = [TEMPLATE, u16::try_from(ELEMENTS.len()).unwrap()].map(u16::to_be_bytes).concat();
    body.extend(ELEMENTS.iter().flat_map(|(id, length)| [*id, *length]).flat_map(u16::to_be_bytes));
    set(2, &body)
}

/// One record of so many bytes and a tenth as many packets.
fn record(bytes: u64) -> Vec<u8> {
    let mut body = [[10, 0, 0, 1], [10, 0, 0, 2]].concat();
    body.extend([1000_u16, 80].map(u16::to_be_bytes).concat());
    body.push(6);
    body.extend([bytes, bytes / 10, SECOND * 1000, SECOND * 1000 + 500].map(u64::to_be_bytes).concat());
    set(TEMPLATE, &body)
}

/// Four messages; between the last two one is missing.
fn send(collector: SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for message in [
        message(0, &template()),
        message(0, &record(10)),
        message(1, &record(200)),
        message(3, &record(3000)),
    ] {
        socket.send_to(&message, collector).unwrap();
    }
}

fn sum(records: &[Value], key: &str) -> u64 {
    records.iter().map(|record| record[key].as_u64().unwrap()).sum()
}

#[test]
fn goflow2_writes_what_it_is_sent() {
    need!(Goflow2::installed());
    let collector = Goflow2::start(None);
    send(collector.address());
    // A set without its template, from another port: templates are a session's own.
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    stranger.send_to(&message(0, &record(10)), collector.address()).unwrap();
    while collector.decoded() < 5 {
        std::thread::yield_now();
    }
    assert_eq!((collector.errors(), collector.socket().dropped), (1, 0));
    let records = collector.records();
    assert_eq!((records.len(), sum(&records, "bytes"), sum(&records, "packets")), (3, 3210, 321));
    assert!(ends_with(Goflow2::start(None), Goflow2::process));
}

#[test]
fn goflow2_takes_a_mapping_for_further_elements() {
    need!(Goflow2::installed());
    let mapping = "formatter:\n  fields:\n  - from_source\n  protobuf:\n  - {name: from_source, index: 1001, type: varint}\n\
                   ipfix:\n  mapping:\n  - {field: 1, destination: from_source}\n";
    let collector = Goflow2::start(Some(mapping));
    send(collector.address());
    let records = collector.records();
    assert_eq!((records.len(), sum(&records, "from_source")), (3, 3210), "{records:?}");
}

#[test]
fn nfcapd_keeps_what_it_is_sent_and_sees_what_is_missing() {
    need!(Nfcapd::installed());
    let collector = Nfcapd::start();
    send(collector.address());
    let captured = collector.finish();
    let flows = &captured.flows;
    assert_eq!((flows.len(), sum(flows, "in_bytes"), sum(flows, "in_packets")), (3, 3210, 321));
    assert_eq!((captured.sequence_errors, captured.bad_packets), (1, 0), "{}", captured.log);
    assert_eq!(flows[0]["first"], "2023-11-14T22:13:20.000");
    assert!(ends_with(Nfcapd::start(), Nfcapd::process));
}
