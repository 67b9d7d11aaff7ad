//! Records that wait in enrichment for a later answer: who waits, for how long, where they stand meanwhile.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod parts;

use mermin_flow::{Enricher, FlowConfig, FlowRecord, Interval};
use mermin_pipeline::{PipelineConfig, Running, Stages, Statistics, start};
use parts::{Collected, Synthetic, T0, assert_settled, config, count, in_reader, stages};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Knows who is who up to a time, and says by the name whether it did.
struct Lagging {
    known_until: AtomicU64,
    patience: Duration,
}

impl Enricher for Lagging {
    fn enrich(&self, record: &mut FlowRecord) {
        let knows = record.end_time <= self.known_until();
        record.source.identity.name = Some(if knows { "known" } else { "too early" }.into());
    }

    fn known_until(&self) -> u64 {
        self.known_until.load(Ordering::Acquire)
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

/// 100 s.
const PACKETS: u64 = 100_000;
/// A record a second of each: 1 000 updates and 10 ends.
const FLOWS: u64 = 10;

struct Run {
    running: Running<Synthetic<true>>,
    enricher: Arc<Lagging>,
    collected: Collected,
}

fn run(known_until: u64, patience: Duration, flows: u64, pipeline: &PipelineConfig) -> Run {
    run_with_room(known_until, patience, flows, pipeline, 8_192)
}

fn run_with_room(
    known_until: u64,
    patience: Duration,
    flows: u64,
    pipeline: &PipelineConfig,
    output_queue_capacity: usize,
) -> Run {
    let known_until = AtomicU64::new(known_until);
    let enricher = Arc::new(Lagging { known_until, patience });
    let collected = Collected::default();
    let flow = FlowConfig { active_timeout: Interval::seconds(1), ..FlowConfig::default() };
    let stages = Stages {
        enricher: Some(Arc::clone(&enricher) as Arc<dyn Enricher>),
        output_queue_capacity,
        ..stages(Synthetic::<true>::new(PACKETS, flows), &collected)
    };
    Run { running: start(pipeline, &flow, stages).unwrap(), enricher, collected }
}

fn patient() -> PipelineConfig {
    PipelineConfig {
        enable_metrics: true,
        // Nothing waits in the reader: packets merged there would give fewer records, and how many is chance.
        packet_channel_capacity: count(usize::try_from(2 * PACKETS).unwrap()),
        enrichment_channel_capacity: count(100_000),
        shutdown_timeout: Interval::seconds(240),
        ..config(2, 2)
    }
}

impl Run {
    /// Looks until everything has been read and `is_so`.
    fn look(&self, is_so: impl Fn(&Statistics) -> bool) -> Statistics {
        let (observer, began) = (self.running.observer(), Instant::now());
        loop {
            let statistics = observer.snapshot(Duration::from_secs(60)).expect("no stage is held up");
            assert!(statistics.ledger.balances(), "{:#?}", statistics.ledger);
            if statistics.ledger.seen.buffers == PACKETS && is_so(&statistics) {
                return statistics;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{statistics:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(self) -> Vec<FlowRecord> {
        let outcome = self.running.wait(|| true);
        assert_settled(&outcome);
        let records = std::mem::take(&mut *self.collected.records.lock().unwrap());
        assert_eq!(records.iter().map(|record| record.tally.packets).sum::<u64>(), PACKETS);
        let mut sequences = HashMap::new();
        for record in &records {
            let next = sequences.entry(record.id).or_insert(0);
            assert_eq!(record.sequence, *next, "records of a flow stay in order");
            *next += 1;
        }
        records
    }
}

fn named(records: &[FlowRecord], name: &str) -> usize {
    records.iter().filter(|record| record.source.identity.name.as_deref() == Some(name)).count()
}

fn figure(statistics: &Statistics, name: &str) -> u64 {
    let (_, figures) = statistics.stages.iter().find(|(stage, _)| stage == "enrichment_workers").unwrap();
    figures.iter().find(|(figure, _)| *figure == name).unwrap().1.as_u64().unwrap()
}

#[test]
fn young_records_wait_for_the_answer_and_are_resident_until_then() {
    let run = run(T0 + 50_000_000_000, Duration::from_secs(600), FLOWS, &patient());
    let statistics = run.look(|statistics| figure(statistics, "held") > 300);
    let held = statistics.ledger.resident["enrichment_channel"];
    // Those of the last 50 s, and what is behind the first of them.
    assert!(held.packets > 20_000 && held.packets < PACKETS, "{held:?}");
    assert_eq!(statistics.outputs[0].1.handed.packets, statistics.ledger.released.packets);
    assert_eq!(figure(&statistics, "early"), 0);
    run.enricher.known_until.store(u64::MAX, Ordering::Release);
    run.look(|statistics| figure(statistics, "held") == 0);
    let records = run.end();
    assert_eq!(named(&records, "known"), records.len());
}

#[test]
fn patience_ends() {
    let run = run(0, Duration::from_millis(30), FLOWS, &patient());
    let nothing_held = |statistics: &Statistics| {
        statistics.ledger.resident["enrichment_channel"].packets == 0 && figure(statistics, "early") > 900
    };
    run.look(nothing_held);
    let records = run.end();
    assert_eq!(named(&records, "too early"), records.len());
}

#[test]
fn no_more_wait_than_there_is_room_for() {
    // A packet a flow; the flows of the first 70 s end while it runs.
    const ROOM: u64 = 16_384;
    let pipeline = PipelineConfig { enrichment_channel_capacity: count(64), ..patient() };
    // Those that go early don't wait for an output either: it has room for all.
    let run = run_with_room(0, Duration::from_secs(600), PACKETS, &pipeline, 1_000_000);
    let statistics = run.look(|statistics| figure(statistics, "early") > 20_000);
    assert!(figure(&statistics, "held") <= ROOM, "{}", figure(&statistics, "held"));
    assert!(statistics.ledger.resident["enrichment_channel"].packets <= ROOM + 512);
    run.enricher.known_until.store(u64::MAX, Ordering::Release);
    assert!(named(&run.end(), "known") > 0);
}

/// Records wait for no younger ones behind them, also of one batch.
#[test]
fn what_is_known_goes_up_to_the_first_young_record() {
    const KNOWN: u64 = T0 + 50_123_000_000;
    let pipeline =
        PipelineConfig { flow_workers: count(1).into(), enrichment_workers: count(1).into(), ..patient() };
    let run = run(KNOWN, Duration::from_secs(600), FLOWS, &pipeline);
    let statistics = run.look(|statistics| figure(statistics, "held") > 300);
    let went = usize::try_from(statistics.outputs[0].1.handed.records).unwrap();
    run.enricher.known_until.store(u64::MAX, Ordering::Release);
    let records = run.end();
    let first_young = records.iter().position(|record| record.end_time > KNOWN);
    assert_eq!(Some(went), first_young, "of {}", records.len());
}

/// What one answer frees doesn't overrun an output, whoever else releases at the same time.
#[test]
fn a_burst_waits_for_the_room_that_outputs_have() {
    const ROOM: u64 = 512;
    let pipeline = PipelineConfig { enrichment_channel_capacity: count(1_000_000), ..patient() };
    let run = run_with_room(0, Duration::from_secs(600), PACKETS, &pipeline, ROOM as usize);
    run.look(|statistics| figure(statistics, "held") > 50_000);
    run.collected.stuck.store(true, Ordering::Release);
    run.enricher.known_until.store(u64::MAX, Ordering::Release);
    // What the stuck thread has and what waits for it.
    let statistics = run.look(|statistics| statistics.outputs[0].1.queued.records > ROOM);
    assert_eq!(statistics.outputs[0].1.dropped, BTreeMap::new());
    assert!(figure(&statistics, "held") > 50_000, "the others wait");
    run.collected.stuck.store(false, Ordering::Release);
    let statistics = run.look(|statistics| figure(statistics, "held") == 0);
    assert_eq!((&statistics.outputs[0].1.dropped, figure(&statistics, "early")), (&BTreeMap::new(), 0));
    let records = run.end();
    assert_eq!(named(&records, "known"), records.len());
}

/// Room is waited for no longer than for an answer.
#[test]
fn a_stuck_output_does_not_hold_records_up_for_ever() {
    let run = run_with_room(u64::MAX, Duration::from_millis(30), PACKETS, &patient(), 512);
    run.collected.stuck.store(true, Ordering::Release);
    let gone = |statistics: &Statistics| {
        statistics.outputs[0].1.dropped.contains_key("queue_full") && figure(statistics, "held") == 0
    };
    let statistics = run.look(gone);
    assert_eq!(figure(&statistics, "early"), 0, "all was known of them");
    run.collected.stuck.store(false, Ordering::Release);
    assert_settled(&run.running.wait(|| true));
}

/// A run that ends while nothing is known comes to its end within a quarter of its time, and loses nothing.
#[test]
fn the_end_waits_a_part_of_its_time() {
    let pipeline = PipelineConfig { shutdown_timeout: Interval::seconds(8), ..patient() };
    let run = run(0, Duration::from_secs(600), FLOWS, &pipeline);
    run.look(|statistics| figure(statistics, "held") > 900);
    let began = Instant::now();
    let records = run.end();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(named(&records, "too early"), records.len());
}

/// Nothing of a replay gets lost when its records wait, also where the reader meters itself.
#[test]
fn a_replays_records_wait_too() {
    let collected = Collected::default();
    let enricher = Lagging { known_until: AtomicU64::new(0), patience: Duration::from_millis(30) };
    let stages = Stages {
        enricher: Some(Arc::new(enricher)),
        ..stages(Synthetic::<false>::new(PACKETS, 10), &collected)
    };
    let outcome = start(&in_reader(), &FlowConfig::default(), stages).unwrap().wait(|| false);
    assert_settled(&outcome);
    let records = std::mem::take(&mut *collected.records.lock().unwrap());
    assert_eq!(records.iter().map(|record| record.tally.packets).sum::<u64>(), PACKETS);
    assert_eq!(named(&records, "too early"), records.len());
}
