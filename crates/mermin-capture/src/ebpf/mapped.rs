//! The counters and the epoch's word, memory-mapped: reading them takes no system call.

use super::error::EbpfError;
use super::object::Object;
use super::ticks::Reading;
use memmap2::{MmapOptions, MmapRaw};
use mermin_abi::{Clock, Control, Counters, Crowd};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The control words, what the clocks' program writes, and both halves of the counters.
pub(super) struct Mapped {
    control: MmapRaw,
    clock: MmapRaw,
    counters: MmapRaw,
    cpus: usize,
}

impl Mapped {
    pub(super) fn new(object: &Object) -> Result<Self, EbpfError> {
        let cpus = object.cpus as usize;
        Ok(Self {
            control: map(object.map("CONTROL")?, size_of::<Control>())?,
            clock: map(object.map("CLOCK")?, size_of::<Clock>())?,
            counters: map(object.map("COUNTERS")?, 2 * cpus * size_of::<Counters>())?,
            cpus,
        })
    }

    /// Makes `epoch` the live one. Its half was cleared before, which program runs that read the new word see too.
    pub(super) fn go_live(&self, epoch: u32) {
        // SAFETY: the mapping begins with a `Control`, aligned to a page, whose first field is the word; programs only
        // read it.
        let word = unsafe { AtomicU32::from_ptr(self.control.as_mut_ptr().cast()) };
        word.store(epoch, Ordering::Release);
    }

    /// What the clocks' program has read, once it has run.
    pub(super) fn clock(&self) -> Reading {
        // SAFETY: the mapping begins with a `Clock`, aligned to a page; any bytes are valid.
        let Clock { ticks, boot } =
            unsafe { std::ptr::read_volatile(self.clock.as_mut_ptr().cast::<Clock>()) };
        Reading { ticks, boot }
    }

    /// The tick from which on the programs count nothing; 0: there is none.
    pub(super) fn deadline(&self) -> u64 {
        self.deadline_word().load(Ordering::Relaxed)
    }

    pub(super) fn set_deadline(&self, tick: u64) {
        self.deadline_word().store(tick, Ordering::Relaxed);
    }

    fn deadline_word(&self) -> &AtomicU64 {
        // SAFETY: the mapping begins with a `Control`, aligned to a page; programs only read it.
        unsafe {
            let word = &raw mut (*self.control.as_mut_ptr().cast::<Control>()).deadline;
            AtomicU64::from_ptr(word)
        }
    }

    /// The live epoch.
    pub(super) fn live(&self) -> u32 {
        // SAFETY: as in `go_live`.
        let word = unsafe { AtomicU32::from_ptr(self.control.as_mut_ptr().cast()) };
        word.load(Ordering::Acquire)
    }

    /// Hands each CPU's counters of a half to `read`. Only after a grace period: nobody may add to them.
    pub(super) fn read(&mut self, parity: u32, read: impl FnMut(&Counters)) {
        self.half(parity).iter().for_each(read);
    }

    /// Clears the counters of a half, as cautiously. How crowded it is stays.
    pub(super) fn clear(&mut self, parity: u32) {
        for counters in self.half(parity) {
            let looked = counters.crowd.looked.wrapping_sub(counters.seen_buffers);
            let crowd = Crowd { looked, ..counters.crowd };
            // SAFETY: integers only, so zeros are valid.
            unsafe { std::ptr::write_bytes(counters, 0, 1) };
            counters.crowd = crowd;
        }
    }

    fn half(&mut self, parity: u32) -> &mut [Counters] {
        let first = if parity & 1 == 0 { 0 } else { self.cpus };
        // SAFETY: the mapping holds 2 · cpus elements, aligned to a page at its start and of a size that is a
        // multiple of their alignment; every bit pattern is valid. `&mut self` is the only user here, and the
        // caller sees to it that no program runs in this half.
        unsafe {
            let counters = self.counters.as_mut_ptr().cast::<Counters>().add(first);
            std::slice::from_raw_parts_mut(counters, self.cpus)
        }
    }
}

/// Tells how full the hash of the live epoch is, without a system call.
pub(super) struct Pressure {
    counters: MmapRaw,
    cpus: usize,
}

impl Pressure {
    pub(super) fn new(object: &Object) -> Result<Self, EbpfError> {
        let cpus = object.cpus as usize;
        Ok(Self { counters: map(object.map("COUNTERS")?, 2 * cpus * size_of::<Counters>())?, cpus })
    }

    /// Flows that came into the hash in the live epoch, and perhaps in the one that is being closed.
    pub(super) fn flows_in_hash(&self) -> u64 {
        let counters = self.counters.as_mut_ptr().cast::<Counters>();
        let inserted = |index| {
            // SAFETY: the mapping holds 2 · cpus elements; an aligned word of one, which its CPU may be writing.
            unsafe { std::ptr::read_volatile(&raw const (*counters.add(index)).inserted) }
        };
        (0..2 * self.cpus).map(inserted).sum()
    }
}

pub(super) fn map(fd: BorrowedFd<'_>, bytes: usize) -> Result<MmapRaw, EbpfError> {
    let raw = fd.as_raw_fd();
    MmapOptions::new().len(bytes).map_raw(raw).map_err(|source: io::Error| EbpfError::Kernel {
        what: "a memory map of the programs' tables",
        source,
    })
}
