//! The output against collectors on this host: what becomes of records when they are there, go, and come back.

use super::decoder::Collector;
use crate::ipfix::{IpfixConfig, IpfixPlan, IpfixTls, IpfixTransport};
use crate::sample;
use mermin_flow::{Amount, DeliveryState, Exporter, FlowRecord, QUARANTINE, Receipt};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn output(config: IpfixConfig) -> Box<dyn Exporter> {
    IpfixPlan::new(&config).unwrap().open(&sample::points(), &Arc::default())
}

/// Has a call that would wait for good give up.
fn bounded(output: &dyn Exporter) {
    let interrupter = output.interrupter().unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(PATIENCE);
        interrupter.store(true, Ordering::Release);
    });
}

fn numbered(range: std::ops::Range<u32>) -> Vec<FlowRecord> {
    range.map(|sequence| FlowRecord { sequence, ..sample::tcp() }).collect()
}

/// How often each number of a flow record came.
fn numbers(messages: &[Vec<u8>], collector: &mut Collector) -> BTreeMap<u32, u32> {
    let mut numbers = BTreeMap::new();
    for decoded in messages.iter().flat_map(|message| collector.take(message)) {
        if let Some(number) = decoded.values.get(&(32_473, 2)) {
            *numbers.entry(u32::from_be_bytes(number[..].try_into().unwrap())).or_default() += 1;
        }
    }
    numbers
}

fn all_once(range: std::ops::Range<u32>) -> BTreeMap<u32, u32> {
    range.map(|number| (number, 1)).collect()
}

fn datagrams(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 65_536];
    let receive = || socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
    std::iter::from_fn(receive).collect()
}

#[test]
fn over_udp_every_record_arrives_once_in_messages_that_fit() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(socket) = UdpSocket::bind(address) else { continue };
        let collector = Some(socket.local_addr().unwrap().to_string());
        let mut output = output(IpfixConfig { collector, ..IpfixConfig::default() });
        let mut receipt = Receipt::default();
        bounded(&*output);
        output.export(&numbered(0..200), &mut receipt).unwrap();
        output.flush(&mut receipt).unwrap();
        assert_eq!(receipt.delivered.records, 200);
        let (messages, mut collector) = (datagrams(&socket), Collector::default());
        assert!(messages.iter().all(|message| message.len() <= 1_472));
        assert_eq!(numbers(&messages, &mut collector), all_once(0..200));
        assert_eq!((collector.gaps, collector.unknown), (0, 0));
        let delivery = output.delivery().unwrap();
        assert_eq!(delivery.requests.load(Ordering::Relaxed), u64::from(collector.messages));
    }
}

#[test]
fn over_udp_nothing_is_sent_while_nobody_listens() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let mut output = output(IpfixConfig { collector: Some(address.to_string()), ..IpfixConfig::default() });
    let mut receipt = Receipt::default();
    output.export(&numbered(0..50), &mut receipt).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    output.idle(&mut receipt).unwrap();
    assert_eq!(receipt, Receipt::default());
    let delivery = output.delivery().unwrap();
    assert_eq!(delivery.condition().0, DeliveryState::Retrying);
    assert!(delivery.failures.load(Ordering::Relaxed) > 0);
    // It comes, goes, and comes back: with what came meanwhile, and templates for one that has forgotten them.
    let mut got = BTreeMap::new();
    for (first, last) in [(50, 60), (60, 70)] {
        output.export(&numbered(first..last), &mut receipt).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        output.idle(&mut receipt).unwrap();
        assert_eq!(delivery.condition().0, DeliveryState::Retrying);
        let socket = UdpSocket::bind(address).unwrap();
        settle(&mut *output, &mut receipt, u64::from(last));
        let (messages, mut collector) = (datagrams(&socket), Collector::default());
        got.append(&mut numbers(&messages, &mut collector));
        assert_eq!((collector.gaps, collector.unknown), (0, 0));
        assert_eq!(delivery.condition().0, DeliveryState::Delivering);
    }
    assert_eq!(got, all_once(0..70));
    output.flush(&mut receipt).unwrap();
}

/// Calls `idle` until so many records have a receipt.
fn settle(output: &mut dyn Exporter, receipt: &mut Receipt, records: u64) {
    let deadline = Instant::now() + PATIENCE;
    while receipt.delivered.records < records {
        assert!(Instant::now() < deadline, "{receipt:?}");
        let wait = output.idle(receipt).unwrap();
        std::thread::sleep(wait.unwrap_or_default().min(Duration::from_millis(20)));
    }
}

/// Messages of a connection, until it ends or `enough` says so.
fn messages(stream: &mut impl Read, enough: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while messages.len() < enough {
        let mut header = [0; 4];
        if stream.read_exact(&mut header).is_err() {
            break;
        }
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let mut message = header.to_vec();
        message.resize(length, 0);
        stream.read_exact(&mut message[4..]).unwrap();
        messages.push(message);
    }
    messages
}

fn tcp(listener: &TcpListener, tls: Option<IpfixTls>) -> IpfixConfig {
    let port = listener.local_addr().unwrap().port();
    let collector = Some(format!("localhost:{port}"));
    IpfixConfig { collector, transport: IpfixTransport::Tcp, tls, ..IpfixConfig::default() }
}

#[test]
fn over_tcp_what_was_not_acknowledged_comes_again_in_another_session() {
    // Of a connection that is closed before it stands nothing counts, though its host has acknowledged some.
    for (stays, counts) in [(300, false), (2_000, true)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Some(listener.local_addr().unwrap().to_string());
        let mut output = output(IpfixConfig { collector, ..tcp(&listener, None) });
        let mut receipt = Receipt::default();
        // The first reads nothing and closes: what its kernel had no room for goes to the second.
        let collector = std::thread::spawn(move || {
            let (first, _) = listener.accept().unwrap();
            rustix::net::sockopt::set_socket_recv_buffer_size(&first, 4_096).unwrap();
            std::thread::sleep(Duration::from_millis(stays));
            drop(first);
            let (mut second, _) = listener.accept().unwrap();
            messages(&mut second, usize::MAX)
        });
        let records = numbered(0..40_000);
        bounded(&*output);
        for batch in records.chunks(512) {
            output.export(batch, &mut receipt).unwrap();
        }
        output.flush(&mut receipt).unwrap();
        drop(output);
        let (messages, mut second) = (collector.join().unwrap(), Collector::default());
        let mut all = Amount::default();
        records.iter().for_each(|record| all += Amount::of(record));
        assert_eq!(receipt.delivered, all);
        second.expected = Some(0);
        let numbers = numbers(&messages, &mut second);
        assert_eq!((second.gaps, second.unknown), (0, 0), "a session of its own");
        // What counted before is the first one's; everything behind it came, once.
        let first = *numbers.keys().next().unwrap();
        assert_eq!(first > 0, counts, "{first}");
        assert_eq!(numbers, all_once(first..40_000));
    }
}

/// Nothing that is held is lost or told of twice when a call panics; it goes again.
#[test]
fn after_a_panic_what_is_held_goes_again_in_another_session() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let collector = Some(listener.local_addr().unwrap().to_string());
    let mut output = output(IpfixConfig { collector, ..tcp(&listener, None) });
    let mut receipt = Receipt::default();
    output.export(&numbered(0..2_000), &mut receipt).unwrap();
    let (mut first, _) = listener.accept().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while output.delivery().unwrap().in_flight.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < deadline);
        output.idle(&mut receipt).unwrap();
    }
    let held = 2_000 - receipt.delivered.records;
    assert_eq!(output.after_panic(), Some(held));
    let collector = std::thread::spawn(move || {
        let (mut second, _) = listener.accept().unwrap();
        messages(&mut second, usize::MAX)
    });
    bounded(&*output);
    output.flush(&mut receipt).unwrap();
    drop(output);
    assert_eq!((receipt.delivered.records, receipt.dropped.len()), (2_000, 0));
    let before = numbers(&messages(&mut first, usize::MAX), &mut Collector::default());
    assert!(!before.is_empty());
    let second = numbers(&collector.join().unwrap(), &mut Collector::default());
    assert_eq!(second, all_once((2_000 - held) as u32..2_000));
}

/// A collector that closes while nothing is to be told is no trouble.
#[test]
fn an_output_without_records_is_idle_when_its_collector_goes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let collector = Some(listener.local_addr().unwrap().to_string());
    let mut output = output(IpfixConfig { collector, ..tcp(&listener, None) });
    let mut receipt = Receipt::default();
    output.export(&numbered(0..1), &mut receipt).unwrap();
    let (first, _) = listener.accept().unwrap();
    settle(&mut *output, &mut receipt, 1);
    let delivery = output.delivery().unwrap();
    assert_eq!(delivery.condition().0, DeliveryState::Delivering);
    drop((first, listener));
    let deadline = Instant::now() + PATIENCE;
    while delivery.condition().0 == DeliveryState::Delivering {
        assert!(Instant::now() < deadline);
        assert_eq!(output.idle(&mut receipt).unwrap(), None);
    }
    assert_eq!(delivery.condition(), (DeliveryState::Idle, None));
    // Nor does the end of a run wait for it.
    let began = Instant::now();
    output.flush(&mut receipt).unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn over_tcp_a_record_counts_when_the_peer_has_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Its connections have room for less than the messages that come first; ours for a hundred times as much.
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 2_048).unwrap();
    let collector = Some(listener.local_addr().unwrap().to_string());
    let message_bytes = Some(mermin_flow::ByteSize(1_024));
    let mut output = output(IpfixConfig { collector, message_bytes, ..tcp(&listener, None) });
    let mut receipt = Receipt::default();
    output.export(&numbered(0..2_000), &mut receipt).unwrap();
    let _peer = listener.accept().unwrap();
    for _ in 0..100 {
        output.idle(&mut receipt).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let delivered = receipt.delivered.records;
    assert!(delivered < 50, "{delivered} are delivered, and nobody has room for so many");
    output.interrupter().unwrap().store(true, Ordering::Release);
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt.delivered.records + receipt.dropped["shutdown_timeout"].records, 2_000);
    assert_eq!(output.after_panic(), Some(0));
}

#[test]
fn a_record_that_is_given_up_has_its_place_in_order() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let mut output = output(IpfixConfig { collector: Some(address.to_string()), ..IpfixConfig::default() });
    let mut receipt = Receipt::default();
    output.export(&numbered(0..3), &mut receipt).unwrap();
    output.quarantine(&sample::udp(), &mut receipt).unwrap();
    assert_eq!((output.after_panic(), &receipt), (Some(4), &Receipt::default()), "behind what is held");
    let socket = UdpSocket::bind(address).unwrap();
    output.export(&numbered(3..4), &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt.delivered.records, 4);
    assert_eq!(receipt.dropped[QUARANTINE], Amount::of(&sample::udp()));
    assert_eq!(numbers(&datagrams(&socket), &mut Collector::default()), all_once(0..4));
}

#[test]
fn over_tls_records_arrive_and_a_certificate_of_another_authority_is_refused() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, certified: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let path = folder.path().join(name);
        std::fs::write(&path, certified.cert.pem()).unwrap();
        Some(path)
    };
    let key = rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server =
        server.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let server = Arc::new(server);
    for (ca, trusted) in [(file("ca", &certified), true), (file("other", &other), false)] {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let mut output = output(tcp(&listener, Some(IpfixTls { ca, ..IpfixTls::default() })));
        let server = Arc::clone(&server);
        let collector = std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(server).unwrap();
            messages(&mut rustls::StreamOwned::new(connection, socket), usize::MAX)
        });
        let mut receipt = Receipt::default();
        output.export(&numbered(0..3_000), &mut receipt).unwrap();
        if !trusted {
            let deadline = Instant::now() + PATIENCE;
            let delivery = output.delivery().unwrap();
            while delivery.condition().0 != DeliveryState::Retrying && Instant::now() < deadline {
                output.idle(&mut receipt).unwrap();
            }
            let (state, error) = delivery.condition();
            assert_eq!(state, DeliveryState::Retrying);
            assert!(error.unwrap().contains("certificate"));
            output.interrupter().unwrap().store(true, Ordering::Release);
        }
        output.flush(&mut receipt).unwrap();
        drop(output);
        let numbers = numbers(&collector.join().unwrap(), &mut Collector::default());
        let expected = if trusted { 3_000 } else { 0 };
        assert_eq!((receipt.delivered.records, numbers), (expected.into(), all_once(0..expected)));
    }
}
