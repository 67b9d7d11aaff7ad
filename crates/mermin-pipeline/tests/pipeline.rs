//! The whole pipeline between a source and an exporter made for the test: books, order, backpressure, snapshots.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod parts;

use mermin_flow::{FlowConfig, FlowEvent, FlowRecord};
use mermin_pipeline::{PipelineConfig, Stages, Statistics, start};
use parts::{Collected, Synthetic, assert_settled, config, count, in_reader, stages};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn replay(
    config: &PipelineConfig,
    flow: &FlowConfig,
    packets: u64,
    flows: u64,
) -> (Vec<FlowRecord>, Statistics) {
    let collected = Collected::default();
    let running = start(config, flow, stages(Synthetic::<false>::new(packets, flows), &collected)).unwrap();
    let outcome = running.wait(|| false);
    assert_settled(&outcome);
    let records = std::mem::take(&mut *collected.records.lock().unwrap());
    (records, outcome.statistics)
}

#[test]
fn every_packet_stands_in_a_record_and_in_the_books() {
    let (records, statistics) = replay(&config(2, 1), &FlowConfig::default(), 100_000, 500);
    let packets: u64 = records.iter().map(|r| r.forward.delta.packets + r.reverse.delta.packets).sum();
    assert_eq!(packets, 100_000);
    assert_eq!(statistics.ledger.released.packets, 100_000);
    assert_eq!(statistics.outputs[0].1.delivered.packets, 100_000);
    assert!(records.iter().all(|r| r.source.identity.name.as_deref() == Some("named")));
    assert_eq!(statistics.ledger.processed(), 100_000);
}

#[test]
fn records_of_one_flow_come_in_order_and_once() {
    let (records, _) = replay(&config(3, 2), &FlowConfig::default(), 400_000, 50);
    let mut next = HashMap::new();
    for record in &records {
        let expected = next.entry(record.id).or_insert(0);
        assert_eq!(record.sequence, *expected);
        *expected = if record.event == FlowEvent::End { u32::MAX } else { *expected + 1 };
    }
    assert!(next.values().all(|sequence| *sequence == u32::MAX));
    assert!(records.len() > 300, "400 s give updates: {}", records.len());
}

#[test]
fn neither_workers_nor_capacities_change_the_records() {
    let flow = FlowConfig { table_capacity: count(256), ..FlowConfig::default() };
    let sorted = |config: &PipelineConfig| {
        let (mut records, _) = replay(config, &flow, 60_000, 700);
        records.sort_by_key(|record| (record.id, record.sequence));
        records
    };
    let reference = sorted(&config(1, 1));
    assert!(reference.iter().any(|r| r.end_reason == Some(mermin_flow::FlowEndReason::LackOfResources)));
    for other in [
        config(2, 4),
        config(8, 2),
        PipelineConfig { packet_channel_capacity: count(1), ..config(2, 1) },
        PipelineConfig {
            packet_channel_capacity: count(37),
            enrichment_channel_capacity: count(1),
            ..config(3, 3)
        },
        in_reader(),
        PipelineConfig { enrichment_channel_capacity: count(1), ..in_reader() },
    ] {
        assert!(sorted(&other) == reference, "{other:?}");
    }
}

/// The second of three active intervals has a packet that is late.
#[test]
fn records_allow_for_packets_that_are_late() {
    const SECOND: u64 = 1_000_000_000;
    for config in [config(2, 1), in_reader()] {
        let collected = Collected::default();
        let mut source = Synthetic::<false>::new(180_000, 1);
        source.late = Some((70_000, 30 * SECOND));
        let running = start(&config, &FlowConfig::default(), stages(source, &collected)).unwrap();
        assert_settled(&running.wait(|| false));
        let records = collected.records.lock().unwrap();
        let second = records.iter().find(|record| record.sequence == 1).unwrap();
        let from = (second.end_time - second.counts_from) / SECOND;
        assert_eq!((second.forward.delta.packets + second.reverse.delta.packets, from), (60_000, 89));
    }
}

#[test]
fn enrichment_can_be_bypassed() {
    let collected = Collected::default();
    let stages = Stages { enricher: None, ..stages(Synthetic::<false>::new(10_000, 10), &collected) };
    let outcome = start(&config(2, 1), &FlowConfig::default(), stages).unwrap().wait(|| false);
    assert_settled(&outcome);
    let records = collected.records.lock().unwrap();
    assert!(!records.is_empty() && records.iter().all(|r| r.source.identity.name.is_none()));
}

#[test]
fn a_snapshot_of_a_running_pipeline_balances() {
    snapshots_balance::<true>(&config(2, 2));
    snapshots_balance::<false>(&in_reader());
}

fn snapshots_balance<const LIVE: bool>(config: &PipelineConfig) {
    let collected = Collected::default();
    let source = Synthetic::<LIVE>::new(u64::MAX, 1_000);
    let running = start(config, &FlowConfig::default(), stages(source, &collected)).unwrap();
    let observer = running.observer();
    let done = Arc::new(AtomicBool::new(false));
    let looker = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut seen = 0;
            for _ in 0..20 {
                let statistics = observer.snapshot(Duration::from_secs(20)).expect("no stage is held up");
                assert!(statistics.ledger.balances(), "{:#?}", statistics.ledger);
                assert!(statistics.ledger.seen.buffers >= seen);
                assert_eq!(statistics.flows_active, statistics.flows_created - statistics.flows_released);
                seen = statistics.ledger.seen.buffers;
            }
            done.store(true, Ordering::Release);
            seen
        })
    };
    let outcome = running.wait(|| done.load(Ordering::Acquire) || looker.is_finished());
    assert!(looker.join().unwrap() > 0);
    assert_settled(&outcome);
}

#[test]
fn live_a_stuck_output_loses_records_in_its_own_book_only() {
    let collected = Collected::default();
    collected.stuck.store(true, Ordering::Release);
    let flow = FlowConfig { table_capacity: count(64), ..FlowConfig::default() };
    let stages =
        Stages { output_queue_capacity: 100, ..stages(Synthetic::<true>::new(50_000, 5_000), &collected) };
    let running = start(&config(2, 1), &flow, stages).unwrap();
    let (observer, stuck, began) = (running.observer(), Arc::clone(&collected.stuck), Instant::now());
    let outcome = running.wait(move || {
        let all = observer.packets() == 50_000;
        if all {
            stuck.store(false, Ordering::Release);
        }
        assert!(began.elapsed() < Duration::from_secs(60), "a stuck output holds up the reader");
        all
    });
    assert_settled(&outcome);
    let book = &outcome.statistics.outputs[0].1;
    assert!(book.dropped["queue_full"].records > 1_000, "{book:?}");
    assert_eq!(outcome.statistics.ledger.released.packets, 50_000);
}

/// What a live output has no room for becomes fewer records, not fewer packets. The other one has to keep up with a
/// source that knows no pause, so it may have to merge a little as well.
#[test]
fn live_a_stuck_output_gets_longer_intervals_and_every_packet() {
    const PACKETS: u64 = 100_000;
    let (stuck, healthy) = (Collected { name: "stuck", ..Collected::default() }, Collected::default());
    stuck.stuck.store(true, Ordering::Release);
    let flow = FlowConfig { active_timeout: mermin_flow::Interval::seconds(1), ..FlowConfig::default() };
    let stages = Stages {
        exporters: vec![Box::new(stuck.clone()), Box::new(healthy.clone())],
        output_queue_capacity: 64,
        ..stages(Synthetic::<true>::new(PACKETS, 10), &healthy)
    };
    // Room for all packets: what waits in the reader instead is merged, and gives fewer records.
    let config = PipelineConfig { packet_channel_capacity: count(PACKETS as usize + 1), ..config(2, 1) };
    let running = start(&config, &flow, stages).unwrap();
    let (observer, release, began) = (running.observer(), Arc::clone(&stuck.stuck), Instant::now());
    let outcome = running.wait(move || {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not come: {:?}", observer.pulse());
        // What the last packet made due stands in the outputs' books, which are of the same moment.
        let metered = |statistics: Statistics| statistics.ledger.metered.packets;
        let all = observer.snapshot(Duration::from_secs(60)).map_or(0, metered) == PACKETS;
        if all {
            release.store(false, Ordering::Release);
        }
        all
    });
    assert_settled(&outcome);
    let [(_, book), (_, other)] = &outcome.statistics.outputs[..] else { panic!("two outputs") };
    assert_eq!((book.delivered.packets, &book.dropped), (PACKETS, &std::collections::BTreeMap::new()));
    assert!(book.merged > 500 && book.handed == other.handed, "{book:?}");
    assert!(other.merged < book.merged && other.delivered.packets == PACKETS, "{other:?}");
    for (collected, book) in [(stuck, book), (healthy, other)] {
        let records = std::mem::take(&mut *collected.records.lock().unwrap());
        let mut flows = HashMap::<_, (Option<u32>, u64, bool)>::new();
        let mut has_gaps = false;
        for record in &records {
            let (sequence, packets, ended) = flows.entry(record.id).or_default();
            assert!(sequence.is_none_or(|before| before < record.sequence) && !*ended);
            has_gaps |= record.sequence != sequence.map_or(0, |before| before + 1);
            (*sequence, *ended) = (Some(record.sequence), record.event == FlowEvent::End);
            *packets += record.forward.delta.packets + record.reverse.delta.packets;
            assert_eq!(*packets, record.forward.total.packets + record.reverse.total.packets);
        }
        assert_eq!((flows.len(), has_gaps), (10, book.merged > 0));
        assert!(flows.values().all(|(.., ended)| *ended));
    }
}

#[test]
fn an_output_that_never_returns_is_left_behind_with_its_records_in_the_books() {
    let collected = Collected::default();
    collected.stuck.store(true, Ordering::Release);
    let config = PipelineConfig {
        shutdown_timeout: mermin_flow::Interval(Duration::from_millis(200)),
        ..config(1, 1)
    };
    let running =
        start(&config, &FlowConfig::default(), stages(Synthetic::<true>::new(1_000, 10), &collected))
            .unwrap();
    let observer = running.observer();
    let outcome = running.wait(move || observer.packets() == 1_000);
    assert!(outcome.timed_out);
    let book = &outcome.statistics.outputs[0].1;
    assert_eq!((book.queued.packets, book.delivered.packets), (0, 0), "the run is over: nothing waits");
    assert_eq!(book.dropped["shutdown_timeout"].packets, 1_000);
    assert!(outcome.statistics.ledger.balances());
}

#[cfg(feature = "hold")]
mod held {
    use super::*;
    use mermin_flow::Tally;
    use mermin_pipeline::Hold;

    #[test]
    fn a_replay_with_backpressure_waits_for_held_workers() {
        let collected = Collected::default();
        let hold = Hold::default();
        hold.set(true);
        let stages =
            Stages { hold: hold.clone(), ..stages(Synthetic::<false>::new(200_000, 100), &collected) };
        let running = start(&config(2, 1), &FlowConfig::default(), stages).unwrap();
        let (observer, seen) = (running.observer(), running.observer());
        let mut rounds = 0;
        let outcome = running.wait(move || {
            rounds += 1;
            if rounds == 50 {
                assert!(observer.packets() < 20_000, "the channel holds 10 000");
                let at_work = observer.pulse().flow_workers.at_work;
                assert!(at_work > Duration::from_millis(50), "{at_work:?} at one message");
                hold.set(false);
            }
            false
        });
        assert_eq!(seen.pulse().flow_workers.at_work, Duration::ZERO);
        assert_settled(&outcome);
        assert_eq!(outcome.statistics.ledger.released.packets, 200_000);
    }

    /// However many packets, and whatever was merged with what: the records that they would have made without a hold.
    #[test]
    fn live_with_backpressure_held_workers_lose_nothing_while_flows_fit() {
        let hold = Hold::default();
        hold.set(true);
        let collected = Collected::default();
        let stages =
            Stages { hold: hold.clone(), ..stages(Synthetic::<true>::new(200_000, 100), &collected) };
        let config = PipelineConfig { coalescing_capacity: NonZeroUsize::new(100).unwrap(), ..config(2, 1) };
        let running = start(&config, &FlowConfig::default(), stages).unwrap();
        let (observer, seen) = (running.observer(), running.observer());
        let outcome = running.wait(move || {
            let all = observer.packets() == 200_000;
            if all {
                hold.set(false);
            }
            all
        });
        assert_settled(&outcome);
        let ledger = &outcome.statistics.ledger;
        assert_eq!((ledger.released.packets, ledger.lost.values().copied().sum()), (200_000, Tally::ZERO));
        let waiting = seen.pulse().coalescing.unwrap();
        assert!(
            waiting.merges > 180_000 && waiting.room.high_water <= 100 && waiting.room.depth == 0,
            "{waiting:?}"
        );
    }

    #[test]
    fn without_backpressure_held_workers_cost_an_exact_loss() {
        let collected = Collected::default();
        let hold = Hold::default();
        hold.set(true);
        let config = PipelineConfig { enable_backpressure: false, ..config(2, 1) };
        let stages =
            Stages { hold: hold.clone(), ..stages(Synthetic::<false>::new(200_000, 100), &collected) };
        let running = start(&config, &FlowConfig::default(), stages).unwrap();
        let observer = running.observer();
        let outcome = running.wait(move || {
            if observer.packets() == 200_000 {
                hold.set(false);
            }
            false
        });
        assert_settled(&outcome);
        let ledger = &outcome.statistics.ledger;
        let lost = ledger.lost["packet_channel_full"];
        assert!(lost.packets > 180_000);
        assert_eq!(lost.packets + ledger.released.packets, 200_000);
        assert_eq!(
            lost + ledger.released,
            Tally { packets: 200_000, bytes: 22_800_000, buffers: 200_000, buffer_bytes: 22_800_000 }
        );
    }
}
