//! The pipeline's lock-free code, gone through in every order in which its threads may meet, also in those that only a
//! weaker memory than this machine's allows.
//!
//! The files are the product's own; only their atomics and threads are the model's. A reader that parks is woken by
//! nobody but a worker here, so a wake-up that could be lost is a deadlock, and the model finds it.

#![cfg(test)]

#[path = "../../../crates/mermin-pipeline/src/counts.rs"]
mod counts;
#[path = "../../../crates/mermin-pipeline/src/credits.rs"]
mod credits;

mod sync {
    pub(crate) use loom::sync::atomic;

    pub(crate) mod thread {
        pub(crate) use loom::thread::{Thread, current};
        use std::time::Duration;

        /// Without a timeout: it would hide a lost wake-up.
        pub(crate) fn park_timeout(_: Duration) {
            loom::thread::park();
        }
    }
}

use counts::{Lives, TallyCell};
use credits::Credits;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use mermin_flow::Tally;

/// Workers give back what the reader waits for: `workers` of them, one credit each.
fn reader_that_waits_for(workers: usize) {
    let credits = Arc::new(Credits::new(workers));
    assert!(credits.take(workers) && !credits.take(1));
    let give_back = || {
        let credits = Arc::clone(&credits);
        thread::spawn(move || credits.give_back(1))
    };
    let workers_at_work: Vec<_> = (0..workers).map(|_| give_back()).collect();
    let reader = {
        let credits = Arc::clone(&credits);
        thread::spawn(move || credits.wait(workers, || false))
    };
    assert!(reader.join().expect("it does not panic"));
    workers_at_work.into_iter().for_each(|worker| worker.join().expect("it does not panic"));
    assert_eq!((credits.used(), credits.waits.load(Ordering::Relaxed)), (workers, 1));
}

#[test]
fn a_reader_that_waits_for_credits_is_always_woken() {
    loom::model(|| reader_that_waits_for(1));
}

/// All orders of more threads are too many: those in which a thread is interrupted twice at most.
#[test]
fn a_reader_that_waits_for_several_workers_is_always_woken() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| reader_that_waits_for(2));
}

/// Whatever the reader takes while a worker gives back: never more than there are.
#[test]
fn there_are_never_more_credits_out_than_there_are() {
    loom::model(|| {
        let (credits, held) = (Arc::new(Credits::new(2)), Arc::new(AtomicUsize::new(2)));
        assert!(credits.take(2));
        let worker = {
            let (credits, held) = (Arc::clone(&credits), Arc::clone(&held));
            thread::spawn(move || {
                for _ in 0..2 {
                    held.fetch_sub(1, Ordering::Relaxed);
                    credits.give_back(1);
                }
            })
        };
        for _ in 0..2 {
            if credits.take(1) {
                // A credit that was given back is one that nobody holds any more: this worker's step was seen.
                assert!(held.fetch_add(1, Ordering::Relaxed) < 2);
            }
        }
        worker.join().expect("it does not panic");
        assert_eq!(credits.used(), held.load(Ordering::Relaxed));
        assert!(credits.high_water.load(Ordering::Relaxed) <= 2);
    });
}

/// A reader of the cells sees every flow that was released as created too.
#[test]
fn no_flow_is_seen_to_end_that_was_not_seen_to_begin() {
    loom::model(|| {
        let lives = Arc::new(Lives::default());
        let worker = {
            let lives = Arc::clone(&lives);
            thread::spawn(move || (1..=3).for_each(|flows| lives.set(flows, flows)))
        };
        let (created, released) = lives.get();
        assert!(created >= released, "{created} {released}");
        worker.join().expect("it does not panic");
        assert_eq!(lives.get(), (3, 3));
    });
}

/// A count that was published is there for whoever has waited for its writer.
#[test]
fn counts_stand_once_their_writer_has_ended() {
    loom::model(|| {
        let cell = Arc::new(TallyCell::default());
        let writer = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || cell.set(Tally::frame(60)))
        };
        let seen = cell.get().packets;
        assert!(seen <= 1);
        writer.join().expect("it does not panic");
        assert_eq!(cell.get(), Tally::frame(60));
    });
}
