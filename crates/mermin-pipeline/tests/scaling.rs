//! Workers that come and go while packets flow: the same records, books that balance at every moment.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "parts/many_records.rs"]
mod many_records;
mod parts;

use many_records::{chatty, sorted};
use mermin_flow::{Enricher, FlowRecord};
use mermin_pipeline::{Hold, Outcome, PipelineConfig, Staffing, Stages, Workers, start};
use parts::{Collected, Synthetic, assert_settled, config, count, in_reader, stages};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// One test counts the threads of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const PACKETS: u64 = 400_000;

fn between(least: usize, most: usize) -> PipelineConfig {
    PipelineConfig { flow_workers: Workers::Between(count(least), count(most)), ..config(1, 2) }
}

/// Threads of this process whose name begins so, as the kernel counts them.
fn threads(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).filter(|name| name.starts_with(prefix)).count()
}

fn until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not come");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs it while the number of workers changes. Each number is waited for once, with packets that trickle so long; from then on
/// numbers change with the clock. Books balance at every look.
fn through_all_numbers(
    pipeline: &PipelineConfig,
    stages: Stages<Synthetic<false>>,
    prefix: &str,
    pause: Duration,
    want: fn(&Staffing, usize),
) -> Outcome<Synthetic<false>> {
    const NUMBERS: [usize; 5] = [5, 2, 4, 1, 3];
    let trickles = Arc::clone(&stages.source.trickles);
    trickles.store(true, Ordering::Release);
    let running = start(pipeline, &chatty(), stages).unwrap();
    let (observer, over) = (running.observer(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                if let Some(statistics) = observer.snapshot(Duration::from_secs(5)) {
                    assert!(statistics.ledger.balances(), "{:#?}", statistics.ledger);
                }
            }
        });
        let (mut step, staffing, began) = (0, running.staffing(), Instant::now());
        let mut since = began;
        let outcome = running.wait(|| {
            if since.elapsed() > pause {
                since = Instant::now();
                if step >= NUMBERS.len() || threads(prefix) == NUMBERS[step] {
                    step += 1;
                }
                trickles.store(step < NUMBERS.len(), Ordering::Release);
                want(&staffing, NUMBERS[step % NUMBERS.len()]);
            }
            step < NUMBERS.len() && began.elapsed() > Duration::from_secs(30)
        });
        over.store(true, Ordering::Release);
        assert!(step >= NUMBERS.len(), "{} workers do not come", NUMBERS[step]);
        outcome
    })
}

#[test]
fn workers_that_come_and_go_during_a_replay_give_the_same_records() {
    let _alone = alone();
    let undisturbed = {
        let collected = Collected::default();
        let running =
            start(&in_reader(), &chatty(), stages(Synthetic::<false>::new(PACKETS, 1_000), &collected));
        assert_settled(&running.unwrap().wait(|| false));
        sorted(&collected)
    };
    until(|| threads("flow-") == 0);
    for capacity in [10_000, 64, 1] {
        let collected = Collected::default();
        let pipeline = PipelineConfig { packet_channel_capacity: count(capacity), ..between(1, 5) };
        // Long enough for several numbers of workers; through a channel for a single one packets go slowly.
        let packets = if capacity == 1 { PACKETS / 10 } else { PACKETS };
        let stages = stages(Synthetic::<false>::new(packets, 1_000), &collected);
        let pause = Duration::from_millis(15);
        assert_settled(&through_all_numbers(&pipeline, stages, "flow-", pause, Staffing::want));
        let records = sorted(&collected);
        if packets == PACKETS {
            assert!(records == undisturbed, "with {capacity}");
        } else {
            let packets_told: u64 = records.iter().map(|record| record.forward.delta.packets).sum();
            assert_eq!(packets_told, packets);
        }
        until(|| threads("flow-") == 0);
    }
}

/// A live source doesn't wait: what has no room stays where it is until the shards have moved.
#[test]
fn live_workers_come_and_go_though_the_channel_is_full() {
    let _alone = alone();
    let collected = Collected::default();
    let pipeline = PipelineConfig { packet_channel_capacity: count(16), ..between(1, 4) };
    let running = start(&pipeline, &chatty(), stages(Synthetic::<true>::new(200_000, 1_000), &collected));
    let running = running.unwrap();
    let (staffing, observer) = (running.staffing(), running.observer());
    let mut numbers = [4, 1, 3, 2].into_iter().cycle();
    let outcome = running.wait(|| {
        staffing.want(numbers.next().unwrap());
        observer.pulse().flow_workers.packets == 200_000
    });
    assert_settled(&outcome);
    let records = sorted(&collected);
    let packets: u64 = records.iter().map(|record| record.forward.delta.packets).sum();
    assert_eq!(packets, 200_000);
    let ends = records.iter().filter(|record| record.event == mermin_flow::FlowEvent::End).count();
    assert_eq!(ends, 1_000, "no flow is split");
}

/// Told so by other settings: a number, and a range that the load decides within.
#[test]
fn another_number_of_workers_comes_with_other_settings() {
    let _alone = alone();
    let collected = Collected::default();
    let running =
        start(&config(4, 1), &chatty(), stages(Synthetic::<true>::new(u64::MAX, 1_000), &collected));
    let running = running.unwrap();
    let (tuning, mut steps) = (running.tuning(), [3, 1, 4, 2].into_iter());
    assert!(tuning.has_room_for(Workers::Between(count(1), count(4))));
    assert!(!tuning.has_room_for(count(5).into()));
    let (mut wanted, began) = (4, Instant::now());
    let outcome = running.wait(|| {
        assert!(began.elapsed() < Duration::from_secs(60), "{wanted} workers did not come");
        collected.records.lock().unwrap().clear();
        if threads("flow-") != wanted {
            return false;
        }
        let Some(next) = steps.next() else { return true };
        wanted = next;
        tuning.change(&config(wanted, 1), &chatty());
        false
    });
    assert!(!outcome.timed_out && outcome.panicked.is_empty());
    assert!(outcome.statistics.ledger.balances());
    until(|| threads("flow-") == 0);
}

/// Enrichment workers that come and go: the same records, those of a flow in order.
#[test]
fn enrichment_workers_that_come_and_go_give_the_same_records() {
    let _alone = alone();
    const PACKETS: u64 = 200_000;
    let undisturbed = {
        let collected = Collected::default();
        let running =
            start(&config(2, 1), &chatty(), stages(Synthetic::<false>::new(PACKETS, 1_000), &collected));
        assert_settled(&running.unwrap().wait(|| false));
        sorted(&collected)
    };
    until(|| threads("enrich-") == 0);
    for capacity in [1_000, 1] {
        let collected = Collected::default();
        let pipeline = PipelineConfig {
            enrichment_workers: Workers::Between(count(1), count(5)),
            enrichment_channel_capacity: count(capacity),
            ..config(2, 1)
        };
        let (stages, pause) = (stages(Synthetic::new(PACKETS, 1_000), &collected), Duration::from_millis(7));
        let want = Staffing::want_enrichment;
        assert_settled(&through_all_numbers(&pipeline, stages, "enrich-", pause, want));
        let mut next = HashMap::new();
        for record in collected.records.lock().unwrap().iter() {
            let next = next.entry(record.id).or_insert(0);
            assert_eq!(record.sequence, *next, "records of a flow stay in order");
            *next += 1;
        }
        assert!(sorted(&collected) == undisturbed, "with {capacity}");
        until(|| threads("enrich-") == 0);
    }
}

/// Takes half a millisecond a record, until it is told not to.
struct Slow(AtomicBool);

impl Enricher for Slow {
    fn enrich(&self, _: &mut FlowRecord) {
        if self.0.load(Ordering::Acquire) {
            thread::sleep(Duration::from_micros(500));
        }
    }
}

/// By themselves, under load and when it has gone; and with other settings.
#[test]
fn enrichment_workers_follow_the_load_and_the_settings() {
    let _alone = alone();
    let (collected, slow) = (Collected::default(), Arc::new(Slow(AtomicBool::new(true))));
    let range = |least, most| PipelineConfig {
        enrichment_workers: Workers::Between(count(least), count(most)),
        ..config(1, 1)
    };
    let stages = Stages {
        enricher: Some(Arc::clone(&slow) as Arc<dyn Enricher>),
        ..stages(Synthetic::<true>::new(u64::MAX, 100), &collected)
    };
    let running = start(&range(1, 3), &chatty(), stages).unwrap();
    let (tuning, observer) = (running.tuning(), running.observer());
    assert!(tuning.has_room_for_enrichment(count(3).into()));
    assert!(!tuning.has_room_for_enrichment(count(4).into()));
    let working = || observer.pulse().enrichment.map_or(0, |(_, workers)| workers.threads);
    let (mut step, began) = (0, Instant::now());
    let outcome = running.wait(|| {
        assert!(began.elapsed() < Duration::from_secs(90), "step {step}: {} work", working());
        collected.records.lock().unwrap().clear();
        match step {
            // The load has brought a second one.
            0 if working() > 1 => {
                slow.0.store(false, Ordering::Release);
                tuning.change(&range(1, 1), &chatty());
            }
            1 if working() == 1 && threads("enrich-") == 1 => tuning.change(&range(3, 3), &chatty()),
            2 if working() == 3 && threads("enrich-") == 3 => tuning.change(&range(2, 2), &chatty()),
            3 if threads("enrich-") == 2 => {}
            4 => return true,
            _ => return false,
        }
        step += 1;
        false
    });
    assert!(!outcome.timed_out && outcome.panicked.is_empty());
    assert!(outcome.statistics.ledger.balances());
    until(|| threads("enrich-") == 0);
}

/// By itself: under load, and when it has gone.
#[test]
fn workers_follow_the_load() {
    let _alone = alone();
    let collected = Collected::default();
    let running =
        start(&between(1, 3), &chatty(), stages(Synthetic::<true>::new(u64::MAX, 100_000), &collected));
    let running = running.unwrap();
    let observer = running.observer();
    let working = || observer.pulse().flow_workers.threads;
    let began = Instant::now();
    let outcome = running.wait(|| {
        assert!(began.elapsed() < Duration::from_secs(60), "no second worker came");
        collected.records.lock().unwrap().clear();
        working() > 1
    });
    assert!(!outcome.timed_out && outcome.panicked.is_empty());
    assert!(outcome.statistics.ledger.balances());
}

/// Nobody is brought to work who would wait for it.
#[test]
fn a_worker_that_hangs_is_alone_in_it_though_workers_follow_the_load() {
    let _alone = alone();
    let (collected, hold) = (Collected::default(), Hold::default());
    let stages = Stages { hold: hold.clone(), ..stages(Synthetic::<true>::new(u64::MAX, 1_000), &collected) };
    let running = start(&between(2, 4), &chatty(), stages).unwrap();
    let observer = running.observer();
    let handled = || observer.pulse().flow_workers.packets;
    let (began, mut last) = (Instant::now(), None);
    hold.one(true);
    let outcome = running.wait(|| {
        collected.records.lock().unwrap().clear();
        assert_eq!(observer.pulse().flow_workers.threads, 2);
        // Load alone brings another worker after two seconds.
        if began.elapsed() > Duration::from_secs(5) {
            let last = *last.get_or_insert_with(handled);
            assert!(began.elapsed() < Duration::from_secs(20), "the other one does nothing: {last}");
            if handled() > last + 10_000 {
                hold.one(false);
                return true;
            }
        }
        false
    });
    assert!(!outcome.timed_out && outcome.panicked.is_empty());
    assert!(outcome.statistics.ledger.balances());
}
