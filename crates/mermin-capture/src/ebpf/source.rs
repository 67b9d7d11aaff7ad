//! Ring events to observations.

use super::attach::{self, Way};
use super::book::{Book, Books};
use super::clock::Clock;
use super::error::EbpfError;
use super::grace::Grace;
use super::mapped::Mapped;
use super::object::Object;
use super::ring::{Ring, Stopped};
use crate::interfaces::Interface;
use aya::programs::tc::SchedClassifierLink;
use mermin_abi::{EVENT_EGRESS, EVENT_HAS_TCP_FLAGS, PacketEvent};
use mermin_flow::{
    Fragment, Hook, Loss, Observation, ObservationPoint, ObservationPoints, Polled, PortForm, Sightings,
    Sink, Source, Tally,
};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
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
    /// Why.
    pub error: EbpfError,
}

/// Programs on interfaces and the ring that they write to.
pub struct EbpfSource {
    /// Dropped to take the programs off.
    links: Vec<SchedClassifierLink>,
    ring: Ring,
    books: Books,
    /// Keeps maps and programs.
    _object: Object,
    clock: Clock,
    points: Points,
    totals: Totals,
    watermark: u64,
    /// When a drain last found something.
    busy_since: Option<Instant>,
    closed: bool,
}

/// The numbers of both hooks of each interface.
struct Points {
    numbers: HashMap<u32, [u16; 2]>,
    last: (u32, [u16; 2]),
}

impl Points {
    fn new() -> Self {
        Self { numbers: HashMap::new(), last: (0, [0; 2]) }
    }

    fn add(&mut self, interface: &Interface, points: &ObservationPoints) {
        let number = |hook| {
            points.number(ObservationPoint {
                interface: Some(Arc::clone(&interface.name)),
                index: Some(interface.index),
                hook: Some(hook),
            })
        };
        self.numbers.insert(interface.index, [number(Hook::Ingress), number(Hook::Egress)]);
    }

    /// Packets come in bursts of one interface.
    #[inline]
    fn get(&mut self, ifindex: u32, egress: bool) -> u16 {
        if self.last.0 != ifindex {
            self.last = (ifindex, self.numbers.get(&ifindex).copied().unwrap_or_default());
        }
        self.last.1[usize::from(egress)]
    }
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
}

impl Totals {
    #[inline]
    fn handed(&mut self, epoch: u32, tally: Tally) {
        if epoch.wrapping_sub(self.live) < 1 << 31 {
            self.handed_live[(epoch & 1) as usize] += tally;
        } else {
            self.handed_closed += tally;
        }
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
        points: &ObservationPoints,
        ring_bytes: u64,
    ) -> Result<Opened<Self>, EbpfError> {
        Self::open_by(interfaces, points, ring_bytes, Way::of_this_kernel())
    }

    pub(super) fn open_by(
        interfaces: &[Interface],
        points: &ObservationPoints,
        ring_bytes: u64,
        way: Way,
    ) -> Result<Opened<Self>, EbpfError> {
        let object = Object::load(ring_bytes)?;
        let ring = Ring::new(object.map("RING")?, object.ring_bytes)?;
        let mapped = Mapped::new(&object)?;
        let kernel = |what| move |source: io::Error| EbpfError::Kernel { what, source };
        let grace = Grace::new().map_err(kernel("a map to wait on"))?;
        let books = Books::start(mapped, grace).map_err(kernel("a thread"))?;
        let clock = Clock::new();
        let mut source = Self {
            links: Vec::new(),
            ring,
            books,
            _object: object,
            clock,
            points: Points::new(),
            totals: Totals::default(),
            watermark: 0,
            busy_since: None,
            closed: false,
        };
        source.watermark = source.clock.utc(Clock::now()).saturating_sub(SLACK_NANOS);
        let mut skipped = Vec::new();
        for interface in interfaces {
            // Before its first packet can come.
            source.points.add(interface, points);
            match attach::attach(&mut source._object, interface, way) {
                Ok(links) => source.links.extend(links),
                Err(error) => skipped.push(Skipped { interface: Arc::clone(&interface.name), error }),
            }
        }
        if source.links.is_empty() && !interfaces.is_empty() {
            let first = skipped.into_iter().next().map(|skipped| Box::new(skipped.error));
            return Err(EbpfError::NoInterface { count: interfaces.len(), source: first });
        }
        Ok(Opened { source, skipped })
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
        let began = self.clock.utc(Clock::now());
        let Self { ring, points, totals, clock, .. } = self;
        let mut newest = 0;
        let stopped = ring.read(budget, |record| {
            let Ok((event, _)) = PacketEvent::read_from_prefix(record) else { return };
            let egress = event.flags & EVENT_EGRESS != 0;
            let observation = observation(&event, *clock, points.get(event.ifindex, egress));
            newest = observation.end;
            totals.handed(event.epoch, observation.tally());
            sink.observe(observation);
        });
        if newest > 0 {
            self.busy_since = Some(Instant::now());
        }
        let reached = if stopped == Stopped::Drained { began } else { newest };
        self.watermark = self.watermark.max(reached.saturating_sub(SLACK_NANOS));
        match stopped {
            Stopped::Budget => Polled::More,
            Stopped::Drained if self.closed => Polled::Ended,
            Stopped::Drained | Stopped::Busy => Polled::Drained,
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

    fn rejected(&self) -> u64 {
        self.totals.sightings.unmetered.iter().map(|tally| tally.packets).sum()
    }

    fn close(&mut self) {
        self.links.clear();
        for result in self.books.last() {
            Self::take(&mut self.totals, result);
        }
        self.closed = true;
    }

    fn sightings(&mut self) -> Option<Sightings> {
        if !self.closed && !Self::take(&mut self.totals, self.books.next()?) {
            return None;
        }
        Some(self.totals.sightings())
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
fn observation(event: &PacketEvent, clock: Clock, point: u16) -> Observation {
    let time = clock.utc(event.time);
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
        buffer_bytes: u64::from(event.buffer_bytes),
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
