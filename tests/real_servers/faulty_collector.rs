//! The stand-in for a collector: that each answer reaches a client as the protocols have it.

use crate::otlp::{KEY, SIGNALS, SUM, client, send, status};
use mermin_tests::servers::collector::Tls;
use mermin_tests::servers::faulty_collector::{Answer, Asked, FaultyCollector, Protocol, Signal};
use mermin_tests::servers::http::Client;
use mermin_tests::servers::place::Place;
use std::time::Duration;

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];

/// One that gives these answers, one after the other, then accepts.
fn scripted(answers: Vec<Answer>) -> FaultyCollector {
    FaultyCollector::start(move |asked: &Asked| answers.get(asked.number).cloned().unwrap_or(Answer::Accept))
}

#[test]
fn keeps_what_it_accepts() {
    let collector = scripted(vec![]);
    for protocol in PROTOCOLS {
        let client = client(&collector.endpoint(), protocol);
        for signal in SIGNALS {
            let response = send(&client, signal).unwrap();
            assert_eq!(status(&response), if protocol == Protocol::Grpc { 0 } else { 200 });
        }
    }
    let kept = collector.kept();
    assert_eq!((kept.span_sums().items, kept.span_sums().of(KEY)), (4, i128::from(2 * SUM)));
    assert_eq!((kept.log_sums().items, kept.log_sums().of(KEY)), (4, i128::from(2 * SUM)));
    assert_eq!(kept.metrics().count(), 2);
    assert_eq!(collector.log().len(), 6);
}

#[test]
fn a_partial_success_keeps_the_first_items_and_says_how_many_it_rejected() {
    for (protocol, signal) in
        PROTOCOLS.into_iter().flat_map(|protocol| SIGNALS.map(|signal| (protocol, signal)))
    {
        let collector = scripted(vec![Answer::Partial { rejected: 1, message: "one".into() }]);
        let response = send(&client(&collector.endpoint(), protocol), signal).unwrap();
        // Field 1 of the response: a message with the number 1 and the text.
        let message = if protocol == Protocol::Grpc { &response.body[5..] } else { &response.body[..] };
        assert_eq!(message, [10, 7, 8, 1, 18, 3, b'o', b'n', b'e']);
        let kept = collector.kept();
        let left = match signal {
            Signal::Traces => kept.span_sums().of(KEY),
            Signal::Logs => kept.log_sums().of(KEY),
            Signal::Metrics => {
                use opentelemetry_proto::tonic::metrics::v1::metric::Data;
                let Some(Data::Sum(sum)) = &kept.metrics().next().unwrap().data else { panic!("a sum") };
                i128::try_from(sum.data_points.len()).unwrap() + 4
            }
        };
        assert_eq!(left, 5, "{protocol:?} {signal:?}");
    }
}

#[test]
fn refusals_carry_their_hints() {
    let hint = Some(Duration::from_millis(2_500));
    for protocol in PROTOCOLS {
        let collector = scripted(vec![Answer::too_many(hint), Answer::unavailable(None), Answer::invalid()]);
        let client = client(&collector.endpoint(), protocol);
        let response = send(&client, Signal::Logs).unwrap();
        if protocol == Protocol::Grpc {
            assert_eq!(status(&response), 8);
            // google.rpc.Status {8, message, Any {RetryInfo {2 s, 500 000 000 ns}}}, as protoc has it.
            let details = response.header("grpc-status-details-bin").unwrap();
            assert!(details.starts_with("CAgS") && details.ends_with("EgoKCAgCEIDKte4B"), "{details}");
        } else {
            assert_eq!((response.status, response.header("retry-after")), (429, Some("2")));
        }
        let statuses = [1, 2].map(|_| status(&send(&client, Signal::Logs).unwrap()));
        assert_eq!(statuses, if protocol == Protocol::Grpc { [14, 3] } else { [503, 400] });
        assert_eq!(collector.kept().log_sums().items, 0);
    }
}

#[test]
fn answers_that_never_come_and_answers_that_break_off() {
    for protocol in PROTOCOLS {
        let collector = scripted(vec![Answer::BreakOff, Answer::Disconnect, Answer::AcceptAndDisconnect]);
        let client = client(&collector.endpoint(), protocol);
        for kept in [0, 0, 2] {
            assert!(send(&client, Signal::Traces).is_err());
            assert_eq!(collector.kept().span_sums().items, kept);
        }
        assert!(send(&client, Signal::Traces).is_ok());
        assert_eq!(collector.log().len(), 4);
    }
}

#[test]
fn what_hangs_is_let_go_of_when_it_stops_and_it_comes_back() {
    let mut collector = scripted(vec![Answer::Hang]);
    let client = client(&collector.endpoint(), Protocol::Grpc);
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| send(&client, Signal::Traces));
        while collector.log().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!hanging.is_finished());
        collector.stop();
        assert!(hanging.join().unwrap().is_err());
    });
    assert!(send(&client, Signal::Traces).is_err());
    collector.restart();
    assert_eq!(status(&send(&client, Signal::Traces).unwrap()), 0);
    assert_eq!(collector.kept().span_sums().items, 2);
}

#[test]
fn speaks_mutual_tls() {
    let collector = FaultyCollector::start_in(&Place::Here, Some(Tls::Mutual), |_| Answer::Accept);
    for protocol in PROTOCOLS {
        let plain = client(&collector.endpoint(), protocol);
        let stranger = Client { tls: Some(collector.trusting(false)), ..plain };
        assert!(send(&stranger, Signal::Logs).is_err());
        let known = Client { tls: Some(collector.trusting(true)), ..stranger };
        assert!(send(&known, Signal::Logs).is_ok());
    }
}
