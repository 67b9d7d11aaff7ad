//! The packet reader: from the source to the flow tables, on a thread of its own.
//!
//! Live, it never waits for a worker: what finds no room in the packet channel is merged by flow, and when that is too much
//! it leaves packets where they are, in the kernel, which counts those that it has no room for, and looks again a
//! millisecond later.
//!
//! A panic is contained: what it panicked at is lost, in the books, and it goes on behind that.

use crate::adjustable::Adjustable;
use crate::counts::TallyCell;
use crate::cut::{Cut, Cuts};
use crate::handover::Handover;
use crate::incidents::{Incidents, contained};
use crate::look::{LOOKS_MAX, Look};
use crate::progress::Progress;
use crate::sampler::Sampler;
use crate::snapshot::{Collector, Marker, ReaderPart};
use crate::tuning::Change;
use mermin_flow::{Observation, Orientation, Polled, Sink, Source, Tally, panic_message};
use std::any::Any;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Frames a call of the source may read before the reader looks at anything else.
const BUDGET: usize = 512;
/// How long the reader looks away while the packet channel is full.
const PAUSE: Duration = Duration::from_millis(1);
/// How long the reader sleeps at most when nothing comes: the latency of a snapshot, of a stop and of an idle flow's end.
const NAP: Duration = Duration::from_millis(100);

/// Panics in a row by which nothing moves on, after which the reader gives up.
const STUCK: u32 = 16;

/// Snapshots under way at once.
const SNAPSHOTS_MAX: usize = 8;

/// What others ask of the reader, and what it tells while it runs.
#[derive(Default)]
pub(crate) struct ReaderControl {
    stop: AtomicBool,
    /// Ends a wait for input within the source.
    interrupter: Option<Arc<AtomicBool>>,
    requests: Mutex<Requests>,
    requested: AtomicBool,
    pub(crate) observed: TallyCell,
    pub(crate) lost: TallyCell,
    pub(crate) sampled_out: TallyCell,
    pub(crate) rejected: AtomicU64,
    pub(crate) first_packet: AtomicU64,
    pub(crate) last_packet: AtomicU64,
    /// Longest time between two looks at the source, ns.
    pub(crate) longest_gap: AtomicU64,
    /// Calls of the source.
    pub(crate) polls: AtomicU64,
    /// When the reader last looked at its source, ns since the pipeline's start; 0 before.
    pub(crate) looked: AtomicU64,
    /// The source has ended.
    ended: AtomicBool,
    /// How often statistics are logged.
    pub(crate) stats_interval: Adjustable,
}

impl ReaderControl {
    /// For a source, statistics that are logged so often, and the settings of the start.
    pub(crate) fn new(source: &impl Source, stats_interval: Duration, settings: Change) -> Self {
        let settling = || TallyCell::from(source.settlement());
        Self {
            interrupter: source.interrupter(),
            lost: settling(),
            sampled_out: settling(),
            stats_interval: Adjustable::new(stats_interval),
            requests: Mutex::new(Requests { settings: Some(settings), ..Requests::default() }),
            ..Self::default()
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(interrupter) = &self.interrupter {
            interrupter.store(true, Ordering::Release);
        }
    }

    /// Sends a marker down the pipeline as soon as the source's book is closed. Refuses when many are still under
    /// way: a stage that is held up would pile them up.
    pub(crate) fn snapshot(&self, marker: &Marker) -> bool {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.under_way.retain(|marker| marker.strong_count() > 0);
        if requests.under_way.len() >= SNAPSHOTS_MAX {
            return false;
        }
        requests.under_way.push(Arc::downgrade(marker));
        requests.new.push(Arc::clone(marker));
        self.requested.store(true, Ordering::Release);
        true
    }

    /// Asks the flow workers for flows as soon as the reader comes to it. Refuses when many are still being asked for.
    pub(crate) fn look(&self, look: &Arc<Look>) -> bool {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.looks_under_way.retain(|look| look.strong_count() > 0);
        if requests.looks_under_way.len() >= LOOKS_MAX {
            return false;
        }
        requests.looks_under_way.push(Arc::downgrade(look));
        requests.looks.push(Arc::clone(look));
        self.requested.store(true, Ordering::Release);
        true
    }

    /// Whether the run was told to end, or its source has.
    pub(crate) fn is_ending(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.ended.load(Ordering::Acquire)
    }

    /// Sends other settings down the pipeline, if they are other ones than those that were sent last.
    pub(crate) fn change(&self, change: Change) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.settings.as_ref() != Some(&change) {
            requests.settings = Some(change.clone());
            requests.change = Some(change);
            self.requested.store(true, Ordering::Release);
        }
    }

    fn take_requests(&self) -> (Vec<Marker>, Vec<Arc<Look>>, Option<Change>) {
        self.requested.store(false, Ordering::Release);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut requests.new), std::mem::take(&mut requests.looks), requests.change.take())
    }
}

/// What others have asked for.
#[derive(Default)]
struct Requests {
    new: Vec<Marker>,
    /// All whose markers still exist somewhere.
    under_way: Vec<Weak<Collector>>,
    looks: Vec<Arc<Look>>,
    looks_under_way: Vec<Weak<Look>>,
    /// Not taken yet; the latest is all that counts.
    change: Option<Change>,
    /// What the pipeline goes by, with the change that is under way.
    settings: Option<Change>,
}

/// Takes observations from the source, prepares them and hands them on.
struct Feed<H> {
    orientation: Orientation,
    sampler: Sampler,
    handover: H,
    observed: Tally,
    first: u64,
    last: u64,
}

impl<H: Handover> Feed<H> {
    #[inline(always)]
    fn count(&mut self, o: &Observation) {
        self.observed += o.tally();
        self.first = self.first.min(o.start);
        self.last = self.last.max(o.end);
    }

    /// As [`Feed::observe`], while packets are sampled. By value: else an observation that isn't would have its address
    /// taken, and be put together in memory.
    #[cold]
    #[inline(never)]
    fn sample(&mut self, mut o: Observation) {
        self.orientation.place(&mut o);
        if self.sampler.keeps(&mut o) {
            self.orientation.orient(&mut o);
            self.count(&o);
            self.handover.push(&o);
        } else {
            self.count(&o);
        }
    }
}

impl<H: Handover> Sink for Feed<H> {
    fn hold_back(&mut self, until: u64) {
        self.orientation.hold_back(until);
    }

    #[inline(always)]
    fn observe(&mut self, mut o: Observation) {
        if self.sampler.samples() {
            return self.sample(o);
        }
        // What panics before it is counted as observed is the source's to account for.
        self.orientation.place(&mut o);
        self.orientation.orient(&mut o);
        self.count(&o);
        self.handover.push(&o);
    }
}

/// The reader's thread.
pub(crate) struct Reader<S, H> {
    source: S,
    feed: Feed<H>,
    control: Arc<ReaderControl>,
    progress: Progress,
    warnings: Warnings,
    /// Asked for, and waiting for the source to close its book.
    markers: Vec<Marker>,
    looked: Instant,
    /// The pipeline's.
    started: Instant,
    closed: bool,
    incidents: Incidents,
    /// Within a call of the source.
    polling: bool,
    /// Panics in a row by which nothing moved on, and what was observed at the last.
    stuck: (u32, Tally),
    /// Where a journal is kept.
    cuts: Option<Cuts>,
}

/// One warning per statistics interval while the packet channel is full.
#[derive(Default)]
struct Warnings {
    said: Option<Instant>,
    lost: u64,
    merges: u64,
}

/// How a run of the reader ended.
pub(crate) struct ReaderEnd<S> {
    pub(crate) source: S,
    pub(crate) part: ReaderPart,
}

impl<S: Source, H: Handover> Reader<S, H> {
    pub(crate) fn new(
        source: S,
        (orientation, sampler): (Orientation, Sampler),
        handover: H,
        control: Arc<ReaderControl>,
        started: Instant,
        incidents: Incidents,
        (cuts, restored): (Option<Cuts>, Tally),
    ) -> Self {
        let feed = Feed { orientation, sampler, handover, observed: restored, first: u64::MAX, last: 0 };
        let progress = Progress::new(S::LIVE);
        Self {
            source,
            feed,
            control,
            progress,
            warnings: Warnings::default(),
            markers: Vec::new(),
            looked: Instant::now(),
            started,
            closed: false,
            incidents,
            polling: false,
            stuck: (0, Tally::ZERO),
            cuts,
        }
    }

    pub(crate) fn run(mut self) -> ReaderEnd<S> {
        info!("Packet reader task started");
        self.looked = Instant::now();
        self.cuts.iter_mut().for_each(Cuts::begin);
        while !self.feed.handover.worker_gone() {
            match contained(|| self.turn()) {
                Ok(Polled::Ended) => break,
                Ok(Polled::More | Polled::Drained) => self.stuck.0 = 0,
                Err(payload) => self.after_panic(&*payload),
            }
        }
        self.finish()
    }

    /// One look at the source, and what follows from it.
    fn turn(&mut self) -> Polled {
        if !self.closed && self.control.stop.load(Ordering::Acquire) {
            self.source.close();
            self.feed.handover.wait_from_now();
            self.closed = true;
        }
        let has_room = self.feed.handover.has_room();
        let waits_for_cut = self.cuts.as_ref().is_some_and(Cuts::is_overdue) && self.feed.handover.waits();
        if !has_room || waits_for_cut {
            self.housekeeping();
            std::thread::sleep(PAUSE);
            return Polled::More;
        }
        self.feed.sampler.follow();
        self.polling = true;
        let polled = self.source.poll(&mut self.feed, BUDGET);
        self.polling = false;
        match polled {
            Polled::More => self.housekeeping(),
            Polled::Drained => {
                self.drained();
                self.housekeeping();
                self.source.wait(if self.feed.handover.waits() { PAUSE } else { NAP });
            }
            Polled::Ended => {}
        }
        polled
    }

    /// Makes a cut when it is time, nothing waits between source and workers, and the source says where it stands.
    fn cut(&mut self) {
        let Some(cuts) = self.cuts.as_mut() else { return };
        if !cuts.is_due() {
            return;
        }
        self.feed.handover.flush();
        if self.feed.handover.waits() {
            return;
        }
        match self.source.cut() {
            Ok(Some(source)) => {
                let settled = self.feed.handover.lost() + self.feed.sampler.left_out();
                self.feed.handover.cut(&cuts.next(source, settled));
            }
            Ok(None) => {}
            Err(why) => cuts.fails(why),
        }
    }

    /// Goes on behind what was panicked at, as long as that helps.
    #[cold]
    fn after_panic(&mut self, payload: &(dyn Any + Send)) {
        let (message, observed) = (panic_message(payload), self.feed.observed);
        let mut lost = Tally::ZERO;
        // What else it does has nothing to do with the source.
        if std::mem::take(&mut self.polling) {
            let source = &mut self.source;
            match contained(|| source.after_panic(observed)) {
                Ok(at_hand) => lost = at_hand,
                Err(_) => self.die(&message),
            }
        }
        let moved_on = lost != Tally::ZERO || observed != self.stuck.1;
        self.stuck = (if moved_on { 0 } else { self.stuck.0 + 1 }, observed);
        if self.stuck.0 == STUCK {
            self.die(&message);
        }
        self.incidents.note(&message, || match lost.buffers {
            0 => "it was at no packet, and goes on".to_owned(),
            1 => "1 packet can't be read and stands in lost.worker_quarantine".to_owned(),
            n => format!("{n} packets can't be read and stand in lost.worker_quarantine"),
        });
    }

    /// Ends the thread, as a panic that is not contained does.
    fn die(&mut self, message: &str) -> ! {
        self.incidents.note(message, || "it can't go on".to_owned());
        resume_unwind(Box::new(message.to_owned()))
    }

    /// Everything that has arrived is read: hands it over, and lets time go on for the flows that have no packets.
    fn drained(&mut self) {
        let watermark = self.feed.orientation.advance(self.source.watermark());
        self.feed.handover.flush();
        self.feed.handover.tick(watermark);
    }

    fn housekeeping(&mut self) {
        let now = Instant::now();
        let gap = u64::try_from(now.duration_since(self.looked).as_nanos()).unwrap_or(u64::MAX);
        self.looked = now;
        self.control.longest_gap.fetch_max(gap, Ordering::Relaxed);
        let at = u64::try_from(now.duration_since(self.started).as_nanos()).unwrap_or(u64::MAX);
        self.control.looked.store(at, Ordering::Relaxed);
        self.publish();
        self.warn_when_full();
        if self.control.requested.load(Ordering::Acquire) {
            let (mut markers, looks, change) = self.control.take_requests();
            self.markers.append(&mut markers);
            looks.iter().for_each(|look| self.feed.handover.look(look));
            if let Some(change) = change {
                let watermark = self.feed.orientation.advance(self.source.watermark());
                self.feed.handover.change(&change, watermark);
            }
        }
        self.feed.handover.go_on_looking();
        self.cut();
        if !self.markers.is_empty()
            && let Some(sightings) = self.source.sightings()
        {
            let part = self.part(sightings);
            for marker in std::mem::take(&mut self.markers) {
                marker.add_reader(part.clone());
                self.feed.handover.mark(&marker);
            }
        }
    }

    fn publish(&mut self) {
        let (feed, control) = (&self.feed, &self.control);
        let rejected = self.source.rejected();
        control.observed.set(feed.observed);
        control.lost.set(feed.handover.lost());
        control.sampled_out.set(feed.sampler.left_out());
        control.rejected.store(rejected, Ordering::Relaxed);
        control.first_packet.store(feed.first, Ordering::Relaxed);
        control.last_packet.store(feed.last, Ordering::Relaxed);
        control.polls.fetch_add(1, Ordering::Relaxed);
        self.progress.reached(feed.observed.packets - feed.handover.lost().packets + rejected);
    }

    fn warn_when_full(&mut self) {
        let handover = &self.feed.handover;
        let (lost, blocked) = (handover.lost().packets, handover.is_blocked());
        let news = blocked || handover.merges() > self.warnings.merges || lost > self.warnings.lost;
        let interval = self.control.stats_interval.get();
        if !news || self.warnings.said.is_some_and(|at| at.elapsed() < interval) {
            return;
        }
        self.warnings.said = Some(Instant::now());
        self.warnings.lost = lost;
        let merges = handover.merges() - std::mem::replace(&mut self.warnings.merges, handover.merges());
        let advice = "raise pipeline.packet_channel_capacity or pipeline.flow_workers";
        if blocked {
            warn!(
                "Packet channel full: packets wait in the kernel; {advice}, or pipeline.coalescing_capacity"
            );
        } else if merges > 0 {
            warn!(
                "Packet channel full: {merges} observations were merged by flow, nothing is lost; {advice}"
            );
        } else {
            warn!(
                "Packet channel full: {lost} packets dropped so far; {advice}, or set pipeline.enable_backpressure: true"
            );
        }
    }

    fn part(&self, sightings: mermin_flow::Sightings) -> ReaderPart {
        let feed = &self.feed;
        let (first, last) = sightings.unmetered_span.unwrap_or((u64::MAX, 0));
        let (first, last) = (first.min(feed.first), last.max(feed.last));
        ReaderPart {
            sightings,
            observed: feed.observed,
            waiting: feed.handover.open(),
            lost: feed.handover.lost(),
            sampled_out: feed.sampler.left_out(),
            span: (first <= last).then_some((first, last)),
            unresolved_fragments: feed.orientation.unresolved_fragments(),
        }
    }

    /// The cut behind the end of all flows. Where there can be none, things go on without the journal.
    fn last_cut(&mut self) -> Option<Arc<Cut>> {
        let cuts = self.cuts.as_mut()?;
        let is_ready = !self.feed.handover.worker_gone() && cuts.is_ready_for_the_last();
        let Some(source) = is_ready.then(|| self.source.cut().ok().flatten()).flatten() else {
            cuts.give_up();
            return None;
        };
        let settled = self.feed.handover.lost() + self.feed.sampler.left_out();
        Some(cuts.last(source, settled))
    }

    fn finish(mut self) -> ReaderEnd<S> {
        self.control.ended.store(true, Ordering::Release);
        self.publish();
        let watermark = self.feed.orientation.advance(self.source.watermark());
        let sightings = loop {
            // After its end a source has its book closed; a grace period may still be running.
            match self.source.sightings() {
                Some(sightings) => break sightings,
                None => std::thread::sleep(PAUSE),
            }
        };
        let part = self.part(sightings);
        let cut = self.last_cut();
        let lost = self.feed.handover.finish(watermark, cut.as_ref());
        self.control.lost.set(lost);
        ReaderEnd { source: self.source, part: ReaderPart { waiting: Tally::ZERO, lost, ..part } }
    }
}
