//! The queue: sums and bounds whatever comes, and who waits for whom.

use super::*;
use crate::priority::{Class, Match};
use crate::testing::record;
use crossbeam_channel::{Receiver, bounded};
use mermin_flow::{FlowEvent, Tally};
use proptest::prelude::*;
use std::collections::HashMap;
use std::thread;

/// A queue that never comes to an end fails the test instead of holding it up.
const LONG: Duration = Duration::from_secs(10);

fn queue(capacity: usize) -> (Arc<OutputQueue>, Consumer) {
    let queue = OutputQueue::new(QueueCounts::default(), capacity, false, Arc::default());
    (Arc::clone(&queue), Consumer(queue))
}

/// Reports of as many flows, the first of them with this number, with a packet each.
fn batch(first: u128, n: usize) -> Batch {
    let report = |flow| {
        let mut record = record(flow, FlowEvent::Update);
        record.tally = Tally::frame(60);
        record
    };
    Arc::new((first..).take(n).map(report).collect())
}

fn full(capacity: usize) -> (Arc<OutputQueue>, Consumer) {
    let (queue, consumer) = queue(capacity);
    assert!(queue.push(batch(0, capacity)).is_ok());
    (queue, consumer)
}

/// Pushes from another thread, and comes back when that waits for room.
fn pushing(queue: &Arc<OutputQueue>, n: usize) -> Receiver<Result<(), usize>> {
    let (done, outcome) = bounded(1);
    let pusher = Arc::clone(queue);
    thread::spawn(move || done.send(pusher.push(batch(0, n)).map_err(|back| back.len())));
    while queue.pulse().waits == 0 {
        assert!(outcome.try_recv().is_err(), "it did not wait");
        thread::yield_now();
    }
    outcome
}

fn taken(consumer: &Consumer) -> Option<usize> {
    match consumer.next(Duration::ZERO) {
        Some(Item::Records(batch)) => Some(batch.len()),
        Some(Item::End) | None => None,
    }
}

fn flows(consumer: &Consumer) -> Vec<u128> {
    match consumer.next(Duration::ZERO) {
        Some(Item::Records(batch)) => batch.iter().map(|record| record.id.0).collect(),
        Some(Item::End) | None => Vec::new(),
    }
}

#[test]
fn batches_are_shared_while_they_fit() {
    let (queue, consumer) = queue(10);
    for first in [0, 5] {
        let batch = batch(first, 5);
        assert_eq!(queue.offer(Arc::clone(&batch)), Ok(Strained::default()));
        assert_eq!(Arc::strong_count(&batch), 2);
    }
    let figures = queue.pulse();
    assert_eq!((figures.depth, figures.high_water, figures.capacity, queue.room(LONG)), (10, 10, 10, 0));
    assert_eq!([taken(&consumer), taken(&consumer), taken(&consumer)], [Some(5), Some(5), None]);
    let taken = queue.lock().taken;
    assert_eq!((taken, queue.pulse().depth, queue.pulse().high_water), (2, 0, 10));
}

#[test]
fn an_empty_queue_takes_any_batch() {
    let (queue, consumer) = queue(10);
    assert_eq!(queue.offer(batch(0, 25)), Ok(Strained::default()));
    assert_eq!((queue.pulse().depth, queue.room(LONG)), (25, 0));
    assert_eq!(taken(&consumer), Some(25));
    assert!(queue.push(batch(0, 11)).is_ok());
    assert_eq!(taken(&consumer), Some(11));
    assert_eq!(queue.offer(Arc::default()), Ok(Strained::default()));
    assert!(queue.is_empty(), "a batch of nothing is nothing");
}

#[test]
fn what_has_no_room_is_merged_and_then_dropped_and_other_outputs_dont_notice() {
    let (queue, consumer) = queue(4);
    let shared = batch(1, 4);
    assert_eq!(queue.offer(Arc::clone(&shared)), Ok(Strained::default()));
    // Two more reports of flows that wait, and one that does not.
    assert_eq!(queue.offer(batch(2, 2)), Ok(Strained { merged: 2, dropped: Amount::default() }));
    let dropped = Amount { records: 1, packets: 1, bytes: 60 };
    assert_eq!(queue.offer(batch(9, 1)), Ok(Strained { merged: 0, dropped }));
    assert_eq!(*shared, *batch(1, 4));
    let Some(Item::Records(records)) = consumer.next(Duration::ZERO) else { panic!("records wait") };
    let packets: Vec<_> = records.iter().map(|record| (record.id.0, record.tally.packets)).collect();
    assert_eq!(packets, [(1, 1), (2, 2), (3, 2), (4, 1)]);
    assert_eq!(queue.pulse().depth, 0);
}

#[test]
fn a_backlog_that_is_worked_off_is_none() {
    let (queue, consumer) = full(300);
    assert_eq!(queue.offer(batch(0, 1)).map(|strained| strained.merged), Ok(1));
    assert_eq!([taken(&consumer), taken(&consumer), taken(&consumer)], [Some(256), Some(44), None]);
    // As they came, though what ends a flow would go ahead in a backlog.
    assert!(queue.push(batch(1, 1)).is_ok() && queue.push(Arc::new(vec![record(2, FlowEvent::End)])).is_ok());
    assert_eq!([flows(&consumer), flows(&consumer)], [[1], [2]]);
}

#[test]
fn rules_say_what_goes_first_and_what_goes_by_the_board() {
    let low = PriorityRule { records: Match { ports: vec![53], ..Match::default() }, class: Class::Low };
    let queue = OutputQueue::new(QueueCounts::default(), 3, false, Arc::new([low]));
    let consumer = Consumer(Arc::clone(&queue));
    let mut records = Vec::clone(&batch(1, 3));
    records[0].destination.port = Some(53);
    records[2].destination.port = Some(53);
    assert_eq!(queue.offer(Arc::new(records)), Ok(Strained::default()));
    assert_eq!(queue.offer(batch(4, 1)).map(|strained| strained.dropped.records), Ok(1));
    assert_eq!(flows(&consumer), [2, 4, 1]);
}

#[test]
fn a_queue_that_has_become_too_small_comes_down_as_others_come_or_are_taken() {
    let (queue, consumer) = full(100);
    queue.change(10, Arc::default());
    let depth = || queue.pulse().depth;
    assert_eq!(
        (depth(), queue.pulse().capacity, queue.room(LONG)),
        (100, 10, 0),
        "nothing is dropped at once"
    );
    // Each that comes makes two go: its own flow's, then others.
    let strained = queue.offer(batch(0, 20)).unwrap();
    assert_eq!((strained.merged, strained.dropped.records, depth()), (20, 20, 80));
    queue.change(70, Arc::default());
    let strained = queue.offer(batch(200, 20)).unwrap();
    assert_eq!((strained.merged, strained.dropped.records, depth()), (0, 30, 70), "no further than that");
    // What was taken makes no room beyond the capacity.
    queue.change(5, Arc::default());
    assert_eq!(taken(&consumer), Some(70));
    assert_eq!(queue.offer(batch(300, 4)).unwrap(), Strained::default());
    assert_eq!(queue.offer(batch(400, 4)).map(|strained| strained.dropped.records), Ok(3));
    assert_eq!(depth(), 5);
}

#[test]
fn whoever_waits_for_room_goes_on_where_the_queue_becomes_larger() {
    let (queue, consumer) = full(4);
    let outcome = pushing(&queue, 2);
    queue.change(6, Arc::default());
    assert_eq!(outcome.recv_timeout(LONG), Ok(Ok(())));
    assert_eq!([taken(&consumer), taken(&consumer)], [Some(4), Some(2)]);
}

#[test]
fn other_rules_are_for_what_comes_from_then_on() {
    let low = PriorityRule { records: Match::default(), class: Class::Low };
    let (queue, consumer) = full(3);
    assert!(queue.offer(batch(1, 1)).is_ok());
    queue.change(5, Arc::new([low]));
    assert!(queue.offer(batch(10, 1)).is_ok());
    queue.change(5, Arc::default());
    assert!(queue.offer(batch(20, 1)).is_ok());
    assert_eq!(flows(&consumer), [0, 1, 2, 20, 10]);
}

#[test]
fn whoever_waits_for_room_goes_on_when_there_is_some() {
    let (queue, consumer) = full(4);
    let outcome = pushing(&queue, 2);
    assert_eq!(taken(&consumer), Some(4));
    assert_eq!(outcome.recv_timeout(LONG), Ok(Ok(())));
    assert_eq!((taken(&consumer), queue.pulse().waits), (Some(2), 1));
}

#[test]
fn what_is_waited_for_is_never_merged() {
    let (queue, consumer) = full(2);
    let outcome = pushing(&queue, 2);
    assert_eq!(flows(&consumer), [0, 1]);
    assert_eq!(outcome.recv_timeout(LONG), Ok(Ok(())));
    assert_eq!(flows(&consumer), [0, 1]);
}

#[test]
fn a_consumer_that_waits_hears_of_what_comes() {
    let (queue, consumer) = queue(4);
    let (done, outcome) = bounded(1);
    thread::spawn(move || {
        let heard = [(); 3].map(|()| consumer.next(LONG * 6).is_some());
        done.send(heard)
    });
    assert!(queue.push(batch(0, 1)).is_ok());
    assert!(queue.offer(batch(0, 1)).is_ok());
    queue.end();
    assert_eq!(outcome.recv_timeout(LONG), Ok([true; 3]));
}

#[test]
fn a_queue_that_stays_full_is_not_waited_for_until_it_is_half_empty() {
    let wait = Duration::from_secs(2);
    let (queue, consumer) = queue(10);
    (0..5).for_each(|flow| assert!(queue.push(batch(flow * 2, 2)).is_ok()));
    let now = Instant::now();
    let room = |after: Duration| queue.room_at(now + after, wait);
    assert_eq!([room(Duration::ZERO), room(wait / 2), room(wait)], [0, 0, usize::MAX]);
    let rooms = [(); 3].map(|()| (taken(&consumer), room(wait * 2)));
    assert_eq!(rooms, [(Some(2), usize::MAX), (Some(2), usize::MAX), (Some(2), 6)]);
    // Full again, by what did not wait.
    assert!(queue.push(batch(50, 6)).is_ok() && queue.offer(batch(60, 1)).is_ok());
    assert_eq!([room(Duration::ZERO), room(wait * 600)], [0, usize::MAX]);
}

#[test]
fn ends_come_behind_all_records() {
    let (queue, consumer) = full(2);
    queue.end();
    assert!(queue.offer(batch(5, 1)).is_ok());
    queue.end();
    assert_eq!(taken(&consumer), Some(2));
    let ends = [(); 3].map(|()| matches!(consumer.next(Duration::ZERO), Some(Item::End)));
    assert_eq!(ends, [true, true, false]);
    assert!(queue.is_empty());
}

#[test]
fn nobody_waits_for_a_consumer_that_is_gone() {
    let (queue, consumer) = full(4);
    let outcome = pushing(&queue, 2);
    drop(consumer);
    assert_eq!(outcome.recv_timeout(LONG), Ok(Err(2)));
    let (queue, consumer) = self::queue(4);
    drop(consumer);
    assert!(queue.push(batch(0, 1)).is_err() && queue.offer(batch(0, 1)).is_err(), "though there is room");
    assert!(queue.is_empty() && queue.room(LONG) == usize::MAX);
}

#[test]
fn after_giving_up_nobody_waits_but_what_has_room_still_passes() {
    let (queue, consumer) = full(4);
    let outcome = pushing(&queue, 2);
    queue.give_up();
    assert_eq!(outcome.recv_timeout(LONG), Ok(Err(2)));
    let (done, outcome) = bounded(1);
    let pusher = Arc::clone(&queue);
    thread::spawn(move || done.send(pusher.push(batch(0, 3)).map_err(|back| back.len())));
    assert_eq!(outcome.recv_timeout(LONG), Ok(Err(3)));
    assert_eq!((taken(&consumer), queue.pulse().waits), (Some(4), 1));
    assert!(queue.push(batch(0, 3)).is_ok());
    assert_eq!(taken(&consumer), Some(3));
}

#[derive(Clone, Debug)]
enum Step {
    /// Reports of these flows, in one batch.
    Offer(Vec<u128>),
    Push(Vec<u128>),
    Take,
    /// There is room for so many from now on.
    Change(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let flows = || prop::collection::vec(0_u128..6, 0..8);
    prop_oneof![3 => flows().prop_map(Step::Offer), 1 => flows().prop_map(Step::Push), 2 => Just(Step::Take),
        1 => (1_usize..12).prop_map(Step::Change)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whether batches fit or not: the bound holds, each flow's records come out in order, and what was handed over is
    /// what came out, was dropped, or was merged.
    #[test]
    fn nothing_vanishes(steps in prop::collection::vec(step(), 1..60), mut capacity in 1_usize..12) {
        let (queue, consumer) = queue(capacity);
        let mut sequences = HashMap::<u128, u32>::new();
        let (mut handed, mut out, mut strained) = (Amount::default(), Amount::default(), Strained::default());
        let mut last = HashMap::<u128, u32>::new();
        let mut batch = |flows: &[u128]| {
            let records = flows.iter().map(|flow| {
                let mut record = record(*flow, FlowEvent::Update);
                let sequence = sequences.entry(*flow).or_default();
                record.sequence = *sequence;
                record.tally = Tally::frame(60 + u64::from(*sequence));
                *sequence += 1;
                record
            });
            Arc::new(records.collect::<Vec<_>>())
        };
        for step in steps.into_iter().chain(std::iter::repeat_n(Step::Take, 60)) {
            let before = queue.pulse().depth as usize;
            match step {
                Step::Offer(flows) => {
                    let batch = batch(&flows);
                    batch.iter().for_each(|record| handed += Amount::of(record));
                    let more = queue.offer(batch).unwrap();
                    strained.merged += more.merged;
                    strained.dropped += more.dropped;
                    let bound = if before == 0 { capacity.max(flows.len()) } else { capacity.max(before) };
                    prop_assert!(queue.pulse().depth as usize <= bound);
                }
                // It would wait.
                Step::Push(flows) if before > 0 && before + flows.len() > capacity => {}
                Step::Push(flows) => {
                    let batch = batch(&flows);
                    batch.iter().for_each(|record| handed += Amount::of(record));
                    prop_assert!(queue.push(batch).is_ok());
                }
                Step::Change(other) => {
                    capacity = other;
                    queue.change(capacity, Arc::default());
                    prop_assert_eq!(queue.pulse().depth as usize, before);
                }
                Step::Take => {
                    if let Some(Item::Records(records)) = consumer.next(Duration::ZERO) {
                        for record in records.iter() {
                            out += Amount::of(record);
                            let before = last.insert(record.id.0, record.sequence);
                            prop_assert!(before.is_none_or(|before| before < record.sequence));
                        }
                    }
                }
            }
        }
        out += strained.dropped;
        out.records += strained.merged;
        prop_assert_eq!(handed, out);
        prop_assert!(queue.is_empty());
    }
}
