//! Ring events, and what the programs have summed up, to observations.

use super::book::{Book, Books, Closer, Sums};
use super::error::EbpfError;
use super::grace::Grace;
use super::kept::{Kept, TakenOver};
use super::mapped::{Mapped, Pressure};
use super::object::{self, Mode, Object};
use super::pace::Pace;
use super::points::Points;
use super::ring::{Ring, Stopped};
use super::slots::{Slots, hash_bytes, tally};
use super::taps::{EbpfTaps, News, Tell};
use super::ticks::Ticks;
use super::words::{Shape, Words, settlement};
use crate::clock::{Clocks, Steady};
use crate::interfaces::Interface;
use crate::links::{Follow, Links, follow};
use crate::{AttachKind, CaptureConfig, CaptureMode, KernelTable, OnExit};
use mermin_abi::{EVENT_EGRESS, EVENT_HAS_TCP_FLAGS, EVENT_TICKS, Event, Set, WORDS_V4, WORDS_V6};
use mermin_flow::{
    Fragment, Loss, Observation, ObservationPoints, Polled, PortForm, Settlement, Sightings, Sink, Source,
    Tally, WallClock,
};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};
use zerocopy::FromBytes as _;

const TCP: u8 = 6;
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
}

/// A selected device that is not captured from.
#[derive(Debug)]
pub struct Skipped {
    /// Its name.
    pub interface: Arc<str>,
    /// Why; `None`: it would be one too many.
    pub error: Option<EbpfError>,
}

/// How a source is opened.
#[derive(Clone, Debug)]
pub struct EbpfOptions {
    /// Size of the ring, rounded up to a power of two.
    pub ring_bytes: u64,
    /// How programs get on interfaces.
    pub attach: AttachKind,
    /// What the programs do.
    pub mode: CaptureMode,
    /// In aggregate mode.
    pub aggregation: Aggregation,
    /// What happens to programs and maps at the end.
    pub on_exit: OnExit,
    /// Follows links that come and go; without it the interfaces of the start are all there will be.
    pub follow: Option<Follow>,
}

/// What the programs sum up in, and how often it is drained.
#[derive(Clone, Debug)]
pub struct Aggregation {
    /// Where packets are added first.
    pub table: KernelTable,
    /// Slots of each CPU, for each IP version in each of two halves, rounded up to a power of two of at least 4.
    pub slots: u32,
    /// Flows that find room in an epoch's hash.
    pub hash_flows: u32,
    /// The least time between two drains: so often while the hash fills.
    pub drain_min: Duration,
    /// The time between two drains otherwise.
    pub drain_max: Duration,
}

/// What slots of all CPUs, both halves and both IP versions take at most.
const SLOT_BYTES: u64 = 64 << 20;

impl Default for Aggregation {
    fn default() -> Self {
        EbpfOptions::default().aggregation
    }
}

impl Aggregation {
    /// Sets of two slots of each CPU, as a power of two. All CPUs together get no more than [`SLOT_BYTES`]: machines that could
    /// have very many have fewer for each.
    pub(super) fn set_bits(&self, cpus: u32) -> u32 {
        let each = (size_of::<Set<WORDS_V4>>() + size_of::<Set<WORDS_V6>>()) as u64;
        let fits = SLOT_BYTES / (2 * u64::from(cpus) * each);
        let wanted = self.slots.clamp(4, 1 << 20).next_power_of_two().ilog2() - 1;
        wanted.min(fits.max(2).ilog2())
    }
}

impl Default for EbpfOptions {
    fn default() -> Self {
        Self::of(&CaptureConfig::default())
    }
}

impl EbpfOptions {
    /// As configured, with the interfaces of the start.
    #[must_use]
    pub fn of(config: &CaptureConfig) -> Self {
        let aggregation = Aggregation {
            table: config.kernel_table,
            slots: config.kernel_slots,
            hash_flows: config.kernel_hash_flows,
            drain_min: config.drain_interval_min.0,
            drain_max: config.drain_interval_max.0,
        };
        Self {
            ring_bytes: config.ring_bytes.0,
            attach: config.attach,
            mode: config.mode,
            aggregation,
            on_exit: config.on_exit,
            follow: None,
        }
    }
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
    /// For what is lost in a panic.
    quarantined: Option<Settlement>,
}

/// What the programs have summed up in closed epochs, on its way to the sink.
struct Summed {
    epochs: VecDeque<ClosedEpoch>,
    ticks: Ticks,
    /// Packets of the live epoch were not seen before this time since boot.
    live_began: u64,
    /// When the last book came.
    drained: Instant,
    pace: Pace,
    /// Least and greatest.
    intervals: [Duration; 2],
    pressure: Pressure,
    /// What the sums that are not handed on count.
    waiting: Tally,
    /// Flows in the hash that make a drain due after the least interval.
    many: u64,
}

struct ClosedEpoch {
    /// Its events lie in the ring before this position, and go first.
    up_to: u64,
    /// No packet of it was seen before this time since boot.
    began: u64,
    deltas: std::vec::IntoIter<Event>,
}

impl Summed {
    fn new(ticks: Ticks, began: u64, pressure: Pressure, pace: Pace, aggregation: &Aggregation) -> Self {
        let most = aggregation.drain_max;
        Self {
            epochs: VecDeque::new(),
            ticks,
            live_began: began,
            drained: Instant::now(),
            pace,
            intervals: [aggregation.drain_min.min(most), most],
            pressure,
            waiting: Tally::ZERO,
            many: u64::from(aggregation.hash_flows / 4),
        }
    }

    fn take(&mut self, book: &mut Book) {
        if let Some(ticks) = book.ticks {
            self.ticks = ticks;
        }
        // Who was seen first began the flow, where nothing else tells.
        let mut deltas = std::mem::take(&mut book.deltas);
        self.waiting += deltas.iter().map(tally).sum();
        deltas.sort_by_key(|delta| self.ticks.first(delta.first));
        let deltas = deltas.into_iter();
        self.epochs.push_back(ClosedEpoch { up_to: book.up_to, began: self.live_began, deltas });
        self.live_began = book.next_began;
        self.drained = Instant::now();
    }

    /// How long nothing is due.
    fn until_due(&self) -> Duration {
        let [least, most] = self.intervals;
        let since = self.drained.elapsed();
        if since < least { least - since } else { most.saturating_sub(since).min(least) }
    }

    fn is_due(&self) -> bool {
        let ([least, most], since) = (self.intervals, self.drained.elapsed());
        self.epochs.is_empty()
            && (since >= most || since >= least && self.pressure.flows_in_hash() > self.many)
    }

    /// No packet that is still to come was seen before this time since boot.
    fn floor(&self) -> u64 {
        self.epochs.front().map_or(self.live_began, |epoch| epoch.began)
    }
}

/// What the closed epochs' books say, and what was handed on from each epoch.
#[derive(Default)]
struct Totals {
    sightings: Sightings,
    ip_length_over_frame: u64,
    unresolved_fragments: u64,
    ethertypes_other: u64,
    out_of_balance: u64,
    /// What is to be handed on of closed epochs: by the ring, slots and hash.
    due: Tally,
    /// Epochs below are closed.
    live: u32,
    handed_closed: Tally,
    /// By parity: at most two epochs are not closed.
    handed_live: [Tally; 2],
    /// Of what was handed on, lost by a panic.
    quarantined: Tally,
    /// Of what was due, lost with an earlier process.
    crashed: Tally,
}

impl Totals {
    /// Whether an event is of an epoch whose book is still open.
    #[inline]
    fn is_live(&self, epoch: u32) -> bool {
        epoch.wrapping_sub(self.live) < 1 << 31
    }

    #[inline]
    fn handed(&mut self, epoch: u32, tally: Tally) {
        if self.is_live(epoch) {
            self.handed_live[(epoch & 1) as usize] += tally;
        } else {
            self.handed_closed += tally;
        }
    }

    /// What was handed on and is not among what the sink has taken was lost by a panic.
    fn after_panic(&mut self, observed: Tally) -> Tally {
        let [even, odd] = self.handed_live;
        let lost = self.handed_closed + even + odd - observed - self.quarantined;
        self.quarantined += lost;
        lost
    }

    /// What earlier processes have left.
    fn begin_with(&mut self, over: &TakenOver) {
        let TakenOver { ahead, crashed, books, drained, .. } = over;
        drained.iter().chain(books).for_each(|book| self.close(book));
        let Tally { buffers, buffer_bytes, .. } = *ahead;
        let seen = self.sightings.seen - Tally { buffers, buffer_bytes, ..Tally::ZERO };
        self.sightings.seen = seen;
        self.due = self.due - *ahead - *crashed;
        self.crashed = *crashed;
    }

    fn close(&mut self, book: &Book) {
        if !book.balances() {
            self.out_of_balance += 1;
            tracing::error!(
                epoch = book.epoch,
                "the kernel programs' counters do not balance: this is a bug"
            );
        }
        self.live = book.epoch.wrapping_add(1);
        self.handed_closed += std::mem::take(&mut self.handed_live[(book.epoch & 1) as usize]);
        self.due += book.metered();
        self.ip_length_over_frame += book.ip_length_over_frame;
        self.unresolved_fragments += book.unresolved_fragments;
        self.ethertypes_other += book.ethertypes_other;
        let sightings = &mut self.sightings;
        sightings.seen += book.seen;
        for (reason, tally) in [(Loss::RingFull, book.ring_full), (Loss::KernelTableFull, book.table_full)] {
            *sightings.lost.entry(reason).or_default() += tally;
        }
        for (sum, tally) in sightings.unmetered.iter_mut().zip(book.unmetered) {
            *sum += tally;
        }
        for (&ethertype, packets) in &book.ethertypes {
            *sightings.ethertypes.entry(ethertype).or_default() += packets;
        }
    }

    /// Cumulative counts up to the last closed epoch, and of the epochs since then what was handed on: that much was
    /// certainly seen. `sums`: of what is due, what the programs have summed up.
    fn sightings(&self, sums: Tally) -> Sightings {
        let mut sightings = self.sightings.clone();
        for handed in self.handed_live {
            sightings.seen.buffers += handed.buffers;
            sightings.seen.buffer_bytes += handed.buffer_bytes;
        }
        sightings.in_ring = self.due - self.handed_closed - sums;
        sightings.in_kernel_table = sums;
        if self.quarantined != Tally::ZERO {
            sightings.lost.insert(Loss::WorkerQuarantine, self.quarantined);
        }
        if self.crashed != Tally::ZERO {
            sightings.lost.insert(Loss::Crash, self.crashed);
        }
        for (name, count) in [
            ("ip_length_over_frame", self.ip_length_over_frame),
            ("unresolved_fragments", self.unresolved_fragments),
            ("ethertypes_other", self.ethertypes_other),
            ("epochs_out_of_balance", self.out_of_balance),
        ] {
            if count > 0 {
                sightings.anomalies.insert(name, count);
            }
        }
        sightings
    }
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
        let mode = match (options.mode, options.aggregation.table) {
            (CaptureMode::Packet, _) => Mode::Packet,
            (CaptureMode::Aggregate, KernelTable::Slots) => {
                let set_bits = options.aggregation.set_bits(object::possible_cpus()?);
                Mode::Slots { set_bits, seed: secret() }
            }
            (CaptureMode::Aggregate, KernelTable::Hash) => Mode::Hash,
        };
        let mut kept = match options.on_exit {
            OnExit::Detach => None,
            OnExit::Keep => Some(Kept::open(shape(mode, options)?)?),
        };
        // Where the slots are is a secret of whoever made the maps.
        let mode = kept.as_ref().map_or(mode, |kept| kept.shape.mode);
        let pins = kept.as_ref().map(|kept| Arc::clone(&kept.pins));
        let mut object = Object::load(options.ring_bytes, mode, pins.clone())?;
        let ring = Ring::new(object.map("RING")?, object.ring_bytes)?;
        let mapped = Mapped::new(&object)?;
        let kernel = |what| move |source: io::Error| EbpfError::Kernel { what, source };
        let grace = Grace::new().map_err(kernel("a map to wait on"))?;
        let sums = match mode {
            Mode::Slots { .. } | Mode::Hash => {
                let slots = Slots::new(&object, options.aggregation.hash_flows)?;
                let clock = object.descriptor(object::CLOCK)?;
                Some(Sums::new(slots, clock, &mapped).map_err(kernel("a run of a program"))?)
            }
            Mode::Packet => None,
        };
        let began = mapped.clock().boot;
        let aggregates = sums.is_some();
        let ticks = sums.as_ref().map(Sums::ticks);
        let mut closer = Closer::new(mapped, grace, sums, ring.produced());
        let mut over = TakenOver::default();
        if let Some(kept) = &mut kept {
            kept.complete()?;
            (closer, over) = kept.take_over(closer, &ring)?;
        }
        let began = over.earliest.map_or(began, |earliest| earliest.min(began));
        let mut summed = match ticks {
            Some(ticks) => {
                let pressure = Pressure::new(&object)?;
                let pace = Pace::new(object.map("RING")?).map_err(kernel("waiting for the ring"))?;
                Some(Summed::new(ticks, began, pressure, pace, &options.aggregation))
            }
            None => None,
        };
        let mut totals = Totals::default();
        totals.begin_with(&over);
        if let Some(summed) = &mut summed {
            over.books.iter_mut().for_each(|book| summed.take(book));
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
        let taps = EbpfTaps::new(&mut object, options.attach, tell, clocks.steady(), pins)?;
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
            end: None,
        };
        let refused = |(interface, error): (Arc<str>, Option<EbpfError>)| Skipped { interface, error };
        let skipped: Vec<_> = followed.skipped.into_iter().map(refused).collect();
        if skipped.len() == interfaces.len() && !interfaces.is_empty() {
            let first = skipped.into_iter().next().and_then(|skipped| skipped.error).map(Box::new);
            return Err(EbpfError::NoInterface { count: interfaces.len(), source: first });
        }
        Ok(Opened { source, skipped })
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
        let point = |event: &Event| points.get_summed(event.ifindex, event.flags & EVENT_EGRESS != 0);
        for event in kept.events.by_ref() {
            let times = [event.first, event.last].map(|time| clock.time(time));
            let observation = observation(&event, times, point(&event));
            // Its epoch is one of maps that are no more.
            totals.handed_closed += observation.tally();
            sink.observe(observation);
        }
        while let Some(event) = kept.read.pop_front() {
            let times = times(&event, summed.as_ref().map(|summed| &summed.ticks));
            let observation = observation(&event, times.map(|time| clock.time(time)), point(&event));
            totals.handed(event.epoch, observation.tally());
            sink.observe(observation);
        }
    }

    /// Reads at most `budget` events; how far it came, the time of the newest, and how many they were.
    fn read(&mut self, sink: &mut impl Sink, budget: usize) -> (Stopped, u64, usize) {
        let Self { ring, points, totals, clock, end, news, summed, kept, .. } = self;
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
                let egress = event.flags & EVENT_EGRESS != 0;
                // A delta may leave its slot after its link has gone.
                let is_sum = event.flags & EVENT_TICKS != 0;
                let index = event.ifindex;
                let point = if is_sum { points.get_summed(index, egress) } else { points.get(index, egress) };
                let times = times(&event, summed.as_ref().map(|summed| &summed.ticks));
                let observation = observation(&event, times.map(|time| clock.time(time)), point);
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
                let point = points.get_summed(event.ifindex, event.flags & EVENT_EGRESS != 0);
                let times = times(&event, Some(&summed.ticks)).map(|time| clock.time(time));
                let observation = observation(&event, times, point);
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
                    summed.take(&mut book);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no grace period from the kernel: the counters can't be read yet");
                if let Some(summed) = &mut self.summed {
                    summed.drained = Instant::now();
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
        if let Some(summed) = &mut self.summed {
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

    fn wall_clock(&self) -> WallClock {
        self.clocks.wall()
    }

    fn rejected(&self) -> u64 {
        self.totals.sightings.unmetered.iter().map(|tally| tally.packets).sum()
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
        let words = Arc::clone(&state.words);
        let quarantined = settlement(&words);
        Self { _state: state, words, events: events.into_iter(), read: VecDeque::new(), quarantined }
    }
}

/// What the maps are made for.
pub(super) fn shape(mode: Mode, options: &EbpfOptions) -> Result<Shape, EbpfError> {
    Ok(Shape {
        cpus: object::possible_cpus()?,
        mode,
        ring_bytes: object::rounded(options.ring_bytes),
        hash_flows: if mode == Mode::Packet { 0 } else { options.aggregation.hash_flows },
    })
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

/// Of the first packet and of the last, since boot.
#[inline]
fn times(event: &Event, ticks: Option<&Ticks>) -> [u64; 2] {
    match ticks {
        Some(ticks) if event.flags & EVENT_TICKS != 0 => {
            let mut first = ticks.first(event.first);
            // Where a connection with such a key was closed lately, a first packet has its exact time. So this one came after the
            // SYN that may have been in the same tick.
            if event.protocol == TCP && event.first >> 32 == 0 {
                first += ticks.length() - 1;
            }
            [first, first.max(ticks.time(event.last as u32))]
        }
        _ => [event.first, event.last],
    }
}

/// Nobody's to guess.
fn secret() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0)
}

#[inline]
fn observation(event: &Event, [start, end]: [u64; 2], point: u16) -> Observation {
    let mut macs = [0; 12];
    for (bytes, word) in macs.chunks_exact_mut(4).zip(event.macs) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Observation {
        addresses: [event.source[0], event.source[1], event.destination[0], event.destination[1]],
        start,
        end,
        bytes: event.ip_bytes,
        frame_bytes: event.frame_bytes,
        ports: [event.ports as u16, (event.ports >> 16) as u16],
        packets: event.packets,
        buffer_bytes: event.buffer_bytes,
        buffers: event.buffers,
        fragment_id: event.fragment_id,
        macs,
        vlan: event.vlan,
        inner_vlan: event.inner_vlan,
        point,
        protocol: event.protocol,
        ip_version: event.version,
        port_form: match event.port_form {
            1 => PortForm::Ports,
            2 => PortForm::IcmpTypeCode,
            _ => PortForm::Absent,
        },
        has_tcp_flags: event.flags & EVENT_HAS_TCP_FLAGS != 0,
        tcp_flags: event.tcp_flags,
        traffic_class: event.traffic_class,
        ttl: event.ttl,
        fragment: match event.fragment {
            1 => Fragment::First,
            2 => Fragment::Later,
            _ => Fragment::Whole,
        },
        ..Observation::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_many_cpus_are_fewer_for_each() {
        let of = |slots, cpus| Aggregation { slots, ..Aggregation::default() }.set_bits(cpus);
        assert_eq!([of(4_096, 2), of(4_096, 32), of(4_097, 2), of(1, 2)], [11, 11, 12, 1]);
        assert_eq!([of(4_096, 64), of(4_096, 256), of(4_096, 8_192)], [10, 8, 3]);
        assert_eq!([of(u32::MAX, 2), of(4_096, u32::MAX / 2)], [15, 1]);
    }
}
