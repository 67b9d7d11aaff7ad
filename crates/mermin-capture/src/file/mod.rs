//! Capture files: pcap and pcapng, either gzipped or compressed by zstd, recognised by magic and not by name.
//!
//! All FILEs are opened before anything is read, then read in order as one stream with one watermark. Damage ends the
//! file that has it, after all before it was delivered, and is kept ([`ReplaySource::damages`]); the next file goes on.
//! One buffer is reused over all files; nothing is allocated per packet.

mod classic;
mod clock;
mod damage;
mod input;
mod pcapng;
mod window;

#[cfg(test)]
mod tests;

pub use damage::{Damage, Fault, OpenError, Part};

use crate::FilterRules;
use crate::filters::Filtering;
use crate::frame::{Frame, Frames};
use classic::Classic;
use input::Opened;
use mermin_flow::{ObservationPoint, ObservationPoints, Polled, Sightings, Sink, Source, Tally};
use mermin_wire::{Buffer, Link, Unmetered};
use pcapng::Pcapng;
use std::collections::VecDeque;
use std::io::Read;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use window::Window;

/// One packet of a capture.
struct Captured<'a> {
    /// `None`: a link type without a parser.
    link: Option<Link>,
    point: u16,
    /// `None`: does not fit nanoseconds in 64 bits.
    time: Option<u64>,
    wire_length: u32,
    bytes: &'a [u8],
}

/// Gives the packets of a capture their verdicts.
///
/// Not a closure: inlined into the loop of each format, it puts an observation together in registers.
struct Verdicts<'a, S> {
    frames: &'a mut Frames,
    time: &'a mut u64,
    watermark: &'a mut u64,
    /// Where in the file the packet at hand ends.
    read_to: &'a mut u64,
    sink: &'a mut S,
}

impl<S: Sink> Verdicts<'_, S> {
    /// `end`: where in the file its record or block ends. Should the verdict panic, the next packet is the one there.
    #[inline(always)]
    fn take(&mut self, captured: &Captured<'_>, end: u64) {
        *self.read_to = end;
        let buffer = Buffer::packet(captured.wire_length);
        self.frames.saw(&buffer);
        let Some(time) = captured.time else {
            return self.frames.reject(Unmetered::BadTimestamp, buffer, None);
        };
        *self.time = time;
        *self.watermark = time.max(*self.watermark);
        let Some(link) = captured.link else {
            return self.frames.reject(Unmetered::LinkType, buffer, Some(time));
        };
        let (bytes, point) = (captured.bytes, captured.point);
        self.frames.deliver(&Frame { link, bytes, buffer, outer_tag: None, time, point }, self.sink);
    }
}

/// Why a format stopped reading.
enum Step {
    /// The budget is used up.
    Budget,
    /// The file is read to its end.
    End,
}

/// The longest captured length that is believed, by an interface's snap length: what tools write by default at most,
/// or more where the capture announces more within reason.
fn captured_max(snap: u32) -> u32 {
    const TOOLS: u32 = 262_144;
    const REASON: u32 = 16 << 20;
    if snap <= REASON { snap.max(TOOLS) } else { TOOLS }
}

enum Format {
    Classic(Classic),
    Pcapng(Pcapng),
}

struct Reading {
    name: String,
    compressed: bool,
    window: Window,
    format: Format,
}

/// The packets of capture files, in order.
pub struct ReplaySource {
    waiting: VecDeque<Opened>,
    /// The file that is being recognised.
    starting: Option<String>,
    reading: Option<Reading>,
    buffer: Vec<u8>,
    points: Arc<ObservationPoints>,
    frames: Frames,
    /// Of the last packet that has one.
    time: u64,
    /// The highest so far.
    watermark: u64,
    /// Where in the file being read the last packet ends.
    read_to: u64,
    damages: Vec<Damage>,
    interrupted: Arc<AtomicBool>,
}

impl ReplaySource {
    /// Opens all of `paths`, `-` being standard input, and reads nothing yet.
    ///
    /// # Errors
    /// The first that can't be opened.
    pub fn open(paths: &[PathBuf], points: Arc<ObservationPoints>) -> Result<Self, OpenError> {
        let interrupted = Arc::default();
        let opened = input::open_all(paths, &interrupted)?;
        Ok(Self { interrupted, ..Self::of(opened.into(), points) })
    }

    /// The same, going by these filters.
    #[must_use]
    pub fn filtered(self, rules: &FilterRules) -> Self {
        Self { frames: Frames::new(Filtering::of(rules), &self.points), ..self }
    }

    /// One capture from any reader; `name` stands for it in a [`Damage`].
    #[must_use]
    pub fn from_reader(name: &str, input: Box<dyn Read + Send>, points: Arc<ObservationPoints>) -> Self {
        Self::of(VecDeque::from([Opened { name: name.to_owned(), input }]), points)
    }

    fn of(waiting: VecDeque<Opened>, points: Arc<ObservationPoints>) -> Self {
        Self {
            waiting,
            starting: None,
            reading: None,
            buffer: Vec::new(),
            points,
            frames: Frames::default(),
            time: 0,
            watermark: 0,
            read_to: 0,
            damages: Vec::new(),
            interrupted: Arc::default(),
        }
    }

    /// What was wrong with files read so far, in their order; at most one per file.
    #[must_use]
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Begins the next file.
    fn start(&mut self, opened: Opened) -> Result<Reading, Damage> {
        let Opened { name, input } = opened;
        let damage = |name, compressed, fault| Damage { file: name, offset: 0, compressed, fault };
        let plain = match input::decompress(input) {
            Ok(plain) => plain,
            Err(error) => return Err(damage(name, false, error.into())),
        };
        let mut window = Window::new(plain.input, mem::take(&mut self.buffer));
        match self.recognise(&mut window) {
            Ok(format) => Ok(Reading { name, compressed: plain.compressed, window, format }),
            Err(fault) => {
                self.buffer = window.into_buffer();
                Err(damage(name, plain.compressed, fault))
            }
        }
    }

    fn recognise(&self, window: &mut Window) -> Result<Format, Fault> {
        let front = window.at_least(4)?;
        let magic = front.get(..4).unwrap_or(front);
        if magic.is_empty() {
            return Err(Fault::Empty);
        }
        if pcapng::recognise(magic) {
            return Ok(Format::Pcapng(Pcapng::new(Arc::clone(&self.points), self.time)));
        }
        if magic.len() < 4 || !classic::recognise(magic) {
            return Err(Fault::Magic { magic: magic.to_vec() });
        }
        let unnamed = self.points.number(ObservationPoint::default());
        Ok(Format::Classic(Classic::open(window, unnamed)?))
    }

    /// Ends the file being read, with what was wrong with it.
    fn finish(&mut self, fault: Option<Fault>) {
        let Some(Reading { name, compressed, window, .. }) = self.reading.take() else { return };
        // A pipe that was left in the middle is not damaged.
        if let Some(fault) = fault.filter(|_| !self.interrupted.load(Ordering::Acquire)) {
            self.damages.push(Damage { file: name, offset: window.offset(), compressed, fault });
        }
        self.buffer = window.into_buffer();
    }
}

impl Source for ReplaySource {
    const LIVE: bool = false;

    fn poll(&mut self, sink: &mut impl Sink, budget: usize) -> Polled {
        let Some(reading) = &mut self.reading else {
            let Some(next) = self.waiting.pop_front() else { return Polled::Ended };
            self.read_to = 0;
            self.starting = Some(next.name.clone());
            match self.start(next) {
                Ok(reading) => self.reading = Some(reading),
                Err(damage) => self.damages.push(damage),
            }
            self.starting = None;
            return Polled::More;
        };
        let mut verdicts = Verdicts {
            frames: &mut self.frames,
            time: &mut self.time,
            watermark: &mut self.watermark,
            read_to: &mut self.read_to,
            sink,
        };
        let step = match &mut reading.format {
            Format::Classic(classic) => classic.read(&mut reading.window, budget, &mut verdicts),
            Format::Pcapng(pcapng) => pcapng.read(&mut reading.window, budget, &mut verdicts),
        };
        match step {
            Ok(Step::Budget) => {}
            Ok(Step::End) => self.finish(None),
            Err(fault) => self.finish(Some(fault)),
        }
        Polled::More
    }

    /// A replay never has to wait.
    fn wait(&mut self, _at_most: Duration) {}

    fn interrupter(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.interrupted))
    }

    fn watermark(&self) -> u64 {
        self.watermark
    }

    fn rejected(&self) -> u64 {
        self.frames.rejected()
    }

    /// Drops what was not read.
    fn close(&mut self) {
        self.finish(None);
        self.waiting.clear();
    }

    /// A panic that is not a packet's ends the file.
    fn after_panic(&mut self, observed: Tally) -> Tally {
        let lost = self.frames.after_panic(observed);
        if let Some(reading) = &mut self.reading {
            if !reading.window.consume_to(self.read_to) {
                self.finish(Some(Fault::Panic));
            }
        } else if let Some(file) = self.starting.take() {
            self.damages.push(Damage { file, offset: 0, compressed: false, fault: Fault::Panic });
        }
        lost
    }

    fn sightings(&mut self) -> Option<Sightings> {
        Some(self.frames.sightings())
    }
}
