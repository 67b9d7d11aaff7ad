//! The flow workers: how many of them work, who has which shards, and how shards change hands.
//!
//! All workers that there may be have a lane of the packet channel and a seat; those at work have a thread as well. Only
//! the reader moves shards, between two observations: the worker that gives is told so behind all that it had to meter
//! of them, the one that takes ahead of all that it will have to. It waits for the other; who gives never waits, and
//! every move's givers are told before its takers, so waiting always ends. No flow is split and nothing is locked on a
//! packet's way.
//!
//! A worker that rests keeps its book and its place among those that send records on; the reader answers for it.

use crate::cut::Cut;
use crate::flow_worker::FlowWorker;
use crate::handover::Handover;
use crate::look::Look;
use crate::packet_channel::{Intake, Lanes, Message};
use crate::snapshot::Marker;
use crate::staff::Staff;
use crate::threads::StartError;
use crate::tuning::Change;
use crossbeam_channel::bounded;
use mermin_flow::{Observation, SHARDS, Tally};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::warn;

/// Where a worker's thread finds the worker, and leaves it when it is to rest.
#[derive(Clone)]
pub(crate) struct Chair(Arc<Mutex<OnChair>>);

enum OnChair {
    ToWork(Box<Rested>),
    Works,
    Rests(Box<Rested>),
}

impl Chair {
    fn lock(&self) -> MutexGuard<'_, OnChair> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work of a worker's thread: until it is to rest, or for good.
    pub(crate) fn work(&self) {
        let OnChair::ToWork(rested) = std::mem::replace(&mut *self.lock(), OnChair::Works) else { return };
        if let Some(rested) = rested.worker.run(rested.intake) {
            *self.lock() = OnChair::Rests(Box::new(rested));
        }
    }

    /// The worker, if its thread has left it here.
    fn rested(&self) -> Option<Box<Rested>> {
        let mut on_chair = self.lock();
        match std::mem::replace(&mut *on_chair, OnChair::Works) {
            OnChair::Rests(rested) => Some(rested),
            other => {
                *on_chair = other;
                None
            }
        }
    }

    /// The worker that no thread came for.
    fn left_over(&self) -> Option<Box<Rested>> {
        match std::mem::replace(&mut *self.lock(), OnChair::Works) {
            OnChair::ToWork(rested) => Some(rested),
            OnChair::Works | OnChair::Rests(_) => None,
        }
    }
}

/// A worker without a thread.
pub(crate) struct Rested {
    pub(crate) worker: FlowWorker,
    pub(crate) intake: Intake,
}

/// Gives the worker on the chair a thread, which does [`Chair::work`].
pub(crate) type Hire = Box<dyn Fn(usize, Chair) -> Result<(), StartError> + Send>;

enum Seat {
    /// On a thread, or on its way to rest.
    Working(Chair),
    Resting(Box<Rested>),
    /// Between the two.
    Empty,
}

/// See the module's text.
pub(crate) struct Crew {
    lanes: Lanes,
    seats: Vec<Seat>,
    staff: Arc<Staff>,
    hire: Hire,
}

impl Crew {
    /// Of workers that all rest, by lane; `staff` says how many are to work.
    pub(crate) fn new(lanes: Lanes, workers: Vec<Rested>, staff: Arc<Staff>, hire: Hire) -> Self {
        let seats = workers.into_iter().map(|rested| Seat::Resting(Box::new(rested))).collect();
        Self { lanes, seats, staff, hire }
    }

    /// Gives those that are to work at the beginning their threads.
    pub(crate) fn begin(&mut self) -> Result<(), StartError> {
        (0..self.staff.working()).try_for_each(|number| self.wake(number))
    }

    /// Those whose thread has ended rest.
    fn look_around(&mut self) {
        for seat in &mut self.seats {
            if let Seat::Working(chair) = seat
                && let Some(rested) = chair.rested()
            {
                *seat = Seat::Resting(rested);
            }
        }
    }

    /// Gives a worker that rests a thread.
    fn wake(&mut self, number: usize) -> Result<(), StartError> {
        let seat = &mut self.seats[number];
        let Seat::Resting(rested) = std::mem::replace(seat, Seat::Empty) else { return Ok(()) };
        let chair = Chair(Arc::new(Mutex::new(OnChair::ToWork(rested))));
        let hired = (self.hire)(number, chair.clone());
        *seat = match hired.is_err().then(|| chair.left_over()).flatten() {
            Some(rested) => Seat::Resting(rested),
            None => Seat::Working(chair),
        };
        hired
    }

    /// Brings as many to work as are wanted, if that can be done now.
    #[cold]
    fn adjust(&mut self) {
        let (working, wanted) = (self.staff.working(), self.staff.wanted());
        self.look_around();
        // One that was sent to rest may still be at work.
        if !self.seats[working..].iter().all(|seat| matches!(seat, Seat::Resting(_))) {
            return;
        }
        let woken = (working..wanted).map_while(|number| self.wake(number).ok()).count();
        let (asked, wanted) = (wanted, wanted.min(working + woken));
        if wanted < asked {
            warn!("The system gives no thread for another flow worker: {wanted} work on");
            self.staff.settle_for(wanted);
        }
        self.move_shards(wanted);
        for number in wanted..working {
            self.lanes.tell(number, Message::Rest);
        }
        self.staff.set_working(wanted);
    }

    fn move_shards(&mut self, workers: usize) {
        let before = self.lanes.owners();
        let after = share_out(&before, workers);
        let mut comers = Vec::new();
        for from in 0..self.seats.len() {
            for to in 0..workers {
                let moves = |shard: &usize| {
                    usize::from(before[*shard]) == from && usize::from(after[*shard]) == to && from != to
                };
                let shards: Vec<usize> = (0..SHARDS).filter(moves).collect();
                if !shards.is_empty() {
                    let (give, take) = bounded(1);
                    self.lanes.tell(from, Message::Give(shards, give));
                    comers.push((to, take));
                }
            }
        }
        for (to, take) in comers {
            self.lanes.tell(to, Message::Take(take));
        }
        self.lanes.set_owners(after);
    }

    /// Does what came for a worker before it rested, and what comes now.
    fn answer_for_resting(&mut self, mut answer: impl FnMut(&mut FlowWorker)) {
        self.look_around();
        for seat in &mut self.seats {
            if let Seat::Resting(rested) = seat {
                rested.catch_up();
                answer(&mut rested.worker);
            }
        }
    }
}

impl Crew {
    /// Tells every worker, behind all that it was told before; one that rests is told here.
    fn tell_all(&mut self, message: impl Fn() -> Message) {
        self.look_around();
        for (number, seat) in self.seats.iter_mut().enumerate() {
            match seat {
                Seat::Resting(rested) => {
                    rested.catch_up();
                    rested.worker.handle(message(), &rested.intake);
                }
                Seat::Working(_) | Seat::Empty => self.lanes.tell(number, message()),
            }
        }
    }
}

impl Rested {
    /// Handles what was sent behind the word to rest.
    fn catch_up(&mut self) {
        while let Some(message) = self.intake.left() {
            self.worker.handle(message, &self.intake);
        }
    }
}

impl Handover for Crew {
    #[inline(always)]
    fn push(&mut self, o: &Observation) {
        self.lanes.push(o);
    }

    fn flush(&mut self) {
        self.lanes.flush();
    }

    fn tick(&mut self, watermark: u64) {
        let working = self.staff.working();
        self.lanes.tick(watermark, working);
    }

    fn mark(&mut self, marker: &Marker) {
        self.tell_all(|| Message::Marker(Arc::clone(marker)));
    }

    fn cut(&mut self, cut: &Arc<Cut>) {
        self.tell_all(|| Message::Cut(Arc::clone(cut)));
    }

    fn look(&mut self, look: &Arc<Look>) {
        self.look_around();
        for (number, seat) in self.seats.iter_mut().enumerate() {
            match seat {
                Seat::Resting(rested) => rested.worker.look(Arc::clone(look)),
                Seat::Working(_) | Seat::Empty => self.lanes.tell(number, Message::Look(Arc::clone(look))),
            }
        }
    }

    fn change(&mut self, change: &Change, watermark: u64) {
        self.lanes.hand_over();
        self.look_around();
        for (number, seat) in self.seats.iter_mut().enumerate() {
            match seat {
                Seat::Resting(rested) => {
                    rested.catch_up();
                    rested.worker.change(&change.flow, watermark);
                }
                Seat::Working(_) | Seat::Empty => {
                    // What still waits here has to be handled before its time is over.
                    let watermark = if self.lanes.is_empty(number) { watermark } else { 0 };
                    self.lanes.tell(number, Message::Change(Arc::clone(&change.flow), watermark));
                }
            }
        }
        self.lanes.coalesce(change.coalescing_capacity, change.flow.shortest_idle_timeout());
    }

    /// Those that rest have no flows: one step is all. But they may have records that wait for a cut.
    fn go_on_looking(&mut self) {
        self.answer_for_resting(|worker| {
            worker.go_on_looking();
            worker.flush();
        });
    }

    fn has_room(&mut self) -> bool {
        if self.staff.wanted() != self.staff.working() {
            self.adjust();
        }
        self.lanes.has_room()
    }

    fn is_blocked(&self) -> bool {
        self.lanes.is_blocked()
    }

    fn waits(&self) -> bool {
        self.lanes.waits()
    }

    fn merges(&self) -> u64 {
        self.lanes.merges()
    }

    fn worker_gone(&self) -> bool {
        self.lanes.worker_gone()
    }

    fn open(&self) -> Tally {
        self.lanes.open()
    }

    fn lost(&self) -> Tally {
        self.lanes.lost()
    }

    fn wait_from_now(&mut self) {
        self.lanes.wait_from_now();
    }

    fn finish(mut self, watermark: u64, cut: Option<&Arc<Cut>>) -> Tally {
        let working = self.staff.working();
        let lost = self.lanes.finish(watermark, cut, working);
        let mut ended = Vec::new();
        for seat in self.seats.drain(..).skip(working) {
            let mut rested = match seat {
                Seat::Resting(rested) => rested,
                Seat::Working(chair) => wait_for(&chair),
                Seat::Empty => continue,
            };
            rested.catch_up();
            rested.worker.end(watermark, cut);
            ended.push(rested.worker);
        }
        // Only now: the cut waits for all of them, and they for the cut.
        ended.into_iter().for_each(FlowWorker::leave);
        lost
    }
}

/// The worker that is on its way to this chair.
fn wait_for(chair: &Chair) -> Box<Rested> {
    loop {
        if let Some(rested) = chair.rested() {
            return rested;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Shares the shards out to `workers` workers, as evenly as can be, and leaves as many as can be where they are.
fn share_out(owners: &[u8; SHARDS], workers: usize) -> [u8; SHARDS] {
    let mut held = vec![0_usize; workers];
    let mut after = *owners;
    let mut homeless = Vec::new();
    // The first `SHARDS % workers` to have more than their share keep one more.
    let (share, mut more) = (SHARDS / workers, SHARDS % workers);
    for (shard, owner) in owners.iter().enumerate() {
        let owner = usize::from(*owner);
        let keeps = owner < workers
            && (held[owner] < share
                || (held[owner] == share && more > 0 && {
                    more -= 1;
                    true
                }));
        if keeps {
            held[owner] += 1;
        } else {
            homeless.push(shard);
        }
    }
    for shard in homeless {
        let least = (0..workers).min_by_key(|worker| held[*worker]).unwrap_or_default();
        held[least] += 1;
        after[shard] = least as u8;
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Evenly, and no shard moves that need not.
        #[test]
        fn shards_are_shared_out_evenly_with_few_moves(steps in prop::collection::vec(1_usize..=64, 1..20)) {
            let mut owners: [u8; SHARDS] = std::array::from_fn(|shard| (shard % steps[0]) as u8);
            for &workers in &steps {
                let after = share_out(&owners, workers);
                let held = |owners: &[u8; SHARDS], worker: usize| {
                    owners.iter().filter(|owner| usize::from(**owner) == worker).count()
                };
                let counts: Vec<usize> = (0..workers).map(|worker| held(&after, worker)).collect();
                prop_assert_eq!(counts.iter().sum::<usize>(), SHARDS);
                prop_assert!(counts.iter().all(|n| *n == SHARDS / workers || *n == SHARDS.div_ceil(workers)));
                let moved = owners.iter().zip(&after).filter(|(before, after)| before != after).count();
                let fewest: usize = (0..workers).map(|worker| {
                    counts[worker].saturating_sub(held(&owners, worker))
                }).sum();
                prop_assert_eq!(moved, fewest);
                owners = after;
            }
        }
    }
}
