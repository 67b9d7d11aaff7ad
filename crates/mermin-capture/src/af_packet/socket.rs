//! One packet socket and its ring.

use super::block::{Cursor, STATUS, Taken};
use super::error::AfPacketError;
use crate::config::RING_BYTES_MAX;
use libc::{c_int, c_void, socklen_t};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes taken of each frame: headers in any stack that the parser follows in practice.
const SNAP: u32 = 512;
/// After this a block with frames is handed over, full or not; the kernel's timer may take twice as long.
pub(super) const RETIRE_MILLIS: u32 = 10;
/// The least that one socket's ring has.
const RING_MIN: u64 = 256 << 10;
/// While little comes, each retirement takes a block: this many let the reader be late by 0.6 s.
const BLOCKS: u64 = 64;
const BLOCK_MIN: u64 = 4 << 10;
const BLOCK_MAX: u64 = 256 << 10;
/// IANA keeps it reserved: no frame has it.
const NO_PROTOCOL: u16 = 0xffff;

/// What the kernel has counted on a socket since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    /// Frames for the socket, dropped ones included.
    pub(super) frames: u64,
    pub(super) drops: u64,
}

/// A memory-mapped ring of blocks.
struct Ring {
    start: NonNull<u8>,
    block_size: usize,
    blocks: usize,
}

// SAFETY: the mapping belongs to this struct alone and stays where it is whichever thread uses it.
unsafe impl Send for Ring {}

impl Ring {
    fn status(&self, block: usize) -> &AtomicU32 {
        debug_assert!(block < self.blocks);
        // SAFETY: inside the mapping, since `block` is below `blocks`, and aligned: blocks are pages. The kernel and we
        // write it in turns, as atomic words.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(block * self.block_size + STATUS).cast()) }
    }

    fn is_ours(&self, block: usize) -> bool {
        self.status(block).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// A block that is ours.
    fn bytes(&self, block: usize) -> &[u8] {
        debug_assert!(self.is_ours(block));
        // SAFETY: inside the mapping, and the kernel does not write to a block until it is given back, which takes
        // `&mut self` of the socket that this borrow comes from.
        unsafe { slice::from_raw_parts(self.start.as_ptr().add(block * self.block_size), self.block_size) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, made in `PacketSocket::map`, to which no borrow is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.block_size * self.blocks) };
    }
}

/// A socket on one interface.
pub(super) struct PacketSocket {
    ring: Ring,
    descriptor: Arc<OwnedFd>,
    block: usize,
    cursor: Option<Cursor>,
    statistics: Statistics,
}

impl PacketSocket {
    /// A socket with about `ring_bytes` of memory that receives nothing yet.
    pub(super) fn new(ring_bytes: u64) -> Result<Self, AfPacketError> {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory is passed; the result is checked before it is taken for a descriptor. Protocol 0 receives
        // nothing.
        let descriptor = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
        if descriptor < 0 {
            let source = io::Error::last_os_error();
            return Err(match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => AfPacketError::Permission,
                _ => AfPacketError::Kernel { what: "packet sockets", source },
            });
        }
        // SAFETY: a descriptor that was just opened and that nobody else has.
        let descriptor = Arc::new(unsafe { OwnedFd::from_raw_fd(descriptor) });
        let fd = descriptor.as_raw_fd();
        let kernel = |what| move |source| AfPacketError::Kernel { what, source };
        set(fd, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as c_int))
            .map_err(kernel("a ring of version 3"))?;
        // Refused once there is a ring.
        set(fd, libc::PACKET_VNET_HDR, &1).map_err(kernel("segment sizes of packets"))?;
        filter(fd, SNAP).map_err(kernel("a snap length"))?;
        let ring = Self::map(fd, ring_bytes).map_err(kernel("memory for the ring"))?;
        Ok(Self { ring, descriptor, block: 0, cursor: None, statistics: Statistics::default() })
    }

    fn map(fd: RawFd, ring_bytes: u64) -> io::Result<Ring> {
        let ring_bytes = ring_bytes.clamp(RING_MIN, RING_BYTES_MAX);
        let block_size = (ring_bytes / BLOCKS).next_power_of_two().clamp(BLOCK_MIN, BLOCK_MAX);
        let blocks = ring_bytes / block_size;
        let request = libc::tpacket_req3 {
            tp_block_size: block_size as u32,
            tp_block_nr: blocks as u32,
            // Frames of this version have the length that they need; the kernel wants a number that divides all the same.
            tp_frame_size: BLOCK_MIN as u32,
            tp_frame_nr: (block_size / BLOCK_MIN * blocks) as u32,
            tp_retire_blk_tov: RETIRE_MILLIS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(fd, libc::PACKET_RX_RING, &request)?;
        let length = (block_size * blocks) as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, of the size that was asked for above.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Ring { start, block_size: block_size as usize, blocks: blocks as usize })
    }

    pub(super) fn intake(&self) -> Intake {
        Intake(Arc::clone(&self.descriptor))
    }

    /// Hands at most `budget` frames to `each`, and says how many there were. A frame at which `each` panics is behind it.
    pub(super) fn read(&mut self, budget: usize, mut each: impl FnMut(Taken<'_>)) -> usize {
        let mut left = budget;
        while left > 0 {
            if !self.ring.is_ours(self.block) {
                break;
            }
            let block = self.ring.bytes(self.block);
            let cursor = self.cursor.get_or_insert_with(|| Cursor::first(block));
            while cursor.left > 0 && left > 0 {
                each(cursor.take(block));
                left -= 1;
            }
            if cursor.left == 0 {
                self.cursor = None;
                self.ring.status(self.block).store(libc::TP_STATUS_KERNEL, Ordering::Release);
                self.block = (self.block + 1) % self.ring.blocks;
            }
        }
        budget - left
    }

    /// Whether a block waits to be read.
    pub(super) fn is_ready(&self) -> bool {
        self.ring.is_ours(self.block)
    }

    /// What the kernel has counted so far. It sets its own counters back with each question.
    pub(super) fn statistics(&mut self) -> Statistics {
        let mut answer = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        if get(self.descriptor.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut answer).is_ok() {
            self.statistics.frames += u64::from(answer.tp_packets);
            self.statistics.drops += u64::from(answer.tp_drops);
        }
        self.statistics
    }

    /// The error that the kernel has put on the socket, once: ENETDOWN when the interface went down or away.
    pub(super) fn error(&self) -> Option<io::Error> {
        let mut error: c_int = 0;
        get(self.descriptor.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, &mut error).ok()?;
        (error != 0).then(|| io::Error::from_raw_os_error(error))
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// A socket's other end, where frames come in.
pub(super) struct Intake(Arc<OwnedFd>);

impl Intake {
    /// Receives from now on all that crosses the interface.
    pub(super) fn start(&self, index: u32) -> io::Result<()> {
        bind(self.0.as_raw_fd(), libc::ETH_P_ALL as u16, index)
    }

    /// Receives nothing more: when this returns, every frame is in the ring or counted as dropped. Binding to another
    /// protocol waits until no CPU is in the receiving function any more; the filter alone would not.
    pub(super) fn stop(&self) -> io::Result<()> {
        filter(self.0.as_raw_fd(), 0)?;
        bind(self.0.as_raw_fd(), NO_PROTOCOL, 0)
    }

    /// The index of the interface that it receives from; `None`: that has gone.
    pub(super) fn index(&self) -> Option<u32> {
        // SAFETY: integers and byte arrays, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut length = size_of_val(&address) as socklen_t;
        // SAFETY: an address of the family's type and its size.
        let asked = unsafe {
            libc::getsockname(self.0.as_raw_fd(), ptr::from_mut(&mut address).cast(), &raw mut length)
        };
        (asked == 0).then_some(())?;
        u32::try_from(address.sll_ifindex).ok()
    }
}

fn done(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set<T>(fd: RawFd, option: c_int, value: &T) -> io::Result<()> {
    let (value, length) = (ptr::from_ref(value).cast::<c_void>(), size_of::<T>() as socklen_t);
    // SAFETY: `value` points to `length` bytes that live through the call.
    done(unsafe { libc::setsockopt(fd, libc::SOL_PACKET, option, value, length) })
}

fn get<T>(fd: RawFd, level: c_int, option: c_int, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as socklen_t;
    // SAFETY: `value` points to `length` bytes that live through the call and take any content: callers pass integers.
    done(unsafe { libc::getsockopt(fd, level, option, ptr::from_mut(value).cast(), &raw mut length) })
}

/// Takes at most `snap` bytes of each frame; 0: no frame.
fn filter(fd: RawFd, snap: u32) -> io::Result<()> {
    let mut take = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: snap };
    let program = libc::sock_fprog { len: 1, filter: &raw mut take };
    let (value, length) = (ptr::from_ref(&program).cast::<c_void>(), size_of_val(&program) as socklen_t);
    // SAFETY: the program and its one instruction live through the call; the kernel copies them.
    done(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, length) })
}

fn bind(fd: RawFd, protocol: u16, index: u32) -> io::Result<()> {
    // SAFETY: integers and byte arrays, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index as c_int;
    // SAFETY: an address of the family's type and its size.
    done(unsafe { libc::bind(fd, ptr::from_ref(&address).cast(), size_of_val(&address) as socklen_t) })
}
