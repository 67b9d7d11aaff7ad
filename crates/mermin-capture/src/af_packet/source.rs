//! Frames of all sockets to observations.

use super::block::Taken;
use super::error::AfPacketError;
use super::socket::{PacketSocket, RETIRE_MILLIS, Statistics};
use crate::frame::{Frame, Frames};
use crate::interfaces::Interface;
use mermin_flow::{Hook, Loss, ObservationPoint, ObservationPoints, Polled, Sightings, Sink, Source, Tally};
use mermin_wire::{Buffer, Link};
use std::io;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A frame older than this at the start of a drain is in a block that was handed over: two rounds of the kernel's
/// timer, and what a timer on a busy machine is late by.
const LAG: Duration = Duration::from_millis(2 * RETIRE_MILLIS as u64 + 30);

/// An interface that was chosen and is not captured on.
#[derive(Debug)]
pub struct Skipped {
    /// Its name.
    pub interface: Arc<str>,
    /// Why.
    pub error: io::Error,
}

struct Tap {
    socket: PacketSocket,
    name: Arc<str>,
    link: Link,
    ingress: u16,
    egress: u16,
    read: u64,
}

/// Packet sockets on interfaces.
pub struct AfPacketSource {
    taps: Vec<Tap>,
    skipped: Vec<Skipped>,
    /// The tap whose turn it is.
    turn: usize,
    frames: Frames,
    /// When the drain under way began.
    drain: Option<u64>,
    watermark: u64,
    closed: bool,
}

impl AfPacketSource {
    /// Opens a socket on each of `interfaces`, which share `ring_bytes`. Interfaces that have gone are skipped and named.
    ///
    /// # Errors
    /// No permission, a kernel that can't do it, or no interface left.
    pub fn open(
        interfaces: &[Interface],
        points: &ObservationPoints,
        ring_bytes: u64,
    ) -> Result<Self, AfPacketError> {
        let mut taps = Vec::with_capacity(interfaces.len());
        let mut skipped = Vec::new();
        let share = ring_bytes / interfaces.len().max(1) as u64;
        for interface in interfaces {
            let socket = PacketSocket::new(share)?;
            let point = |hook| {
                points.number(ObservationPoint {
                    interface: Some(Arc::clone(&interface.name)),
                    index: Some(interface.index),
                    hook: Some(hook),
                })
            };
            let tap = Tap {
                name: Arc::clone(&interface.name),
                link: interface.link,
                ingress: point(Hook::Ingress),
                egress: point(Hook::Egress),
                read: 0,
                socket,
            };
            match tap.socket.bind(interface) {
                Ok(()) => taps.push(tap),
                Err(error) => skipped.push(Skipped { interface: tap.name, error }),
            }
        }
        if taps.is_empty() {
            let source = skipped.into_iter().next().map(|skipped| skipped.error);
            return Err(AfPacketError::NoInterface { count: interfaces.len(), source });
        }
        let watermark = now().saturating_sub(LAG.as_nanos() as u64);
        Ok(Self { taps, skipped, turn: 0, frames: Frames::default(), drain: None, watermark, closed: false })
    }

    /// Interfaces that were chosen and are not captured on.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// What all sockets have counted, and how much of it was read.
    fn statistics(&mut self) -> (Statistics, u64) {
        let (mut all, mut read) = (Statistics::default(), 0);
        for tap in &mut self.taps {
            let one = tap.socket.statistics();
            all.frames += one.frames;
            all.drops += one.drops;
            read += tap.read;
        }
        (all, read)
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Source for AfPacketSource {
    const LIVE: bool = true;

    fn poll(&mut self, sink: &mut impl Sink, budget: usize) -> Polled {
        let began = *self.drain.get_or_insert_with(now);
        let mut left = budget;
        for _ in 0..self.taps.len() {
            let Some(tap) = self.taps.get_mut(self.turn) else { break };
            let frames = &mut self.frames;
            let (link, ingress, egress) = (tap.link, tap.ingress, tap.egress);
            let read = tap.socket.read(left, |taken: Taken<'_>| {
                let buffer = Buffer {
                    length: taken.length,
                    segment_size: taken.segment_size,
                    segments: 0,
                    tag_beside: taken.tag.is_some(),
                };
                frames.saw(&buffer);
                let point = if taken.outgoing { egress } else { ingress };
                let frame =
                    Frame { link, bytes: taken.bytes, buffer, outer_tag: taken.tag, time: taken.time, point };
                frames.deliver(&frame, sink);
            });
            tap.read += read as u64;
            left -= read;
            if left == 0 {
                return Polled::More;
            }
            self.turn = (self.turn + 1) % self.taps.len();
        }
        self.drain = None;
        self.watermark = self.watermark.max(began.saturating_sub(LAG.as_nanos() as u64));
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
                tracing::warn!(interface = &*tap.name, %error, "nothing more from this interface for now");
            }
        }
    }

    fn watermark(&self) -> u64 {
        self.watermark
    }

    fn rejected(&self) -> u64 {
        self.frames.rejected()
    }

    fn close(&mut self) {
        for tap in &self.taps {
            if let Err(error) = tap.socket.stop() {
                tracing::warn!(interface = &*tap.name, %error, "the packet socket does not stop");
            }
        }
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
        Some(sightings)
    }
}
