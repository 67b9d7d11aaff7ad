//! A packet socket on each interface.

use super::error::AfPacketError;
use super::socket::{Intake, PacketSocket};
use crate::clock::Steady;
use crate::interfaces::Interface;
use crate::links::{Links, Numbers, Taps, Technology};
use mermin_wire::Link;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

/// What the reader has of an interface.
pub(super) struct Tap {
    pub(super) socket: PacketSocket,
    pub(super) name: Arc<str>,
    pub(super) index: u32,
    pub(super) link: Link,
    pub(super) numbers: Numbers,
    /// Frames that were read.
    pub(super) read: u64,
    /// Nothing more comes; what is in the ring is still read.
    pub(super) ends: bool,
}

/// What the reader is told, before the first frame can come and after the last.
pub(super) enum News {
    On(Box<Tap>),
    Off(u32),
}

/// A way to the reader. It has a bound: a reader that is held up holds up new sockets too.
pub(super) struct AfPacketTaps {
    news: SyncSender<News>,
    ring_bytes: u64,
    /// Interfaces that share the memory.
    sharers: u64,
    links: Option<Arc<Links>>,
    clock: Steady,
}

impl AfPacketTaps {
    pub(super) fn new(news: SyncSender<News>, ring_bytes: u64, interfaces: usize, clock: Steady) -> Self {
        Self { news, ring_bytes, sharers: interfaces.max(1) as u64, links: None, clock }
    }

    fn is_stopping(&self) -> bool {
        self.links.as_ref().is_some_and(|links| links.is_stopping())
    }

    /// Whether the reader will know.
    fn tell(&self, mut news: News) -> bool {
        loop {
            match self.news.try_send(news) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(_)) if self.is_stopping() => return false,
                Err(TrySendError::Full(again)) => news = again,
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Taps for AfPacketTaps {
    type Tap = Intake;
    type Error = AfPacketError;

    fn put(&mut self, interface: &Interface, numbers: Numbers) -> Result<Intake, AfPacketError> {
        let socket = PacketSocket::new(self.ring_bytes / self.sharers)?;
        let intake = socket.intake();
        let tap = Tap {
            socket,
            name: Arc::clone(&interface.name),
            index: interface.index,
            link: interface.link,
            numbers,
            read: 0,
            ends: false,
        };
        if !self.tell(News::On(Box::new(tap))) {
            return Err(AfPacketError::Bind { source: io::ErrorKind::BrokenPipe.into() });
        }
        match intake.start(interface.index) {
            Ok(()) => {
                // The share of the next one. Of the start, all have the same.
                self.sharers += u64::from(self.links.is_some());
                Ok(intake)
            }
            Err(source) => {
                self.tell(News::Off(interface.index));
                Err(AfPacketError::Bind { source })
            }
        }
    }

    fn take_off(&mut self, index: u32, intake: Intake, gone: bool) {
        // In the end the reader stops all by itself, side by side.
        if self.is_stopping() {
            return;
        }
        if !gone && let Err(error) = intake.stop() {
            tracing::warn!(index, %error, "a packet socket does not stop");
        }
        self.sharers = (self.sharers - 1).max(1);
        self.tell(News::Off(index));
    }

    fn is_on(&mut self, intake: &Intake, index: u32) -> bool {
        intake.index() == Some(index)
    }

    fn is_hidden(&mut self, _: &Intake, _: u32) -> bool {
        false
    }

    fn technology(&self, _: &Intake) -> Technology {
        Technology::AfPacket
    }

    fn has_gone(error: &AfPacketError) -> bool {
        matches!(error, AfPacketError::Bind { source }
            if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)))
    }

    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn begin(&mut self, links: &Arc<Links>) {
        self.sharers += 1;
        self.links = Some(Arc::clone(links));
    }
}
