//! Frames of all sockets to observations.

use super::block::Taken;
use super::closing::{Closing, side_by_side};
use super::error::AfPacketError;
use super::socket::{PacketSocket, RETIRE_MILLIS, Statistics};
use super::stamps::Stamps;
use super::taps::{AfPacketTaps, News, Tap};
use crate::FilterRules;
use crate::clock::Clocks;
use crate::filters::Filtering;
use crate::frame::{Frame, Frames};
use crate::interfaces::Interface;
use crate::links::{Follow, Links, follow};
use mermin_flow::{Loss, ObservationPoints, Polled, Sightings, Sink, Source, Tally, WallClock};
use mermin_wire::Buffer;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// A frame older than this at the start of a drain is in a block that was handed over: two rounds of the kernel's
/// timer, and what a timer on a busy machine is late by.
const LAG_NANOS: u64 = (2 * RETIRE_MILLIS as u64 + 30) * 1_000_000;

/// An interface that was chosen and is not captured on.
#[derive(Debug)]
pub struct Skipped {
    /// Its name.
    pub interface: Arc<str>,
    /// Why; `None`: it would be one too many.
    pub error: Option<AfPacketError>,
}

/// How a source is opened.
#[derive(Clone, Debug)]
pub struct AfPacketOptions {
    /// Memory of all rings together.
    pub ring_bytes: u64,
    /// Which packets are metered.
    pub filters: FilterRules,
    /// Follows links that come and go; without it the interfaces of the start are all there will be.
    pub follow: Option<Follow>,
}

/// What the thread may tell the reader before it has to wait for it.
const NEWS: usize = 64;

/// Packet sockets on interfaces.
pub struct AfPacketSource {
    taps: Vec<Tap>,
    news: Option<Receiver<News>>,
    links: Arc<Links>,
    points: Arc<ObservationPoints>,
    closing: Closing,
    skipped: Vec<Skipped>,
    /// The tap whose turn it is.
    turn: usize,
    frames: Frames,
    stamps: Stamps,
    /// Of sockets that are closed: counted, and read.
    gone: (Statistics, u64),
    /// When the drain under way began.
    drain: Option<u64>,
    watermark: u64,
    begun: bool,
    closed: bool,
}

impl AfPacketSource {
    /// Opens a socket on each of `interfaces`, which share the memory. Interfaces that have gone are skipped and named.
    ///
    /// # Errors
    /// No permission, a kernel that can't do it, or no interface left.
    pub fn open(
        interfaces: &[Interface],
        points: &Arc<ObservationPoints>,
        options: &AfPacketOptions,
    ) -> Result<Self, AfPacketError> {
        // Whether there is permission is known even where there is no interface yet.
        drop(PacketSocket::new(0)?);
        let kernel = |what| move |source: io::Error| AfPacketError::Kernel { what, source };
        // Until the reader runs, nobody takes what is told of the interfaces of the start.
        let (tell, news) = sync_channel(NEWS + 2 * interfaces.len());
        let clocks = Clocks::new();
        let taps = AfPacketTaps::new(tell, options.ring_bytes, interfaces.len(), clocks.steady());
        let mut stamps = Stamps::new(clocks, LAG_NANOS);
        let watermark = stamps.look().saturating_sub(LAG_NANOS);
        let followed =
            follow(taps, interfaces, points, options.follow.clone()).map_err(kernel("rtnetlink"))?;
        let skipped = |(interface, error): (Arc<str>, Option<AfPacketError>)| Skipped { interface, error };
        let source = Self {
            taps: Vec::with_capacity(interfaces.len()),
            news: Some(news),
            links: followed.links,
            points: Arc::clone(points),
            closing: Closing::start().map_err(kernel("a thread"))?,
            skipped: followed.skipped.into_iter().map(skipped).collect(),
            turn: 0,
            frames: Frames::new(Filtering::of(&options.filters), points),
            stamps,
            gone: (Statistics::default(), 0),
            drain: None,
            watermark,
            begun: false,
            closed: false,
        };
        if source.skipped.len() == interfaces.len() && !interfaces.is_empty() {
            return Err(source.refused());
        }
        Ok(source)
    }

    /// Why there is nothing to capture on.
    fn refused(mut self) -> AfPacketError {
        let count = self.skipped.len();
        let first = self.skipped.drain(..).next().and_then(|skipped| skipped.error);
        match first {
            Some(AfPacketError::Bind { source }) => {
                AfPacketError::NoInterface { count, source: Some(source) }
            }
            Some(error) => error,
            None => AfPacketError::NoInterface { count, source: None },
        }
    }

    /// The interfaces that it is on.
    #[must_use]
    pub fn links(&self) -> Arc<Links> {
        Arc::clone(&self.links)
    }

    /// Interfaces that were chosen and are not captured on.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// What all sockets have counted, and how much of it was read.
    fn statistics(&mut self) -> (Statistics, u64) {
        self.hear();
        let (mut all, mut read) = self.gone;
        for tap in &mut self.taps {
            let one = tap.socket.statistics();
            all.frames += one.frames;
            all.drops += one.drops;
            read += tap.read;
        }
        (all, read)
    }

    /// Takes what was told of interfaces.
    fn hear(&mut self) {
        for news in self.news.iter().flat_map(Receiver::try_iter) {
            match news {
                News::On(tap) => self.taps.push(*tap),
                News::Off(index) => {
                    // An earlier link of this index may be among them: it has been told of before.
                    self.taps.iter_mut().filter(|tap| tap.index == index).for_each(|tap| tap.ends = true);
                }
            }
        }
    }

    /// Lets go of sockets that have ended and were read to their end.
    fn let_go(&mut self) {
        let mut at = 0;
        while let Some(tap) = self.taps.get_mut(at) {
            if tap.ends {
                let counted = tap.socket.statistics();
                if tap.read == counted.frames - counted.drops {
                    let tap = self.taps.swap_remove(at);
                    self.gone.0.frames += counted.frames;
                    self.gone.0.drops += counted.drops;
                    self.gone.1 += tap.read;
                    self.closing.close(Box::new(tap));
                    continue;
                }
            }
            at += 1;
        }
    }
}

impl Drop for AfPacketSource {
    fn drop(&mut self) {
        self.news = None;
        self.links.finish();
        side_by_side(std::mem::take(&mut self.taps), drop);
    }
}

impl Source for AfPacketSource {
    const LIVE: bool = true;

    fn poll(&mut self, sink: &mut impl Sink, budget: usize) -> Polled {
        if !self.begun {
            self.begun = true;
            self.links.begin();
        }
        let now = self.stamps.look();
        let began = *self.drain.get_or_insert(now);
        // After that moment: a socket whose frames are older than it is among those that were told of.
        self.hear();
        let mut left = budget;
        for _ in 0..self.taps.len() {
            self.turn %= self.taps.len();
            let Some(tap) = self.taps.get_mut(self.turn) else { break };
            let (frames, stamps, counted) = (&mut self.frames, &mut self.stamps, &mut tap.read);
            let (link, [ingress, egress]) = (tap.link, tap.numbers);
            let read = tap.socket.read(left, |taken: Taken<'_>| {
                *counted += 1;
                let buffer = Buffer {
                    length: taken.length,
                    segment_size: taken.segment_size,
                    segments: 0,
                    tag_beside: taken.tag.is_some(),
                };
                frames.saw(&buffer);
                let point = if taken.outgoing { egress } else { ingress };
                let time = stamps.time(taken.time);
                let frame = Frame { link, bytes: taken.bytes, buffer, outer_tag: taken.tag, time, point };
                frames.deliver(&frame, sink);
            });
            left -= read;
            if left == 0 {
                return Polled::More;
            }
            self.turn += 1;
        }
        self.drain = None;
        self.let_go();
        if let Some(reached) = self.stamps.drained(began) {
            self.watermark = self.watermark.max(reached);
        }
        if self.closed {
            let (all, read) = self.statistics();
            if read == all.frames - all.drops {
                return Polled::Ended;
            }
        }
        Polled::Drained
    }

    fn wait(&mut self, at_most: Duration) {
        if self.taps.iter().any(|tap| tap.socket.is_ready()) {
            return;
        }
        let mut events: Vec<_> = self
            .taps
            .iter()
            .map(|tap| libc::pollfd { fd: tap.socket.descriptor(), events: libc::POLLIN, revents: 0 })
            .collect();
        let at_most = libc::timespec {
            tv_sec: at_most.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: at_most.subsec_nanos().into(),
        };
        // SAFETY: `events` has the length that is passed, and both it and the timeout live through the call.
        unsafe { libc::ppoll(events.as_mut_ptr(), events.len() as _, &raw const at_most, ptr::null()) };
        for (tap, event) in self.taps.iter().zip(&events) {
            // An error is reported until it is asked for; the interface may come up again.
            if event.revents & libc::POLLERR != 0
                && let Some(error) = tap.socket.error()
            {
                tracing::debug!(interface = &*tap.name, %error, "nothing more from this interface for now");
            }
        }
    }

    fn watermark(&self) -> u64 {
        self.watermark
    }

    fn after_panic(&mut self, observed: Tally) -> Tally {
        self.frames.after_panic(observed)
    }

    fn points(&self) -> Arc<ObservationPoints> {
        Arc::clone(&self.points)
    }

    fn wall_clock(&self) -> WallClock {
        self.stamps.clocks.wall()
    }

    fn rejected(&self) -> u64 {
        self.frames.rejected()
    }

    fn close(&mut self) {
        // No more sockets come.
        self.links.finish();
        self.hear();
        let intakes = self.taps.iter().map(|tap| (tap.socket.intake(), Arc::clone(&tap.name))).collect();
        side_by_side(intakes, |(intake, name)| {
            if let Err(error) = intake.stop() {
                tracing::warn!(interface = &*name, %error, "the packet socket does not stop");
            }
        });
        self.closed = true;
    }

    /// The kernel counts frames, not their bytes: of frames that were dropped or not read yet the bytes are missing on
    /// both sides of the book.
    fn sightings(&mut self) -> Option<Sightings> {
        let (all, read) = self.statistics();
        let mut sightings = self.frames.sightings();
        let frames = |count| Tally { packets: count, buffers: count, ..Tally::ZERO };
        // The kernel's own count, not that of frames read.
        sightings.seen.buffers = all.frames;
        sightings.in_ring = frames(all.frames - all.drops - read);
        if all.drops > 0 {
            sightings.lost.insert(Loss::SocketDrop, frames(all.drops));
            sightings.inexact.extend(["lost.socket_drop.bytes", "lost.socket_drop.buffer_bytes"]);
        }
        if sightings.lost.contains_key(&Loss::WorkerQuarantine) {
            // How many packets a buffer held is known only after what panicked.
            sightings.inexact.extend(["lost.worker_quarantine.packets", "lost.worker_quarantine.bytes"]);
        }
        sightings.anomalies.extend(self.links.counts().anomalies());
        sightings.anomalies.extend(self.stamps.clocks.anomalies());
        Some(sightings)
    }
}
