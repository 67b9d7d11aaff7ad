//! Ends that nobody wants: panics in every stage, outputs that are stuck when the run is to end, channels that are
//! small and full. Whatever happens, every thread ends and the books say where the packets are.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "parts/bug.rs"]
mod bug;
mod parts;

use bug::bug;
use mermin_flow::{Amount, Exporter, Failure, FlowConfig, FlowRecord, Interval, Receipt, Source};
use mermin_pipeline::{Outcome, PipelineConfig, Running, Stages, start};
use parts::{Collected, Names, Synthetic, assert_settled, config, count, in_reader, stages};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Panics on a record whose sequence is high enough, as an exporter.
struct Bug(u32);

impl Bug {
    fn bite(&self, record: &FlowRecord) {
        if record.sequence >= self.0 {
            bug();
        }
    }
}

impl Exporter for Bug {
    fn name(&self) -> &str {
        "bug"
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        for record in records {
            self.bite(record);
            receipt.delivered += Amount::of(record);
        }
        Ok(())
    }

    fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
        Ok(())
    }
}

/// Waits for an end that comes by itself.
fn ends<S: Source + 'static>(running: Running<S>) -> Outcome<S> {
    let began = Instant::now();
    let outcome = running.wait(|| {
        assert!(began.elapsed() < Duration::from_secs(60), "the run does not end");
        false
    });
    assert!(outcome.statistics.outputs.iter().all(|(_, book)| book.queued == Amount::default()));
    outcome
}

/// Updates every 100 ms of capture time: many records.
fn chatty() -> FlowConfig {
    FlowConfig { active_timeout: Interval(Duration::from_millis(100)), ..FlowConfig::default() }
}

#[test]
fn a_panic_of_an_exporter_stands_in_its_book_and_the_other_outputs_lose_nothing() {
    let collected = Collected::default();
    let stages = Stages {
        exporters: vec![Box::new(Bug(2)), Box::new(collected.clone())],
        ..stages(Synthetic::<false>::new(100_000, 10), &collected)
    };
    let outcome = ends(start(&config(2, 1), &chatty(), stages).unwrap());
    assert_eq!(outcome.panicked, ["out-bug"]);
    let ledger = &outcome.statistics.ledger;
    assert!(ledger.balances() && ledger.is_settled(), "{ledger:#?}");
    let [(_, bug), (_, other)] = &outcome.statistics.outputs[..] else { panic!("two outputs") };
    assert!(bug.dropped["crash"].packets > 0);
    assert_eq!(bug.handed.packets, bug.delivered.packets + bug.dropped["crash"].packets);
    assert_eq!(other.delivered.packets, ledger.released.packets);
}

#[test]
fn a_panic_of_the_reader_loses_nothing_that_it_has_handed_over() {
    let collected = Collected::default();
    let source = Synthetic::<true> {
        before_poll: Some(Box::new(|sent| {
            if sent >= 1_000 {
                bug();
            }
        })),
        ..Synthetic::new(u64::MAX, 10)
    };
    let stages = stages(source, &collected);
    // Two polls of 512, in batches of 8.
    let config = PipelineConfig { packet_channel_capacity: count(64), ..config(2, 1) };
    let outcome = ends(start(&config, &FlowConfig::default(), stages).unwrap());
    assert_eq!(outcome.panicked, ["reader"]);
    let ledger = &outcome.statistics.ledger;
    assert!(!ledger.balances(), "what the source has seen is not known");
    assert_eq!(ledger.to_json()["seen"]["buffers"], serde_json::Value::Null);
    assert!(ledger.released.packets > 0);
    assert_eq!(ledger.released, ledger.metered);
}

#[test]
fn a_source_that_does_not_answer_leaves_its_book_unknown_and_the_others_right() {
    for workers in [1, 2] {
        let (collected, let_go) = (Collected::default(), Arc::new(AtomicBool::new(false)));
        // Does not come back from its third poll until it is let go: a file on a mount that hangs.
        let (silent, mut polls) = (Arc::clone(&let_go), 0);
        let hangs = move |_| {
            polls += 1;
            while polls == 3 && !silent.load(Ordering::Acquire) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        };
        let source =
            Synthetic { before_poll: Some(Box::new(hangs)), ..Synthetic::<false>::new(u64::MAX, 10) };
        let stages = stages(source, &collected);
        let timeout = Interval(Duration::from_millis(200));
        let config = PipelineConfig { shutdown_timeout: timeout, ..config(workers, 1) };
        let running = start(&config, &chatty(), stages).unwrap();
        let observer = running.observer();
        let outcome = running.wait(move || observer.packets() == 1_024);
        let_go.store(true, Ordering::Release);
        assert!(outcome.timed_out && outcome.source.is_none() && outcome.panicked.is_empty());
        let statistics = &outcome.statistics;
        let ledger = &statistics.ledger;
        assert!(!ledger.has_sources_book() && ledger.metering_balances(), "{ledger:#?}");
        let waiting = ledger.in_flight["packet_channel"];
        assert_eq!((ledger.metered + waiting).packets, 1_024);
        assert_eq!(statistics.capture_nanos, 1_023 * 1_000_000);
        let json = ledger.to_json();
        for unknown in ["/seen/packets", "/seen/bytes", "/seen/buffers", "/seen/buffer_bytes", "/unmetered"] {
            assert_eq!(json.pointer(unknown), Some(&serde_json::Value::Null), "{unknown}");
        }
        let inexact =
            ["seen.packets", "seen.bytes", "seen.buffers", "seen.buffer_bytes", "unmetered", "lost"];
        assert_eq!(json["inexact"], serde_json::json!(inexact));
    }
}

#[test]
fn an_output_that_is_stuck_at_the_end_does_not_keep_records_from_the_others() {
    let (stuck, healthy) = (Collected { name: "stuck", ..Collected::default() }, Collected::default());
    stuck.stuck.store(true, Ordering::Release);
    // The last eighth of it is what the healthy output has for sure, on a busy machine too.
    let timeout = Interval(Duration::from_secs(16));
    let config = PipelineConfig { shutdown_timeout: timeout, ..config(2, 1) };
    let stages = Stages {
        exporters: vec![Box::new(stuck.clone()), Box::new(healthy.clone())],
        output_queue_capacity: 100,
        ..stages(Synthetic::<true>::new(20_000, 2_000), &healthy)
    };
    let running = start(&config, &FlowConfig::default(), stages).unwrap();
    let observer = running.observer();
    let outcome = running.wait(move || observer.packets() == 20_000);
    assert!(outcome.timed_out && outcome.panicked.is_empty());
    let ledger = &outcome.statistics.ledger;
    assert!(ledger.balances() && ledger.is_settled(), "{ledger:#?}");
    let [(_, stuck), (_, healthy)] = &outcome.statistics.outputs[..] else { panic!("two outputs") };
    assert_eq!(healthy.delivered.packets, 20_000, "{healthy:?}, {stuck:?}");
    assert_eq!((stuck.handed.packets, stuck.delivered.packets), (20_000, 0));
    assert!(stuck.dropped["shutdown_timeout"].packets > 0, "{stuck:?}");
    let dropped: u64 = stuck.dropped.values().map(|dropped| dropped.packets).sum();
    assert_eq!((stuck.queued.packets, dropped), (0, 20_000));
}

#[test]
fn a_replay_that_waits_for_a_stuck_output_can_be_ended_and_its_books_balance() {
    for config in [config(2, 1), in_reader()] {
        a_stuck_replay_ends(config);
    }
}

fn a_stuck_replay_ends(config: PipelineConfig) {
    let collected = Collected::default();
    collected.stuck.store(true, Ordering::Release);
    let timeout = Interval(Duration::from_secs(2));
    let config = PipelineConfig {
        packet_channel_capacity: count(100),
        enrichment_channel_capacity: count(10),
        shutdown_timeout: timeout,
        ..config
    };
    let flow = FlowConfig { table_capacity: count(64), ..FlowConfig::default() };
    let stages =
        Stages { output_queue_capacity: 10, ..stages(Synthetic::<false>::new(1_000_000, 5_000), &collected) };
    let running = start(&config, &flow, stages).unwrap();
    let observer = running.observer();
    let (mut packets, mut quiet) = (0, 0);
    let outcome = running.wait(move || {
        // Everything is full when nothing moves any more.
        let now = observer.packets();
        quiet = if now == packets { quiet + 1 } else { 0 };
        packets = now;
        quiet > 200
    });
    assert!(outcome.timed_out && outcome.source.is_some());
    let ledger = &outcome.statistics.ledger;
    assert!(ledger.balances() && ledger.is_settled(), "{ledger:#?}");
    assert!(ledger.seen.packets < 1_000_000);
}

#[test]
fn live_a_channel_smaller_than_a_poll_of_the_source_moves_on() {
    for capacity in [1, 100] {
        let collected = Collected::default();
        let config = PipelineConfig { packet_channel_capacity: count(capacity), ..config(1, 1) };
        let stages = stages(Synthetic::<true>::new(5_000, 10), &collected);
        let running = start(&config, &FlowConfig::default(), stages).unwrap();
        let (observer, began) = (running.observer(), Instant::now());
        let outcome = running.wait(move || {
            assert!(began.elapsed() < Duration::from_secs(60), "the reader is stuck");
            observer.packets() == 5_000
        });
        assert_settled(&outcome);
        assert_eq!(outcome.statistics.ledger.released.packets, 5_000);
    }
}

#[test]
fn many_may_ask_for_snapshots_at_once() {
    let collected = Collected::default();
    let stages = Stages {
        enricher: Some(Arc::new(Names)),
        ..stages(Synthetic::<true>::new(u64::MAX, 100), &collected)
    };
    let running = start(&config(2, 2), &FlowConfig::default(), stages).unwrap();
    let lookers: Vec<_> = (0..4)
        .map(|_| {
            let observer = running.observer();
            std::thread::spawn(move || {
                for _ in 0..10 {
                    let statistics = observer.snapshot(Duration::from_secs(20)).expect("nobody is forgotten");
                    assert!(statistics.ledger.balances());
                }
            })
        })
        .collect();
    let outcome = running.wait(|| lookers.iter().all(|looker| looker.is_finished()));
    for looker in lookers {
        looker.join().unwrap();
    }
    assert_settled(&outcome);
}
