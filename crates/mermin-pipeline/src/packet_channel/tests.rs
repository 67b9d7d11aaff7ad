//! The packet channel, both ends in one thread: what fits, what waits, what is lost, and in which order it comes.

use super::*;
use mermin_flow::Observation;
use std::thread;

/// Merges nothing, and reads no more when one waits.
const LEAVE: WhenFull = WhenFull::Coalesce { capacity: 1, gap: 0 };

fn packet_channel(capacity: usize, workers: usize, when_full: WhenFull) -> (Lanes, Vec<Intake>) {
    let room = ChannelRoom::new(capacity, when_full, false);
    super::packet_channel(Arc::new(room), (workers, workers), when_full)
}

fn observation(shard: u8) -> Observation {
    Observation { shard, packets: 1, buffers: 1, ..Observation::EMPTY }
}

fn batches(intake: &Intake) -> Vec<usize> {
    let mut sizes = Vec::new();
    while !intake.is_empty() {
        match intake.next() {
            Some(Message::Batch(batch, _)) => {
                sizes.push(batch.len());
                intake.give_back(batch);
            }
            Some(_) | None => break,
        }
    }
    sizes
}

fn batches_of(intake: &Intake) -> Vec<Observation> {
    let mut all = Vec::new();
    while let Some(message) = intake.left() {
        if let Message::Batch(batch, _) = message {
            all.extend_from_slice(&batch);
            intake.give_back(batch);
        }
    }
    all
}

/// How many observations a worker takes until it is told to end.
fn metered(intake: &Intake) -> usize {
    let mut n = 0;
    while let Some(message) = intake.next() {
        match message {
            Message::Batch(batch, _) => {
                n += batch.len();
                intake.give_back(batch);
            }
            Message::Finish(..) => break,
            _ => {}
        }
    }
    n
}

#[test]
fn batches_grow_with_the_capacity_and_few_may_be_small() {
    for (capacity, workers, batch, outstanding) in
        [(1, 2, 1, 2), (100, 1, 25, 6), (10_000, 2, 1_024, 6), (1_000_000, 4, 1_024, 246)]
    {
        let (lanes, _) = packet_channel(capacity, workers, LEAVE);
        assert_eq!((lanes.batch, lanes.outstanding_max), (batch, outstanding), "{capacity}, {workers}");
    }
}

#[test]
fn a_capacity_of_one_works() {
    let (mut lanes, intakes) = packet_channel(1, 2, WhenFull::Drop);
    lanes.push(&observation(0));
    lanes.push(&observation(1));
    assert_eq!(lanes.lost.packets, 1, "the second found no room");
    assert_eq!((lanes.room.credits.used(), lanes.room.credits.high_water.load(Ordering::Relaxed)), (1, 1));
    assert_eq!(batches(&intakes[0]), [1]);
    lanes.push(&observation(1));
    assert_eq!(batches(&intakes[1]), [1]);
    assert_eq!(lanes.room.credits.used(), 0);
}

#[test]
fn dropping_counts_the_newest_batch_and_leaving_keeps_it() {
    for (when_full, lost, kept) in [(WhenFull::Drop, 2, 0), (LEAVE, 0, 2)] {
        let (mut lanes, intakes) = packet_channel(8, 1, when_full);
        for _ in 0..10 {
            lanes.push(&observation(0));
        }
        assert_eq!((lanes.lost.packets, lanes.open().packets), (lost, kept));
        assert_eq!(lanes.has_room(), when_full == WhenFull::Drop);
        let waits = |lanes: &Lanes| lanes.room.credits.waits.load(Ordering::Relaxed);
        assert_eq!(waits(&lanes), usize::from(when_full == LEAVE), "tried twice, one wait");
        assert_eq!((lanes.is_blocked(), lanes.waits()), (when_full == LEAVE, when_full == LEAVE));
        assert_eq!(batches(&intakes[0]), [2, 2, 2, 2]);
        assert!(lanes.has_room());
        for _ in 0..10 {
            lanes.push(&observation(0));
        }
        assert_eq!(waits(&lanes), 2 * usize::from(when_full == LEAVE), "another one");
        assert_eq!(batches(&intakes[0]).len(), 4);
        lanes.has_room();
        assert_eq!(lanes.open().packets, 0);
    }
}

#[test]
fn what_came_together_while_the_channel_was_full_passes_however_small_it_is() {
    for capacity in [1, 3, 8, 100] {
        let (mut lanes, intakes) = packet_channel(capacity, 1, LEAVE);
        for _ in 0..1_000 {
            lanes.push(&observation(0));
        }
        let (mut passed, mut rounds) = (0, 0);
        while passed < 1_000 && rounds < 2_000 {
            let sizes = batches(&intakes[0]);
            assert!(sizes.iter().all(|size| *size <= lanes.batch), "{sizes:?}");
            assert!(sizes.iter().sum::<usize>() <= capacity);
            passed += sizes.iter().sum::<usize>();
            lanes.has_room();
            lanes.flush();
            rounds += 1;
        }
        assert_eq!((passed, lanes.open().packets, lanes.room.credits.used()), (1_000, 0, 0));
        assert!(lanes.lanes[0].open.capacity() <= lanes.batch, "the memory of the burst is given back");
    }
}

#[test]
fn what_finds_no_room_is_merged_and_bounded() {
    let full = WhenFull::Coalesce { capacity: 40, gap: 1 };
    let (mut lanes, intakes) = packet_channel(8, 1, full);
    let of = |flow: usize| Observation { addresses: [flow as u64, 0, 0, 0], ..observation(0) };
    for n in 0..1_000 {
        lanes.push(&of(n % 20));
        assert!(n % 100 > 0 || lanes.has_room());
    }
    assert_eq!((lanes.waiting, lanes.merges(), lanes.lost()), (20, 1_000 - 8 - 20, Tally::ZERO));
    assert_eq!((lanes.open().packets, lanes.is_blocked()), (992, false));
    for n in 0..30 {
        lanes.push(&of(100 + n));
    }
    assert!(!lanes.has_room(), "50 wait where 40 may");
    let room = lanes.room.coalescing.as_ref().unwrap().pulse().room;
    assert_eq!((room.depth, room.high_water, room.capacity), (50, 50, 40));
    let mut packets = 0;
    while lanes.waits() || !intakes[0].is_empty() {
        while let Some(Message::Batch(batch, _)) = intakes[0].left() {
            assert!(batch.len() <= lanes.batch);
            packets += batch.iter().map(|o| o.packets).sum::<u32>();
            intakes[0].give_back(batch);
        }
        lanes.has_room();
    }
    assert_eq!((packets, lanes.waiting, lanes.room.credits.used()), (1_030, 0, 0));
    assert!(lanes.has_room());
    assert_eq!(lanes.room.coalescing.as_ref().unwrap().pulse().room.depth, 0);
}

#[test]
fn a_worker_that_stands_still_leaves_room_for_the_others() {
    for (when_full, lost) in [(LEAVE, 0), (WhenFull::Drop, 1_000 - 12)] {
        let (mut lanes, intakes) = packet_channel(16, 2, when_full);
        let mut passed = 0;
        for _ in 0..1_000 {
            lanes.push(&observation(0));
            lanes.push(&observation(1));
            lanes.has_room();
            passed += batches(&intakes[1]).iter().sum::<usize>();
        }
        assert_eq!((passed, lanes.lost().packets), (1_000, lost), "{when_full:?}");
        assert_eq!(batches(&intakes[0]).iter().sum::<usize>(), 12, "all but two batches of the other's");
    }
}

/// Shards that get another worker take along what waits here, in order.
#[test]
fn what_waits_moves_with_its_shard() {
    for when_full in [LEAVE, WhenFull::Wait] {
        let (mut lanes, intakes) = packet_channel(64, 2, when_full);
        let sent = if when_full == LEAVE { 300 } else { 7 };
        for n in 0..sent {
            lanes.push(&Observation { start: n, ..observation((n % 3) as u8 * 2) });
        }
        let waiting = lanes.open().packets;
        assert!(waiting > 0 && waiting < sent + 1);
        let mut owners = lanes.owners();
        owners[2] = 1;
        lanes.set_owners(owners);
        let mut second = batches_of(&intakes[1]);
        assert_eq!(lanes.open().packets, waiting - second.len() as u64);
        let mut first = batches_of(&intakes[0]);
        while lanes.waits() {
            lanes.has_room();
            lanes.flush();
            first.extend(batches_of(&intakes[0]));
            second.extend(batches_of(&intakes[1]));
        }
        let shards =
            |all: &[Observation]| all.iter().map(|o| o.shard).collect::<std::collections::BTreeSet<_>>();
        assert_eq!((first.len() + second.len()) as u64, sent);
        assert!(shards(&second).iter().all(|shard| *shard == 2), "{second:?}");
        for shard in [0, 2, 4] {
            let of = first.iter().chain(&second).filter(|o| o.shard == shard);
            assert!(of.map(|o| o.start).is_sorted());
        }
    }
}

#[test]
fn a_worker_that_died_with_a_full_channel_is_noticed() {
    for when_full in [LEAVE, WhenFull::Drop, WhenFull::Wait] {
        let (mut lanes, mut intakes) = packet_channel(2, 1, LEAVE);
        lanes.push(&observation(0));
        lanes.push(&observation(0));
        assert!(!lanes.worker_gone());
        intakes.clear();
        lanes.when_full = when_full;
        lanes.push(&observation(0));
        assert!(lanes.worker_gone(), "{when_full:?}");
        assert_eq!(lanes.open().packets, 1, "it still stands in the books");
    }
}

#[test]
fn time_is_told_once_until_it_was_heard_and_never_ahead_of_packets_that_wait() {
    let (mut lanes, intakes) = packet_channel(8, 2, LEAVE);
    let heard = || {
        let mut heard = Vec::new();
        while !intakes[0].is_empty() {
            match intakes[0].next() {
                Some(Message::Watermark(watermark)) => heard.push(watermark),
                Some(Message::Batch(batch, _)) => intakes[0].give_back(batch),
                Some(_) | None => break,
            }
        }
        heard
    };
    lanes.tick(1, 2);
    lanes.tick(2, 2);
    assert_eq!(heard(), [1]);
    lanes.tick(3, 2);
    assert_eq!(heard(), [3]);
    lanes.lanes[0].open.push(observation(0));
    lanes.tick(4, 2);
    assert_eq!(heard(), [0; 0]);
    lanes.flush();
    lanes.tick(5, 2);
    assert_eq!(heard(), [5]);
}

#[test]
fn small_batches_wait_in_the_reader_once_many_are_out() {
    let (mut lanes, intakes) = packet_channel(16, 1, LEAVE);
    let mut sent = 0;
    for _ in 0..12 {
        lanes.push(&observation(0));
        lanes.flush();
        sent += 1;
        assert_eq!(lanes.open().packets == 0, sent <= 6 || sent == 10, "{sent}");
    }
    let sizes = batches(&intakes[0]);
    assert!(sizes.len() <= lanes.outstanding_max + 2, "{sizes:?}");
    lanes.flush();
    assert_eq!(sizes.iter().sum::<usize>() + batches(&intakes[0]).iter().sum::<usize>(), sent);
}

#[test]
fn a_waiting_reader_goes_on_when_a_worker_gives_back() {
    let (mut lanes, mut intakes) = packet_channel(4, 1, WhenFull::Wait);
    let intake = intakes.remove(0);
    let worker = thread::spawn(move || metered(&intake));
    for _ in 0..10_000 {
        lanes.push(&observation(0));
    }
    lanes.finish(0, None, 1);
    assert_eq!(worker.join().unwrap(), 10_000);
}

#[test]
fn once_the_end_has_come_the_reader_waits_for_room_whatever_it_did_before() {
    for when_full in [LEAVE, WhenFull::Drop] {
        let (mut lanes, mut intakes) = packet_channel(2, 1, when_full);
        lanes.wait_from_now();
        let (intake, room) = (intakes.remove(0), Arc::clone(&lanes.room));
        let worker = thread::spawn(move || {
            while room.credits.waits.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            metered(&intake)
        });
        for _ in 0..100 {
            lanes.push(&observation(0));
            assert!(!lanes.is_blocked() && lanes.lost() == Tally::ZERO, "{when_full:?}");
        }
        assert_eq!(lanes.finish(0, None, 1), Tally::ZERO);
        assert_eq!(worker.join().unwrap(), 100);
    }
}

#[test]
fn batches_do_not_carry_the_memory_of_a_burst_away() {
    let (mut lanes, intakes) = packet_channel(8, 1, LEAVE);
    for _ in 0..101 {
        lanes.push(&observation(0));
    }
    let mut passed = 0;
    while passed < 101 {
        while !intakes[0].is_empty() {
            let Some(Message::Batch(batch, _)) = intakes[0].next() else { panic!("a batch") };
            assert!(batch.capacity() <= lanes.batch, "{} of {}", batch.capacity(), lanes.batch);
            passed += batch.len();
            intakes[0].give_back(batch);
        }
        lanes.has_room();
        lanes.flush();
    }
    assert_eq!(lanes.open(), Tally::ZERO);
}
