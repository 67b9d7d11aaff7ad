//! Outputs that fail, that hang, and that come back: they are let be meanwhile, the others don't notice, and every
//! record stands in a book.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

mod parts;

use mermin_flow::{Amount, Delivery, Exporter, Failure, FlowConfig, FlowRecord, Interval, Receipt};
use mermin_pipeline::{BreakerConfig, BreakerState, Observer, OutputPulse, PipelineConfig, Stages, start};
use parts::{Collected, Synthetic, assert_settled, config, count, in_reader, stages};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PACKETS: u64 = 200_000;

/// Drops what it is given, or delivers it.
#[derive(Clone, Default)]
struct Flaky {
    fails: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Exporter for Flaky {
    fn name(&self) -> &str {
        "flaky"
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        self.calls.fetch_add(1, Ordering::Release);
        let fails = self.fails.load(Ordering::Acquire);
        for record in records {
            let sum = if fails {
                receipt.dropped.entry("write_failed").or_default()
            } else {
                &mut receipt.delivered
            };
            *sum += Amount::of(record);
        }
        let failure =
            || Failure { reason: "write_failed", closed: false, error: std::io::Error::other("no space") };
        if fails { Err(failure()) } else { Ok(()) }
    }

    fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
        Ok(())
    }
}

/// Pauses of a tenth of a second at most, and calls that take half a second are too long.
fn impatient() -> PipelineConfig {
    let breaker = BreakerConfig {
        failures: NonZeroU32::new(3).unwrap(),
        slow: Interval(Duration::from_millis(500)),
        pause: Interval(Duration::from_millis(50)),
        pause_max: Interval(Duration::from_millis(100)),
        ..BreakerConfig::default()
    };
    PipelineConfig { breaker, shutdown_timeout: Interval::seconds(60), ..config(2, 1) }
}

/// Looks at the outputs until it is so, or fails after long.
fn until(observer: &Observer, is_so: impl Fn(&[OutputPulse]) -> bool) -> Vec<OutputPulse> {
    let began = Instant::now();
    loop {
        let outputs = observer.pulse().outputs;
        if is_so(&outputs) {
            return outputs;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{outputs:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A packet a flow, each of them released as the table holds 64.
fn short_lived() -> FlowConfig {
    FlowConfig { table_capacity: count(64), ..FlowConfig::default() }
}

#[test]
fn an_output_that_fails_is_let_be_until_it_has_recovered() {
    let (flaky, healthy) = (Flaky::default(), Collected::default());
    flaky.fails.store(true, Ordering::Release);
    let stages = Stages {
        exporters: vec![Box::new(flaky.clone()), Box::new(healthy.clone())],
        output_queue_capacity: 1_000_000,
        ..stages(Synthetic::<true>::new(PACKETS, PACKETS), &healthy)
    };
    let running = start(&impatient(), &short_lived(), stages).unwrap();
    let observer = running.observer();
    let test = std::thread::spawn(move || {
        // The other one gets all there is meanwhile.
        let outputs = until(&observer, |outputs| {
            outputs[0].breaker == BreakerState::Open && outputs[1].delivered >= PACKETS - 64 * 2
        });
        assert_eq!((outputs[0].let_be.as_deref(), outputs[0].opened), (Some("no space"), 1));
        assert!(!outputs[0].is_healthy() && outputs[1].is_healthy());
        // It is tried now and then, not with all that waits.
        let tries = flaky.calls.load(Ordering::Acquire);
        until(&observer, |_| flaky.calls.load(Ordering::Acquire) >= tries + 2);
        let waiting = observer.pulse().outputs[0].queue.depth;
        assert!(waiting > PACKETS / 2, "{waiting} wait");
        flaky.fails.store(false, Ordering::Release);
        let outputs = until(&observer, |outputs| outputs[0].breaker == BreakerState::Closed);
        assert!(outputs[0].let_be.is_none() && outputs[0].opened == 1);
        until(&observer, |outputs| outputs[0].queue.depth == 0);
    });
    let outcome = running.wait(|| test.is_finished());
    test.join().unwrap();
    assert_settled(&outcome);
    let [(_, flaky), (_, healthy)] = &outcome.statistics.outputs[..] else { panic!("two outputs") };
    assert_eq!(healthy.delivered.packets, PACKETS);
    let lost = flaky.dropped["write_failed"].packets;
    assert_eq!((flaky.delivered.packets + lost, flaky.dropped.len()), (PACKETS, 1), "{flaky:?}");
}

#[test]
fn a_call_that_hangs_opens_it_and_what_then_has_no_room_says_so() {
    let (stuck, healthy) = (Collected { name: "stuck", ..Collected::default() }, Collected::default());
    stuck.stuck.store(true, Ordering::Release);
    let stages = Stages {
        exporters: vec![Box::new(stuck.clone()), Box::new(healthy.clone())],
        output_queue_capacity: 100,
        ..stages(Synthetic::<true>::new(u64::MAX, 5_000), &healthy)
    };
    let running = start(&impatient(), &short_lived(), stages).unwrap();
    let observer = running.observer();
    let test = std::thread::spawn(move || {
        let dropped = |name: &str| {
            let statistics = observer.snapshot(Duration::from_secs(60)).unwrap();
            let book = &statistics.outputs[0].1;
            assert!(book.balances(), "{book:?}");
            book.dropped.get(name).map_or(0, |amount| amount.records)
        };
        until(&observer, |outputs| outputs[0].breaker == BreakerState::Open);
        let full = dropped("queue_full");
        until(&observer, |_| dropped("breaker_open") > 1_000);
        assert_eq!(dropped("queue_full"), full);
        // It comes back: one batch is tried, then it gets its records.
        stuck.stuck.store(false, Ordering::Release);
        until(&observer, |outputs| {
            outputs[0].breaker == BreakerState::Closed && outputs[0].delivered > 1_000
        });
    });
    let outcome = running.wait(|| test.is_finished());
    test.join().unwrap();
    assert_settled(&outcome);
    let released = outcome.statistics.ledger.released.packets;
    for (name, book) in &outcome.statistics.outputs {
        let dropped: u64 = book.dropped.values().map(|dropped| dropped.packets).sum();
        assert_eq!(book.delivered.packets + dropped, released, "{name}");
    }
}

/// A replay waits for its outputs and asks again at once: what it takes is a matter of the output.
#[test]
fn a_replay_tries_every_output_always() {
    for config in [impatient(), PipelineConfig { breaker: impatient().breaker, ..in_reader() }] {
        let (flaky, healthy) = (Flaky::default(), Collected::default());
        flaky.fails.store(true, Ordering::Release);
        let stages = Stages {
            exporters: vec![Box::new(flaky.clone()), Box::new(healthy.clone())],
            ..stages(Synthetic::<false>::new(PACKETS, PACKETS), &healthy)
        };
        let outcome = start(&config, &short_lived(), stages).unwrap().wait(|| false);
        assert_settled(&outcome);
        let [(_, flaky), (_, healthy)] = &outcome.statistics.outputs[..] else { panic!("two outputs") };
        assert_eq!((healthy.delivered.packets, flaky.dropped["write_failed"].packets), (PACKETS, PACKETS));
    }
}

/// Sums up what it is given; its receiver is away until the end of the run.
#[derive(Default)]
struct Sums {
    held: Amount,
    delivery: Arc<Delivery>,
}

impl Exporter for Sums {
    fn name(&self) -> &str {
        "sums"
    }

    fn export(&mut self, records: &[FlowRecord], _: &mut Receipt) -> Result<(), Failure> {
        records.iter().for_each(|record| self.held += Amount::of(record));
        self.delivery.failures.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn idle(&mut self, _: &mut Receipt) -> Result<Option<Duration>, Failure> {
        self.delivery.failures.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Duration::from_millis(10)))
    }

    fn flush(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        receipt.delivered += std::mem::take(&mut self.held);
        Ok(())
    }

    fn delivery(&self) -> Option<Arc<Delivery>> {
        Some(Arc::clone(&self.delivery))
    }

    fn sums_up(&self) -> bool {
        true
    }
}

/// Nothing is kept from an output that can take everything, so nothing is lost.
#[test]
fn an_output_that_sums_up_is_given_all_records_while_its_receiver_is_away() {
    let healthy = Collected::default();
    let stages = Stages {
        exporters: vec![Box::new(Sums::default()), Box::new(healthy.clone())],
        output_queue_capacity: 2_048,
        ..stages(Synthetic::<true>::new(u64::MAX, u64::MAX), &healthy)
    };
    let running = start(&impatient(), &short_lived(), stages).unwrap();
    let observer = running.observer();
    let test = std::thread::spawn(move || {
        let before = until(&observer, |outputs| outputs[0].breaker == BreakerState::Open)[0].opened;
        assert_eq!(before, 1);
        // Far more than the queue holds, since it was let be.
        let packets = observer.packets();
        until(&observer, |_| observer.packets() > packets + 50_000);
    });
    let outcome = running.wait(|| test.is_finished());
    test.join().unwrap();
    let (_, sums) = &outcome.statistics.outputs[0];
    assert_eq!((sums.delivered, sums.dropped.len()), (sums.handed, 0), "{sums:?}");
}
