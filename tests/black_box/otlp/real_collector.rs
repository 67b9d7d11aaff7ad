//! The OpenTelemetry Collector gets all three signals by every way, and what it wrote sums up to the ledger.

use super::{amount, book, capture, replay, says};
use mermin_tests::need;
use mermin_tests::program::{Outcome, Program};
use mermin_tests::servers::collector::{Collector, Settings, Tls, attribute, sum};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const FLOWS: u64 = 3_000;

fn all_signals(endpoint: &str, protocol: &str) -> Program {
    let program = replay(endpoint, protocol).set("export.otlp.signals=[traces, logs, metrics]");
    program.set("export.otlp.metrics.attributes=[network.transport, source.port]").input(capture(FLOWS))
}

fn tls(program: Program, collector: &Collector, mutual: bool) -> Program {
    let set = |program: Program, key: &str, path: &Path| {
        program.set(&format!("export.otlp.tls.{key}={}", path.display()))
    };
    let program = set(program, "ca", collector.authority());
    if !mutual {
        return program;
    }
    let pair = collector.client_pair();
    set(set(program, "cert", &pair.certificate), "key", &pair.key)
}

/// Sums over the points of a metric, each series once: sums are cumulative, and this run sends them at its end.
fn points(metrics: &[&Value], name: &str) -> u64 {
    let of_name = metrics.iter().filter(|metric| metric["name"] == name);
    let points = of_name.flat_map(|metric| metric["sum"]["dataPoints"].as_array().into_iter().flatten());
    points.map(|point| point["asInt"].as_str().unwrap().parse::<u64>().unwrap()).sum()
}

/// What the collector wrote against what the agent says.
fn compare(outcome: &Outcome, collector: &Collector, way: &str) {
    let received = collector.received();
    let (spans, logs, metrics) = (received.spans(), received.log_records(), received.metric_list());
    let (packets, bytes) =
        (outcome.number("/ledger/released/packets"), outcome.number("/ledger/released/bytes"));
    assert_eq!((packets, outcome.number("/flows/released")), (FLOWS, FLOWS), "{way}");
    for output in ["otlp:traces", "otlp:logs", "otlp:metrics"] {
        let book = book(outcome, output);
        assert_eq!(amount(&book["delivered"]), [FLOWS, packets, bytes], "{way} {output} {book}");
        assert_eq!(book["dropped"], serde_json::json!({}), "{way} {output}");
    }
    for items in [&spans, &logs] {
        assert_eq!(items.len() as u64, FLOWS, "{way}");
        let both =
            |name: &str| sum(items, &format!("flow.{name}")) + sum(items, &format!("flow.reverse.{name}"));
        assert_eq!((both("packets.delta"), both("frame_bytes.delta")), (packets, bytes), "{way}");
    }
    let both = |name: &str| {
        points(&metrics, &format!("flow.{name}")) + points(&metrics, &format!("flow.reverse.{name}"))
    };
    assert_eq!((both("packets"), both("frame_bytes")), (packets, bytes), "{way}");
    assert_eq!(points(&metrics, "flow.records"), FLOWS, "{way}");
    assert_eq!(points(&metrics, "flow.ended"), FLOWS, "{way}");
    let overflows = metrics[0]["sum"]["dataPoints"].to_string().matches("otel.metric.overflow").count();
    assert_eq!(overflows, 1, "3 000 ports are more than the limit of 2 000");
}

#[test]
fn all_signals_arrive_by_every_way_and_add_up_to_the_ledger() {
    need!(Collector::installed());
    let token = || Settings { token: Some("s3cret".into()), ..Settings::default() };
    let ways: [(&str, Settings); 5] = [
        ("plain", Settings::default()),
        ("TLS", Settings { tls: Some(Tls::Server), ..Settings::default() }),
        ("mTLS and token", Settings { tls: Some(Tls::Mutual), ..token() }),
        ("token", token()),
        ("basic", Settings { basic: Some(("agent".into(), "s3cret".into())), ..Settings::default() }),
    ];
    for (way, settings) in ways {
        for (protocol, compression) in
            [("grpc", "none"), ("grpc", "zstd"), ("http", "gzip"), ("http", "none")]
        {
            let collector = Collector::start_with(settings.clone());
            let endpoint =
                if protocol == "grpc" { collector.grpc_endpoint() } else { collector.http_endpoint() };
            let program =
                all_signals(&endpoint, protocol).set(&format!("export.otlp.compression={compression}"));
            let program = match settings.tls {
                Some(kind) => tls(program, &collector, kind == Tls::Mutual),
                None => program,
            };
            let file = program.folder().join("secret");
            std::fs::write(&file, "s3cret\n").unwrap();
            let program = if settings.token.is_some() {
                program.set(&format!("export.otlp.bearer_token_file={}", file.display()))
            } else if settings.basic.is_some() {
                program
                    .set("export.otlp.basic_auth.username=agent")
                    .set(&format!("export.otlp.basic_auth.password_file={}", file.display()))
            } else {
                program
            };
            let outcome = program.run().kept_books(0);
            let way = format!("{way}, {protocol}, {compression}");
            assert!(
                outcome.stderr.contains(&format!("otlp traces and logs and metrics to {endpoint}")),
                "{way}"
            );
            assert!(!outcome.stderr.contains("s3cret"), "{way}: {}", outcome.stderr);
            compare(&outcome, &collector, &way);
        }
    }
}

#[test]
fn opentelemetrys_variables_say_where_to_and_who_from() {
    need!(Collector::installed());
    let collector = Collector::start_with(Settings { token: Some("s3cret".into()), ..Settings::default() });
    let outcome = Program::new("replay")
        .output("otlp")
        .arg("-")
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.http_endpoint())
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .variable("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret")
        .variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .variable("OTEL_SERVICE_NAME", "flows")
        .variable("K8S_NODE_NAME", "n1")
        .input(capture(10))
        .run()
        .kept_books(0);
    assert_eq!(amount(&book(&outcome, "otlp:traces")["delivered"])[0], 10);
    let received = collector.received();
    let resource = &received.traces[0]["resourceSpans"][0]["resource"];
    for (name, value) in
        [("service.name", "flows"), ("deployment.environment.name", "test"), ("k8s.node.name", "n1")]
    {
        let found = attribute(resource, name);
        assert_eq!(found, Some(value.into()), "{name}");
    }
}

/// The last value of each series of the agent's own counters, by name and the attributes that `with` names.
fn last(metrics: &[&Value], name: &str, with: &[(&str, &str)]) -> u64 {
    let mut latest: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let of_name = metrics.iter().filter(|metric| metric["name"] == name);
    for point in of_name.flat_map(|metric| metric["sum"]["dataPoints"].as_array().into_iter().flatten()) {
        if with.iter().any(|(key, value)| attribute(point, key) != Some((*value).into())) {
            continue;
        }
        let time = point["timeUnixNano"].as_str().unwrap().parse().unwrap();
        let value = point["asInt"].as_str().unwrap().parse().unwrap();
        let known = latest.entry(point["attributes"].to_string()).or_default();
        *known = (*known).max((time, value));
    }
    latest.values().map(|(_, value)| value).sum()
}

/// With `agent_metrics` the ledger comes over the same connection, at the end as it was at the end.
#[test]
fn the_agents_own_figures_are_those_of_its_last_statistics() {
    need!(Collector::installed());
    let collector = Collector::start();
    let program = replay(&collector.grpc_endpoint(), "grpc").set("export.otlp.agent_metrics=true");
    let outcome = program.input(capture(FLOWS)).run().kept_books(0);
    let received = collector.received();
    let metrics = received.metric_list();
    assert_eq!(received.spans().len() as u64, FLOWS);
    let seen = outcome.number("/ledger/seen/packets");
    assert_eq!((seen, last(&metrics, "mermin_seen_packets", &[])), (FLOWS, FLOWS));
    assert_eq!(last(&metrics, "mermin_verdict_packets", &[("verdict", "metered")]), FLOWS);
    assert_eq!(last(&metrics, "mermin_verdict_packets", &[]), FLOWS);
    assert_eq!(last(&metrics, "mermin_released_packets", &[]), FLOWS);
    assert_eq!(last(&metrics, "mermin_seen_buffer_bytes", &[]), outcome.number("/ledger/seen/buffer_bytes"));
}

#[test]
fn a_collector_that_does_not_know_the_agent_gets_nothing_and_the_book_says_so() {
    need!(Collector::installed());
    let collector = Collector::start_with(Settings { token: Some("s3cret".into()), ..Settings::default() });
    let program = replay(&collector.grpc_endpoint(), "grpc").input(capture(10));
    let outcome = program.run().kept_books(74);
    assert_eq!(amount(&book(&outcome, "otlp:traces")["dropped"]["refused"])[0], 10);
    assert!(outcome.stderr.contains("UNAUTHENTICATED"), "{}", outcome.stderr);
}

/// This machine's own authorities are in `SSL_CERT_FILE`; none of them has signed the collector's certificate.
#[test]
fn a_certificate_of_an_unknown_authority_is_not_trusted() {
    need!(Collector::installed());
    let collector = Collector::start_with(Settings { tls: Some(Tls::Server), ..Settings::default() });
    let program = replay(&collector.grpc_endpoint(), "grpc");
    let program = program.set("pipeline.shutdown_timeout=500ms").input(capture(10));
    let running = program.start_reading();
    says(&running, "UnknownIssuer");
    let outcome = running.interrupt().kept_books(75);
    assert_eq!(amount(&book(&outcome, "otlp:traces")["dropped"]["shutdown_timeout"])[0], 10);
    assert_eq!(collector.received().spans().len(), 0);
}
