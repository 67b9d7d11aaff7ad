//! Settings that change while packets flow: records are those of a meter that changes at the same packets, whatever the
//! workers; books balance at every moment.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "parts/many_records.rs"]
mod many_records;
mod parts;

use many_records::{chatty, sorted};
use mermin_flow::{
    CommunityId, CountingSink, FlowConfig, FlowRecord, HashSecret, Interval, Meter, Observation, Orientation,
    Polled, RecordSink, Sightings, Sink, Source, Tally,
};
use mermin_pipeline::{BreakerConfig, BreakerState, PipelineConfig, Stages, Tuning, Workers, start};
use parts::{Collected, Synthetic, assert_settled, config, count, in_reader, stages};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

fn milliseconds(n: u64) -> Interval {
    Interval(Duration::from_millis(n))
}

/// Flows have a packet a second: 1 000 flows, a packet each millisecond.
const FLOWS: u64 = 1_000;
const PACKETS: u64 = 60_000;

/// Other settings, and the packets ahead of which they begin to count.
fn changes() -> Vec<(u64, FlowConfig)> {
    let flow = |active: u64, udp: u64, capacity: usize| FlowConfig {
        active_timeout: milliseconds(active),
        udp_timeout: milliseconds(udp),
        table_capacity: count(capacity),
        start_records: active < 3_000,
        ..FlowConfig::default()
    };
    vec![
        (7_301, flow(2_500, 30_000, 131_072)),
        // Every flow ends between two packets of its own.
        (20_002, flow(60_000, 700, 131_072)),
        (29_999, flow(5_000, 30_000, 640)),
        (41_000, flow(2_500, 1_001, 6_400)),
        (41_001, flow(60_000, 30_000, 6_400)),
    ]
}

/// Asks for the changes when it comes to their packets: the reader makes them before it reads on.
struct Changing {
    packets: Synthetic<false>,
    changes: Vec<(u64, FlowConfig)>,
    pipeline: PipelineConfig,
    tuning: Arc<OnceLock<Tuning>>,
}

impl Source for Changing {
    const LIVE: bool = false;

    fn poll(&mut self, sink: &mut impl Sink, budget: usize) -> Polled {
        let Some(tuning) = self.tuning.get() else { return Polled::Drained };
        let sent = self.packets.sent;
        if let Some((_, flow)) = self.changes.iter().find(|(at, _)| *at == sent) {
            tuning.change(&self.pipeline, flow);
            self.changes.retain(|(at, _)| *at != sent);
            return Polled::More;
        }
        let next = self.changes.iter().map(|(at, _)| at - sent).min();
        self.packets.poll(sink, next.map_or(budget, |next| budget.min(next as usize)))
    }

    fn wait(&mut self, at_most: Duration) {
        self.packets.wait(at_most);
    }

    fn watermark(&self) -> u64 {
        // Of the last packet; nothing was read before the first.
        if self.packets.sent == 0 { 0 } else { self.packets.watermark() - 1_000_000 }
    }

    fn rejected(&self) -> u64 {
        0
    }

    fn close(&mut self) {
        self.packets.close();
    }

    fn after_panic(&mut self, observed: Tally) -> Tally {
        self.packets.after_panic(observed)
    }

    fn sightings(&mut self) -> Option<Sightings> {
        self.packets.sightings()
    }
}

#[derive(Default)]
struct Records(Vec<FlowRecord>);

impl RecordSink for Records {
    fn record(&mut self, record: FlowRecord) {
        self.0.push(record);
    }

    fn created(&mut self, _: impl FnOnce() -> CommunityId) {}
}

impl CountingSink for Records {
    fn taken(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Feeds a meter one packet after the other.
struct Metering {
    meter: Meter,
    orientation: Orientation,
    records: Records,
}

impl Sink for Metering {
    fn observe(&mut self, mut o: Observation) {
        self.orientation.prepare(&mut o);
        self.meter.observe(&[o], &mut self.records);
    }
}

/// What one meter says.
fn expected() -> Vec<FlowRecord> {
    let orientation = Orientation::new(HashSecret::new(1));
    let mut meter = Meter::new(&chatty(), "");
    meter.allow_for(orientation.lateness());
    let mut metering = Metering { meter, orientation, records: Records::default() };
    let mut source = Synthetic::<false>::new(PACKETS, FLOWS);
    for number in 0..PACKETS {
        if let Some((_, flow)) = changes().iter().find(|(at, _)| *at == number) {
            let Metering { meter, orientation, records } = &mut metering;
            let now = orientation.advance(parts::T0 + (number - 1) * 1_000_000);
            meter.change(flow, now, records, |incident| panic!("{incident:?}"));
        }
        assert_ne!(source.poll(&mut metering, 1), Polled::Ended);
    }
    let Metering { mut meter, mut records, .. } = metering;
    meter.finish(parts::T0 + (PACKETS - 1) * 1_000_000, &mut records);
    records.0.sort_by_key(|record| (record.id.0, record.sequence));
    records.0
}

#[test]
fn settings_that_change_give_the_records_of_a_meter_that_changes_there() {
    let expected = expected();
    let reasons: std::collections::BTreeSet<_> =
        expected.iter().filter_map(|record| record.end_reason).map(|reason| format!("{reason:?}")).collect();
    assert_eq!(reasons.len(), 4, "everything happens that changes bring about: {reasons:?}");
    let scaling = PipelineConfig { flow_workers: Workers::Between(count(1), count(5)), ..config(1, 1) };
    let narrow = PipelineConfig { packet_channel_capacity: count(1), ..config(3, 1) };
    let few = PipelineConfig { packet_channel_capacity: count(64), ..config(2, 1) };
    for (pipeline, moves) in
        [(in_reader(), false), (config(1, 1), false), (few, false), (narrow, false), (scaling, true)]
    {
        let (collected, tuning) = (Collected::default(), Arc::new(OnceLock::new()));
        let packets = Synthetic::new(PACKETS, FLOWS);
        let source =
            Changing { packets, changes: changes(), pipeline: pipeline.clone(), tuning: Arc::clone(&tuning) };
        let stages = Stages { enricher: None, ..stages(source, &collected) };
        let running = start(&pipeline, &chatty(), stages).unwrap();
        assert!(tuning.set(running.tuning()).is_ok());
        let (staffing, mut numbers) = (running.staffing(), [5, 2, 4, 1, 3].into_iter().cycle());
        let outcome = running.wait(|| {
            if moves {
                staffing.want(numbers.next().unwrap());
            }
            false
        });
        assert_settled(&outcome);
        let records = sorted(&collected);
        for (found, expected) in records.iter().zip(&expected) {
            assert_eq!(found, expected, "{pipeline:?}");
        }
        assert_eq!(records.len(), expected.len());
    }
}

/// Live, with a channel that is always full: what waits in the reader is merged, settings change, workers come and go.
#[test]
fn settings_change_live_and_nothing_is_lost() {
    let collected = Collected::default();
    let flow_workers = Workers::Between(count(1), count(4));
    let pipeline = PipelineConfig { packet_channel_capacity: count(16), flow_workers, ..config(1, 2) };
    let running = start(&pipeline, &chatty(), stages(Synthetic::<true>::new(200_000, FLOWS), &collected));
    let running = running.unwrap();
    let (tuning, staffing, observer) = (running.tuning(), running.staffing(), running.observer());
    let mut turn = 0;
    let outcome = running.wait(|| {
        let (_, flow) = &changes()[turn % changes().len()];
        let coalescing_capacity = count([1, 65_536][turn % 2]);
        tuning.change(&PipelineConfig { coalescing_capacity, ..pipeline.clone() }, flow);
        staffing.want(turn % 4 + 1);
        turn += 1;
        observer.pulse().flow_workers.packets == 200_000
    });
    assert!(turn > 5, "{turn}");
    assert_settled(&outcome);
    assert_eq!(outcome.statistics.ledger.lost.values().map(|lost| lost.packets).sum::<u64>(), 0);
    let packets: u64 = sorted(&collected).iter().map(|record| record.forward.delta.packets).sum();
    assert_eq!(packets, 200_000);
}

#[test]
fn another_interval_of_statistics_counts_for_the_turn_under_way() {
    let (collected, source) = (Collected::default(), Synthetic::<true>::new(10, 1));
    let times = Arc::clone(&source.asked);
    let rare = PipelineConfig { stats_interval: Interval::seconds(3_600), ..config(1, 1) };
    let often = PipelineConfig { stats_interval: milliseconds(5), ..rare.clone() };
    let running = start(&rare, &FlowConfig::default(), stages(source, &collected)).unwrap();
    let (tuning, observer) = (running.tuning(), running.observer());
    let outcome = running.wait(|| {
        if observer.packets() < 10 {
            assert_eq!(times.load(Ordering::Relaxed), 0);
            return false;
        }
        tuning.change(&often, &FlowConfig::default());
        times.load(Ordering::Relaxed) >= 10
    });
    assert_settled(&outcome);
}

/// Of an output that hangs: less room for it, other rules, another breaker.
#[test]
fn how_outputs_are_treated_changes_for_those_that_run() {
    let collected = Collected::default();
    collected.stuck.store(true, Ordering::Release);
    let patient = BreakerConfig { slow: Interval::seconds(3_600), ..BreakerConfig::default() };
    let pipeline = PipelineConfig { breaker: patient, ..config(1, 1) };
    let source = Synthetic::<true>::new(400_000, FLOWS);
    let stages = Stages { output_queue_capacity: 2_000, ..stages(source, &collected) };
    let running = start(&pipeline, &chatty(), stages).unwrap();
    let (tuning, observer) = (running.tuning(), running.observer());
    let mut step = 0;
    let outcome = running.wait(|| {
        let (statistics, _) = observer.statistics(Duration::from_secs(5));
        let book = &statistics.outputs[0].1;
        assert!(statistics.ledger.balances() && book.balances(), "{book:?}");
        let output = &observer.pulse().outputs[0];
        match step {
            // It would be let be after an hour.
            0 if output.queue.depth == 2_000 && book.merged > 0 => {
                let slow = PipelineConfig {
                    breaker: BreakerConfig { slow: milliseconds(1), ..pipeline.breaker.clone() },
                    ..pipeline.clone()
                };
                tuning.change(&slow, &chatty());
                tuning.set_output_queue_capacity(count(500));
                step = 1;
            }
            1 if output.breaker == BreakerState::Open && output.queue.depth == 500 => {
                assert_eq!(output.queue.capacity, 500);
                collected.stuck.store(false, Ordering::Release);
                step = 2;
            }
            2 => return observer.packets() == 400_000,
            _ => {}
        }
        false
    });
    assert_eq!(step, 2);
    assert_settled(&outcome);
    let book = &outcome.statistics.outputs[0].1;
    assert_eq!(book.handed.packets, 400_000);
}

#[test]
fn another_time_for_the_end_counts() {
    let collected = Collected::default();
    collected.stuck.store(true, Ordering::Release);
    let short = PipelineConfig { shutdown_timeout: milliseconds(1), ..config(1, 1) };
    let long = PipelineConfig { shutdown_timeout: Interval::seconds(3_600), ..short.clone() };
    let running = start(&short, &chatty(), stages(Synthetic::<true>::new(1_000, 10), &collected)).unwrap();
    let (observer, stuck) = (running.observer(), Arc::clone(&collected.stuck));
    running.tuning().change(&long, &chatty());
    let helper = std::thread::spawn(move || {
        while !observer.pulse().ending {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Longer than the first one, on however busy a machine.
        std::thread::sleep(Duration::from_millis(200));
        stuck.store(false, Ordering::Release);
    });
    let observer = running.observer();
    let outcome = running.wait(|| observer.packets() == 1_000);
    helper.join().unwrap();
    assert_settled(&outcome);
}
