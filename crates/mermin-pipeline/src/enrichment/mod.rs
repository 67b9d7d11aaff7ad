//! The enrichment workers: threads that come and go, and the lanes that they share.
//!
//! There are as many lanes as there may be threads, and each flow has its lane for good. A thread looks after some of them,
//! one batch of each at a time; when the number of threads changes, lanes change hands between two batches, with all that
//! waits in them. So records of a flow stay in order, and who sends records knows nothing of it.

mod lane;

pub(crate) use lane::{EnrichmentCells, EnrichmentLane, Setup};

use crate::bell::Bell;
use crate::cells::Idle;
use crate::lock::lock;
use crate::staff::Staff;
use crate::threads::{StartError, Threads};
use lane::After;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tracing::warn;

/// How often records that are held are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a thread sleeps when it has nothing.
const NAP: Duration = Duration::from_secs(1);

/// A lane while no thread is at it; nothing once it has ended.
type Place = Mutex<Option<EnrichmentLane>>;

/// See the module's text.
pub(crate) struct EnrichmentCrew {
    places: Vec<Place>,
    /// Lanes that have not ended.
    left: Arc<AtomicUsize>,
    staff: Staff,
    seats: Vec<Seat>,
    /// Held while threads come and go.
    hiring: Mutex<()>,
    threads: Arc<Threads>,
    /// The pipeline's clock.
    started: Instant,
}

/// What belongs to the thread of a number, whichever it is at the time.
#[derive(Default)]
struct Seat {
    bell: Arc<Bell>,
    idle: Idle,
    /// Counts the threads that were sent away.
    term: AtomicU64,
}

impl EnrichmentCrew {
    /// Of these lanes, which count themselves out of `left`, with `least` threads to begin with.
    pub(crate) fn begin(
        lanes: Vec<EnrichmentLane>,
        left: Arc<AtomicUsize>,
        least: usize,
        threads: &Arc<Threads>,
        started: Instant,
    ) -> Result<Arc<Self>, StartError> {
        let most = lanes.len();
        let crew = Arc::new(Self {
            places: lanes.into_iter().map(|lane| Mutex::new(Some(lane))).collect(),
            left,
            staff: Staff::new(least, most),
            seats: std::iter::repeat_with(Seat::default).take(most).collect(),
            hiring: Mutex::default(),
            threads: Arc::clone(threads),
            started,
        });
        (0..least).try_for_each(|number| crew.hire(number))?;
        crew.share_out(least);
        Ok(crew)
    }

    /// How many threads there are and may be.
    pub(crate) const fn staff(&self) -> &Staff {
        &self.staff
    }

    /// How long the thread of each number has waited so far, ns.
    pub(crate) fn idle(&self) -> Vec<u64> {
        self.seats.iter().map(|seat| seat.idle.total(self.started)).collect()
    }

    /// Brings as many threads to work as [`Staff`] wants.
    pub(crate) fn adjust(self: &Arc<Self>) {
        let _one_at_a_time = lock(&self.hiring);
        let (before, wanted) = (self.staff.working(), self.staff.wanted());
        if before == wanted {
            return;
        }
        let come = (before..wanted).map_while(|number| self.hire(number).ok()).count();
        let working = wanted.min(before + come);
        if working < wanted {
            warn!("The system gives no thread for another enrichment worker: {working} work on");
            self.staff.settle_for(working);
        }
        for seat in self.seats.iter().take(before).skip(working) {
            seat.term.fetch_add(1, Ordering::AcqRel);
        }
        self.share_out(working);
    }

    fn hire(self: &Arc<Self>, number: usize) -> Result<(), StartError> {
        let (crew, term) = (Arc::clone(self), self.seats[number].term.load(Ordering::Acquire));
        let work = move || crew.work(number, term);
        self.threads.keep("enrichment worker", format!("enrich-{number}"), work).map(|_| ())
    }

    /// From now on the lanes belong to so many threads.
    fn share_out(&self, working: usize) {
        self.staff.set_working(working);
        for (lane, place) in self.places.iter().enumerate() {
            // One that a thread is at is told when it is put back.
            if let Some(resting) = &mut *lock(place) {
                resting.rings(&self.seats[lane % working].bell);
            }
        }
        self.ring();
    }

    /// Whatever there is to hear, everybody hears it.
    fn ring(&self) {
        self.seats.iter().for_each(|seat| seat.bell.ring());
    }

    /// The work of a thread: until it is sent away, or all lanes have ended.
    fn work(&self, number: usize, term: u64) {
        let _leaving = Leaving { crew: self, number };
        let seat = &self.seats[number];
        while seat.term.load(Ordering::Acquire) == term && self.left.load(Ordering::Acquire) > 0 {
            let (working, mut rest) = (self.staff.working(), Some(NAP));
            for lane in (number..self.places.len()).step_by(working) {
                rest = match self.attend(lane, number) {
                    After::Work => None,
                    After::Waiting => rest.map(|rest| rest.min(LOOK)),
                    After::Nothing | After::End => rest,
                };
            }
            if let Some(rest) = rest {
                seat.idle.during(self.started, || seat.bell.wait(rest));
            }
        }
    }

    /// One step of a lane's work by the thread of this number, if no other one is at it: that one tells when it has put it
    /// back.
    fn attend(&self, lane: usize, number: usize) -> After {
        let place = &self.places[lane];
        let Some(mut taken) = lock(place).take() else { return After::Nothing };
        // A panic drops it: then nobody waits for it, and the outputs don't either.
        let after = taken.step();
        if matches!(after, After::End) {
            drop(taken);
            if self.left.load(Ordering::Acquire) == 0 {
                self.ring();
            }
            return after;
        }
        let mut place = lock(place);
        let owner = lane % self.staff.working();
        taken.rings(&self.seats[owner].bell);
        *place = Some(taken);
        drop(place);
        // It may have come while the lane was not there.
        if owner != number {
            self.seats[owner].bell.ring();
        }
        after
    }
}

/// A thread that panics takes its lanes with it. One that was sent away may have heard the bell in the stead of who has its
/// number by then.
struct Leaving<'a> {
    crew: &'a EnrichmentCrew,
    number: usize,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let working = self.crew.staff.working();
            let places = self.crew.places.iter().skip(self.number).step_by(working);
            places.for_each(|place| drop(lock(place).take()));
        }
        self.crew.ring();
    }
}
