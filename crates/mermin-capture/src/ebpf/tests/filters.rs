//! Filters between two namespaces: what is filtered stands under its rule, to the packet, and comes no further.

use super::can_run;
use crate::af_packet::{AfPacketOptions, AfPacketSource};
use crate::ebpf::{Aggregation, EbpfOptions, EbpfSource, clean_up};
use crate::interfaces::Selection;
use crate::links::Follow;
use crate::testing::{Kept, Pair, finish, interface, run, sender};
use crate::{CaptureMode, FilterRules, KernelTable, OnExit};
use mermin_flow::{Loss, ObservationPoints, Polled, Sightings, Source, Tally};
use serde_json::{Value, json};
use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ports that are sent to.
const PORTS: std::ops::Range<u16> = 10_000..10_100;
const ROUNDS: usize = 12;

fn rules(rules: &Value) -> FilterRules {
    serde_json::from_value(rules.clone()).unwrap()
}

fn open(mode: CaptureMode, aggregation: Aggregation, ring_bytes: u64, filters: FilterRules) -> EbpfSource {
    let options = EbpfOptions { ring_bytes, mode, aggregation, filters, ..EbpfOptions::default() };
    EbpfSource::open(&[interface("vb")], &Arc::new(ObservationPoints::default()), &options).unwrap().source
}

/// Sends to every port in turn, IPv4 and IPv6; buffers and bytes of each to this port, of either version.
fn flood(pair: &Pair) {
    Pair::inside(&pair.here, || {
        // Who waits for the neighbour's address may be dropped.
        for address in ["10.9.0.2", "fd09::2"] {
            run(&format!("ping -q -c 1 -W 5 {address}"));
        }
        let (v4, v6) = (sender(), UdpSocket::bind("[fd09::1]:5555").unwrap());
        for round in 0..ROUNDS {
            for port in PORTS {
                v4.send_to(&vec![7; payload(round, port)], ("10.9.0.2", port)).unwrap();
                v6.send_to(&vec![7; payload(round, port)], ("fd09::2", port)).unwrap();
            }
        }
    });
}

fn payload(round: usize, port: u16) -> usize {
    20 + (round * 31 + usize::from(port)) * 7 % 500
}

/// What is sent to these ports over one IP version.
fn due(ports: std::ops::Range<u16>, headers: usize) -> Tally {
    let each = ports.flat_map(|port| (0..ROUNDS).map(move |round| payload(round, port)));
    each.map(|payload| Tally::frame((headers + payload) as u64)).sum()
}

const V4: usize = 42;
const V6: usize = 62;

/// What came, from the sender, to these ports.
fn came(kept: &Kept, ports: std::ops::Range<u16>, version: u8) -> Tally {
    let from = kept.0.iter().filter(|o| o.protocol == 17 && o.point == 0 && o.ports[0] == 5_555_u16.to_be());
    let to = from.filter(|o| o.ip_version == version && ports.contains(&u16::from_be(o.ports[1])));
    to.map(|o| o.tally()).sum()
}

/// Leaves out: IPv4 to the first ten ports; all else to the first twenty, and to the last ten; nothing on other interfaces.
fn exclude() -> Value {
    json!([
        { "name": "elsewhere", "action": "exclude", "match": { "interfaces": ["va", "eth*"] } },
        { "name": "first", "action": "exclude", "match": {
            "networks": ["10.9.0.1"], "destination_ports": ["10000-10009"], "interfaces": ["v?"] } },
        { "name": "some", "action": "exclude", "match": {
            "ports": ["10000-10019", "10090-10099"], "protocols": ["udp"] } },
        { "name": "closed", "action": "exclude", "match": { "source_networks": ["192.0.2.0/24"] } },
    ])
}

fn check_excluded(sightings: &Sightings, kept: &Kept) {
    let expected = [
        ("closed", Tally::ZERO),
        ("elsewhere", Tally::ZERO),
        ("first", due(10_000..10_010, V4)),
        (
            "some",
            due(10_010..10_020, V4)
                + due(10_090..10_100, V4)
                + due(10_000..10_020, V6)
                + due(10_090..10_100, V6),
        ),
    ];
    let filtered: Vec<_> = sightings.filtered.iter().map(|(name, tally)| (&**name, *tally)).collect();
    assert_eq!(filtered, expected);
    for (version, headers) in [(4, V4), (6, V6)] {
        assert_eq!(came(kept, 10_000..10_020, version), Tally::ZERO);
        assert_eq!(came(kept, 10_090..10_100, version), Tally::ZERO);
        assert_eq!(came(kept, 10_020..10_090, version), due(10_020..10_090, headers));
    }
    assert!(sightings.lost.values().all(|tally| *tally == Tally::ZERO), "{:?}", sightings.lost);
}

fn receivers() -> Vec<UdpSocket> {
    PORTS.map(|port| UdpSocket::bind(("::", port)).unwrap()).collect()
}

#[test]
fn what_is_filtered_stands_under_its_rule_and_comes_no_further() {
    if !can_run("what_is_filtered_stands_under_its_rule_and_comes_no_further") {
        return;
    }
    let of = |table, slots| Aggregation { table, slots, hash_flows: 4_096, ..Aggregation::default() };
    for (mode, aggregation, ring_bytes) in [
        (CaptureMode::Packet, Aggregation::default(), 1 << 22),
        (CaptureMode::Aggregate, of(KernelTable::Slots, 4_096), 1 << 20),
        // Nearly every packet has another flow leave its slot: to the ring, or to the hash.
        (CaptureMode::Aggregate, of(KernelTable::Slots, 4), 1 << 22),
        (CaptureMode::Aggregate, of(KernelTable::Slots, 4), 4_096),
        (CaptureMode::Aggregate, of(KernelTable::Hash, 4), 1 << 20),
    ] {
        let pair = Pair::new();
        Pair::inside(&pair.there, || {
            let _receivers = receivers();
            let mut source = open(mode, aggregation.clone(), ring_bytes, rules(&exclude()));
            flood(&pair);
            let mut kept = Kept::default();
            check_excluded(&finish(&mut source, &mut kept), &kept);
        });
    }
}

#[test]
fn af_packet_filters_alike() {
    if !can_run("af_packet_filters_alike") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let _receivers = receivers();
        let options = AfPacketOptions { ring_bytes: 1 << 24, filters: rules(&exclude()), follow: None };
        let points = Arc::new(ObservationPoints::default());
        let mut source = AfPacketSource::open(&[interface("vb")], &points, &options).unwrap();
        flood(&pair);
        let mut kept = Kept::default();
        check_excluded(&finish(&mut source, &mut kept), &kept);
    });
}

/// What begins and ends connections is in no slot.
#[test]
fn connections_are_filtered_from_their_first_packet_to_their_last() {
    if !can_run("connections_are_filtered_from_their_first_packet_to_their_last") {
        return;
    }
    for (mode, table) in [
        (CaptureMode::Packet, KernelTable::Slots),
        (CaptureMode::Aggregate, KernelTable::Slots),
        (CaptureMode::Aggregate, KernelTable::Hash),
    ] {
        let pair = Pair::new();
        Pair::inside(&pair.there, || {
            let listeners: Vec<_> =
                [8_001, 8_002].map(|port| TcpListener::bind(("10.9.0.2", port)).unwrap()).into();
            // The first is left out; of all others none but the second is metered.
            let list = json!([
                { "name": "one", "action": "exclude", "match": { "ports": [8001] } },
                { "name": "two", "action": "include", "match": { "ports": [8002], "protocols": ["tcp"] } },
            ]);
            let aggregation = Aggregation { table, ..Aggregation::default() };
            let mut source = open(mode, aggregation, 1 << 20, rules(&list));
            for listener in &listeners {
                let address = listener.local_addr().unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let (mut stream, _) = listener.accept().unwrap();
                        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
                    });
                    Pair::inside(&pair.here, || {
                        let mut stream = TcpStream::connect(address).unwrap();
                        std::io::Write::write_all(&mut stream, &[7; 10_000]).unwrap();
                        stream.shutdown(std::net::Shutdown::Write).unwrap();
                        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
                    });
                });
            }
            let mut kept = Kept::default();
            let sightings = finish(&mut source, &mut kept);
            let of = |port: u16| {
                let both = kept.0.iter().filter(|o| o.ports.contains(&port.to_be()));
                both.map(|o| o.tally()).sum::<Tally>()
            };
            assert_eq!(of(8_001), Tally::ZERO, "{mode:?} {table:?}");
            assert_eq!(kept.tally(), of(8_002));
            let (one, two) = (sightings.filtered["one"], of(8_002));
            // Handshake, data and end, both ways. How data is acknowledged isn't given.
            assert!(one.packets >= 7 && one.bytes > 10_000 && two.packets >= 7 && two.bytes > 10_000);
            assert!(
                kept.0.iter().any(|o| o.tcp_flags & 2 != 0) && kept.0.iter().any(|o| o.tcp_flags & 1 != 0)
            );
            assert_eq!(sightings.filtered.keys().map(|name| &**name).collect::<Vec<_>>(), ["no_rule", "one"]);
        });
    }
}

#[test]
fn an_interface_that_is_renamed_is_filtered_by_its_new_name() {
    if !can_run("an_interface_that_is_renamed_is_filtered_by_its_new_name") {
        return;
    }
    let pair = Pair::new();
    Pair::inside(&pair.there, || {
        let _receivers = receivers();
        let list = json!([{ "name": "new", "action": "exclude", "match": { "interfaces": ["new*"] } }]);
        let selection = Selection::new(&["vb".to_owned(), "new*".to_owned()], &[]).unwrap();
        let points = Arc::new(ObservationPoints::default());
        let options = EbpfOptions {
            mode: CaptureMode::Packet,
            filters: rules(&list),
            follow: Some(Follow::new(selection)),
            ..EbpfOptions::default()
        };
        let mut source = EbpfSource::open(&[interface("vb")], &points, &options).unwrap().source;
        let mut kept = Kept::default();
        let send = || {
            Pair::inside(&pair.here, || {
                let socket = sender();
                for port in PORTS {
                    socket.send_to(&[7; 100], ("10.9.0.2", port)).unwrap();
                }
            });
        };
        let all = PORTS.map(|_| Tally::frame(142)).sum::<Tally>();
        while source.poll(&mut kept, 256) == Polled::More {}
        Pair::inside(&pair.here, || run("ping -q -c 1 -W 5 10.9.0.2"));
        send();
        for command in ["set vb down", "set vb name newb", "set newb up"] {
            run(&format!("ip link {command}"));
        }
        let began = Instant::now();
        while !source.links().on().iter().any(|link| &*link.name == "newb") {
            assert!(began.elapsed() < Duration::from_secs(10), "nobody noticed the name");
            std::thread::sleep(Duration::from_millis(5));
        }
        Pair::inside(&pair.here, || run("ping -q -c 1 -W 5 10.9.0.2"));
        send();
        let sightings = finish(&mut source, &mut kept);
        assert_eq!(came(&kept, PORTS, 4), all, "what came under the old name, and nothing else");
        let filtered = sightings.filtered["new"];
        assert!(filtered.packets >= all.packets + 2 && filtered.bytes > all.bytes, "{filtered:?}");
    });
}

/// Ends in good order and leaves its programs; what it has counted.
fn end(mut source: EbpfSource) -> Sightings {
    let settle = source.settlement().unwrap();
    let mut kept = Kept::default();
    source.close();
    while source.poll(&mut kept, 100) != Polled::Ended {
        source.wait(Duration::from_millis(1));
    }
    settle(kept.tally());
    let sightings = source.sightings().unwrap();
    assert_eq!(sightings.lost.get(&Loss::Crash), None);
    sightings
}

/// `capture.on_exit: keep`.
#[test]
fn what_was_filtered_between_two_runs_is_of_the_rules_that_filtered_it() {
    if !can_run("what_was_filtered_between_two_runs_is_of_the_rules_that_filtered_it") {
        return;
    }
    let rule = |name: &str| {
        rules(
            &json!([{ "name": name, "action": "exclude", "match": { "destination_ports": ["10000-10099"] } }]),
        )
    };
    for mode in [CaptureMode::Packet, CaptureMode::Aggregate] {
        let pair = Pair::new();
        Pair::inside(&pair.there, || {
            let _receivers = receivers();
            let open = |filters| {
                let options = EbpfOptions {
                    mode,
                    on_exit: OnExit::Keep,
                    ring_bytes: 1 << 22,
                    filters,
                    ..EbpfOptions::default()
                };
                EbpfSource::open(&[interface("vb")], &Arc::default(), &options).unwrap().source
            };
            let all = due(PORTS, V4) + due(PORTS, V6);
            end(open(rule("one")));
            flood(&pair);
            let sightings = end(open(rule("one")));
            assert_eq!(sightings.filtered, [("one".into(), all)].into(), "{mode:?}");
            flood(&pair);
            let sightings = end(open(rule("two")));
            let expected = [("earlier_rules".into(), all), ("two".into(), Tally::ZERO)].into();
            assert_eq!(sightings.filtered, expected, "{mode:?}");
            flood(&pair);
            let sightings = end(open(FilterRules::default()));
            assert_eq!(sightings.filtered, [("earlier_rules".into(), all)].into(), "{mode:?}");
            let _ = clean_up().unwrap();
        });
    }
}
