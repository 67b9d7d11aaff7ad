//! Ring events to observations.

use super::book::{Book, Books};
use super::error::EbpfError;
use super::grace::Grace;
use super::mapped::Mapped;
use super::object::Object;
use super::points::Points;
use super::ring::{Ring, Stopped};
use super::taps::{EbpfTaps, News, Tell};
use crate::AttachKind;
use crate::clock::{Clocks, Steady};
use crate::interfaces::Interface;
use crate::links::{Follow, Links, follow};
use mermin_abi::{EVENT_EGRESS, EVENT_HAS_TCP_FLAGS, PacketEvent};
use mermin_flow::{
    Fragment, Loss, Observation, ObservationPoints, Polled, PortForm, Sightings, Sink, Source, Tally,
    WallClock,
};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};
use zerocopy::FromBytes as _;

/// The ring's size unless said otherwise: 161 000 events.
pub const RING_BYTES: u64 = 16 << 20;
/// Between two drains while packets flow. A reader that slept on the ring instead would be woken by every packet that
/// finds it empty.
const PAUSE: Duration = Duration::from_millis(1);
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
    /// Follows links that come and go; without it the interfaces of the start are all there will be.
    pub follow: Option<Follow>,
}

impl Default for EbpfOptions {
    fn default() -> Self {
        Self { ring_bytes: RING_BYTES, attach: AttachKind::default(), follow: None }
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
    clocks: Clocks,
    /// For the programs' times.
    clock: Steady,
    points: Points,
    news: Option<Receiver<News>>,
    links: Arc<Links>,
    totals: Totals,
    watermark: u64,
    begun: bool,
    /// When a drain last found something.
    busy_since: Option<Instant>,
    /// Up to where the ring is read to the end, once that is known.
    end: Option<u64>,
}

/// What the closed epochs' books say, and what was handed on from each epoch.
#[derive(Default)]
struct Totals {
    sightings: Sightings,
    ip_length_over_frame: u64,
    ethertypes_other: u64,
    out_of_balance: u64,
    submitted: Tally,
    /// Epochs below are closed.
    live: u32,
    handed_closed: Tally,
    /// By parity: at most two epochs are not closed.
    handed_live: [Tally; 2],
    /// Of what was handed on, lost by a panic.
    quarantined: Tally,
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
        self.submitted += book.submitted;
        self.ip_length_over_frame += book.ip_length_over_frame;
        self.ethertypes_other += book.ethertypes_other;
        let sightings = &mut self.sightings;
        sightings.seen += book.seen;
        *sightings.lost.entry(Loss::RingFull).or_default() += book.ring_full;
        for (sum, tally) in sightings.unmetered.iter_mut().zip(book.unmetered) {
            *sum += tally;
        }
        for (&ethertype, packets) in &book.ethertypes {
            *sightings.ethertypes.entry(ethertype).or_default() += packets;
        }
    }

    /// Cumulative counts up to the last closed epoch, and of the epochs since then what was handed on: that much was
    /// certainly seen.
    fn sightings(&self) -> Sightings {
        let mut sightings = self.sightings.clone();
        for handed in self.handed_live {
            sightings.seen.buffers += handed.buffers;
            sightings.seen.buffer_bytes += handed.buffer_bytes;
        }
        sightings.in_ring = self.submitted - self.handed_closed;
        if self.quarantined != Tally::ZERO {
            sightings.lost.insert(Loss::WorkerQuarantine, self.quarantined);
        }
        for (name, count) in [
            ("ip_length_over_frame", self.ip_length_over_frame),
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
        let mut object = Object::load(options.ring_bytes)?;
        let ring = Ring::new(object.map("RING")?, object.ring_bytes)?;
        let mapped = Mapped::new(&object)?;
        let kernel = |what| move |source: io::Error| EbpfError::Kernel { what, source };
        let grace = Grace::new().map_err(kernel("a map to wait on"))?;
        let books = Books::start(mapped, grace).map_err(kernel("a thread"))?;
        let mut clocks = Clocks::new();
        let watermark = clocks.look().now.saturating_sub(SLACK_NANOS);
        // Until the reader runs, nobody takes what is told of the interfaces of the start.
        let (tell, news) = sync_channel(NEWS + 2 * interfaces.len());
        let tell = Tell { news: tell, produced: ring.produced() };
        let taps = EbpfTaps::new(&mut object, options.attach, tell, clocks.steady())?;
        let followed =
            follow(taps, interfaces, points, options.follow.clone()).map_err(kernel("rtnetlink"))?;
        let source = Self {
            ring,
            books,
            _object: object,
            clock: clocks.steady().of_the_kernel(),
            clocks,
            points: Points::default(),
            news: Some(news),
            links: followed.links,
            totals: Totals::default(),
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

    /// Bytes of the ring between kernel and reader. It is mapped twice in a row, so that no event is cut at its end.
    #[must_use]
    pub const fn ring_bytes(&self) -> u64 {
        self.ring.size()
    }

    /// The interfaces that it is on.
    #[must_use]
    pub fn links(&self) -> Arc<Links> {
        Arc::clone(&self.links)
    }

    /// Reads at most `budget` events; how far it came, and the time of the newest.
    fn read(&mut self, sink: &mut impl Sink, budget: usize) -> (Stopped, u64) {
        let Self { ring, points, totals, clock, end, news, .. } = self;
        let (mut newest, mut left) = (0, budget);
        loop {
            // What is told of an interface is told before its first event is written: so what was told after this look
            // at the ring is of events behind it.
            let up_to = end.unwrap_or_else(|| ring.produced().position());
            points.hear(news.as_ref(), ring.position());
            let stage = up_to.min(points.valid_up_to());
            let (stopped, read) = ring.read(left, stage, |record| {
                let Ok((event, _)) = PacketEvent::read_from_prefix(record) else { return };
                // What the programs saw after the end is in no book.
                if end.is_some() && totals.is_live(event.epoch) {
                    return;
                }
                let egress = event.flags & EVENT_EGRESS != 0;
                let observation = observation(&event, *clock, points.get(event.ifindex, egress));
                newest = observation.end;
                totals.handed(event.epoch, observation.tally());
                sink.observe(observation);
            });
            left -= read;
            if stopped != Stopped::Reached {
                return (stopped, newest);
            }
            // Meanwhile more may have come, or an interface's last event was read.
            if ring.position() >= end.unwrap_or_else(|| ring.produced().position()) {
                return (stopped, newest);
            }
        }
    }

    fn take(totals: &mut Totals, result: io::Result<Book>) -> bool {
        match result {
            Ok(book) => {
                totals.close(&book);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "no grace period from the kernel: the counters can't be read yet");
                false
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
        let (stopped, newest) = self.read(sink, budget);
        if newest > 0 {
            self.busy_since = Some(Instant::now());
        }
        let reached = if stopped == Stopped::Reached { began } else { newest };
        self.watermark = self.watermark.max(reached.saturating_sub(SLACK_NANOS));
        match stopped {
            Stopped::Budget => Polled::More,
            Stopped::Reached if self.end.is_some() => Polled::Ended,
            Stopped::Reached | Stopped::Busy => Polled::Drained,
        }
    }

    fn wait(&mut self, at_most: Duration) {
        if self.busy_since.is_some_and(|since| since.elapsed() < PAUSE) {
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
        if books.last().is_none_or(Result::is_err) {
            // Then it takes as long as taking the programs off does.
            self.links.finish();
            books.extend(self.books.after_the_programs());
        }
        for result in books {
            Self::take(&mut self.totals, result);
        }
        self.end = Some(self.ring.produced().position());
    }

    fn after_panic(&mut self, observed: Tally) -> Tally {
        self.totals.after_panic(observed)
    }

    fn sightings(&mut self) -> Option<Sightings> {
        if self.end.is_none() && !Self::take(&mut self.totals, self.books.next()?) {
            return None;
        }
        // At the end all that is told as seen was counted by the programs.
        debug_assert!(self.end.is_none() || self.totals.handed_live == [Tally::ZERO; 2]);
        let mut sightings = self.totals.sightings();
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

/// Until `duration` has passed or a signal comes.
fn sleep(duration: Duration) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos() as i32),
    };
    // SAFETY: `time` is readable; the rest of an interrupted sleep isn't asked for.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

#[inline]
fn observation(event: &PacketEvent, clock: Steady, point: u16) -> Observation {
    let time = clock.time(event.time);
    let mut macs = [0; 12];
    for (bytes, word) in macs.chunks_exact_mut(4).zip(event.macs) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Observation {
        addresses: [event.source[0], event.source[1], event.destination[0], event.destination[1]],
        start: time,
        end: time,
        bytes: u64::from(event.ip_bytes),
        frame_bytes: u64::from(event.frame_bytes),
        ports: [event.ports as u16, (event.ports >> 16) as u16],
        packets: event.packets,
        buffer_bytes: event.buffer_bytes,
        buffers: 1,
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
