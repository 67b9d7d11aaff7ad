//! When the reader is woken.

use crate::maps::{MODE, RING, RING_HALF};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_ringbuf_query;
use mermin_abi::MODE_PACKET;

/// Flags of what goes into the ring. Packet mode: the kernel wakes a reader that has read everything. Otherwise it is woken while
/// the ring is half full, and sleeps for as long as it likes before.
#[inline(always)]
pub(crate) fn wakeup() -> u64 {
    if MODE.load() == MODE_PACKET {
        return 0;
    }
    // SAFETY: a map and a number of what to ask for.
    let unread = unsafe { bpf_ringbuf_query((&raw const RING).cast_mut().cast(), BPF_RB_AVAIL_DATA.into()) };
    if unread >= RING_HALF.load() { BPF_RB_FORCE_WAKEUP.into() } else { BPF_RB_NO_WAKEUP.into() }
}
