//! The packet channel: batches of observations from the reader to the flow workers.
//!
//! One lane a worker. Credits count observations over all lanes, so the configured capacity is what it says and a
//! capacity of 1 works; the queues behind them need no bound of their own. Batches are recycled: after warm-up the
//! channel allocates nothing. How many small batches (from drains that ended early) may wait is bounded as well,
//! because each holds a whole batch's memory; beyond that they wait in the reader and grow.
//!
//! Live, with backpressure, observations that find no room wait in the reader and are merged (`waiting.rs`), up to a bound
//! for all lanes together; beyond it the reader reads no more. A lane never has all credits while others are at work: a
//! worker that stands still doesn't stop the others.
//!
//! Control messages (time, markers, the end) pass without credits: few exist at a time.

use crate::channel_room::ChannelRoom;
use crate::cut::Cut;
use crate::look::Look;
use crate::snapshot::Marker;
use crate::waiting::Waiting;
use crossbeam_channel::{Receiver, Sender, bounded};
use mermin_flow::{FlowConfig, MovingShard, Observation, SHARDS, Tally, prefetch_to_write};
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
    /// A cut passes.
    Cut(Arc<Cut>),
    /// Somebody wants to see flows.
    Look(Arc<Look>),
    /// Other settings count; time has come this far.
    Change(Arc<FlowConfig>, u64),
    /// These shards go to another worker.
    Give(Vec<usize>, Sender<Vec<MovingShard>>),
    /// Shards come from another worker.
    Take(Receiver<Vec<MovingShard>>),
    /// The worker's thread ends, the worker doesn't.
    Rest,
    /// No more will come; time has come this far. The last cut passes behind that.
    Finish(u64, Option<Arc<Cut>>),
}

/// What the reader does when the channel is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// Waits for a worker (replay).
    Wait,
    /// Merges what waits; where more than `capacity` observations do, reads no more from the source (live). Packets
    /// `gap` ns apart are not merged.
    Coalesce { capacity: usize, gap: u64 },
    /// Drops the newest batch and counts it.
    Drop,
}

struct Lane {
    messages: Sender<Message>,
    given_back: Receiver<Vec<Observation>>,
    /// Given back. The last is taken first: most of it is still in a cache.
    spare: Vec<Vec<Observation>>,
    open: Vec<Observation>,
    /// What found no room, merged. While there is something, nothing is open: it goes behind it.
    waiting: Waiting,
    /// Batches sent and not yet given back.
    outstanding: Arc<AtomicUsize>,
    /// Observations in those.
    in_flight: Arc<AtomicUsize>,
    /// Whether a watermark is on its way.
    ticking: Arc<AtomicBool>,
}

impl Lane {
    /// Whether its worker has ended: that drops the worker's half of the lane.
    fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.outstanding) == 1
    }

    /// What is to be sent next: what waits, and only then what is open.
    fn len(&self) -> usize {
        if self.waiting.is_empty() { self.open.len() } else { self.waiting.len() }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.open.is_empty()
    }

    /// The next `n`, in memory for `batch`.
    fn take(&mut self, n: usize, batch: usize) -> Vec<Observation> {
        self.spare.extend(self.given_back.try_iter());
        let mut other = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(batch));
        if !self.waiting.is_empty() {
            self.waiting.take(n, &mut other);
            return other;
        }
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
    room: Arc<ChannelRoom>,
    batch: usize,
    outstanding_max: usize,
    /// Observations that one lane may have in flight.
    lane_max: usize,
    when_full: WhenFull,
    /// Observations that wait in all lanes.
    waiting: usize,
    /// Observations that became part of others so far.
    merges: u64,
    blocked: bool,
    lost: Tally,
    worker_gone: bool,
}

/// A worker's end.
pub(crate) struct Intake {
    messages: Receiver<Message>,
    spare: Sender<Vec<Observation>>,
    room: Arc<ChannelRoom>,
    outstanding: Arc<AtomicUsize>,
    in_flight: Arc<AtomicUsize>,
    ticking: Arc<AtomicBool>,
}

/// A channel for `workers` workers that holds as many observations as there are credits. The shards are those of the
/// first `working`.
pub(crate) fn packet_channel(
    room: Arc<ChannelRoom>,
    (working, workers): (usize, usize),
    when_full: WhenFull,
) -> (Lanes, Vec<Intake>) {
    let capacity = room.credits.capacity;
    let batch = (capacity / (4 * workers)).clamp(1, BATCH_MAX);
    let outstanding_max = capacity / batch / workers + 2;
    let gap = if let WhenFull::Coalesce { gap, .. } = when_full { gap } else { 0 };
    let ends = (0..workers).map(|_| {
        #[expect(
            clippy::disallowed_methods,
            reason = "credits bound the batches in it; control messages are few"
        )]
        let (sender, messages) = crossbeam_channel::unbounded();
        let (give, given_back) = bounded(outstanding_max);
        let (outstanding, in_flight, ticking) = <(Arc<_>, Arc<_>, Arc<_>)>::default();
        let intake = Intake {
            messages,
            spare: give,
            room: Arc::clone(&room),
            outstanding: Arc::clone(&outstanding),
            in_flight: Arc::clone(&in_flight),
            ticking: Arc::clone(&ticking),
        };
        (
            Lane {
                messages: sender,
                given_back,
                spare: Vec::new(),
                open: Vec::with_capacity(batch),
                waiting: Waiting::new(gap),
                outstanding,
                in_flight,
                ticking,
            },
            intake,
        )
    });
    let (lanes, intakes) = ends.unzip();
    let mut lanes = Lanes {
        lanes,
        workers: std::array::from_fn(|shard| worker_of(shard, working) as u8),
        room,
        batch,
        outstanding_max,
        lane_max: capacity,
        when_full,
        waiting: 0,
        merges: 0,
        blocked: false,
        lost: Tally::ZERO,
        worker_gone: false,
    };
    lanes.share_credits();
    (lanes, intakes)
}

/// Whether a batch may go.
enum Admission {
    Granted,
    Full,
    /// Its worker is no more.
    Gone,
}

impl Lanes {
    /// Who has which shard.
    pub(crate) const fn owners(&self) -> [u8; SHARDS] {
        self.workers
    }

    /// From here on observations go to these, also those that are here.
    pub(crate) fn set_owners(&mut self, owners: [u8; SHARDS]) {
        let mut here = Vec::new();
        for lane in &mut self.lanes {
            lane.waiting.take(usize::MAX, &mut here);
            here.append(&mut lane.open);
        }
        self.workers = owners;
        self.waiting = 0;
        self.share_credits();
        here.iter().for_each(|o| self.push(o));
    }

    /// Leaves two batches of credits to every other lane that has shards.
    fn share_credits(&mut self) {
        let mut has_shards = vec![false; self.lanes.len()];
        self.workers.iter().for_each(|worker| has_shards[usize::from(*worker)] = true);
        let others = has_shards.iter().filter(|has| **has).count() - 1;
        self.lane_max = self.room.credits.capacity.saturating_sub(others * 2 * self.batch).max(self.batch);
    }

    /// Sends word to a worker, behind what was sent so far.
    pub(crate) fn tell(&self, worker: usize, message: Message) {
        // Refused only by a worker that has died; the end of the run says so.
        let _ = self.lanes[worker].messages.send(message);
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, o: &Observation) {
        let worker = usize::from(self.workers[usize::from(o.shard) % SHARDS]);
        let lane = &mut self.lanes[worker];
        if !lane.waiting.is_empty() {
            return self.push_behind(worker, o);
        }
        let open = &mut lane.open;
        if let Some(place) = open.spare_capacity_mut().get(AHEAD) {
            prefetch_to_write(place);
        }
        open.push(*o);
        if open.len() >= self.batch {
            self.send(worker);
        }
    }

    /// Behind what waits already.
    #[cold]
    #[inline(never)]
    fn push_behind(&mut self, worker: usize, o: &Observation) {
        if self.lanes[worker].waiting.push(o) {
            self.merges += 1;
        } else {
            self.waiting += 1;
        }
    }

    /// Hands over what is here for a worker, a batch at a time: there can be more than a batch, even more than the channel
    /// holds.
    fn send(&mut self, worker: usize) {
        loop {
            let n = self.lanes[worker].len().min(self.batch);
            if n == 0 {
                return;
            }
            match self.admit(worker, n) {
                Admission::Granted => {}
                Admission::Full => return self.find_no_room(worker),
                Admission::Gone => return self.worker_gone = true,
            }
            let lane = &mut self.lanes[worker];
            if !lane.waiting.is_empty() {
                self.waiting -= n;
            }
            let batch = lane.take(n, self.batch);
            lane.outstanding.fetch_add(1, Ordering::AcqRel);
            lane.in_flight.fetch_add(n, Ordering::AcqRel);
            let sent = self.room.waited.as_ref().map(|_| Instant::now());
            if lane.messages.send(Message::Batch(batch, sent)).is_err() {
                return self.worker_gone = true;
            }
        }
    }

    fn admit(&self, worker: usize, n: usize) -> Admission {
        let lane = &self.lanes[worker];
        if lane.in_flight.load(Ordering::Acquire) + n <= self.lane_max && self.room.credits.take(n) {
            return Admission::Granted;
        }
        if lane.is_abandoned() {
            return Admission::Gone;
        }
        match self.when_full {
            WhenFull::Coalesce { .. } | WhenFull::Drop => Admission::Full,
            WhenFull::Wait if self.room.credits.wait(n, || lane.is_abandoned()) => Admission::Granted,
            WhenFull::Wait => Admission::Gone,
        }
    }

    #[cold]
    fn find_no_room(&mut self, worker: usize) {
        let mut open = std::mem::take(&mut self.lanes[worker].open);
        match self.when_full {
            WhenFull::Coalesce { .. } => {
                // Until there is room again it is one wait, however often it is tried meanwhile.
                self.room.credits.waits.fetch_add(usize::from(self.waiting == 0), Ordering::Relaxed);
                open.iter().for_each(|o| self.push_behind(worker, o));
            }
            WhenFull::Drop | WhenFull::Wait => self.lost += open.iter().map(Observation::tally).sum(),
        }
        open.clear();
        open.shrink_to(self.batch);
        self.lanes[worker].open = open;
    }

    /// Hands over what is here, as far as there is room, whatever the size of the batches.
    pub(crate) fn hand_over(&mut self) {
        (0..self.lanes.len()).for_each(|worker| self.send(worker));
    }

    /// Whether everything for this worker was sent.
    pub(crate) fn is_empty(&self, worker: usize) -> bool {
        self.lanes[worker].is_empty()
    }

    /// From now on so much may wait here, and packets so far apart are not merged.
    pub(crate) fn coalesce(&mut self, most: usize, between: u64) {
        let WhenFull::Coalesce { capacity, gap } = &mut self.when_full else { return };
        (*capacity, *gap) = (most, between);
        self.lanes.iter_mut().for_each(|lane| lane.waiting.merge_within(between));
        if let Some(coalescing) = &self.room.coalescing {
            coalescing.set_capacity(most);
        }
    }

    pub(crate) fn flush(&mut self) {
        for worker in 0..self.lanes.len() {
            let lane = &self.lanes[worker];
            if lane.outstanding.load(Ordering::Acquire) < self.outstanding_max {
                self.send(worker);
            }
        }
    }

    /// Tries again to send what waits; whether the source may be read.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.waiting > 0 {
            for worker in 0..self.lanes.len() {
                let lane = &self.lanes[worker];
                let may_be_small = lane.outstanding.load(Ordering::Acquire) < self.outstanding_max;
                if !lane.waiting.is_empty() && (may_be_small || lane.waiting.len() >= self.batch) {
                    self.send(worker);
                }
            }
            self.tell_what_waits();
        }
        self.blocked = matches!(self.when_full, WhenFull::Coalesce { capacity, .. } if self.waiting > self.room.shed.bound(capacity));
        !self.blocked
    }

    fn tell_what_waits(&self) {
        if let Some(coalescing) = &self.room.coalescing {
            coalescing.tell(self.waiting, self.merges);
        }
    }

    pub(crate) const fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(crate) const fn merges(&self) -> u64 {
        self.merges
    }

    /// Whether something waits for room.
    pub(crate) fn waits(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.is_empty())
    }

    pub(crate) const fn worker_gone(&self) -> bool {
        self.worker_gone
    }

    pub(crate) fn open(&self) -> Tally {
        let open =
            |lane: &Lane| lane.open.iter().map(Observation::tally).sum::<Tally>() + lane.waiting.tally();
        self.lanes.iter().map(open).sum()
    }

    /// Tells the first `working` how far time has come, unless one still has to hear the last message of this kind.
    pub(crate) fn tick(&self, watermark: u64, working: usize) {
        for lane in &self.lanes[..working] {
            // What waits in the reader is older than the watermark and must be handled before it.
            if lane.is_empty() && !lane.ticking.swap(true, Ordering::AcqRel) {
                let _ = lane.messages.send(Message::Watermark(watermark));
            }
        }
    }

    pub(crate) const fn lost(&self) -> Tally {
        self.lost
    }

    pub(crate) const fn wait_from_now(&mut self) {
        self.when_full = WhenFull::Wait;
    }

    /// Hands over what is left and tells the first `working` workers that it was all; what was dropped in all.
    pub(crate) fn finish(mut self, watermark: u64, cut: Option<&Arc<Cut>>, working: usize) -> Tally {
        self.when_full = WhenFull::Wait;
        for worker in 0..self.lanes.len() {
            self.send(worker);
            if worker < working {
                self.tell(worker, Message::Finish(watermark, cut.map(Arc::clone)));
            }
        }
        self.tell_what_waits();
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
                self.room.waited.iter().for_each(|waits| waits.until_now(*sent));
            }
            _ => {}
        }
        Some(message)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What was sent and not taken yet.
    pub(crate) fn left(&self) -> Option<Message> {
        self.messages.try_recv().ok()
    }

    /// A batch was handled.
    pub(crate) fn give_back(&self, mut batch: Vec<Observation>) {
        let n = batch.len();
        batch.clear();
        let _ = self.spare.try_send(batch);
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
        self.in_flight.fetch_sub(n, Ordering::AcqRel);
        self.room.credits.give_back(n);
    }
}

#[cfg(test)]
mod tests;
