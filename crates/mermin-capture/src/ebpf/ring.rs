//! The consumer's side of a BPF ring buffer (Linux Documentation/bpf/ringbuf.rst).
//!
//! Its own, because a reader has to tell an empty ring from a record that is still being written: only then is it
//! known that everything before a position was read.

use super::error::EbpfError;
use super::object::page;
use memmap2::{MmapOptions, MmapRaw};
use mermin_flow::prefetch;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
const HEADER: usize = 8;
/// Records between two reports of the position: each report takes the producers' cache line from them.
const REPORT_EVERY: usize = 32;
/// Cache lines, counted from a piece, that are fetched while it is read.
const AHEAD: Range<usize> = 8..10;

/// Why [`Ring::read`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Everything was read up to the position.
    Reached,
    /// The next record is being written.
    Busy,
    /// As many records as were asked for.
    Budget,
}

/// Tells other threads how far the ring was written.
#[derive(Clone)]
pub(super) struct Produced(Arc<MmapRaw>);

impl Produced {
    /// Records of program runs that have ended lie before this position.
    pub(super) fn position(&self) -> u64 {
        // SAFETY: the first word of the producer's page. Only loaded: the mapping is read-only.
        let word = unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().cast()) };
        word.load(Ordering::Acquire)
    }
}

pub(super) struct Ring {
    fd: OwnedFd,
    consumer: MmapRaw,
    producer: Arc<MmapRaw>,
    /// Offset of the data in the second mapping.
    data: usize,
    size: u64,
    position: u64,
    /// Bytes of the record there that were read.
    within: usize,
    /// The position that the kernel knows of.
    reported: u64,
    /// Whether it learns that while records are read, or by [`Ring::tell`] alone.
    tells: bool,
}

impl Ring {
    /// Bytes of its data.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Maps a ring of `size` bytes.
    pub(super) fn new(fd: BorrowedFd<'_>, size: u64) -> Result<Self, EbpfError> {
        let error = |source: io::Error| EbpfError::Kernel { what: "a memory map of the ring", source };
        let too_large = |_| error(io::ErrorKind::OutOfMemory.into());
        let page = usize::try_from(page()).map_err(too_large)?;
        let bytes = usize::try_from(size).map_err(too_large)?;
        let consumer = MmapOptions::new().len(page).map_raw(fd.as_raw_fd()).map_err(error)?;
        // The data is mapped twice in a row, so that a record at the end runs on into the beginning.
        let producer = MmapOptions::new()
            .offset(page as u64)
            .len(page + 2 * bytes)
            .map_raw_read_only(fd.as_raw_fd())
            .map_err(error)?;
        let fd = fd.try_clone_to_owned().map_err(error)?;
        let producer = Arc::new(producer);
        let (position, within, reported) = (0, 0, 0);
        let tells = true;
        let mut ring = Self { fd, consumer, producer, data: page, size, position, within, reported, tells };
        ring.position = ring.consumer_word().load(Ordering::Acquire);
        ring.reported = ring.position;
        Ok(ring)
    }

    /// Until a record comes to the empty ring, `at_most` has passed or a signal comes.
    pub(super) fn wait(&self, at_most: Duration) {
        let mut ready = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one element, as said.
        unsafe { libc::poll(&raw mut ready, 1, milliseconds) };
    }

    fn consumer_word(&self) -> &AtomicU64 {
        // SAFETY: the first word of the consumer's page; the kernel only reads it.
        unsafe { AtomicU64::from_ptr(self.consumer.as_mut_ptr().cast()) }
    }

    pub(super) fn produced(&self) -> Produced {
        Produced(Arc::clone(&self.producer))
    }

    /// Up to where records were read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether records were reserved that are not read yet.
    pub(super) fn has_more(&self) -> bool {
        self.position < self.produced().position()
    }

    /// Hands at most `budget` pieces of `piece` bytes, of which records before `up_to` consist, to `take`, in order, and says
    /// how many. A piece at which `take` panics is behind it.
    pub(super) fn read(
        &mut self,
        piece: usize,
        budget: usize,
        up_to: u64,
        mut take: impl FnMut(&[u8]),
    ) -> (Stopped, usize) {
        let mut read = 0;
        let stopped = loop {
            if self.position >= up_to {
                break Stopped::Reached;
            }
            if read == budget {
                break Stopped::Budget;
            }
            let at = self.data + (self.position & (self.size - 1)) as usize;
            // SAFETY: inside the mapping, records are aligned to 8 bytes. Only loaded.
            let header = unsafe { AtomicU32::from_ptr(self.producer.as_mut_ptr().add(at).cast()) };
            let header = header.load(Ordering::Acquire);
            if header & BUSY != 0 {
                break Stopped::Busy;
            }
            let length = (header & !DISCARD) as usize;
            // SAFETY: a record of `length` bytes; it stays until the kernel learns that the position has passed it, after
            // `take` has returned. It fits: `at` is in the first copy of the data.
            let record =
                unsafe { std::slice::from_raw_parts(self.producer.as_ptr().add(at + HEADER), length) };
            let from = self.within;
            let to = (from + piece).min(length);
            if to < length {
                self.within = to;
            } else {
                self.within = 0;
                self.position += (length + HEADER).next_multiple_of(HEADER) as u64;
            }
            read += 1;
            if header & DISCARD == 0 {
                // Another CPU has written it: what comes next is on its way while this is made use of.
                if let Some(piece) = record.get(from) {
                    AHEAD.for_each(|line| prefetch(piece, line));
                }
                take(&record[from..to]);
            }
            if self.tells && read % REPORT_EVERY == 0 {
                self.tell();
            }
        };
        if self.tells {
            self.tell();
        }
        (stopped, read)
    }

    /// Shows the pieces that records between where was read and `up_to` consist of; they stay unread. Records that are being
    /// written are left out.
    pub(super) fn look(&self, piece: usize, up_to: u64, mut show: impl FnMut(&[u8])) {
        let mut position = self.position;
        while position < up_to {
            let at = self.data + (position & (self.size - 1)) as usize;
            // SAFETY: as in `read`.
            let header = unsafe { AtomicU32::from_ptr(self.producer.as_mut_ptr().add(at).cast()) };
            let header = header.load(Ordering::Acquire);
            let length = (header & !(BUSY | DISCARD)) as usize;
            if header & (BUSY | DISCARD) == 0 {
                // SAFETY: as in `read`; nobody moves the position meanwhile.
                let record =
                    unsafe { std::slice::from_raw_parts(self.producer.as_ptr().add(at + HEADER), length) };
                record.chunks_exact(piece).for_each(&mut show);
            }
            position += (length + HEADER).next_multiple_of(HEADER) as u64;
        }
    }

    /// Reads on, as [`Ring::read`], to the end of the record that it is in.
    pub(super) fn read_on(&mut self, piece: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut read = 0;
        while self.within > 0 {
            read += self.read(piece, 1, u64::MAX, &mut take).1;
        }
        read
    }

    /// From now on what was read stays until [`Ring::tell`].
    pub(super) const fn keep_what_is_read(&mut self) {
        self.tells = false;
    }

    /// Tells the kernel how far was read.
    pub(super) fn tell(&mut self) {
        if self.reported != self.position {
            self.consumer_word().store(self.position, Ordering::Release);
            self.reported = self.position;
        }
    }
}
