//! What `docs/guide/tuning.md` and `docs/guide/troubleshooting.md` say of the pipeline's settings: each one tried both ways,
//! and the figure that it is said to move moves that way.
//!
//! Counts, not times, as far as that goes; what is slow sleeps, so that however few cores there are, two of it do twice as
//! much as one. Memory and processor time are those of a process: `tests/black_box/bounded.rs` and `tuning.rs`.
#![cfg(feature = "hold")]
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod parts;

use mermin_flow::{Enricher, FlowConfig, FlowRecord};
use mermin_pipeline::{Hold, PipelineConfig, Pulse, Stages, start};
use parts::{Collected, Synthetic, assert_settled, config, count, in_reader, stages};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const FLOWS: u64 = 1_000;
/// Packets that come while no flow worker runs.
const BURST: u64 = 20_000;

/// What such a burst leaves in the figures.
fn burst(pipeline: &PipelineConfig) -> Pulse {
    let (collected, hold) = (Collected::default(), Hold::default());
    hold.set(true);
    let stages = Stages { hold: hold.clone(), ..stages(Synthetic::<true>::new(BURST, FLOWS), &collected) };
    let running = start(pipeline, &FlowConfig::default(), stages).unwrap();
    let (observer, seen) = (running.observer(), running.observer());
    let outcome = running.wait(move || {
        let all = observer.packets() == BURST;
        if all {
            hold.set(false);
        }
        all
    });
    assert_settled(&outcome);
    seen.pulse()
}

/// "Packet loss": a larger packet channel, or backpressure.
#[test]
fn a_burst_costs_less_with_more_room_and_nothing_with_backpressure() {
    let room = |capacity, enable_backpressure| {
        burst(&PipelineConfig {
            packet_channel_capacity: count(capacity),
            enable_backpressure,
            ..config(2, 1)
        })
    };
    let drops = [100, 5_000, 50_000].map(|capacity| room(capacity, false).packet_channel.drops);
    assert!(drops[0] > drops[1] + 4_000 && drops[1] > 10_000 && drops[2] == 0, "{drops:?}");
    assert_eq!(room(100, true).packet_channel.drops, 0);
}

/// "Backpressure warnings": a larger packet channel.
#[test]
fn with_more_room_nothing_waits_in_the_reader() {
    let waits = |capacity| {
        let pulse = burst(&PipelineConfig { packet_channel_capacity: count(capacity), ..config(2, 1) });
        (pulse.packet_channel.waits, pulse.coalescing.unwrap().merges)
    };
    let (small, large) = (waits(100), waits(50_000));
    assert!(small.0 > 0 && small.1 > BURST / 2, "{small:?}");
    assert_eq!(large, (0, 0));
}

/// "Packet loss", "busy workers": more flow workers. For steady load that one of them can't carry.
#[test]
fn more_flow_workers_lose_less() {
    const PACKETS: u64 = 50_000;
    let drops = |flow_workers| {
        let (collected, hold) = (Collected::default(), Hold::default());
        // At most 50 000 packets a second and worker, batches being of 1 024; twice as many come.
        hold.delay(Duration::from_millis(20));
        let pace = |_| thread::sleep(Duration::from_millis(5));
        let source =
            Synthetic { before_poll: Some(Box::new(pace)), ..Synthetic::<true>::new(PACKETS, FLOWS) };
        let stages = Stages { hold: hold.clone(), ..stages(source, &collected) };
        let pipeline = PipelineConfig {
            packet_channel_capacity: count(16 * 1_024),
            enable_backpressure: false,
            ..config(flow_workers, 1)
        };
        let running = start(&pipeline, &FlowConfig::default(), stages).unwrap();
        let observer = running.observer();
        let outcome = running.wait(|| {
            let all = observer.packets() == PACKETS;
            if all {
                hold.delay(Duration::ZERO);
            }
            all
        });
        assert_settled(&outcome);
        outcome.statistics.ledger.lost.get("packet_channel_full").map_or(0, |lost| lost.packets)
    };
    let (one, four) = (drops(1), drops(4));
    assert!(one > 1_000 && four * 2 < one, "{one} with one, {four} with four");
}

/// "High CPU usage": larger capacities, and fewer workers.
#[test]
fn more_room_and_fewer_workers_mean_fewer_wake_ups() {
    const PACKETS: u64 = 100_000;
    let replay = |pipeline: &PipelineConfig| {
        let collected = Collected::default();
        let source = Synthetic::<false>::new(PACKETS, FLOWS);
        let running = start(pipeline, &FlowConfig::default(), stages(source, &collected)).unwrap();
        let observer = running.observer();
        assert_settled(&running.wait(|| false));
        observer.pulse()
    };
    let batches = |capacity, workers| {
        let pipeline = PipelineConfig { packet_channel_capacity: count(capacity), ..config(workers, 1) };
        replay(&pipeline).flow_workers.batches
    };
    let room = [100, 1_000, 10_000].map(|capacity| batches(capacity, 2));
    assert!(room.is_sorted_by(|less, more| *less > 2 * more), "{room:?}");
    let workers = [8, 2, 1].map(|workers| batches(1_000, workers));
    assert!(workers.is_sorted_by(|more, fewer| *more > fewer * 3 / 2), "{workers:?}");
    assert_eq!(replay(&in_reader()).packet_channel.high_water, 0, "nothing is handed over");
}

/// Takes half a millisecond a record.
struct Slow;

impl Enricher for Slow {
    fn enrich(&self, _: &mut FlowRecord) {
        thread::sleep(Duration::from_micros(500));
    }
}

/// "Slow enrichment": more enrichment workers, more room before them, or none of it.
#[test]
fn slow_enrichment_is_helped_by_workers_by_room_and_by_doing_without() {
    let replay = |workers, capacity, enriches: bool| {
        let collected = Collected::default();
        let pipeline = PipelineConfig { enrichment_channel_capacity: count(capacity), ..config(1, workers) };
        let enricher = enriches.then(|| Arc::new(Slow) as Arc<dyn Enricher>);
        // A record each.
        let stages = Stages { enricher, ..stages(Synthetic::<false>::new(2_000, 2_000), &collected) };
        let began = Instant::now();
        let running = start(&pipeline, &FlowConfig::default(), stages).unwrap();
        let observer = running.observer();
        assert_settled(&running.wait(|| false));
        (began.elapsed(), observer.pulse().enrichment.map(|(channel, _)| channel.waits))
    };
    let (slow, waits) = replay(1, 16, true);
    let (with_workers, _) = replay(8, 16, true);
    assert!(with_workers * 2 < slow, "{with_workers:?} with eight, {slow:?} with one");
    let (_, with_room) = replay(1, 10_000, true);
    assert!(waits > Some(10) && with_room == Some(0), "{waits:?}, with room {with_room:?}");
    let (without, nothing) = replay(1, 16, false);
    assert!(without * 2 < slow && nothing.is_none(), "{without:?} without, {slow:?} with");
}
