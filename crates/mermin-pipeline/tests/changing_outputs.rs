//! Outputs that come, go and take each other's place while records flow: every record that one was handed stands in its book,
//! and no figure ever falls.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "parts/bug.rs"]
mod bug;
#[path = "parts/many_records.rs"]
mod many_records;
mod parts;

use bug::bug;
use many_records::{chatty, sorted};
use mermin_flow::{Exporter, Failure, FlowId, FlowRecord, Interval, Receipt};
use mermin_pipeline::{
    ChangeError, NewOutput, Observer, Outcome, OutputBook, PipelineConfig, Running, Stages, Statistics,
    Tuning, start,
};
use parts::{Collected, Synthetic, assert_settled, config, count, in_reader, stages};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// More than a test lasts.
const PATIENCE: Duration = Duration::from_secs(60);

fn named(name: &'static str) -> Collected {
    Collected { name, ..Collected::default() }
}

fn new(collected: &Collected) -> NewOutput {
    NewOutput { exporter: Box::new(collected.clone()), after: Vec::new(), buffer: None }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A live source that goes on, at a pace that memory can bear, until a test has seen what it wants.
fn running(pipeline: &PipelineConfig, first: &[&Collected]) -> Running<Synthetic<true>> {
    let pace = |_| thread::sleep(Duration::from_millis(4));
    let source = Synthetic { before_poll: Some(Box::new(pace)), ..Synthetic::new(u64::MAX, 20) };
    let exporters = first.iter().map(|one| Box::new((*one).clone()) as _).collect();
    start(pipeline, &chatty(), Stages { exporters, ..stages(source, first[0]) }).unwrap()
}

/// Has `test` look at a run, which ends with it.
fn looking<S: mermin_flow::Source + 'static>(
    running: Running<S>,
    test: impl FnOnce(&Watch) + Send + 'static,
) -> Outcome<S> {
    let watch = Watch { observer: running.observer(), tuning: running.tuning() };
    let test = thread::spawn(move || test(&watch));
    let outcome = running.wait(|| test.is_finished());
    test.join().unwrap();
    outcome
}

struct Watch {
    observer: Observer,
    tuning: Tuning,
}

impl Watch {
    fn change(&self, leave: &[&str], come: Vec<NewOutput>) {
        self.change_within(PATIENCE, leave, come);
    }

    fn change_within(&self, patience: Duration, leave: &[&str], come: Vec<NewOutput>) {
        self.tuning.change_outputs(&names(leave), come, patience).unwrap();
    }

    /// Looks until it is so; at each look all books balance.
    fn until(&self, what: &str, is_so: impl Fn(&Statistics) -> bool) -> Statistics {
        let began = Instant::now();
        loop {
            let (statistics, _) = self.observer.statistics(Duration::from_secs(5));
            assert!(statistics.ledger.metering_balances(), "{:#?}", statistics.ledger);
            for (name, book) in &statistics.outputs {
                assert!(book.balances(), "{name}: {book:?}");
            }
            if is_so(&statistics) {
                return statistics;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{what}: {:#?}", statistics.outputs);
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn until_delivered(&self, name: &str, more: u64) -> OutputBook {
        let (before, _) = self.observer.statistics(Duration::from_secs(5));
        let wanted = book(&before, name).delivered.records + more;
        let now = self.until(name, |statistics| book(statistics, name).delivered.records >= wanted);
        book(&now, name)
    }

    /// Names of the outputs that are asked how they do.
    fn present(&self) -> Vec<String> {
        self.observer.pulse().outputs.into_iter().map(|output| output.name).collect()
    }
}

fn book(statistics: &Statistics, name: &str) -> OutputBook {
    let found = statistics.outputs.iter().find(|(one, _)| one == name);
    found.map(|(_, book)| book.clone()).unwrap_or_default()
}

fn len(collected: &Collected) -> u64 {
    collected.records.lock().unwrap().len() as u64
}

/// What two outputs get that come and go together is the same, whatever batches are on their way meanwhile.
#[test]
fn outputs_come_and_go_and_each_batch_goes_to_all_that_there_are() {
    let all = Collected::default();
    let (twins, again) = ([named("a"), named("b")], [named("a"), named("b")]);
    let pipeline = config(2, 3);
    let run = running(&pipeline, &[&all]);
    run.tuning().set_output_queue_capacity(count(1_000_000));
    let (theirs, theirs_again) = (twins.clone(), again.clone());
    let outcome = looking(run, move |watch| {
        watch.until_delivered("collected", 1_000);
        watch.change(&[], theirs.iter().map(new).collect());
        assert_eq!(watch.present(), names(&["collected", "a", "b"]));
        watch.until_delivered("b", 1_000);
        // Others in their places, then none, then the same again.
        watch.change(&["a", "b"], theirs_again.iter().map(new).collect());
        let before = watch.until_delivered("a", 1_000);
        watch.change(&["b", "a"], Vec::new());
        assert_eq!(watch.present(), names(&["collected"]));
        let handed = watch.until("they end", |statistics| {
            let [a, b] = ["a", "b"].map(|name| book(statistics, name));
            a.handed == a.delivered && b.handed == b.delivered && a.handed == b.handed
        });
        assert!(book(&handed, "a").handed.records >= before.handed.records, "no figure falls");
        watch.until_delivered("collected", 1_000);
        let later = watch.until("at once", |_| true);
        assert_eq!(book(&later, "a"), book(&handed, "a"), "nothing is handed to what has gone");
        watch.change(&[], theirs.iter().map(new).collect());
        watch.until_delivered("a", 1_000);
    });
    assert_settled(&outcome);
    let [a, b] = ["a", "b"].map(|name| book(&outcome.statistics, name));
    assert_eq!(a.handed, b.handed);
    assert_eq!(a.delivered.records, len(&twins[0]) + len(&again[0]));
    assert!(
        a.delivered.records >= 3_000
            && a.handed.records < book(&outcome.statistics, "collected").handed.records
    );
    let released = outcome.statistics.ledger.released.packets;
    assert_eq!(book(&outcome.statistics, "collected").handed.packets, released);
    for (one, other) in [(&twins[0], &twins[1]), (&again[0], &again[1])] {
        assert!(sorted(one) == sorted(other), "both get the same");
    }
}

/// One that never answers keeps nobody: not who removes it, not the others, not readiness, not the end.
#[test]
fn a_stuck_output_that_is_removed_is_given_up_in_time() {
    let (healthy, stuck, other) = (Collected::default(), named("stuck"), named("stuck"));
    stuck.stuck.store(true, Ordering::Release);
    let patience = Duration::from_millis(300);
    let run = running(&config(1, 1), &[&healthy, &stuck]);
    run.tuning().set_output_queue_capacity(count(500));
    let (lets_go, successor) = (stuck.clone(), other.clone());
    let outcome = looking(run, move |watch| {
        watch.until("it is full", |statistics| book(statistics, "stuck").merged > 0);
        let began = Instant::now();
        watch.change_within(patience, &["stuck"], Vec::new());
        assert!(began.elapsed() < Duration::from_secs(1) && watch.present() == names(&["collected"]));
        let given_up =
            watch.until("it is given up", |statistics| book(statistics, "stuck").queued.records == 0);
        assert!(began.elapsed() >= patience);
        let given_up = book(&given_up, "stuck");
        assert_eq!(given_up.delivered.records, 0);
        assert_eq!(
            given_up.dropped["shutdown_timeout"].records + given_up.merged,
            given_up.handed.records - given_up.dropped.get("queue_full").map_or(0, |dropped| dropped.records)
        );
        watch.until_delivered("collected", 1_000);
        // One of its name goes on with its book; what the old one does after all counts no more.
        watch.change(&[], vec![new(&successor)]);
        let goes_on = watch.until_delivered("stuck", 1_000);
        assert!(goes_on.handed.records > given_up.handed.records && goes_on.merged == given_up.merged);
        lets_go.stuck.store(false, Ordering::Release);
    });
    // It was no matter of the end.
    assert_settled(&outcome);
    let last = book(&outcome.statistics, "stuck");
    assert_eq!(last.delivered.records, len(&other));
}

/// Nor when the run is told to end meanwhile: it has half a second, and the exit is that of the others.
#[test]
fn a_stuck_output_that_was_removed_is_no_matter_of_the_end() {
    let (healthy, stuck) = (Collected::default(), named("stuck"));
    stuck.stuck.store(true, Ordering::Release);
    let pipeline = PipelineConfig { shutdown_timeout: Interval::seconds(60), ..config(1, 1) };
    let run = running(&pipeline, &[&healthy, &stuck]);
    let began = Instant::now();
    let outcome = looking(run, |watch| {
        watch.until("it waits", |statistics| book(statistics, "stuck").queued.records > 100);
        watch.change(&["stuck"], Vec::new());
    });
    assert!(began.elapsed() < Duration::from_secs(20), "it was waited for");
    assert_settled(&outcome);
    let stuck_book = book(&outcome.statistics, "stuck");
    assert_eq!(stuck_book.delivered.records, 0);
    assert!(stuck_book.dropped["shutdown_timeout"].records > 100, "{stuck_book:?}");
    assert_eq!(book(&outcome.statistics, "collected").delivered.records, len(&healthy));
    stuck.stuck.store(false, Ordering::Release);
}

/// Panics at the first record once it is told to, and can't go on.
#[derive(Clone, Default)]
struct Bug {
    panics: Arc<AtomicBool>,
}

impl Exporter for Bug {
    fn name(&self) -> &str {
        "bug"
    }

    fn export(&mut self, _: &[FlowRecord], _: &mut Receipt) -> Result<(), Failure> {
        while !self.panics.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
        }
        bug()
    }

    fn flush(&mut self, _: &mut Receipt) -> Result<(), Failure> {
        Ok(())
    }
}

/// One that panics ends the run and is named; one that was removed before costs its own records only.
#[test]
fn a_panic_of_an_output_that_was_removed_is_no_matter_of_the_run() {
    for removed in [true, false] {
        let (healthy, bug) = (Collected::default(), Bug::default());
        let run = running(&config(1, 1), &[&healthy]);
        let theirs = bug.clone();
        let outcome = looking(run, move |watch| {
            let exporter = Box::new(theirs.clone());
            watch.change(&[], vec![NewOutput { exporter, after: Vec::new(), buffer: None }]);
            watch.until("it has some", |statistics| book(statistics, "bug").queued.records > 100);
            if removed {
                watch.change(&["bug"], Vec::new());
            }
            theirs.panics.store(true, Ordering::Release);
            let dropped = |statistics: &Statistics| book(statistics, "bug").dropped.contains_key("crash");
            if removed {
                watch.until("its book says so", dropped);
                watch.until_delivered("collected", 1_000);
            } else {
                let began = Instant::now();
                while !watch.observer.pulse().ending {
                    assert!(began.elapsed() < Duration::from_secs(60), "the run goes on");
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        let named: &[&str] = if removed { &[] } else { &["out-bug"] };
        assert_eq!(outcome.panicked, named);
        assert!(outcome.statistics.outputs.iter().all(|(_, book)| book.balances()));
    }
}

/// A file that another output is to write to: that begins when the first has ended, and misses no record in between.
#[test]
fn what_comes_behind_another_begins_when_that_has_ended_and_misses_nothing() {
    let (healthy, first) = (Collected::default(), named("first"));
    let behind = |name| Collected { name, records: first.records.clone(), ..Collected::default() };
    let (second, third) = (behind("second"), behind("third"));
    let run = running(&config(2, 1), &[&healthy, &first]);
    run.tuning().set_output_queue_capacity(count(1_000_000));
    let (one, two, three) = (first.clone(), second.clone(), third.clone());
    let outcome = looking(run, move |watch| {
        watch.until_delivered("first", 1_000);
        one.stuck.store(true, Ordering::Release);
        watch.until("it stands", |statistics| book(statistics, "first").queued.records > 1_000);
        watch.change(&["first"], vec![NewOutput { after: names(&["first"]), ..new(&two) }]);
        watch.until("it waits", |statistics| book(statistics, "second").queued.records > 1_000);
        assert_eq!(watch.tuning.leaving_outputs(), ["first"]);
        // It has not begun, and goes already; the third waits for both.
        let after = names(&["first", "second"]);
        watch.change(&["second"], vec![NewOutput { after, ..new(&three) }]);
        let waits = watch.until("it waits", |statistics| book(statistics, "third").queued.records > 1_000);
        assert_eq!(["second", "third"].map(|name| book(&waits, name).delivered.records), [0, 0]);
        one.stuck.store(false, Ordering::Release);
        watch.until_delivered("third", 1_000);
        assert!(watch.tuning.leaving_outputs().is_empty());
    });
    assert_settled(&outcome);
    let books = ["first", "second", "third"].map(|name| book(&outcome.statistics, name));
    let handed: u64 = books.iter().map(|book| book.handed.packets).sum();
    assert_eq!(handed, outcome.statistics.ledger.released.packets);
    assert!(books.iter().all(|book| book.dropped.is_empty() && book.merged == 0));
    let records = first.records.lock().unwrap();
    let mut last = HashMap::<FlowId, &FlowRecord>::new();
    for record in &*records {
        let before = last.insert(record.id, record);
        assert_eq!(
            before.map_or(0, |before| before.sequence + 1),
            record.sequence,
            "in order, and none is missing"
        );
    }
    assert_eq!(records.len() as u64, len(&healthy));
}

#[test]
fn what_cannot_be_changed_leaves_all_as_it_is() {
    let (healthy, other) = (Collected::default(), named("other"));
    let outcome = looking(running(&config(1, 1), &[&healthy]), {
        let other = other.clone();
        move |watch| {
            let change = |leave: &[&str], come| watch.tuning.change_outputs(&names(leave), come, PATIENCE);
            let unknown = change(&["collected", "nobody"], vec![new(&other)]);
            assert!(matches!(unknown, Err(ChangeError::Unknown { name }) if name == "nobody"));
            for come in [vec![new(&healthy)], vec![new(&other), new(&other)]] {
                assert!(matches!(change(&[], come), Err(ChangeError::Twice { .. })));
            }
            assert_eq!(watch.present(), names(&["collected"]));
            watch.until_delivered("collected", 1_000);
        }
    });
    assert_settled(&outcome);
    assert_eq!(outcome.statistics.outputs.len(), 1);
    // A replay that has ended: records go to the outputs that it had.
    let source = Synthetic::<false>::new(1_000, 10);
    let running = start(&in_reader(), &chatty(), stages(source, &other)).unwrap();
    let tuning = running.tuning();
    assert_settled(&running.wait(|| false));
    assert!(matches!(tuning.change_outputs(&[], Vec::new(), PATIENCE), Err(ChangeError::Ending)));
}
