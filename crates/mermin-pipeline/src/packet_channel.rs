//! The packet channel: batches of observations from the reader to the flow workers.
//!
//! One lane a worker. Credits count observations over all lanes, so the configured capacity is what it says and a
//! capacity of 1 works; the queues behind them need no bound of their own. Batches are recycled: after warm-up the
//! channel allocates nothing. How many small batches (from drains that ended early) may wait is bounded as well,
//! because each holds a whole batch's memory; beyond that they wait in the reader and grow.
//!
//! Control messages (time, markers, the end) pass without credits: few exist at a time.

use crate::credits::Credits;
use crate::handover::Handover;
use crate::look::Look;
use crate::snapshot::Marker;
use crossbeam_channel::{Receiver, Sender, bounded};
use mermin_flow::{Observation, SHARDS, Tally, prefetch_to_write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

const BATCH_MAX: usize = 1_024;

/// How many observations ahead of the one being written memory is taken back from the core of the worker, who read
/// there last. Without it the reader stands at its stores for a sixth of its time.
const AHEAD: usize = 8;

/// What goes down a lane.
pub(crate) enum Message {
    /// Observations of this worker's shards, in the reader's order, and when they were sent where somebody wants to know.
    Batch(Vec<Observation>, Option<Instant>),
    /// Time has come this far.
    Watermark(u64),
    /// A snapshot passes.
    Marker(Marker),
    /// Somebody wants to see flows.
    Look(Arc<Look>),
    /// No more will come; time has come this far.
    Finish(u64),
}

/// What the reader does when the channel is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// Waits for a worker (replay).
    Wait,
    /// Keeps the batch and reads no more from the source (live).
    Leave,
    /// Drops the newest batch and counts it.
    Drop,
}

struct Lane {
    messages: Sender<Message>,
    given_back: Receiver<Vec<Observation>>,
    /// Given back. The last is taken first: most of it is still in a cache.
    spare: Vec<Vec<Observation>>,
    open: Vec<Observation>,
    /// Batches sent and not yet given back.
    outstanding: Arc<AtomicUsize>,
    /// Whether a watermark is on its way.
    ticking: Arc<AtomicBool>,
}

impl Lane {
    /// Whether its worker has ended: that drops the worker's half of the lane.
    fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.outstanding) == 1
    }

    /// The first `n` open observations, in memory for `batch`.
    fn take(&mut self, n: usize, batch: usize) -> Vec<Observation> {
        self.spare.extend(self.given_back.try_iter());
        let mut other = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(batch));
        if n == self.open.len() && self.open.capacity() <= batch {
            return std::mem::replace(&mut self.open, other);
        }
        other.extend(self.open.drain(..n));
        if self.open.is_empty() {
            // It has grown while the channel was full; only the reader's own memory may.
            self.open.shrink_to(batch);
        }
        other
    }
}

/// The reader's end.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    /// By shard; a division would be a tenth of the reader's work.
    workers: [u8; SHARDS],
    credits: Arc<Credits>,
    batch: usize,
    outstanding_max: usize,
    when_full: WhenFull,
    blocked: bool,
    lost: Tally,
    worker_gone: bool,
}

/// A worker's end.
pub(crate) struct Intake {
    messages: Receiver<Message>,
    spare: Sender<Vec<Observation>>,
    credits: Arc<Credits>,
    outstanding: Arc<AtomicUsize>,
    ticking: Arc<AtomicBool>,
}

/// A channel for `workers` workers that holds as many observations as there are credits.
pub(crate) fn packet_channel(
    credits: Arc<Credits>,
    workers: usize,
    when_full: WhenFull,
) -> (Lanes, Vec<Intake>) {
    let capacity = credits.capacity;
    let batch = (capacity / (4 * workers)).clamp(1, BATCH_MAX);
    let outstanding_max = capacity / batch / workers + 2;
    let ends = (0..workers).map(|_| {
        #[expect(
            clippy::disallowed_methods,
            reason = "credits bound the batches in it; control messages are few"
        )]
        let (sender, messages) = crossbeam_channel::unbounded();
        let (give, given_back) = bounded(outstanding_max);
        let (outstanding, ticking) = (Arc::default(), Arc::default());
        let intake = Intake {
            messages,
            spare: give,
            credits: Arc::clone(&credits),
            outstanding: Arc::clone(&outstanding),
            ticking: Arc::clone(&ticking),
        };
        (
            Lane {
                messages: sender,
                given_back,
                spare: Vec::new(),
                open: Vec::with_capacity(batch),
                outstanding,
                ticking,
            },
            intake,
        )
    });
    let (lanes, intakes) = ends.unzip();
    let lanes = Lanes {
        lanes,
        workers: std::array::from_fn(|shard| worker_of(shard, workers) as u8),
        credits,
        batch,
        outstanding_max,
        when_full,
        blocked: false,
        lost: Tally::ZERO,
        worker_gone: false,
    };
    (lanes, intakes)
}

impl Lanes {
    /// Hands over what is open, a batch at a time: while the channel was full more than a batch, even more than the
    /// channel holds, can have come together.
    fn send(&mut self, worker: usize) {
        let lane = &mut self.lanes[worker];
        while !lane.open.is_empty() {
            let n = lane.open.len().min(self.batch);
            if !self.credits.take(n) {
                if lane.is_abandoned() {
                    self.worker_gone = true;
                    return;
                }
                match self.when_full {
                    WhenFull::Leave => {
                        self.blocked = true;
                        return;
                    }
                    WhenFull::Drop => {
                        self.lost += lane.open.iter().map(Observation::tally).sum();
                        lane.open.clear();
                        return;
                    }
                    WhenFull::Wait => {
                        if !self.credits.wait(n, || lane.is_abandoned()) {
                            self.worker_gone = true;
                            return;
                        }
                    }
                }
            }
            let batch = lane.take(n, self.batch);
            lane.outstanding.fetch_add(1, Ordering::AcqRel);
            let sent = self.credits.waited.as_ref().map(|_| Instant::now());
            if lane.messages.send(Message::Batch(batch, sent)).is_err() {
                self.worker_gone = true;
                return;
            }
        }
    }
}

impl Handover for Lanes {
    #[inline(always)]
    fn push(&mut self, o: &Observation) {
        let worker = usize::from(self.workers[usize::from(o.shard) % SHARDS]);
        let open = &mut self.lanes[worker].open;
        if let Some(place) = open.spare_capacity_mut().get(AHEAD) {
            prefetch_to_write(place);
        }
        open.push(*o);
        if open.len() >= self.batch {
            self.send(worker);
        }
    }

    fn flush(&mut self) {
        for worker in 0..self.lanes.len() {
            let lane = &self.lanes[worker];
            if lane.outstanding.load(Ordering::Acquire) < self.outstanding_max {
                self.send(worker);
            }
        }
    }

    fn has_room(&mut self) -> bool {
        if self.blocked {
            self.blocked = false;
            for worker in 0..self.lanes.len() {
                if self.lanes[worker].open.len() >= self.batch {
                    self.send(worker);
                }
            }
        }
        !self.blocked
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }

    fn worker_gone(&self) -> bool {
        self.worker_gone
    }

    fn open(&self) -> Tally {
        self.lanes.iter().flat_map(|lane| &lane.open).map(Observation::tally).sum()
    }

    /// Unless a worker still has to hear the last message of this kind.
    fn tick(&mut self, watermark: u64) {
        for lane in &self.lanes {
            // What waits in the reader is older than the watermark and must be handled before it.
            if lane.open.is_empty() && !lane.ticking.swap(true, Ordering::AcqRel) {
                let _ = lane.messages.send(Message::Watermark(watermark));
            }
        }
    }

    fn mark(&mut self, marker: &Marker) {
        for lane in &self.lanes {
            let _ = lane.messages.send(Message::Marker(marker.clone()));
        }
    }

    fn look(&mut self, look: &Arc<Look>) {
        for lane in &self.lanes {
            let _ = lane.messages.send(Message::Look(Arc::clone(look)));
        }
    }

    fn lost(&self) -> Tally {
        self.lost
    }

    fn wait_from_now(&mut self) {
        self.when_full = WhenFull::Wait;
    }

    fn finish(mut self, watermark: u64) -> Tally {
        self.when_full = WhenFull::Wait;
        for worker in 0..self.lanes.len() {
            self.send(worker);
            let _ = self.lanes[worker].messages.send(Message::Finish(watermark));
        }
        self.lost
    }
}

/// The worker of a shard.
pub(crate) const fn worker_of(shard: usize, workers: usize) -> usize {
    shard % workers
}

const _: () = assert!(SHARDS == 64);

impl Intake {
    /// Waits for the next message; `None` when the reader is gone.
    pub(crate) fn next(&self) -> Option<Message> {
        let message = self.messages.recv().ok()?;
        match &message {
            Message::Watermark(_) => self.ticking.store(false, Ordering::Release),
            Message::Batch(_, Some(sent)) => {
                self.credits.waited.iter().for_each(|waits| waits.until_now(*sent));
            }
            _ => {}
        }
        Some(message)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// A batch was handled.
    pub(crate) fn give_back(&self, mut batch: Vec<Observation>) {
        let n = batch.len();
        batch.clear();
        let _ = self.spare.try_send(batch);
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
        self.credits.give_back(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mermin_flow::Observation;
    use std::thread;

    fn packet_channel(capacity: usize, workers: usize, when_full: WhenFull) -> (Lanes, Vec<Intake>) {
        super::packet_channel(Arc::new(Credits::new(capacity, false)), workers, when_full)
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

    /// How many observations a worker takes until it is told to end.
    fn metered(intake: &Intake) -> usize {
        let mut n = 0;
        while let Some(message) = intake.next() {
            match message {
                Message::Batch(batch, _) => {
                    n += batch.len();
                    intake.give_back(batch);
                }
                Message::Finish(_) => break,
                Message::Watermark(_) | Message::Marker(_) | Message::Look(_) => {}
            }
        }
        n
    }

    #[test]
    fn batches_grow_with_the_capacity_and_few_may_be_small() {
        for (capacity, workers, batch, outstanding) in
            [(1, 2, 1, 2), (100, 1, 25, 6), (10_000, 2, 1_024, 6), (1_000_000, 4, 1_024, 246)]
        {
            let (lanes, _) = packet_channel(capacity, workers, WhenFull::Leave);
            assert_eq!((lanes.batch, lanes.outstanding_max), (batch, outstanding), "{capacity}, {workers}");
        }
    }

    #[test]
    fn a_capacity_of_one_works() {
        let (mut lanes, intakes) = packet_channel(1, 2, WhenFull::Drop);
        lanes.push(&observation(0));
        lanes.push(&observation(1));
        assert_eq!(lanes.lost.packets, 1, "the second found no room");
        assert_eq!((lanes.credits.used(), lanes.credits.high_water.load(Ordering::Relaxed)), (1, 1));
        assert_eq!(batches(&intakes[0]), [1]);
        lanes.push(&observation(1));
        assert_eq!(batches(&intakes[1]), [1]);
        assert_eq!(lanes.credits.used(), 0);
    }

    #[test]
    fn dropping_counts_the_newest_batch_and_leaving_keeps_it() {
        for (when_full, lost, kept) in [(WhenFull::Drop, 2, 0), (WhenFull::Leave, 0, 2)] {
            let (mut lanes, intakes) = packet_channel(8, 1, when_full);
            for _ in 0..10 {
                lanes.push(&observation(0));
            }
            assert_eq!((lanes.lost.packets, lanes.open().packets), (lost, kept));
            assert_eq!(lanes.is_blocked(), when_full == WhenFull::Leave);
            assert_eq!(lanes.has_room(), when_full == WhenFull::Drop);
            assert_eq!(batches(&intakes[0]), [2, 2, 2, 2]);
            assert!(lanes.has_room());
            assert_eq!(lanes.open().packets, 0);
        }
    }

    #[test]
    fn what_came_together_while_the_channel_was_full_passes_however_small_it_is() {
        for capacity in [1, 3, 8, 100] {
            let (mut lanes, intakes) = packet_channel(capacity, 1, WhenFull::Leave);
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
            assert_eq!((passed, lanes.open().packets, lanes.credits.used()), (1_000, 0, 0));
            assert!(lanes.lanes[0].open.capacity() <= lanes.batch, "the memory of the burst is given back");
        }
    }

    #[test]
    fn a_worker_that_died_with_a_full_channel_is_noticed() {
        for when_full in [WhenFull::Leave, WhenFull::Drop, WhenFull::Wait] {
            let (mut lanes, mut intakes) = packet_channel(2, 1, WhenFull::Leave);
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
        let (mut lanes, intakes) = packet_channel(8, 2, WhenFull::Leave);
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
        lanes.tick(1);
        lanes.tick(2);
        assert_eq!(heard(), [1]);
        lanes.tick(3);
        assert_eq!(heard(), [3]);
        lanes.lanes[0].open.push(observation(0));
        lanes.tick(4);
        assert_eq!(heard(), [0; 0]);
        lanes.flush();
        lanes.tick(5);
        assert_eq!(heard(), [5]);
    }

    #[test]
    fn small_batches_wait_in_the_reader_once_many_are_out() {
        let (mut lanes, intakes) = packet_channel(16, 1, WhenFull::Leave);
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
        lanes.finish(0);
        assert_eq!(worker.join().unwrap(), 10_000);
    }

    #[test]
    fn once_the_end_has_come_the_reader_waits_for_room_whatever_it_did_before() {
        for when_full in [WhenFull::Leave, WhenFull::Drop] {
            let (mut lanes, mut intakes) = packet_channel(2, 1, when_full);
            lanes.wait_from_now();
            let (intake, credits) = (intakes.remove(0), Arc::clone(&lanes.credits));
            let worker = thread::spawn(move || {
                while credits.waits.load(Ordering::Relaxed) == 0 {
                    thread::yield_now();
                }
                metered(&intake)
            });
            for _ in 0..100 {
                lanes.push(&observation(0));
                assert!(!lanes.is_blocked() && lanes.lost() == Tally::ZERO, "{when_full:?}");
            }
            assert_eq!(lanes.finish(0), Tally::ZERO);
            assert_eq!(worker.join().unwrap(), 100);
        }
    }

    #[test]
    fn batches_do_not_carry_the_memory_of_a_burst_away() {
        let (mut lanes, intakes) = packet_channel(8, 1, WhenFull::Leave);
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
}
