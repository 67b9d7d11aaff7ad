//! Collectors that fail: nothing is lost within the queue's bound, and every difference stands in the output's book.

use super::{amount, book, capture, replay, says};
use mermin_tests::need;
use mermin_tests::program::Outcome;
use mermin_tests::servers::collector::{Collector, Received};
use mermin_tests::servers::faulty_collector::{Answer, FaultyCollector};
use std::collections::HashSet;
use std::time::Duration;

const FLOWS: u64 = 20_000;
const LONG: Duration = Duration::from_secs(60);

/// Spans by their own identity: a request that got no answer comes again.
fn distinct(received: &Received) -> u64 {
    let spans = received.spans();
    let ids: HashSet<_> =
        spans.iter().map(|span| (span["traceId"].as_str(), span["spanId"].as_str())).collect();
    ids.len() as u64
}

fn all_delivered(outcome: &Outcome) {
    let book = book(outcome, "otlp:traces");
    let released = ["packets", "bytes"].map(|unit| outcome.number(&format!("/ledger/released/{unit}")));
    assert_eq!(amount(&book["delivered"]), [FLOWS, released[0], released[1]], "{book}");
    assert_eq!(book["dropped"], serde_json::json!({}));
}

#[test]
fn a_collector_that_is_killed_and_comes_back_gets_everything() {
    need!(Collector::installed());
    for protocol in ["grpc", "http"] {
        let mut collector = Collector::start();
        let endpoint = if protocol == "grpc" { collector.grpc_endpoint() } else { collector.http_endpoint() };
        // Whatever it has by then: the capture is longer than the queue, so the run can't have ended.
        let running = {
            collector.kill();
            let program = replay(&endpoint, protocol).set("export.queue_capacity=2000");
            program.input(capture(FLOWS)).start_reading()
        };
        says(&running, "; trying again");
        collector.restart();
        says(&running, "takes requests again");
        collector.kill();
        collector.restart();
        let outcome = running.wait(LONG).kept_books(0);
        all_delivered(&outcome);
        assert_eq!(distinct(&collector.received()), FLOWS, "{protocol}");
    }
}

#[test]
fn a_collector_that_hangs_and_goes_on_gets_everything() {
    need!(Collector::installed());
    let collector = Collector::start();
    let program = replay(&collector.grpc_endpoint(), "grpc").set("export.otlp.timeout=300ms");
    collector.hang();
    let running = program.input(capture(FLOWS)).start_reading();
    says(&running, "no answer within 300ms");
    collector.resume();
    let outcome = running.wait(LONG).kept_books(0);
    all_delivered(&outcome);
    assert_eq!(distinct(&collector.received()), FLOWS);
}

#[test]
fn whatever_a_collector_answers_nothing_is_lost_that_may_still_be_taken() {
    for protocol in ["grpc", "http"] {
        let collector = FaultyCollector::start(|asked| match asked.number {
            0 => Answer::unavailable(None),
            1 => Answer::too_many(Some(Duration::from_secs(1))),
            2 => Answer::Disconnect,
            3 => Answer::BreakOff,
            5 => Answer::AcceptAfter(Duration::from_millis(100)),
            6 => Answer::Hang,
            _ => Answer::Accept,
        });
        let program = replay(&collector.endpoint(), protocol).set("export.otlp.timeout=2s");
        let outcome = program.input(capture(FLOWS)).run().kept_books(0);
        all_delivered(&outcome);
        // What was under way on a connection that broke may have been taken, and comes again.
        let kept = collector.kept();
        let resources = kept.traces.iter().flat_map(|request| &request.resource_spans);
        let spans = resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
        let distinct: HashSet<_> = spans.map(|span| (&span.trace_id, &span.span_id)).collect();
        assert_eq!(distinct.len() as u64, FLOWS, "{protocol}");
    }
}

#[test]
fn what_a_collector_rejects_in_part_stands_in_the_book_and_its_bounds_are_named() {
    let collector = FaultyCollector::start(|asked| match asked.number {
        1 => Answer::Partial { rejected: 7, message: "too old".into() },
        2 => Answer::Warn("nearly".into()),
        _ => Answer::Accept,
    });
    let program = replay(&collector.endpoint(), "grpc").input(capture(FLOWS));
    let outcome = program.run().kept_books(74);
    let book = book(&outcome, "otlp:traces");
    assert_eq!(book["delivered"]["records"], FLOWS - 7, "{book}");
    assert_eq!(book["dropped"]["rejected"]["records"], 7, "{book}");
    assert!(book["inexact"].to_string().contains("dropped.rejected.packets"), "{book}");
    assert_eq!(collector.kept().span_sums().items, FLOWS - 7);
    assert!(outcome.stderr.contains("rejects 7 of"), "{}", outcome.stderr);
}

#[test]
fn what_a_collector_refuses_for_good_is_dropped_at_once() {
    let collector = FaultyCollector::start(|asked| match asked.number {
        0 => Answer::invalid(),
        _ => Answer::Accept,
    });
    let outcome = replay(&collector.endpoint(), "http").input(capture(FLOWS)).run().kept_books(74);
    let book = book(&outcome, "otlp:traces");
    let refused = amount(&book["dropped"]["refused"])[0];
    assert!(refused > 0 && refused < FLOWS);
    assert_eq!(amount(&book["delivered"])[0], FLOWS - refused);
    assert_eq!(collector.kept().span_sums().items, FLOWS - refused);
}

/// As live capture does: the queue is the bound, and what has no room in it is counted.
#[test]
fn without_backpressure_the_queue_is_the_bound() {
    let mut collector = FaultyCollector::start(|_| Answer::Accept);
    collector.stop();
    let program = replay(&collector.endpoint(), "grpc").set("pipeline.enable_backpressure=false");
    let program = program.set("export.queue_capacity=1000").set("export.otlp.batch.records=100");
    let running = program.input(capture(FLOWS)).start_reading();
    says(&running, "; trying again");
    collector.restart();
    let outcome = running.wait(LONG).kept_books(0);
    let book = book(&outcome, "otlp:traces");
    let delivered = amount(&book["delivered"])[0];
    let dropped = book["dropped"].as_object().unwrap();
    assert!(dropped.keys().all(|reason| reason == "queue_full" || reason == "breaker_open"), "{book}");
    let dropped: u64 = dropped.values().map(|term| amount(term)[0]).sum();
    assert_eq!(delivered + dropped + amount(&book["merged"])[0], amount(&book["handed"])[0]);
    assert_eq!(collector.kept().span_sums().items, delivered, "{book}");
    assert!(delivered >= 1_000, "{book}");
}
