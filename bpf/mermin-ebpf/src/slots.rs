//! Aggregate mode: what a packet adds to its slot, and what becomes of a delta that has to leave.
//!
//! A set that is full gives up its older, then smaller, slot: to the ring, if that is full to the epoch's hash, if that is
//! full to a counter of what is lost. So few flows cost next to nothing, and overload makes it slower, never wrong.

use crate::maps::{OVERFLOW, OverflowMap, RING, SEED, SET_BITS, SPILL};
use crate::meter::Packet;
use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use core::intrinsics::{AtomicOrdering::Relaxed, atomic_xadd};
use mermin_abi::{
    Counters, EVENT_EGRESS, EVENT_HAS_TCP_FLAGS, EVENT_TICKS, Event, First, META_EGRESS, META_FORM_SHIFT,
    META_IFINDEX_SHIFT, Overflow, OverflowKey, SLOT_BYTES_MAX, Set, Slot, WORDS_V4, WORDS_V6,
};

const FORM: u32 = 3;

/// Three multiplies with folds between are as good as random on dense and structured keys; the seed is a secret, so nobody
/// can choose flows that meet in one set.
#[inline(always)]
fn mix<const W: usize>(key: &[u64; W]) -> u64 {
    let mut x = SEED.load();
    for word in key {
        x = (x ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 32;
    }
    x.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// Not `==`: on arrays that becomes a call of `memcmp`, byte by byte.
#[inline(always)]
fn same<const W: usize>(a: &[u64; W], b: &[u64; W]) -> bool {
    let mut difference = 0;
    for i in 0..W {
        difference |= a[i] ^ b[i];
    }
    difference == 0
}

/// Adds the packet to the slot of its key.
#[inline(always)]
pub(crate) fn account<const W: usize, const N: usize, const F: usize>(
    slots: &Array<Set<W>, N, F>,
    counters: &mut Counters,
    key: [u64; W],
    packet: &Packet<'_>,
) {
    // SAFETY: inlined to a load.
    let now = unsafe { bpf_jiffies64() } as u32;
    let bits = SET_BITS.load();
    let index = (packet.range << bits) + (mix(&key) >> (64 - bits)) as u32;
    let Some(set) = slots.get_ptr_mut(index) else { return };
    // SAFETY: this CPU's range in the live half. Bottom halves are off, so nobody else is here.
    let set = unsafe { &mut *set };
    let [a, b] = &mut set.ways;
    let [first_a, first_b] = &mut set.first;
    let (slot, first, hit) = if same(&a.key, &key) {
        (a, first_a, true)
    } else if same(&b.key, &key) {
        (b, first_b, true)
    } else if b.sums.last < a.sums.last || (b.sums.last == a.sums.last && b.sums.packets < a.sums.packets) {
        (b, first_b, false)
    } else {
        (a, first_a, false)
    };
    let (h, counts) = (packet.headers, packet.counts);
    if hit && slot.sums.buffer_bytes < SLOT_BYTES_MAX {
        let sums = &mut slot.sums;
        sums.ip_bytes += counts.ip_bytes;
        sums.frame_bytes += counts.frame_bytes;
        sums.packets += counts.packets;
        sums.buffers += 1;
        sums.buffer_bytes += packet.length;
        sums.last = now;
        sums.tcp_flags |= h.tcp_flags;
        sums.has_tcp_flags |= h.has_tcp_flags as u8;
        if h.ttl < sums.ttl_min {
            sums.ttl_min = h.ttl;
        }
        if h.ttl > sums.ttl_max {
            sums.ttl_max = h.ttl;
        }
        return;
    }
    // Who comes into a free slot has the time for an exact one; where flows push each other out, the tick has to do.
    if slot.sums.packets == 0 {
        // SAFETY: a helper without arguments.
        first.nanos = unsafe { bpf_ktime_get_boot_ns() } as u32 | 1;
    } else {
        evict(counters, packet.epoch, slot, first);
        first.nanos = 0;
    }
    for i in 0..W {
        slot.key[i] = key[i];
    }
    let sums = &mut slot.sums;
    sums.ip_bytes = counts.ip_bytes;
    sums.frame_bytes = counts.frame_bytes;
    sums.packets = counts.packets;
    sums.buffers = 1;
    sums.buffer_bytes = packet.length;
    sums.first = now;
    sums.last = now;
    sums.tcp_flags = h.tcp_flags;
    sums.has_tcp_flags = h.has_tcp_flags as u8;
    sums.ttl_min = h.ttl;
    sums.ttl_max = h.ttl;
    sums.vlan = h.vlan;
    sums.inner_vlan = h.inner_vlan;
    sums.traffic_class = h.traffic_class;
    let words = packet.macs();
    first.macs[0] = words[0];
    first.macs[1] = words[1];
    first.macs[2] = words[2];
}

/// Moves a delta on.
#[inline(always)]
fn evict<const W: usize>(counters: &mut Counters, epoch: u32, slot: &Slot<W>, first: &First) {
    counters.evicted += 1;
    let (key, sums) = (&slot.key, &slot.sums);
    let meta = key[W - 1] as u32;
    let ports = (key[W - 1] >> 32) as u32;
    let Some(mut entry) = RING.reserve_untyped::<Event>(0) else {
        let (counters, slot, first) = (&raw mut *counters, &raw const *slot, &raw const *first);
        if W == 2 {
            mermin_overflow_v4(counters, slot.cast(), first, epoch & 1);
        } else {
            mermin_overflow_v6(counters, slot.cast(), first, epoch & 1);
        }
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry holds a whole event, aligned to 8 bytes, and every field is written. Field by field: a whole struct
    // becomes a call of `memcpy`, byte by byte.
    unsafe {
        if W == 2 {
            (*event).source[0] = key[0] >> 32;
            (*event).source[1] = 0;
            (*event).destination[0] = key[0] & 0xffff_ffff;
            (*event).destination[1] = 0;
        } else {
            (*event).source[0] = key[0];
            (*event).source[1] = key[1 % W];
            (*event).destination[0] = key[2 % W];
            (*event).destination[1] = key[3 % W];
        }
        (*event).first = u64::from(first.nanos) << 32 | u64::from(sums.first);
        (*event).last = u64::from(sums.last);
        (*event).ip_bytes = sums.ip_bytes;
        (*event).frame_bytes = sums.frame_bytes;
        (*event).epoch = epoch;
        (*event).packets = sums.packets;
        (*event).buffers = sums.buffers;
        (*event).buffer_bytes = sums.buffer_bytes;
        (*event).ifindex = meta >> META_IFINDEX_SHIFT;
        (*event).ports = ports;
        (*event).fragment_id = 0;
        (*event).macs[0] = first.macs[0];
        (*event).macs[1] = first.macs[1];
        (*event).macs[2] = first.macs[2];
        (*event).vlan = sums.vlan;
        (*event).inner_vlan = sums.inner_vlan;
        (*event).protocol = meta as u8;
        (*event).version = if W == 2 { 4 } else { 6 };
        (*event).traffic_class = sums.traffic_class;
        (*event).ttl_min = sums.ttl_min;
        (*event).ttl_max = sums.ttl_max;
        (*event).tcp_flags = sums.tcp_flags;
        (*event).port_form = (meta >> META_FORM_SHIFT & FORM) as u8;
        (*event).fragment = 0;
        (*event).flags = EVENT_TICKS
            | if meta & META_EGRESS != 0 { EVENT_EGRESS } else { 0 }
            | if sums.has_tcp_flags != 0 { EVENT_HAS_TCP_FLAGS } else { 0 };
        (*event).pad[0] = 0;
        (*event).pad[1] = 0;
        (*event).pad[2] = 0;
    }
    entry.submit(BPF_RB_NO_WAKEUP.into());
    let verdict = &mut counters.submitted;
    verdict.packets += u64::from(sums.packets);
    verdict.bytes += sums.frame_bytes;
    verdict.buffers += u64::from(sums.buffers);
    verdict.buffer_bytes += u64::from(sums.buffer_bytes);
}

/// What the ring has no room for goes into the epoch's hash. A global subprogram: it has a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_overflow_v4(
    counters: *mut Counters,
    slot: *const Slot<WORDS_V4>,
    first: *const First,
    parity: u32,
) -> u32 {
    // SAFETY: the verifier has checked that pointers which are not null hold what they should.
    unsafe {
        if let (Some(counters), Some(slot), Some(first)) = (counters.as_mut(), slot.as_ref(), first.as_ref())
        {
            overflow(counters, parity, slot, first);
        }
    }
    0
}

/// The same of IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_overflow_v6(
    counters: *mut Counters,
    slot: *const Slot<WORDS_V6>,
    first: *const First,
    parity: u32,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        if let (Some(counters), Some(slot), Some(first)) = (counters.as_mut(), slot.as_ref(), first.as_ref())
        {
            overflow(counters, parity, slot, first);
        }
    }
    0
}

#[inline(always)]
fn overflow<const W: usize>(counters: &mut Counters, parity: u32, slot: &Slot<W>, first: &First) {
    let (key, sums) = (&slot.key, &slot.sums);
    // Zeros in a row would be a call of `memset`.
    let word = |at: usize| if W == 2 { key[0] } else { key[at % W] };
    let flags = u64::from(sums.tcp_flags) | u64::from(sums.has_tcp_flags) << 8;
    let wide: OverflowKey = [key[0], word(1), word(2), word(3), key[W - 1], flags];
    let Some(value) = SPILL.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's element; bottom halves are off, so nobody else is here.
    let value = unsafe { &mut *value };
    value.ip_bytes = sums.ip_bytes;
    value.frame_bytes = sums.frame_bytes;
    value.packets = u64::from(sums.packets);
    value.buffers = u64::from(sums.buffers);
    value.buffer_bytes = u64::from(sums.buffer_bytes);
    value.first = sums.first;
    value.last = sums.last;
    value.macs[0] = first.macs[0];
    value.macs[1] = first.macs[1];
    value.macs[2] = first.macs[2];
    value.nanos = first.nanos;
    value.vlan = sums.vlan;
    value.inner_vlan = sums.inner_vlan;
    value.traffic_class = sums.traffic_class;
    value.ttl_min = sums.ttl_min;
    value.ttl_max = sums.ttl_max;
    let verdict = if OVERFLOW.get(parity & 1).is_some_and(|hash| to_hash(hash, &wide, value)) {
        &mut counters.overflowed
    } else {
        &mut counters.ring_full
    };
    verdict.packets += u64::from(sums.packets);
    verdict.bytes += sums.frame_bytes;
    verdict.buffers += u64::from(sums.buffers);
    verdict.buffer_bytes += u64::from(sums.buffer_bytes);
}

/// Shared with other CPUs, hence atomic. That another one was first to insert is no loss: then it is there.
#[inline(always)]
fn to_hash(hash: &OverflowMap, key: &OverflowKey, value: &Overflow) -> bool {
    if let Some(there) = hash.get_ptr_mut(key) {
        merge(there, value);
        return true;
    }
    if hash.insert(key, value, BPF_NOEXIST.into()).is_ok() {
        return true;
    }
    let Some(there) = hash.get_ptr_mut(key) else { return false };
    merge(there, value);
    true
}

#[inline(always)]
fn merge(there: *mut Overflow, delta: &Overflow) {
    // SAFETY: an element of a preallocated hash; all that others write at the same time is written by atomic operations.
    unsafe {
        atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*there).ip_bytes, delta.ip_bytes);
        atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*there).frame_bytes, delta.frame_bytes);
        atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*there).packets, delta.packets);
        atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*there).buffers, delta.buffers);
        atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*there).buffer_bytes, delta.buffer_bytes);
        // The later of two CPUs may lose against the earlier one: by as long as an interrupt takes.
        if delta.last > core::ptr::read_volatile(&raw const (*there).last) {
            core::ptr::write_volatile(&raw mut (*there).last, delta.last);
        }
        if delta.first < core::ptr::read_volatile(&raw const (*there).first) {
            core::ptr::write_volatile(&raw mut (*there).first, delta.first);
        }
    }
}
