//! The OpenTelemetry Collector.

use crate::ends_with;
use crate::otlp::{KEY, SIGNALS, SUM, client, send, status};
use mermin_tests::need;
use mermin_tests::servers::collector::{Collector, Received, Settings, Tls, sum};
use mermin_tests::servers::faulty_collector::{Protocol, Signal};
use mermin_tests::servers::http::Client;

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];

fn endpoint(collector: &Collector, protocol: Protocol) -> String {
    match protocol {
        Protocol::Grpc => collector.grpc_endpoint(),
        Protocol::Http => collector.http_endpoint(),
    }
}

/// 0 over gRPC, 200 over HTTP.
fn fine(protocol: Protocol) -> u16 {
    if protocol == Protocol::Grpc { 0 } else { 200 }
}

/// The sums of spans, log records and data points.
fn sums(received: &Received) -> [u64; 3] {
    let points = received.metric_list();
    let points = points.iter().flat_map(|metric| metric["sum"]["dataPoints"].as_array().unwrap());
    let points: Vec<_> = points.collect();
    [sum(&received.spans(), KEY), sum(&received.log_records(), KEY), sum(&points, KEY)]
}

#[test]
fn takes_three_signals_by_both_protocols_and_ends_with_its_owner() {
    need!(Collector::installed());
    let collector = Collector::start();
    for protocol in PROTOCOLS {
        let client = client(&endpoint(&collector, protocol), protocol);
        for signal in SIGNALS {
            assert_eq!(status(&send(&client, signal).unwrap()), fine(protocol));
        }
    }
    assert_eq!(sums(&collector.received()), [2 * SUM; 3]);
    assert!(ends_with(collector, Collector::process));
}

#[test]
fn what_it_acknowledged_is_there_after_a_kill_and_it_comes_back() {
    need!(Collector::installed());
    let mut collector = Collector::start();
    let client = client(&collector.grpc_endpoint(), Protocol::Grpc);
    let _ = send(&client, Signal::Logs).unwrap();
    collector.kill();
    assert!(send(&client, Signal::Logs).is_err());
    assert_eq!(sums(&collector.received()), [0, SUM, 0]);
    collector.restart();
    let _ = send(&client, Signal::Logs).unwrap();
    assert_eq!(sums(&collector.received()), [0, 2 * SUM, 0]);
    assert!(collector.stop(), "SIGTERM ends it well");
}

#[test]
fn wants_certificates_and_tokens() {
    need!(Collector::installed());
    let settings = Settings { tls: Some(Tls::Mutual), token: Some("abc".into()), ..Settings::default() };
    let collector = Collector::start_with(settings);
    for protocol in PROTOCOLS {
        let taken = |client: &Client| {
            send(client, Signal::Traces).is_ok_and(|response| status(&response) == fine(protocol))
        };
        let plain = client(&endpoint(&collector, protocol), protocol);
        assert!(!taken(&plain), "without TLS");
        let stranger = Client { tls: Some(collector.trusting(false)), ..plain };
        assert!(send(&stranger, Signal::Traces).is_err(), "without a certificate");
        let nameless = Client { tls: Some(collector.trusting(true)), ..stranger };
        let refused = status(&send(&nameless, Signal::Traces).unwrap());
        assert_eq!(refused, if protocol == Protocol::Grpc { 16 } else { 401 });
        assert!(taken(&Client { authorization: Some("Bearer abc".into()), ..nameless }));
    }
    assert_eq!(sums(&collector.received()), [2 * SUM, 0, 0]);
}

#[test]
fn wants_a_user_and_a_password() {
    need!(Collector::installed());
    let basic = Some(("user".to_owned(), "secret".to_owned()));
    let collector = Collector::start_with(Settings { basic, ..Settings::default() });
    let plain = client(&collector.http_endpoint(), Protocol::Http);
    // printf user:secret | base64
    for (authorization, answer) in [("Basic dXNlcjpzZWNyZXQ=", 200), ("Basic dXNlcjpvdGhlcg==", 401)] {
        let client = Client { authorization: Some(authorization.into()), ..plain.clone() };
        assert_eq!(status(&send(&client, Signal::Logs).unwrap()), answer);
    }
}

#[test]
fn refuses_when_told() {
    need!(Collector::installed());
    let collector = Collector::start_with(Settings { refuses: true, ..Settings::default() });
    for (protocol, refusal) in [(Protocol::Grpc, 14), (Protocol::Http, 503)] {
        let client = client(&endpoint(&collector, protocol), protocol);
        // Its memory is looked at every 100 ms.
        let refused = (0..50).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            status(&send(&client, Signal::Metrics).unwrap()) == refusal
        });
        assert!(refused, "{protocol:?}");
    }
}
