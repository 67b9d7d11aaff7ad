//! Ring events, and what the programs have summed up, to observations.

use super::book::{Book, Books, Closer};
use super::error::EbpfError;
use super::grace::Grace;
use super::kept::{Kept, TakenOver};
use super::logged::Log;
use super::mapped::{Mapped, Pressure};
use super::object::{Mode, Object};
use super::observe::observe;
use super::options::EbpfOptions;
use super::pace::Pace;
use super::points::Points;
use super::pulse::Pulse;
use super::ring::{Ring, Stopped};
use super::slots::{Slots, hash_bytes};
use super::summed::Summed;
use super::taps::{EbpfTaps, News, Tell};
use super::totals::Totals;
use super::words::{Words, settlement};
use crate::OnExit;
use crate::clock::{Clocks, Steady};
use crate::filters::Filtering;
use crate::interfaces::Interface;
use crate::links::{Links, follow};
use mermin_abi::{EVENT_EGRESS, Event};
use mermin_flow::{
    ObservationPoints, Polled, Settlement, Sightings, Sink, Source, SourceCut, Tally, Voider, WallClock,
};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};
use zerocopy::FromBytes as _;

/// Between two drains while packets flow. A reader that slept on the ring instead would be woken by every packet that
/// finds it empty.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two looks for a book that was asked for.
const LOOK: Duration = Duration::from_millis(5);
/// What an event's time may lie before the moment at which it became visible: a program run takes microseconds, but a
/// virtual CPU can be taken away in the middle of one.
const SLACK_NANOS: u64 = 5_000_000;

/// An opened source, and the devices that refused.
pub struct Opened<S> {
    /// The source.
    pub source: S,
    /// Devices without a program.
    pub skipped: Vec<Skipped>,
    /// What became of the journal.
    pub journal: JournalUse,
}

/// What a source makes of the journal that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalUse {
    /// There was none, or nobody could go on with it: programs and maps go with the process.
    None,
    /// What it had is of no use: others count, or nobody has before.
    Afresh,
    /// What it had is gone on with.
    GoesOn,
}

/// A selected device that is not captured from.
#[derive(Debug)]
pub struct Skipped {
    /// Its name.
    pub interface: Arc<str>,
    /// Why; `None`: it would be one too many.
    pub error: Option<EbpfError>,
}

/// What the thread may tell the reader before it has to wait for it.
const NEWS: usize = 1_024;

/// Programs on interfaces and the ring that they write to.
pub struct EbpfSource {
    ring: Ring,
    books: Books,
    /// Keeps maps and programs.
    _object: Object,
    kept: Option<KeptOn>,
    clocks: Clocks,
    /// For the programs' times.
    clock: Steady,
    points: Points,
    all_points: Arc<ObservationPoints>,
    news: Option<Receiver<News>>,
    links: Arc<Links>,
    totals: Totals,
    summed: Option<Summed>,
    /// Bytes of both halves of the hash.
    hashes: u64,
    /// Which of the books that are to come, counted from the first, tells of the moment of a snapshot.
    wanted: Option<u64>,
    /// Books that have come.
    came: u64,
    watermark: u64,
    begun: bool,
    /// When a drain last found something.
    busy_since: Option<Instant>,
    /// The next record of the ring is being written.
    stalls: bool,
    /// Up to where the ring is read to the end, once that is known.
    end: Option<u64>,
}

/// What a source has that goes on after its process.
struct KeptOn {
    /// Locked until the end.
    _state: Kept,
    words: Arc<Words>,
    /// What maps of another shape held, to be handed on first.
    events: std::vec::IntoIter<Event>,
    /// Read from the ring, which knows, and not handed on: what is read twice would count twice.
    read: VecDeque<Event>,
    log: Option<Log>,
    /// What had come to an end in earlier runs.
    settled: Tally,
    /// For what is lost in a panic.
    quarantined: Option<Settlement>,
}

impl EbpfSource {
    /// Loads the programs and attaches them to both hooks of every interface. Devices that refuse are skipped and
    /// named.
    ///
    /// # Errors
    /// eBPF can't be used at all, or every device refused.
    pub fn open(
        interfaces: &[Interface],
        points: &Arc<ObservationPoints>,
        options: &EbpfOptions,
    ) -> Result<Opened<Self>, EbpfError> {
        let mode = options.mode()?;
        let mut kept = match options.on_exit {
            OnExit::Detach => None,
            OnExit::Keep => match Kept::open(options.shape(mode)?, options.journal.as_ref()) {
                Err(EbpfError::NoBpffs { source }) => {
                    tracing::warn!(
                        %source,
                        "capture.on_exit: keep wants a bpffs that this process may use, at /run/mermin/bpf or /sys/fs/bpf: \
                         without one, programs and what they count go with it (detach)"
                    );
                    None
                }
                kept => Some(kept?),
            },
        };
        // Where the slots are is a secret of whoever made the maps.
        let mode = kept.as_ref().map_or(mode, |kept| kept.shape.mode);
        let pins = kept.as_ref().map(|kept| Arc::clone(&kept.pins));
        let filtering = Filtering::of(&options.filters);
        let mut object = Object::load(options.ring_bytes, mode, filtering.as_deref(), pins.clone())?;
        let mut ring = Ring::new(object.map("RING")?, object.ring_bytes)?;
        let mapped = Mapped::new(&object)?;
        let kernel = |what| move |source: io::Error| EbpfError::Kernel { what, source };
        let grace = Grace::new().map_err(kernel("a map to wait on"))?;
        let pulse = Pulse::new(&mut object, &mapped, options.orphan_timeout)?;
        let (began, ticks) = (mapped.clock().boot, pulse.ticks());
        let slots = match mode {
            Mode::Slots { .. } | Mode::Hash => Some(Slots::new(&object, options.aggregation.hash_flows)?),
            Mode::Packet => None,
        };
        let aggregates = slots.is_some();
        if let Some(kept) = &kept {
            kept.complete(&mapped)?;
        }
        let mut closer = Closer::new(mapped, grace, pulse, slots, ring.produced());
        let mut over = TakenOver::default();
        if let Some(kept) = &mut kept {
            (closer, over) = kept.take_over(closer, &ring)?;
            if kept.log.is_some() {
                ring.keep_what_is_read();
            }
        }
        let journal = match &kept {
            Some(Kept { carried: Some(_), .. }) => JournalUse::GoesOn,
            Some(Kept { log: Some(_), .. }) => JournalUse::Afresh,
            Some(_) | None => JournalUse::None,
        };
        let began = over.earliest.map_or(began, |earliest| earliest.min(began));
        let mut summed = if aggregates {
            let pressure = Pressure::new(&object)?;
            let pace = Pace::new(object.map("RING")?).map_err(kernel("waiting for the ring"))?;
            Some(Summed::new(ticks, began, pressure, pace, &options.aggregation))
        } else {
            None
        };
        let mut totals = Totals::new(filtering.clone());
        totals.begin_with(&over);
        if let Some(summed) = &mut summed {
            over.books.iter_mut().for_each(|book| summed.take(book, |_| 0));
        }
        let hashes = if aggregates { hash_bytes(options.aggregation.hash_flows) } else { 0 };
        let books = Books::start(closer).map_err(kernel("a thread"))?;
        let mut clocks = Clocks::new();
        let clock = clocks.steady().of_the_kernel();
        let now = clocks.look().now;
        let reached = over.earliest.map_or(now, |earliest| now.min(clock.time(earliest)));
        let watermark = reached.saturating_sub(SLACK_NANOS);
        // Until the reader runs, nobody takes what is told of the interfaces of the start.
        let (tell, news) = sync_channel(NEWS + 2 * interfaces.len());
        let tell = Tell { news: tell, produced: ring.produced() };
        let taps = EbpfTaps::new(&mut object, options.attach, tell, clocks.steady(), pins, filtering)?;
        let followed =
            follow(taps, interfaces, points, options.follow.clone()).map_err(kernel("rtnetlink"))?;
        let source = Self {
            ring,
            books,
            _object: object,
            kept: kept.map(|kept| KeptOn::new(kept, over.events)),
            clock,
            clocks,
            points: if aggregates { Points::of_sums() } else { Points::default() },
            all_points: Arc::clone(points),
            news: Some(news),
            links: followed.links,
            totals,
            summed,
            hashes,
            wanted: None,
            came: 0,
            watermark,
            begun: false,
            busy_since: None,
            stalls: false,
            end: None,
        };
        let refused = |(interface, error): (Arc<str>, Option<EbpfError>)| Skipped { interface, error };
        let skipped: Vec<_> = followed.skipped.into_iter().map(refused).collect();
        if skipped.len() == interfaces.len() && !interfaces.is_empty() {
            let first = skipped.into_iter().next().and_then(|skipped| skipped.error).map(Box::new);
            return Err(EbpfError::NoInterface { count: interfaces.len(), source: first });
        }
        Ok(Opened { source, skipped, journal })
    }

    /// Bytes that the kernel holds for it and that are not resident in this process, less those that are resident twice: the
    /// ring is mapped twice in a row, so that no event is cut at its end.
    #[must_use]
    pub fn beside_resident(&self) -> i64 {
        self.hashes.cast_signed() - self.ring.size().cast_signed()
    }

    /// The interfaces that it is on.
    #[must_use]
    pub fn links(&self) -> Arc<Links> {
        Arc::clone(&self.links)
    }

    /// Hands on what was taken out of the kernel before: at the start, and, after a panic, by the call that had it.
    fn hand_on_taken(&mut self, sink: &mut impl Sink) {
        let Self { kept: Some(kept), points, totals, clock, news, ring, summed, .. } = self else { return };
        if kept.events.len() == 0 && kept.read.is_empty() {
            return;
        }
        points.hear(news.as_ref(), ring.position());
        let ticks = summed.as_ref().map(|summed| &summed.ticks);
        // Their place in the ring tells nothing about links any more.
        let mut observe = |event: &Event| {
            let point = points.get_summed(event.ifindex, event.flags & EVENT_EGRESS != 0);
            observe(event, point, ticks, clock)
        };
        for event in kept.events.by_ref() {
            let observation = observe(&event);
            // Its epoch is one of maps that are no more.
            totals.handed_closed += observation.tally();
            sink.observe(observation);
        }
        while let Some(event) = kept.read.pop_front() {
            let observation = observe(&event);
            totals.handed(event.epoch, observation.tally());
            sink.observe(observation);
        }
    }

    /// Reads at most `budget` events; how far it came, the time of the newest, and how many they were.
    fn read(&mut self, sink: &mut impl Sink, budget: usize) -> (Stopped, u64, usize) {
        let Self { ring, points, totals, clock, end, news, summed, kept, .. } = self;
        let ticks = summed.as_ref().map(|summed| &summed.ticks);
        let (mut newest, mut left) = (0, budget);
        loop {
            // What is told of an interface is told before its first event is written: so what was told after this look
            // at the ring is of events behind it.
            let up_to = end.unwrap_or_else(|| ring.produced().position());
            points.hear(news.as_ref(), ring.position());
            let stage = up_to.min(points.valid_up_to());
            let ends = end.is_some() && kept.is_none();
            let mut hand_on = |event: Event, totals: &mut Totals| {
                // What the programs saw after the end is in no book, unless somebody goes on.
                if ends && totals.is_live(event.epoch) {
                    return;
                }
                let observation = observe(&event, points.of(&event), ticks, clock);
                newest = observation.end;
                totals.handed(event.epoch, observation.tally());
                sink.observe(observation);
            };
            let mut take = |record: &[u8]| {
                let event = Event::read_from_prefix(record).ok().map(|(event, _)| event);
                match kept.as_mut() {
                    Some(kept) => kept.read.extend(event),
                    None => event.into_iter().for_each(|event| hand_on(event, totals)),
                }
            };
            let (stopped, read) = ring.read(size_of::<Event>(), left, stage, &mut take);
            if let Some(kept) = kept {
                ring.read_on(size_of::<Event>(), |record| {
                    kept.read.extend(Event::read_from_prefix(record).ok().map(|(event, _)| event));
                });
                if let Some(log) = &kept.log {
                    let (first, second) = kept.read.as_slices();
                    log.ring(ring.position(), [first, second]);
                    ring.tell();
                }
                while let Some(event) = kept.read.pop_front() {
                    hand_on(event, totals);
                }
            }
            left -= read;
            if stopped != Stopped::Reached {
                return (stopped, newest, budget - left);
            }
            // Meanwhile more may have come, or an interface's last event was read.
            if ring.position() >= end.unwrap_or_else(|| ring.produced().position()) {
                return (stopped, newest, budget - left);
            }
        }
    }

    /// Hands on what was summed up in epochs whose events were all read, at most `budget`; how many that were.
    fn hand_on_sums(&mut self, sink: &mut impl Sink, budget: usize) -> usize {
        let Self { ring, points, totals, clock, summed, news, .. } = self;
        let Some(summed) = summed else { return 0 };
        points.hear(news.as_ref(), ring.position());
        let mut handed = 0;
        while let Some(epoch) = summed.epochs.front_mut().filter(|epoch| ring.position() >= epoch.up_to) {
            while handed < budget
                && let Some(event) = epoch.deltas.next()
            {
                let observation = observe(&event, points.of(&event), Some(&summed.ticks), clock);
                let tally = observation.tally();
                summed.waiting = summed.waiting - tally;
                totals.handed(event.epoch, tally);
                sink.observe(observation);
                handed += 1;
            }
            if handed == budget {
                break;
            }
            points.epoch_is_over();
            summed.epochs.pop_front();
        }
        handed
    }

    /// Time goes no further than to the oldest epoch that was not handed on.
    fn hold_back(&self, sink: &mut impl Sink) {
        if let Some(summed) = &self.summed {
            sink.hold_back(self.clock.time(summed.floor()).saturating_sub(self.slack()));
        }
    }

    /// What a time may lie before the moment at which it became visible.
    fn slack(&self) -> u64 {
        self.summed.as_ref().map_or(SLACK_NANOS, |summed| SLACK_NANOS.max(2 * summed.ticks.length()))
    }

    /// Takes a book that has come; asks for the next when it is time, or somebody wants one.
    fn look_after_books(&mut self) {
        // What one epoch has left goes on before another one ends: what comes meanwhile stays in the kernel, which has bounds.
        let is_due = self.summed.as_ref().is_some_and(Summed::is_due);
        let is_wanted = self.wanted.is_some_and(|wanted| self.came < wanted);
        if (is_due || is_wanted || self.books.is_on_its_way())
            && let Some(result) = self.books.next()
        {
            self.take(result);
        }
    }

    fn take(&mut self, result: io::Result<Book>) {
        match result {
            Ok(mut book) => {
                self.came += 1;
                self.totals.close(&book);
                if let Some(summed) = &mut self.summed {
                    let (points, all) = (&mut self.points, &self.all_points);
                    let mut known = HashMap::new();
                    summed.take(&mut book, |delta| {
                        let point = points.get_summed(delta.ifindex, delta.flags & EVENT_EGRESS != 0);
                        *known.entry(point).or_insert_with(|| all.order(point))
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no grace period from the kernel: the counters can't be read yet");
                if let Some(summed) = &mut self.summed {
                    summed.put_off();
                }
            }
        }
    }
}

impl Source for EbpfSource {
    const LIVE: bool = true;

    fn poll(&mut self, sink: &mut impl Sink, budget: usize) -> Polled {
        if !self.begun {
            self.begun = true;
            self.links.begin();
        }
        let began = self.clocks.look().now;
        if self.end.is_none() {
            self.look_after_books();
        }
        self.hold_back(sink);
        self.hand_on_taken(sink);
        let (stopped, newest, read) = self.read(sink, budget);
        let sums = self.hand_on_sums(sink, budget);
        if let Some(summed) = &mut self.summed {
            summed.pace.read(read as u64);
        }
        self.stalls = stopped == Stopped::Busy;
        if newest > 0 || sums > 0 {
            self.busy_since = Some(Instant::now());
        }
        let mut reached = if stopped == Stopped::Reached { began } else { newest };
        if let Some(summed) = &self.summed {
            reached = reached.min(self.clock.time(summed.floor()));
        }
        self.watermark = self.watermark.max(reached.saturating_sub(self.slack()));
        let has_sums = self.summed.as_ref().is_some_and(|summed| !summed.epochs.is_empty());
        match stopped {
            Stopped::Budget => Polled::More,
            Stopped::Reached if has_sums && sums > 0 => Polled::More,
            Stopped::Reached if self.end.is_some() && !has_sums => Polled::Ended,
            Stopped::Reached | Stopped::Busy => Polled::Drained,
        }
    }

    fn wait(&mut self, at_most: Duration) {
        if self.stalls {
            sleep(at_most.min(PAUSE));
        } else if let Some(summed) = &mut self.summed {
            // A book that is on its way comes when the kernel has had its grace period.
            let until = if self.books.is_on_its_way() { LOOK } else { summed.until_due() };
            summed.pace.sleep(at_most.min(until));
        } else if self.busy_since.is_some_and(|since| since.elapsed() < PAUSE) {
            sleep(at_most.min(PAUSE));
        } else if !self.ring.has_more() {
            self.ring.wait(at_most);
        }
    }

    fn watermark(&self) -> u64 {
        self.watermark
    }

    fn cut(&mut self) -> Result<Option<SourceCut>, String> {
        let Some((kept, log)) = self.kept.as_ref().and_then(|kept| Some((kept, kept.log.as_ref()?))) else {
            return Ok(None);
        };
        let has_sums = self.summed.as_ref().is_some_and(|summed| !summed.epochs.is_empty());
        let has_events = kept.events.len() > 0 || !kept.read.is_empty();
        if has_sums || has_events || self.books.is_on_its_way() {
            return Ok(None);
        }
        let read_from = log.cut().map_err(|error| error.in_full())?;
        let state = kept.words.identity().to_le_bytes().to_vec();
        Ok(Some(SourceCut { state, read_from, settled: kept.settled + self.totals.quarantined }))
    }

    fn voider(&self) -> Option<Voider> {
        let words = Arc::clone(&self.kept.as_ref()?.words);
        Some(Box::new(move || words.rename()))
    }

    fn points(&self) -> Arc<ObservationPoints> {
        Arc::clone(&self.all_points)
    }

    fn wall_clock(&self) -> WallClock {
        self.clocks.wall()
    }

    fn rejected(&self) -> u64 {
        self.totals.rejected()
    }

    fn close(&mut self) {
        let mut books = self.books.last();
        self.links.ask_to_stop();
        // Where programs stay, what is not closed is for whoever goes on.
        if self.kept.is_none() && books.last().is_none_or(Result::is_err) {
            // Then it takes as long as taking the programs off does.
            self.links.finish();
            books.extend(self.books.after_the_programs());
        }
        for result in books {
            self.take(result);
        }
        self.end = Some(self.ring.produced().position());
    }

    fn after_panic(&mut self, observed: Tally) -> Tally {
        let lost = self.totals.after_panic(observed);
        if let Some(settle) = self.kept.as_ref().and_then(|kept| kept.quarantined.as_ref()) {
            settle(self.totals.quarantined);
        }
        lost
    }

    fn settlement(&self) -> Option<Settlement> {
        self.kept.as_ref().and_then(|kept| settlement(&kept.words))
    }

    fn sightings(&mut self) -> Option<Sightings> {
        if self.end.is_none() {
            // Of this moment, or a later one.
            let on_its_way = u64::from(self.books.is_on_its_way());
            let wanted = *self.wanted.get_or_insert(self.came + on_its_way + 1);
            self.look_after_books();
            if self.came < wanted {
                return None;
            }
            self.wanted = None;
        }
        // At the end all that is told as seen was counted by the programs.
        debug_assert!(
            self.end.is_none() || self.kept.is_some() || self.totals.handed_live == [Tally::ZERO; 2]
        );
        let waiting = self.summed.as_ref().map_or(Tally::ZERO, |summed| summed.waiting);
        let mut sightings = self.totals.sightings(waiting);
        sightings.anomalies.extend(self.links.counts().anomalies());
        sightings.anomalies.extend(self.clocks.anomalies());
        Some(sightings)
    }
}

impl Drop for EbpfSource {
    fn drop(&mut self) {
        // Nobody listens any more: the thread must not wait for that.
        self.news = None;
        self.links.finish();
    }
}

impl KeptOn {
    fn new(state: Kept, events: Vec<Event>) -> Self {
        let (words, log) = (Arc::clone(&state.words), state.log.clone());
        let settled = words.settled();
        let quarantined = settlement(&words);
        Self {
            _state: state,
            words,
            events: events.into_iter(),
            read: VecDeque::new(),
            log,
            settled,
            quarantined,
        }
    }
}

/// Until `duration` has passed or a signal comes.
fn sleep(duration: Duration) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos() as i32),
    };
    // SAFETY: `time` is readable; the rest of an interrupted sleep isn't asked for.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}
