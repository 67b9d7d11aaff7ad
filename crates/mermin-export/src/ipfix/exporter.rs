//! The output: takes records, makes messages, tells what became of each.
//!
//! No thread of its own: it gets on within its calls. A step does what can be done without waiting; who has to wait, for
//! room or for the end, waits between steps, for a short time each, and looks whether time is up.

mod connection;
mod datagrams;
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
use super::udp::Udp;
use super::window::Window;
use crate::backoff::Backoff;
use crate::trouble::Trouble;
use datagrams::{BETWEEN_REFUSALS, HELD};
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
/// What has no receipt, at most: unsent records, and over TCP unacknowledged ones, over UDP those that may come back.
const WINDOW: usize = 4 << 20;
/// What waits for the kernel's send buffer, at most.
const UNWRITTEN: usize = 256 << 10;
/// A wait between two looks at whether time is up.
const LOOK: Duration = Duration::from_millis(50);
/// How long a refusal may take to come back from another host, when templates are sent to see whether somebody listens.
const GRACE: Duration = Duration::from_millis(100);
/// How soon it is asked again what is acknowledged.
const ASK_AGAIN: Duration = Duration::from_millis(2);
/// How long before statistics are told the ledger is asked for.
const ASK_AHEAD: Duration = Duration::from_secs(2);
/// How long the end of a run waits for what isn't about records.
const LAST_WORDS: Duration = Duration::from_secs(1);
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

/// A message that is on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    /// Behind which octet of a connection it ends.
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
    /// The socket that a refusal came to: the next look is by the same one.
    refused: Option<Udp>,
    /// Which of the collector's addresses is tried.
    attempt: usize,
    /// How long datagrams are held.
    held: Duration,
    flights: VecDeque<Flight>,
    pace: Pace,
    backoff: Backoff,
    /// When the first of the unsent records came.
    waiting_since: Option<Instant>,
    announced: Instant,
    /// Templates are being sent (again).
    announcing: bool,
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
    /// Whether the link has proved good.
    stands: bool,
    /// What the log is told of failures.
    trouble: Trouble,
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
            refused: None,
            attempt: 0,
            held: HELD,
            flights: VecDeque::new(),
            pace: Pace::new(settings.rate, now),
            backoff: Backoff::default(),
            waiting_since: None,
            announced: now,
            announcing: true,
            told: now,
            rates: 0,
            room: settings.message,
            done: Done::default(),
            message: Vec::new(),
            row: Vec::new(),
            rows: Vec::new(),
            delivery: Arc::new(Delivery::default()),
            interrupted: Arc::new(AtomicBool::new(false)),
            stands: false,
            trouble: Trouble::default(),
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
                let times = [self.identity.booted, now_ms()];
                netflow9::push(record, part, &self.points, times, &mut self.row)
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
        let mut wait = self.backoff.next(None);
        if let Link::Udp(udp) = std::mem::replace(&mut self.link, Link::Down(now)) {
            if !udp.is_local() {
                wait = wait.max(BETWEEN_REFUSALS);
            }
            self.refused = (error.kind() == io::ErrorKind::ConnectionRefused).then_some(udp);
        }
        self.link = Link::Down(now + wait);
        self.attempt = self.attempt.wrapping_add(1);
        let again = self.flights.len() as u64;
        self.delivery.retries.fetch_add(again, Ordering::Relaxed);
        self.delivery.in_flight.store(0, Ordering::Relaxed);
        self.flights.clear();
        self.window.rewind();
        if self.window.is_empty() {
            // Nothing waits for it: it is looked for again when something does.
            self.delivery.turn(DeliveryState::Idle, None);
            return Step::Wait(wait);
        }
        self.delivery.failures.fetch_add(1, Ordering::Relaxed);
        let why = format!("{}: {error}", self.settings.collector());
        if self.trouble.begins(now) {
            warn!("Output {}: {why}; trying again", self.name);
        }
        self.delivery.turn(DeliveryState::Retrying, Some(why));
        Step::Wait(wait)
    }

    /// The collector takes records, as far as the transport can tell.
    fn stand(&mut self, now: Instant) {
        if std::mem::replace(&mut self.stands, true) {
            return;
        }
        self.backoff = Backoff::default();
        self.delivery.turn(DeliveryState::Delivering, None);
        if let Some(after) = self.trouble.ends(now) {
            info!(
                "Output {}: {} takes records again, after {after:.1?}",
                self.name,
                self.settings.collector()
            );
        }
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
        if self.announcing && !self.session.has_pending() {
            (self.announcing, self.announced) = (false, now);
        }
        if self.settings.transport == IpfixTransport::Udp
            && !self.announcing
            && now - self.announced >= self.settings.template_refresh
        {
            self.announcing = true;
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

    fn rest(&self) -> Step {
        match self.waiting_since {
            Some(since) if self.window.has_unsent() => Step::Wait(LINGER.saturating_sub(since.elapsed())),
            _ => Step::Rest,
        }
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
        while !self.is_interrupted() {
            match self.step(force, receipt) {
                Step::Again => {}
                Step::Wait(wait) => return Some(wait),
                Step::Rest => return None,
            }
        }
        Some(Duration::ZERO)
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
            let now = Instant::now();
            self.tell_statistics(now);
            self.wait_until(true, receipt, |own| {
                let is_open = match own.link {
                    Link::Down(_) => false,
                    Link::Udp(_) => own.session.has_pending(),
                    Link::Connecting(..) | Link::Stream(_) => {
                        own.session.has_pending() || !own.flights.is_empty()
                    }
                };
                !is_open || now.elapsed() >= LAST_WORDS
            });
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
        // What was on its way has no receipt: it goes again, in another session.
        self.link = Link::Down(Instant::now());
        self.flights.clear();
        self.window.rewind();
        self.delivery.in_flight.store(0, Ordering::Relaxed);
        Some(self.window.held())
    }

    fn quarantine(&mut self, record: &FlowRecord, receipt: &mut Receipt) -> Result<(), Failure> {
        self.window.push_lost(Amount::of(record), QUARANTINE);
        self.waiting_since.get_or_insert_with(Instant::now);
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
