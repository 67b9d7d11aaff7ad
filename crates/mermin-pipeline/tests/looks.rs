//! Looking at a pipeline while it runs: flows, stages, and counts when no snapshot can be had.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod parts;

use mermin_flow::{FlowConfig, FlowOrder, FlowRecord};
use mermin_pipeline::{Hold, Observer, PipelineConfig, Pulse, Stages, Statistics, start};
use parts::{Collected, Synthetic, assert_settled, config, in_reader, stages};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Something that must come to be does so within this time.
const LONG: Duration = Duration::from_secs(20);

fn ids(flows: &[FlowRecord]) -> Vec<u128> {
    let mut ids: Vec<_> = flows.iter().map(|flow| flow.id.0).collect();
    ids.sort_unstable();
    ids
}

fn until(observer: &Observer, holds: impl Fn(&Pulse) -> bool) -> Pulse {
    let began = Instant::now();
    loop {
        let pulse = observer.pulse();
        if holds(&pulse) {
            return pulse;
        }
        assert!(began.elapsed() < LONG, "{pulse:?}");
        std::thread::yield_now();
    }
}

/// What is seen of flows is what their records tell afterwards.
#[test]
fn flows_are_seen_while_they_live() {
    let collected = Collected::default();
    let source = Synthetic::<true>::new(9_000, 3_000);
    let running = start(&config(3, 1), &FlowConfig::default(), stages(source, &collected)).unwrap();
    let observer = running.observer();
    until(&observer, |pulse| pulse.flow_workers.packets == 9_000);
    let seen = observer.flows(FlowOrder::Packets, 900, LONG).unwrap();
    assert!(seen.complete);
    assert_eq!(seen.flows.len(), 900);
    assert!(seen.flows.iter().all(|flow| flow.forward.total.packets == 3 && flow.end_reason.is_none()));
    let recent = observer.flows(FlowOrder::Recent, 3, LONG).unwrap().flows;
    let last = parts::T0 + 8_999 * 1_000_000;
    assert_eq!(
        recent.iter().map(|flow| flow.end_time).collect::<Vec<_>>(),
        [last, last - 1_000_000, last - 2_000_000]
    );
    assert_eq!(observer.flows(FlowOrder::Bytes, 1_000_000, LONG).unwrap().flows.len(), 1_000, "the most");
    let outcome = running.wait(|| true);
    assert_settled(&outcome);
    let records = collected.records.lock().unwrap();
    let known = ids(&records);
    assert_eq!(records.len(), 3_000);
    assert!(ids(&seen.flows).iter().all(|id| known.binary_search(id).is_ok()));
    assert_eq!(records.iter().map(|record| record.forward.delta.packets).sum::<u64>(), 9_000);
}

/// The reader that meters itself looks as well, and packets go on meanwhile.
#[test]
fn flows_are_seen_in_the_readers_own_table() {
    let collected = Collected::default();
    let source = Synthetic::<false>::new(u64::MAX, 20_000);
    let running = start(&in_reader(), &FlowConfig::default(), stages(source, &collected)).unwrap();
    let observer = running.observer();
    until(&observer, |pulse| pulse.reader.packets > 50_000);
    let before = observer.pulse().reader.packets;
    let seen = observer.flows(FlowOrder::Bytes, 10, LONG).unwrap();
    assert!(seen.complete && seen.flows.len() == 10);
    until(&observer, |pulse| pulse.reader.packets > before);
    assert_settled(&running.wait(|| true));
}

/// Nobody but who asked notices.
#[test]
fn a_look_that_panics_is_unanswered_and_costs_nothing() {
    let (collected, hold) = (Collected::default(), Hold::default());
    let stages = Stages { hold: hold.clone(), ..stages(Synthetic::<true>::new(900, 300), &collected) };
    let running = start(&config(1, 1), &FlowConfig::default(), stages).unwrap();
    let observer = running.observer();
    until(&observer, |pulse| pulse.flow_workers.packets == 900);
    hold.panic_once();
    let seen = observer.flows(FlowOrder::Packets, 10, Duration::from_millis(300)).unwrap();
    assert!(!seen.complete && seen.flows.is_empty());
    assert!(observer.flows(FlowOrder::Packets, 10, LONG).unwrap().complete);
    assert!(observer.snapshot(LONG).unwrap().ledger.balances());
    assert_eq!(observer.pulse().flow_workers.panics, 1);
    assert_settled(&running.wait(|| true));
}

#[test]
fn details_are_told_where_they_are_wanted() {
    let pulse = |enable_metrics: bool| {
        let (collected, source) = (Collected::default(), Synthetic::<true>::new(30_000, 30_000));
        let config = PipelineConfig { enable_metrics, ..config(2, 2) };
        let flow = FlowConfig { start_records: true, ..FlowConfig::default() };
        let running = start(&config, &flow, stages(source, &collected)).unwrap();
        let observer = running.observer();
        let pulse = until(&observer, |pulse| pulse.outputs[0].delivered == 30_000);
        assert_settled(&running.wait(|| true));
        pulse
    };
    let waits = |channel: &mermin_pipeline::ChannelPulse| {
        channel.wait.as_ref().map(|wait| wait.buckets.iter().map(|(_, count)| count).sum::<u64>())
    };
    let plain = pulse(false);
    let (channel, workers) = plain.enrichment.as_ref().unwrap();
    assert_eq!([waits(&plain.packet_channel), waits(channel), waits(&plain.outputs[0].queue)], [None; 3]);
    assert_eq!((workers.threads, workers.records, plain.detailed), (2, 30_000, false));
    let detailed = pulse(true);
    let (channel, _) = detailed.enrichment.as_ref().unwrap();
    for (name, count) in [
        ("packet_channel", waits(&detailed.packet_channel)),
        ("enrichment_channel", waits(channel)),
        ("output", waits(&detailed.outputs[0].queue)),
    ] {
        // Batches hold at most 1 024 observations or 256 records, and at least one.
        let count = count.unwrap();
        assert!((30..=30_000).contains(&count), "{name}: {count}");
    }
    assert!(detailed.reader.idle.is_some() && detailed.detailed);
}

/// Everything that metrics tell as a counter.
fn counters(statistics: &Statistics) -> BTreeMap<String, u64> {
    let ledger = &statistics.ledger;
    let mut counters = BTreeMap::from([
        ("processed".to_owned(), ledger.processed()),
        ("created".to_owned(), statistics.flows_created),
        ("ended".to_owned(), statistics.flows_released),
    ]);
    let terms = [("seen", ledger.seen), ("metered", ledger.metered), ("released", ledger.released)];
    for (name, tally) in terms.into_iter().chain(ledger.lost.clone()).chain(ledger.unmetered.clone()) {
        for (unit, count) in [
            ("packets", tally.packets),
            ("bytes", tally.bytes),
            ("buffers", tally.buffers),
            ("buffer_bytes", tally.buffer_bytes),
        ] {
            counters.insert(format!("{name}.{unit}"), count);
        }
    }
    counters.extend(statistics.anomalies.iter().map(|(kind, count)| ((*kind).to_owned(), *count)));
    for (name, book) in &statistics.outputs {
        counters.insert(format!("{name}.handed"), book.handed.packets);
        counters.insert(format!("{name}.delivered"), book.delivered.packets);
    }
    counters
}

fn assert_none_fell(before: &Statistics, after: &Statistics) {
    let later = counters(after);
    for (name, count) in counters(before) {
        assert!(later.get(&name).is_some_and(|later| *later >= count), "{name}: {count}, then {later:?}");
    }
}

/// Looks that get an answer, and looks that can't wait for one, by turns, while packets go through a ring.
fn look_by_turns<const LIVE: bool>(config: &PipelineConfig) {
    let collected = Collected::default();
    let source = Synthetic::<LIVE> { burst: 1_000_000, ..Synthetic::new(u64::MAX, 20_000) };
    let running = start(config, &FlowConfig::default(), stages(source, &collected)).unwrap();
    let observer = running.observer();
    let (mut last, consistent) = observer.statistics(LONG);
    assert!(consistent);
    let mut in_passing = 0;
    for round in 0..40 {
        let read = observer.pulse().reader.packets + 5_000;
        until(&observer, |pulse| pulse.reader.packets > read);
        for patience in [Duration::from_micros(20 * round), Duration::ZERO, LONG] {
            let (statistics, consistent) = observer.statistics(patience);
            assert_none_fell(&last, &statistics);
            in_passing += u64::from(!consistent);
            last = statistics;
        }
        assert!(last.ledger.balances() && last.ledger.in_flight["ring"].packets > 0);
    }
    assert!(in_passing >= 20, "{in_passing}");
    assert!(last.anomalies["unresolved_fragments"] > 0);
    let outcome = running.wait(|| true);
    assert!(outcome.statistics.ledger.seen.packets >= last.ledger.metered.packets);
}

#[test]
fn no_count_falls_between_looks_with_and_without_an_answer() {
    look_by_turns::<true>(&config(2, 2));
    look_by_turns::<false>(&in_reader());
}

/// Whoever looks when the run is over gets its last counts, at once and as one cut.
#[test]
fn the_last_counts_stay() {
    let collected = Collected::default();
    let source = Synthetic::<true>::new(9_000, 3_000);
    let running = start(&config(2, 2), &FlowConfig::default(), stages(source, &collected)).unwrap();
    let observer = running.observer();
    until(&observer, |pulse| pulse.flow_workers.packets > 0);
    observer.snapshot(LONG).unwrap();
    until(&observer, |pulse| pulse.flow_workers.packets == 9_000);
    assert!(!observer.has_ended());
    let outcome = running.wait(|| true);
    assert_settled(&outcome);
    assert!(observer.has_ended());
    let (last, consistent) = observer.statistics(Duration::ZERO);
    assert!(consistent);
    assert_eq!((&last.ledger, last.flows_released), (&outcome.statistics.ledger, 3_000));
    assert_eq!(last.outputs, outcome.statistics.outputs);
}

/// A stage that doesn't answer: the counts go on, none of them falls, and it is said that they are no snapshot.
#[test]
fn counts_never_fall_when_no_snapshot_can_be_had() {
    let collected = Collected::default();
    // A replay waits for its output: with that stuck, everything is.
    let config = PipelineConfig { enrichment_channel_capacity: parts::count(1), ..in_reader() };
    let flow = FlowConfig { start_records: true, ..FlowConfig::default() };
    let mut stages = stages(Synthetic::<false>::new(u64::MAX, 200_000), &collected);
    stages.output_queue_capacity = 1;
    let running = start(&config, &flow, stages).unwrap();
    let observer = running.observer();
    until(&observer, |pulse| pulse.outputs[0].delivered > 1_000);
    let (first, consistent) = observer.statistics(LONG);
    assert!(consistent && first.ledger.balances());
    collected.stuck.store(true, Ordering::Release);
    // What is under way comes to rest.
    let began = Instant::now();
    while observer.snapshot(Duration::from_millis(50)).is_some() {
        assert!(began.elapsed() < LONG);
    }
    let (second, consistent) = observer.statistics(Duration::from_millis(50));
    assert!(!consistent);
    assert!(first.ledger.seen.buffers > 0);
    assert_none_fell(&first, &second);
    assert!(!second.ledger.has_sources_book(), "what only the source knows is said to be unknown");
    collected.stuck.store(false, Ordering::Release);
    let outcome = running.wait(|| true);
    assert!(outcome.statistics.ledger.balances());
}
