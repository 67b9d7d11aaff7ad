//! Panics of workers while packets flow: contained, in the books, and without a trace in the records of others.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "parts/bug.rs"]
mod bug;
#[path = "parts/many_records.rs"]
mod many_records;
mod parts;

use bug::bug;
use many_records::{chatty, sorted};
use mermin_flow::{Enricher, FlowConfig, FlowRecord, Observation, Polled, Sightings, Sink, Source, Tally};
use mermin_pipeline::{Outcome, PipelineConfig, Stages, start};
use parts::{Collected, Names, Synthetic, T0, assert_settled, config, in_reader, stages};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Panics at every record of sequence 2, in the middle of its work.
struct Bug;

impl Enricher for Bug {
    fn enrich(&self, record: &mut FlowRecord) {
        Names.enrich(record);
        if record.sequence == 2 {
            bug();
        }
    }
}

#[test]
fn a_record_at_which_the_enricher_panics_goes_on_without_names() {
    for config in [config(2, 2), config(1, 1), in_reader()] {
        let collected = Collected::default();
        let stages = Stages {
            enricher: Some(Arc::new(Bug)),
            ..stages(Synthetic::<false>::new(100_000, 10), &collected)
        };
        let outcome = start(&config, &chatty(), stages).unwrap().wait(|| false);
        assert_settled(&outcome);
        let records = sorted(&collected);
        let unnamed = records.iter().filter(|record| record.source.identity.name.is_none());
        assert!(unnamed.clone().all(|record| record.sequence == 2));
        assert_eq!(unnamed.count(), 10);
        assert_eq!(panics(&outcome.statistics, "enrichment_workers"), 10);
        let packets: u64 = records.iter().map(|record| record.forward.delta.packets).sum();
        assert_eq!(packets, 100_000);
    }
}

/// A source that panics at every `at`th packet, and when it is asked for other things.
struct Broken<const LIVE: bool> {
    packets: Synthetic<LIVE>,
    at: u64,
    /// How often it panics when it is asked how many it rejected, which is asked after each read, and when it is closed.
    asked: AtomicU64,
    closed: u64,
}

impl<const L: bool> Broken<L> {
    fn at(at: u64, packets: u64) -> Self {
        Self { packets: Synthetic::new(packets, 100), at, asked: AtomicU64::new(0), closed: 0 }
    }
}

/// Its sink.
struct Touchy<'a, S> {
    sink: &'a mut S,
    at: u64,
}

impl<S: Sink> Sink for Touchy<'_, S> {
    fn observe(&mut self, observation: Observation) {
        let number = (observation.start - T0) / 1_000_000;
        if number % self.at == self.at - 1 {
            bug();
        }
        self.sink.observe(observation);
    }
}

impl<const L: bool> Source for Broken<L> {
    const LIVE: bool = L;

    fn poll(&mut self, sink: &mut impl Sink, budget: usize) -> Polled {
        self.packets.poll(&mut Touchy { sink, at: self.at }, budget)
    }

    fn wait(&mut self, at_most: Duration) {
        self.packets.wait(at_most);
    }

    fn watermark(&self) -> u64 {
        self.packets.watermark()
    }

    fn rejected(&self) -> u64 {
        // The first packets are read by then.
        let left = self.asked.load(Ordering::Relaxed);
        self.asked.store(left.saturating_sub(1), Ordering::Relaxed);
        if left > 0 {
            bug();
        }
        self.packets.rejected()
    }

    fn close(&mut self) {
        let left = self.closed;
        self.closed = left.saturating_sub(1);
        if left > 0 {
            bug();
        }
        self.packets.close();
    }

    fn after_panic(&mut self, observed: Tally) -> Tally {
        self.packets.after_panic(observed)
    }

    fn sightings(&mut self) -> Option<Sightings> {
        self.packets.sightings()
    }
}

fn reads_on<const LIVE: bool>(config: &PipelineConfig) {
    const PACKETS: u64 = 100_000;
    const AT: u64 = 1_009;
    let collected = Collected::default();
    let source = Broken::<LIVE>::at(AT, PACKETS);
    let running = start(config, &chatty(), stages(source, &collected)).unwrap();
    let observer = running.observer();
    // A live source goes on until it is told to end.
    let done = || {
        let seen = observer.snapshot(Duration::from_secs(60)).map(|statistics| {
            assert!(statistics.ledger.balances(), "{:#?}", statistics.ledger);
            statistics.ledger.seen.buffers
        });
        seen == Some(PACKETS)
    };
    let outcome = running.wait(|| LIVE && done());
    assert_settled(&outcome);
    let lost = outcome.statistics.ledger.lost["worker_quarantine"];
    assert_eq!((lost.packets, lost.buffers, lost.bytes), (PACKETS / AT, PACKETS / AT, 114 * (PACKETS / AT)));
    assert_eq!(panics(&outcome.statistics, "packet_reader"), PACKETS / AT);
    let records = sorted(&collected);
    let packets: u64 = records.iter().map(|record| record.forward.delta.packets).sum();
    assert_eq!(packets, PACKETS - PACKETS / AT);
}

#[test]
fn a_packet_at_which_the_reader_panics_is_lost_and_no_other() {
    for config in [config(2, 2), in_reader()] {
        reads_on::<false>(&config);
        reads_on::<true>(&config);
    }
}

/// A replay whose source panics before each of so many looks at it.
fn after(panics: u32) -> Outcome<Synthetic<false>> {
    let (collected, mut left) = (Collected::default(), panics);
    let before_poll = move |sent| {
        if sent > 0 && left > 0 {
            left -= 1;
            bug();
        }
    };
    let source =
        Synthetic { before_poll: Some(Box::new(before_poll)), ..Synthetic::<false>::new(10_000, 10) };
    start(&config(2, 2), &chatty(), stages(source, &collected)).unwrap().wait(|| false)
}

/// What the reader does beside reading has nothing to do with the source.
#[test]
fn a_panic_beside_the_source_loses_nothing() {
    for config in [config(2, 2), in_reader()] {
        let collected = Collected::default();
        let source = Broken { asked: AtomicU64::new(40), ..Broken::<false>::at(u64::MAX, 100_000) };
        let outcome = start(&config, &chatty(), stages(source, &collected)).unwrap().wait(|| false);
        assert_settled(&outcome);
        assert_eq!(outcome.statistics.ledger.seen.packets, 100_000);
        assert_eq!(outcome.statistics.ledger.lost, [].into());
        assert_eq!(panics(&outcome.statistics, "packet_reader"), 40);
    }
}

#[test]
fn a_source_that_panics_when_it_is_closed_is_closed_again() {
    for (closed, gives_up) in [(1, false), (u64::MAX, true)] {
        let collected = Collected::default();
        let source = Broken { closed, ..Broken::<true>::at(u64::MAX, 100_000) };
        let running = start(&config(2, 2), &chatty(), stages(source, &collected)).unwrap();
        let observer = running.observer();
        let outcome = running.wait(|| observer.packets() == 100_000);
        if gives_up {
            assert_eq!(outcome.panicked, ["reader"]);
        } else {
            assert_settled(&outcome);
            assert_eq!(panics(&outcome.statistics, "packet_reader"), 1);
        }
    }
}

#[test]
fn a_reader_that_comes_no_further_gives_up() {
    // The first comes behind packets.
    let outcome = after(16);
    assert_settled(&outcome);
    assert_eq!(outcome.statistics.ledger.lost, [].into());
    assert_eq!(panics(&outcome.statistics, "packet_reader"), 16);
    let outcome = after(17);
    assert_eq!(outcome.panicked, ["reader"]);
    assert_eq!(panics(&outcome.statistics, "packet_reader"), 17);
}

/// As the statistics show them.
fn panics(statistics: &mermin_pipeline::Statistics, stage: &str) -> u64 {
    let stages = &statistics.to_json("")["stages"];
    stages[stage]["panics"].as_u64().unwrap()
}

/// Needs `--features hold`: a release build has nothing to make workers panic with.
#[cfg(feature = "hold")]
mod of_flow_workers {
    use super::*;
    use mermin_pipeline::Hold;

    /// Replays with flow workers that panic at every `every`th moment. How often they did.
    fn replay(config: &PipelineConfig, flow: &FlowConfig, every: u64) -> (Vec<FlowRecord>, u64) {
        let (collected, hold) = (Collected::default(), Hold::default());
        hold.panic_every(every);
        let stages =
            Stages { hold: hold.clone(), ..stages(Synthetic::<false>::new(300_000, 1_000), &collected) };
        let outcome = start(config, flow, stages).unwrap().wait(|| false);
        assert_settled(&outcome);
        assert!(!outcome.statistics.ledger.lost.contains_key("worker_quarantine"));
        (sorted(&collected), panics(&outcome.statistics, "flow_workers"))
    }

    #[test]
    fn a_replay_with_panicking_workers_gives_the_records_of_one_without() {
        let starts = FlowConfig { start_records: true, ..chatty() };
        for flow in [chatty(), starts] {
            let (undisturbed, none) = replay(&config(2, 1), &flow, 0);
            assert_eq!(none, 0);
            for config in [config(2, 1), config(3, 2), in_reader()] {
                let (records, panics) = replay(&config, &flow, 50_021);
                assert!(panics > 5, "{panics}");
                assert!(records == undisturbed, "after {panics} panics");
            }
        }
    }

    /// Everything panics: nothing can be metered, and all of it is counted.
    #[test]
    fn what_panics_whatever_one_does_is_lost_to_the_packet() {
        let (collected, hold) = (Collected::default(), Hold::default());
        hold.panic_every(1);
        let stages = Stages { hold, ..stages(Synthetic::<false>::new(20, 20), &collected) };
        let outcome = start(&config(2, 1), &FlowConfig::default(), stages).unwrap().wait(|| false);
        assert_settled(&outcome);
        let ledger = &outcome.statistics.ledger;
        assert_eq!(ledger.lost["worker_quarantine"].packets, 20);
        assert_eq!((ledger.metered.packets, ledger.seen.buffers), (0, 20));
        assert_eq!(panics(&outcome.statistics, "flow_workers"), 40);
    }
}
