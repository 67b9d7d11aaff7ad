//! The output: takes records, makes messages, tells what became of each.
//!
//! No thread of its own: it gets on within its calls. A step does what can be done without waiting; who has to wait, for
//! room or for the end, waits between steps, for a short time each, and looks whether time is up.

mod open;

use super::config::{IpfixDirections, IpfixTransport, IpfixVersion};
use super::encode::{Encoder, Part, each};
use super::ledger::LedgerBoard;
use super::netflow9;
use super::options::{Done, Options};
use super::pace::Pace;
use super::session::{Identity, Made, Session, Version};
use super::settings::Settings;
use super::stream::Stream;
use super::udp::{Sent, Udp};
use super::window::Window;
use crate::backoff::Backoff;
use mermin_flow::{
    Amount, Delivery, DeliveryState, Exporter, Failure, FlowRecord, ObservationPoints, QUARANTINE, Receipt,
};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

/// Reasons in `dropped` of the book.
const TOO_LARGE: &str = "too_large";
const TOO_LATE: &str = "shutdown_timeout";

/// How long a record waits for others that go in the same message.
const LINGER: Duration = Duration::from_millis(200);
/// What is held at most: over UDP unsent records, over TCP unacknowledged ones.
const WINDOW: usize = 4 << 20;
/// What waits for the kernel's send buffer, at most.
const UNWRITTEN: usize = 256 << 10;
/// A wait between two looks at whether time is up.
const LOOK: Duration = Duration::from_millis(50);
/// How long a refusal may take to come back from another host, when templates are sent to see whether somebody listens.
const GRACE: Duration = Duration::from_millis(100);
/// How soon it is asked again what is acknowledged.
const ASK_AGAIN: Duration = Duration::from_millis(2);
/// A failure that lasts is told of again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// How long before statistics are told the ledger is asked for.
const ASK_AHEAD: Duration = Duration::from_secs(2);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// The way to the collector.
#[derive(Debug)]
enum Link {
    /// There is none before this time.
    Down(Instant),
    Udp(Udp),
    /// Being connected until this time at most.
    Connecting(Box<Stream>, Instant),
    Stream(Box<Stream>),
}

/// A message that was put into a connection.
#[derive(Clone, Copy, Debug)]
struct Flight {
    /// Behind which octet of the connection it ends.
    end: u64,
    items: usize,
    since: Instant,
}

/// What a step came to.
enum Step {
    /// There may be more to do at once.
    Again,
    /// Something is to be done after this time, or when the connection moves.
    Wait(Duration),
    /// Nothing is to be done before more records come.
    Rest,
}

/// See the module's text.
pub(super) struct Ipfix {
    name: String,
    settings: Settings,
    identity: Identity,
    points: Arc<ObservationPoints>,
    ledger: Arc<LedgerBoard>,
    encoder: Encoder,
    session: Session,
    window: Window,
    link: Link,
    flights: VecDeque<Flight>,
    pace: Pace,
    backoff: Backoff,
    /// When the first of the unsent records came.
    waiting_since: Option<Instant>,
    announced: Instant,
    /// When statistics were told of last.
    told: Instant,
    /// Draws that records had.
    rates: u32,
    /// Octets that a message may have now.
    room: usize,
    done: Done,
    message: Vec<u8>,
    row: Vec<u8>,
    rows: Vec<(super::shape::Shape, usize)>,
    delivery: Arc<Delivery>,
    interrupted: Arc<AtomicBool>,
    /// When a failure was last told of.
    warned: Option<Instant>,
    /// It was said that this kernel doesn't tell what is acknowledged.
    said: bool,
    failure: Option<Failure>,
}

/// What the wall clock shows, milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// When the system was started, milliseconds since 1970.
fn booted() -> u64 {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up = up.tv_sec as u64 * 1_000 + up.tv_nsec as u64 / 1_000_000;
    now_ms().saturating_sub(up)
}

impl Ipfix {
    pub(super) fn new(
        name: String,
        settings: Settings,
        points: Arc<ObservationPoints>,
        ledger: Arc<LedgerBoard>,
    ) -> Self {
        let version = match settings.version {
            IpfixVersion::Ipfix => Version::Ipfix,
            IpfixVersion::Netflow9 => Version::NetFlow9,
        };
        let identity =
            Identity { version, domain: settings.domain, enterprise: settings.enterprise, booted: booted() };
        let now = Instant::now();
        Self {
            name,
            identity,
            encoder: Encoder::new(Arc::clone(&points)),
            points,
            ledger,
            session: Session::new(identity),
            window: Window::default(),
            link: Link::Down(now),
            flights: VecDeque::new(),
            pace: Pace::new(settings.rate, now),
            backoff: Backoff::default(),
            waiting_since: None,
            announced: now,
            told: now,
            rates: 0,
            room: settings.message,
            done: Done::default(),
            message: Vec::new(),
            row: Vec::new(),
            rows: Vec::new(),
            delivery: Arc::new(Delivery::default()),
            interrupted: Arc::new(AtomicBool::new(false)),
            warned: None,
            said: false,
            failure: None,
            settings,
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Encodes a record and takes it into the window.
    fn take(&mut self, record: &FlowRecord) {
        self.row.clear();
        self.rows.clear();
        match self.settings.directions {
            IpfixDirections::Both => self.encode(record, Part::Both),
            IpfixDirections::Each => each(record).for_each(|part| self.encode(record, part)),
        }
        if let Some(sampled) = &record.sampled {
            let [least, most] = sampled.one_in;
            self.rates |= least | most;
        }
        // From here on nothing panics: a record is in the window as a whole, or isn't.
        let (mut start, last) = (0, self.rows.len() - 1);
        for (place, (shape, end)) in self.rows.iter().enumerate() {
            let amount = (place == last).then(|| Amount::of(record));
            self.window.push(*shape, &self.row[start..*end], amount);
            start = *end;
        }
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    fn encode(&mut self, record: &FlowRecord, part: Part) {
        let shape = match self.identity.version {
            Version::Ipfix => self.encoder.push(record, part, &mut self.row),
            Version::NetFlow9 => {
                netflow9::push(record, part, &self.points, self.identity.booted, &mut self.row)
            }
        };
        self.rows.push((shape, self.row.len()));
    }

    /// Whether a message is to be made of what there is.
    fn is_due(&self, force: bool) -> bool {
        self.session.has_pending()
            || self.window.has_unsent()
                && (force
                    || self.window.unsent_octets() >= self.room
                    || self.waiting_since.is_some_and(|since| since.elapsed() >= LINGER))
    }

    /// Does what can be done without waiting.
    fn step(&mut self, force: bool, receipt: &mut Receipt) -> Step {
        let now = Instant::now();
        let result = match &mut self.link {
            Link::Down(until) if *until > now => return Step::Wait(*until - now),
            Link::Down(_) => self.open(now),
            Link::Udp(_) => self.step_udp(force, receipt, now),
            Link::Connecting(..) => self.step_connecting(now),
            Link::Stream(_) => self.step_stream(force, receipt, now),
        };
        result.unwrap_or_else(|error| self.fail(&error, now))
    }

    /// The way to the collector is of no more use: what it has taken and not acknowledged is sent again over another.
    fn fail(&mut self, error: &io::Error, now: Instant) -> Step {
        let wait = self.backoff.next(None);
        if self.warned.is_none_or(|at| now - at >= SAY_AGAIN) {
            self.warned = Some(now);
            warn!("Output {}: {}: {error}; it is tried again", self.name, self.settings.collector());
        }
        self.delivery.failures.fetch_add(1, Ordering::Relaxed);
        let again = self.flights.len() as u64;
        self.delivery.retries.fetch_add(again, Ordering::Relaxed);
        self.delivery.in_flight.store(0, Ordering::Relaxed);
        self.delivery.turn(DeliveryState::Retrying, Some(format!("{}: {error}", self.settings.collector())));
        self.flights.clear();
        self.window.rewind();
        self.link = Link::Down(now + wait);
        Step::Wait(wait)
    }

    /// The message that was made is on its way.
    fn sent(&mut self, made: Made) {
        self.session.commit();
        self.done.messages += 1;
        self.done.records += made.records;
        self.done.octets += self.message.len() as u64;
        self.delivery.requests.fetch_add(1, Ordering::Relaxed);
        self.delivery.bytes.fetch_add(self.message.len() as u64, Ordering::Relaxed);
    }

    /// Tells again what is due to be.
    fn keep_told(&mut self, now: Instant) {
        if self.settings.transport == IpfixTransport::Udp
            && now - self.announced >= self.settings.template_refresh
        {
            self.announced = now;
            self.session.announce();
        }
        self.session.tell_of_draws(self.rates);
        let told = now - self.told;
        if told + ASK_AHEAD >= self.settings.statistics_interval {
            self.ledger.ask();
        }
        if told >= self.settings.statistics_interval {
            self.tell_statistics(now);
        }
    }

    fn tell_statistics(&mut self, now: Instant) {
        self.told = now;
        let (done, domain, process) = (self.done, self.identity.domain, std::process::id());
        self.session.tell(Options::Sent, |_, out| done.push_sent(domain, out));
        self.session.tell(Options::NotSent, |_, out| done.push_not_sent(process, out));
        if let Some(figures) = self.ledger.last() {
            self.session.tell(Options::Ledger, |_, out| figures.push(process, out));
        }
    }

    fn make(&mut self) -> Made {
        self.session.make(&mut self.window, self.room, now_ms(), TOO_LARGE, &mut self.message)
    }

    fn step_udp(&mut self, force: bool, receipt: &mut Receipt, now: Instant) -> io::Result<Step> {
        self.keep_told(now);
        if !self.is_due(force) {
            return Ok(self.rest());
        }
        if let Some(wait) = self.pace.wait(now) {
            return Ok(Step::Wait(wait));
        }
        let made = self.make();
        let Link::Udp(udp) = &self.link else { return Ok(Step::Again) };
        if !self.session.made_something() {
            self.settle(made.items, receipt);
            if made.exhausted {
                // Ids are not used twice in a session: the next one is another socket's.
                self.link = Link::Down(now);
            }
            return Ok(Step::Again);
        }
        match udp.send(&self.message) {
            Sent::Yes => {
                self.pace.take(now);
                self.sent(made);
                self.settle(made.items, receipt);
                self.waiting_since = self.window.has_unsent().then_some(now);
                Ok(Step::Again)
            }
            Sent::Later => {
                self.session.take_back();
                Ok(Step::Wait(ASK_AGAIN))
            }
            Sent::TooLarge => {
                let room = udp.room()?;
                self.session.take_back();
                self.shrink(room)?;
                Ok(Step::Again)
            }
            Sent::No(error) => Err(error),
        }
    }

    fn rest(&self) -> Step {
        match self.waiting_since {
            Some(since) if self.window.has_unsent() => Step::Wait(LINGER.saturating_sub(since.elapsed())),
            _ => Step::Rest,
        }
    }

    fn step_connecting(&mut self, now: Instant) -> io::Result<Step> {
        let Link::Connecting(mut stream, until) = std::mem::replace(&mut self.link, Link::Down(now)) else {
            return Ok(Step::Again);
        };
        if stream.turn()? {
            if !stream.tells_acknowledged() && !std::mem::replace(&mut self.said, true) {
                warn!(
                    "Output {}: this kernel doesn't tell what a collector has acknowledged; records count as delivered when the kernel has them",
                    self.name
                );
            }
            self.delivery.connections.fetch_add(1, Ordering::Relaxed);
            self.delivery.turn(DeliveryState::Delivering, None);
            self.backoff = Backoff::default();
            info!("Output {}: connected to {}", self.name, self.settings.collector());
            self.link = Link::Stream(stream);
            return Ok(Step::Again);
        }
        if now >= until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long to connect"));
        }
        self.link = Link::Connecting(stream, until);
        Ok(Step::Wait(LOOK))
    }

    fn step_stream(&mut self, force: bool, receipt: &mut Receipt, now: Instant) -> io::Result<Step> {
        let Link::Stream(stream) = &mut self.link else { return Ok(Step::Again) };
        let turned = stream.turn();
        let acknowledged = if self.flights.is_empty() { Ok(0) } else { stream.acknowledged() };
        if let Ok(acknowledged) = acknowledged {
            self.land(acknowledged, receipt, now);
        }
        turned?;
        acknowledged?;
        self.keep_told(now);
        let Link::Stream(stream) = &self.link else { return Ok(Step::Again) };
        if !self.is_due(force) || stream.unwritten() >= UNWRITTEN {
            return Ok(if self.flights.is_empty() { self.rest() } else { Step::Wait(ASK_AGAIN) });
        }
        let made = self.make();
        let Link::Stream(stream) = &mut self.link else { return Ok(Step::Again) };
        let end = if self.session.made_something() {
            let end = stream.push(&self.message)?;
            self.sent(made);
            end
        } else if made.exhausted && made.items == 0 {
            if !self.flights.is_empty() {
                return Ok(Step::Wait(ASK_AGAIN));
            }
            stream.close();
            self.link = Link::Down(now);
            return Ok(Step::Again);
        } else {
            stream.made()
        };
        self.window.advance(made.items);
        self.waiting_since = self.window.has_unsent().then_some(now);
        self.flights.push_back(Flight { end, items: made.items, since: now });
        self.delivery.in_flight.store(self.flights.len() as u64, Ordering::Relaxed);
        Ok(Step::Again)
    }

    /// What ends at or before this octet of the connection is delivered.
    fn land(&mut self, acknowledged: u64, receipt: &mut Receipt, now: Instant) {
        while let Some(flight) = self.flights.front().copied()
            && flight.end <= acknowledged
        {
            self.flights.pop_front();
            self.delivery.answered(now - flight.since);
            self.settle(flight.items, receipt);
        }
        self.delivery.in_flight.store(self.flights.len() as u64, Ordering::Relaxed);
    }

    fn settle(&mut self, items: usize, receipt: &mut Receipt) {
        let too_large = |receipt: &Receipt| receipt.dropped.get(TOO_LARGE).map_or(0, |amount| amount.records);
        let before = too_large(receipt);
        self.done.dropped += self.window.settle(items, receipt);
        let records = too_large(receipt) - before;
        if records > 0 {
            let what = format!("{records} records are larger than a message of {} bytes", self.room);
            self.failure = Some(Failure { reason: TOO_LARGE, closed: false, error: io::Error::other(what) });
        }
    }

    /// Steps until there is nothing to do without waiting. How long it may be waited.
    fn get_on(&mut self, force: bool, receipt: &mut Receipt) -> Option<Duration> {
        loop {
            match self.step(force, receipt) {
                Step::Again if self.is_interrupted() => return Some(Duration::ZERO),
                Step::Again => {}
                Step::Wait(wait) => return Some(wait),
                Step::Rest => return None,
            }
        }
    }

    /// Waits for the connection, or for a time.
    fn wait(&self, at_most: Duration) {
        let wait = at_most.min(LOOK);
        let waited = match &self.link {
            Link::Connecting(stream, _) | Link::Stream(stream) => stream.wait(wait),
            Link::Down(_) | Link::Udp(_) => {
                std::thread::sleep(wait);
                Ok(())
            }
        };
        if waited.is_err() {
            std::thread::sleep(wait);
        }
    }

    /// Waits until `enough`, or until time is up.
    fn wait_until(&mut self, force: bool, receipt: &mut Receipt, enough: impl Fn(&Self) -> bool) {
        while !enough(self) && !self.is_interrupted() {
            let wait = self.get_on(force, receipt);
            if !enough(self) {
                self.wait(wait.unwrap_or(LOOK));
            }
        }
    }

    /// When time is up, everything that is held is given up.
    fn end_if_interrupted(&mut self, receipt: &mut Receipt) {
        if self.is_interrupted() {
            self.done.dropped += self.window.drop_all(TOO_LATE, receipt);
            self.flights.clear();
            self.delivery.in_flight.store(0, Ordering::Relaxed);
        }
    }

    fn result(&mut self) -> Result<(), Failure> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl Exporter for Ipfix {
    fn name(&self) -> &str {
        &self.name
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        for record in records {
            if self.window.octets() >= WINDOW {
                self.wait_until(false, receipt, |own| own.window.octets() < WINDOW);
            }
            self.take(record);
        }
        self.get_on(false, receipt);
        self.end_if_interrupted(receipt);
        self.result()
    }

    fn flush(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        self.wait_until(true, receipt, |own| own.window.is_empty());
        if !matches!(self.link, Link::Down(_)) {
            self.tell_statistics(Instant::now());
            self.wait_until(true, receipt, |own| !own.session.has_pending() && own.flights.is_empty());
        }
        self.end_if_interrupted(receipt);
        if let Link::Stream(stream) = &mut self.link {
            stream.close();
            self.link = Link::Down(Instant::now());
        }
        self.result()
    }

    fn idle(&mut self, receipt: &mut Receipt) -> Result<Option<Duration>, Failure> {
        // A collector that nothing is to be told yet is not looked for.
        let unused = matches!(self.link, Link::Down(_)) && self.window.is_empty();
        let mut wait = if unused { None } else { self.get_on(false, receipt) };
        if let Some(at_most) = wait
            && matches!(self.link, Link::Connecting(..) | Link::Stream(_))
            && !self.window.is_empty()
        {
            self.wait(at_most.min(ASK_AGAIN));
            wait = self.get_on(false, receipt);
        }
        self.end_if_interrupted(receipt);
        self.result()?;
        Ok(wait.filter(|_| !self.window.is_empty()))
    }

    fn after_panic(&mut self) -> Option<u64> {
        Some(self.window.held())
    }

    fn quarantine(&mut self, record: &FlowRecord, receipt: &mut Receipt) -> Result<(), Failure> {
        self.window.push_lost(Amount::of(record), QUARANTINE);
        self.get_on(true, receipt);
        self.end_if_interrupted(receipt);
        self.result()
    }

    fn interrupter(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.interrupted))
    }

    fn drop_reasons(&self) -> &'static [&'static str] {
        &[TOO_LARGE, TOO_LATE]
    }

    fn passing_reasons(&self) -> &'static [&'static str] {
        &[TOO_LATE]
    }

    fn delivery(&self) -> Option<Arc<Delivery>> {
        Some(Arc::clone(&self.delivery))
    }
}
