//! Outputs against a collector that does as it is told.

mod stand_in;

use super::*;
use crate::sample;
use mermin_flow::{Amount, Exporter, Failure, FlowRecord, Receipt};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use stand_in::{Got, Reaction, StandIn, TAKE, free_port};
use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// An output for one signal, configured by JSON.
fn output(endpoint: &str, more: &str) -> Box<dyn Exporter> {
    outputs(endpoint, more).remove(0)
}

fn outputs(endpoint: &str, more: &str) -> Vec<Box<dyn Exporter>> {
    let config = format!(r#"{{"endpoint": "{endpoint}"{}{more}}}"#, if more.is_empty() { "" } else { ", " });
    let config: OtlpConfig = serde_json::from_str(&config).unwrap();
    OtlpPlan::new(&config, &Environment::default()).unwrap().open(&sample::points()).unwrap()
}

/// Records of distinct flows.
fn records(n: u128) -> Vec<FlowRecord> {
    (0..n).map(|n| FlowRecord { id: mermin_flow::FlowId(n + 1), ..sample::udp() }).collect()
}

fn amount(records: &[FlowRecord]) -> Amount {
    let mut sum = Amount::default();
    records.iter().for_each(|record| sum += Amount::of(record));
    sum
}

/// Exports all and waits for the end.
fn run(output: &mut dyn Exporter, records: &[FlowRecord]) -> (Receipt, Vec<Failure>) {
    let mut receipt = Receipt::default();
    let results = [output.export(records, &mut receipt), output.flush(&mut receipt)];
    (receipt, results.into_iter().filter_map(Result::err).collect())
}

fn delivered(records: &[FlowRecord]) -> Receipt {
    Receipt { delivered: amount(records), ..Receipt::default() }
}

/// How many answers have a time.
fn answers(delivery: &mermin_flow::Delivery) -> u64 {
    delivery.latency().0.iter().map(|(_, count)| count).sum()
}

fn span_ids(got: &Got) -> Vec<Vec<u8>> {
    let request = ExportTraceServiceRequest::decode(&got.message[..]).unwrap();
    request.resource_spans[0].scope_spans[0].spans.iter().map(|span| span.trace_id.clone()).collect()
}

fn items(got: &Got) -> usize {
    if got.path.contains("trace") {
        span_ids(got).len()
    } else if got.path.contains("log") {
        let request = ExportLogsServiceRequest::decode(&got.message[..]).unwrap();
        request.resource_logs[0].scope_logs[0].log_records.len()
    } else {
        ExportMetricsServiceRequest::decode(&got.message[..]).unwrap().resource_metrics.len()
    }
}

#[test]
fn every_signal_arrives_over_both_protocols_and_every_compression() {
    let collector = StandIn::start(|_, _| TAKE);
    let records = records(700);
    for protocol in ["grpc", "http"] {
        for compression in ["none", "gzip", "zstd"] {
            let more = format!(
                r#""protocol": "{protocol}", "compression": "{compression}", "signals": ["traces", "logs", "metrics"],
                   "headers": {{"x-tenant": "a b"}}"#
            );
            let outputs = outputs(&collector.endpoint(), &more);
            let names: Vec<_> = outputs.iter().map(|output| output.name().to_owned()).collect();
            assert_eq!(names, ["otlp:traces", "otlp:logs", "otlp:metrics"]);
            for mut output in outputs {
                let before = collector.got().len();
                let (receipt, failures) = run(&mut *output, &records);
                assert!(failures.is_empty(), "{failures:?}");
                assert_eq!(receipt, delivered(&records), "{} {more}", output.name());
                let got = &collector.got()[before..];
                let sent: usize = got.iter().map(items).sum();
                assert_eq!(sent, if output.name() == "otlp:metrics" { 1 } else { 700 });
                for got in got {
                    assert_eq!(got.headers["x-tenant"], "a b");
                    assert!(got.headers["user-agent"].to_str().unwrap().starts_with("mermin/"));
                    assert_eq!(got.path.starts_with("/v1/"), protocol == "http", "{}", got.path);
                }
                let delivery = output.delivery().unwrap();
                assert_eq!(delivery.requests.load(Ordering::Relaxed), got.len() as u64);
                assert!(delivery.connections.load(Ordering::Relaxed) > 0);
                assert_eq!(delivery.in_flight.load(Ordering::Relaxed), 0);
            }
        }
    }
}

#[test]
fn what_may_pass_is_tried_again_with_the_same_bytes() {
    let script = |n: usize, _: &Got| match n {
        0 => Reaction::Grpc(14, "busy", None),
        1 => Reaction::Break,
        2 => Reaction::Http(503, None),
        _ => TAKE,
    };
    let collector = StandIn::start(script);
    let records = records(3);
    let mut output = output(&collector.endpoint(), "");
    let (receipt, failures) = run(&mut *output, &records);
    assert!(failures.is_empty());
    assert_eq!(receipt, delivered(&records));
    let got = collector.got();
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|one| one.message == got[0].message));
    let delivery = output.delivery().unwrap();
    let counts = [&delivery.requests, &delivery.retries, &delivery.failures];
    assert_eq!(counts.map(|count| count.load(Ordering::Relaxed)), [4, 3, 3]);
    assert_eq!(answers(&delivery), 3, "a broken connection is no answer");
}

/// Sleeping less than asked for would be the bug; more is the machine's business.
#[test]
fn hints_of_the_collector_are_waited_for() {
    for (protocol, hint) in [
        ("grpc", Reaction::Grpc(8, "slow down", Some(Duration::from_millis(900)))),
        ("http", Reaction::Http(429, Some("1"))),
    ] {
        let collector = StandIn::start(move |n, _| if n == 0 { hint.clone() } else { TAKE });
        let mut output = output(&collector.endpoint(), &format!(r#""protocol": "{protocol}""#));
        let began = Instant::now();
        let (receipt, _) = run(&mut *output, &records(1));
        assert_eq!(receipt, delivered(&records(1)));
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    }
}

#[test]
fn what_is_refused_is_dropped_at_once() {
    for (protocol, refusal, why) in [
        ("grpc", Reaction::Grpc(16, "who are you", None), "UNAUTHENTICATED: who are you"),
        ("grpc", Reaction::Http(401, None), "HTTP status 401"),
        ("http", Reaction::Http(400, None), "HTTP status 400"),
    ] {
        let collector = StandIn::start(move |_, _| refusal.clone());
        let mut output = output(&collector.endpoint(), &format!(r#""protocol": "{protocol}""#));
        let records = records(5);
        let (receipt, failures) = run(&mut *output, &records);
        assert_eq!(receipt.dropped, [("refused", amount(&records))].into());
        assert_eq!(receipt.delivered, Amount::default());
        assert_eq!(failures[0].reason, "refused");
        assert!(failures[0].error.to_string().contains(why), "{}", failures[0].error);
        assert_eq!(collector.got().len(), 1);
        let delivery = output.delivery().unwrap();
        assert_eq!(delivery.failures.load(Ordering::Relaxed), 1);
        assert_eq!(answers(&delivery), 1);
    }
}

#[test]
fn what_is_rejected_in_part_is_counted_and_its_bounds_are_called_bounds() {
    let records = records(10);
    let all = amount(&records);
    for (rejected, inexact) in [(3, true), (10, false), (99, false)] {
        let collector = StandIn::start(move |_, _| Reaction::Take { rejected });
        let (receipt, failures) = run(&mut *output(&collector.endpoint(), ""), &records);
        let rejected = u64::try_from(rejected).unwrap().min(10);
        assert_eq!(receipt.dropped["rejected"], Amount { records: rejected, ..all });
        assert_eq!(receipt.delivered, Amount { records: 10 - rejected, ..Amount::default() });
        assert_eq!(receipt.inexact.contains("dropped.rejected.packets"), inexact);
        assert!(failures[0].error.to_string().contains("too old"));
    }
}

/// Of one that is longer than what is kept nothing can be known but that it is an acceptance.
#[test]
fn an_answer_of_any_length_is_taken_for_what_it_is() {
    let records = records(10);
    for protocol in ["grpc", "http"] {
        for (bytes, rejected) in [(200 << 10, 3), (5 << 20, 0)] {
            let collector = StandIn::start(move |_, _| Reaction::TakeLong { bytes });
            let more = format!(r#""protocol": "{protocol}""#);
            let (receipt, _) = run(&mut *output(&collector.endpoint(), &more), &records);
            assert_eq!(receipt.delivered.records, 10 - rejected, "{protocol} {bytes}");
            assert_eq!(receipt.dropped.get("rejected").map_or(0, |dropped| dropped.records), rejected);
            assert_eq!(collector.got().len(), 1);
        }
    }
}

#[test]
fn what_is_too_large_is_sent_in_parts() {
    let refusal = "grpc: received message larger than max (1 vs. 2)";
    for (protocol, refusal) in
        [("grpc", Reaction::Grpc(8, refusal, None)), ("http", Reaction::Http(413, None))]
    {
        let limit = 20_000;
        let script =
            move |_: usize, got: &Got| if got.message.len() > limit { refusal.clone() } else { TAKE };
        let collector = StandIn::start(script);
        let more = format!(r#""protocol": "{protocol}", "requests_in_flight": 1"#);
        let mut output = output(&collector.endpoint(), &more);
        let records = records(2_000);
        let (receipt, failures) = run(&mut *output, &records);
        assert!(failures.is_empty());
        assert_eq!(receipt, delivered(&records));
        let got = collector.got();
        let taken: Vec<_> = got.iter().filter(|got| got.message.len() <= limit).flat_map(span_ids).collect();
        let distinct: std::collections::HashSet<_> = taken.iter().collect();
        assert_eq!((taken.len(), distinct.len()), (2_000, 2_000));
        // It learns: each size that was too large is tried once.
        let refused: Vec<_> = got.iter().map(|got| got.message.len()).filter(|len| *len > limit).collect();
        assert!(refused.len() > 3 && refused.is_sorted_by(|a, b| a > b), "{refused:?}");
    }
}

#[test]
fn a_single_record_that_is_too_large_is_dropped_for_that() {
    let script = |_: usize, got: &Got| {
        let first = span_ids(got).contains(&1_u128.to_be_bytes().to_vec());
        if first { Reaction::Grpc(8, "message too large", None) } else { TAKE }
    };
    let collector = StandIn::start(script);
    let records = records(40);
    let (receipt, failures) = run(&mut *output(&collector.endpoint(), ""), &records);
    assert_eq!(receipt.delivered, amount(&records[1..]));
    assert_eq!(receipt.dropped, [("too_large", amount(&records[..1]))].into());
    assert_eq!(failures[0].reason, "too_large");
}

#[test]
fn a_collector_that_hangs_is_left_for_a_new_connection() {
    let collector = StandIn::start(|n, _| if n == 0 { Reaction::Hang } else { TAKE });
    let mut output = output(&collector.endpoint(), r#""timeout": "200ms""#);
    let (receipt, _) = run(&mut *output, &records(4));
    assert_eq!(receipt, delivered(&records(4)));
    assert_eq!(collector.got().len(), 2);
    assert_eq!(output.delivery().unwrap().connections.load(Ordering::Relaxed), 2);
}

#[test]
fn a_collector_that_comes_later_gets_everything() {
    let address = free_port();
    let mut output = output(&format!("http://{address}"), r#""batch": {"records": 10}"#);
    let delivery = output.delivery().unwrap();
    let records = records(35);
    let mut receipt = Receipt::default();
    output.export(&records, &mut receipt).unwrap();
    while delivery.failures.load(Ordering::Relaxed) < 3 {
        output.idle(&mut receipt).unwrap();
    }
    assert_eq!(receipt, Receipt::default());
    let (state, error) = delivery.condition();
    assert_eq!(state.name(), "retrying");
    assert!(error.unwrap().contains("can't connect"));
    let collector = StandIn::start_at(address, |_, _| TAKE);
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt, delivered(&records));
    assert_eq!(collector.got().iter().map(items).sum::<usize>(), 35);
    assert_eq!(delivery.condition().0.name(), "delivering");
}

#[test]
fn when_time_is_up_all_that_is_held_is_in_the_book() {
    for signals in ["traces", "metrics"] {
        let collector = StandIn::start(|_, _| Reaction::Hang);
        let more = format!(r#""signals": ["{signals}"], "batch": {{"records": 2}}, "requests_in_flight": 2"#);
        let mut output = output(&collector.endpoint(), &more);
        let interrupter = output.interrupter().unwrap();
        let interrupt = std::thread::spawn({
            let got = std::sync::Arc::new(collector);
            move || {
                while got.got().is_empty() {
                    std::thread::yield_now();
                }
                interrupter.store(true, Ordering::Release);
                got
            }
        });
        let (receipt, failures) = run(&mut *output, &records(11));
        assert!(failures.is_empty());
        let expected = [("shutdown_timeout", amount(&records(11)))].into();
        assert_eq!((receipt.delivered, &receipt.dropped), (Amount::default(), &expected));
        drop(interrupt.join().unwrap());
    }
}

#[test]
fn records_that_come_slowly_are_not_kept_waiting() {
    let collector = StandIn::start(|_, _| TAKE);
    let mut output = output(&collector.endpoint(), r#""batch": {"delay": "50ms"}"#);
    let (mut receipt, began) = (Receipt::default(), Instant::now());
    output.export(&records(1), &mut receipt).unwrap();
    let wait = output.idle(&mut receipt).unwrap().expect("something is held");
    assert!(wait <= Duration::from_millis(50));
    while receipt.delivered.records < 1 {
        output.idle(&mut receipt).unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "{receipt:?}");
    }
    assert!(began.elapsed() >= Duration::from_millis(50), "others may come along");
    assert_eq!(output.idle(&mut receipt).unwrap(), None);
}

#[test]
fn credentials_follow_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "first\n").unwrap();
    let collector = StandIn::start(|_, got| {
        let known = got.headers["authorization"] == "Bearer second-one";
        if known { TAKE } else { Reaction::Grpc(14, "not yet", None) }
    });
    let more = format!(r#""bearer_token_file": "{}""#, file.display());
    let mut output = output(&collector.endpoint(), &more);
    let mut receipt = Receipt::default();
    output.export(&records(1), &mut receipt).unwrap();
    while collector.got().is_empty() {
        output.idle(&mut receipt).unwrap();
    }
    assert_eq!(collector.got()[0].headers["authorization"], "Bearer first");
    fs::write(&file, "second-one").unwrap();
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt, delivered(&records(1)));
}

#[test]
fn a_credential_of_the_configuration_goes_before_a_variables_header() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "own").unwrap();
    let collector = StandIn::start(|_, _| TAKE);
    let config =
        format!(r#"{{"endpoint": "{}", "bearer_token_file": "{}"}}"#, collector.endpoint(), file.display());
    let config: OtlpConfig = serde_json::from_str(&config).unwrap();
    let variable = ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20another,x-tenant=a");
    let environment = Environment::new(&[(variable.0.to_owned(), variable.1.to_owned())]);
    let plan = OtlpPlan::new(&config, &environment).unwrap();
    let mut output = plan.open(&sample::points()).unwrap().remove(0);
    let (receipt, _) = run(&mut *output, &records(1));
    assert_eq!(receipt, delivered(&records(1)));
    let headers = &collector.got()[0].headers;
    assert_eq!(headers["authorization"], "Bearer own");
    assert_eq!(headers["x-tenant"], "a");
    assert!(plan.descriptions()[0].ends_with("headers x-tenant"), "{:?}", plan.descriptions());
}

/// With a queue that is never empty an output is never idle.
#[test]
fn requests_of_sums_get_on_while_records_keep_coming() {
    let collector = StandIn::start(|_, _| TAKE);
    let more = r#""signals": ["metrics"], "metrics": {"interval": "1ms"}"#;
    let mut output = output(&collector.endpoint(), more);
    let (mut receipt, began) = (Receipt::default(), Instant::now());
    let record = records(1);
    while receipt.delivered.records == 0 {
        output.export(&record, &mut receipt).unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "{} requests", collector.got().len());
    }
}

#[test]
fn cumulative_sums_that_are_refused_are_said_again() {
    let collector = StandIn::start(|n, _| if n == 0 { Reaction::Grpc(3, "no", None) } else { TAKE });
    let more = r#""signals": ["metrics"], "metrics": {"interval": "1ms"}"#;
    let mut output = output(&collector.endpoint(), more);
    let mut receipt = Receipt::default();
    output.export(&records(3), &mut receipt).unwrap();
    while collector.got().is_empty() {
        output.idle(&mut receipt).unwrap();
    }
    output.export(&records(2), &mut receipt).unwrap();
    output.flush(&mut receipt).unwrap();
    assert_eq!(receipt.dropped, Default::default());
    assert_eq!(receipt.delivered.records, 5);
}

#[test]
fn sums_that_are_refused_at_the_end_or_as_deltas_are_dropped() {
    for temporality in ["cumulative", "delta"] {
        let collector = StandIn::start(|_, _| Reaction::Grpc(3, "no", None));
        let more = format!(r#""signals": ["metrics"], "metrics": {{"temporality": "{temporality}"}}"#);
        let (receipt, failures) = run(&mut *output(&collector.endpoint(), &more), &records(3));
        assert_eq!(receipt.dropped, [("refused", amount(&records(3)))].into());
        assert_eq!(failures[0].reason, "refused");
    }
}

#[test]
fn plans_are_described_without_secrets() {
    let config =
        r#"{"endpoint": "http://c:1", "signals": ["traces", "logs"], "headers": {"key": "hunter2"}}"#;
    let config: OtlpConfig = serde_json::from_str(config).unwrap();
    let plan = OtlpPlan::new(&config, &Environment::default()).unwrap();
    assert_eq!(plan.headline(), "otlp traces and logs to http://c:1");
    assert_eq!(plan.descriptions()[1], "logs, grpc, http://c:1, headers key");
    assert!(!format!("{plan:?} {config:?}").contains("hunter2"));
    for (bad, place) in [
        (r#"{"signals": []}"#, "export.otlp.signals"),
        (r#"{"signals": ["logs", "logs"]}"#, "export.otlp.signals"),
        (r#"{"metrics": {"attributes": ["x"]}}"#, "export.otlp.metrics.attributes"),
        (r#"{"endpoint": "https://c:1", "tls": {"ca": "/nonexistent"}}"#, "export.otlp.tls.ca"),
    ] {
        let config = serde_json::from_str(bad).unwrap();
        let error = OtlpPlan::new(&config, &Environment::default()).unwrap_err();
        assert_eq!(error.place(), Some(place), "{bad}");
    }
}

/// All kinds of figures arrive, the last of them at the end, and the official types read what they are.
#[test]
fn the_agents_own_metrics_arrive_at_the_interval_and_at_the_end() {
    use mermin_flow::{Family, Metric, MetricKind, Sample, Value};
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    static COUNT: Metric = Metric {
        name: "c",
        kind: MetricKind::Counter,
        unit: "{packet}",
        help: "A count",
        labels: &["reason"],
    };
    static LEVEL: Metric = Metric { name: "g", kind: MetricKind::Gauge, unit: "s", help: "", labels: &[] };
    static WAIT: Metric = Metric { name: "h", kind: MetricKind::Histogram, unit: "s", help: "", labels: &[] };
    let collector = StandIn::start(|_, _| TAKE);
    let config = format!(
        r#"{{"endpoint": "http://{}", "agent_metrics": true, "metrics": {{"interval": "20ms"}}}}"#,
        collector.address
    );
    let config: OtlpConfig = serde_json::from_str(&config).unwrap();
    let plan = OtlpPlan::new(&config, &Environment::default()).unwrap();
    let metrics = plan.open_agent_metrics().unwrap().unwrap();
    let sample = |value| vec![Sample { labels: Vec::new(), value }];
    let calls = std::sync::atomic::AtomicU64::new(0);
    let gather = || {
        let labels = vec![("reason", "arp".into())];
        let count = Value::Count(calls.fetch_add(1, Ordering::Relaxed));
        let wait = Value::Distribution { buckets: vec![(0.5, 2), (f64::INFINITY, 1)], sum: 9.5 };
        vec![
            Family { metric: &COUNT, samples: vec![Sample { labels, value: count }] },
            Family { metric: &LEVEL, samples: sample(Value::Number(1.5)) },
            Family { metric: &WAIT, samples: sample(wait) },
        ]
    };
    let (end, ended) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || metrics.run(gather, &ended));
        while collector.got().len() < 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(end);
    });
    let got = collector.got();
    assert_eq!(got.len() as u64, calls.load(Ordering::Relaxed), "the last call is the one at the end");
    let request = ExportMetricsServiceRequest::decode(&got.last().unwrap().message[..]).unwrap();
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
    let point = &sum.data_points[0];
    assert_eq!(point.attributes[0].key, "reason");
    let number =
        opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsInt(got.len() as i64 - 1);
    assert_eq!((point.value, metrics[0].unit.as_str()), (Some(number), "{packet}"));
    assert!(point.time_unix_nano > point.start_time_unix_nano && point.start_time_unix_nano > 0);
    assert!(matches!(&metrics[1].data, Some(Data::Gauge(gauge)) if gauge.data_points.len() == 1));
    let Some(Data::Histogram(histogram)) = &metrics[2].data else { panic!("{metrics:?}") };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.sum, &point.bucket_counts[..]), (3, Some(9.5), &[2, 1][..]));
    assert_eq!(point.explicit_bounds, [0.5]);
}
