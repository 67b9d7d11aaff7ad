//! Aggregate mode: what a packet adds to its slot, and what becomes of a delta that has to leave.
//!
//! A set that is full gives up its older, then smaller, slot: to the ring, if that is full to the epoch's hash, if that is
//! full to a counter of what is lost. So few flows cost next to nothing, and overload makes it slower, never wrong.
//!
//! Where flows push each other out all the time, the lines of a set cost more than what a slot saves: the CPU then uses an eighth of
//! its sets, which stay in a near cache, and tries them all again now and then ([`crowd`]). What is left in the others is read at the
//! epoch's end as all is.

use crate::filter::{self, mermin_filter_v4, mermin_filter_v6};
use crate::maps::{CLOSED, CPUS, RING, SEED, SET_BITS, SLOTS4, SLOTS6, STAGES};
use crate::meter::{FIN_RST, Seen, macs};
use crate::ring::wakeup;
use crate::table::mermin_spill;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use core::intrinsics::{likely, unlikely};
use core::ptr::{read_volatile, write_volatile};
use mermin_abi::{
    Counters, Crowd, EVENT_EGRESS, EVENT_HAS_TCP_FLAGS, EVENT_TICKS, Event, FEWER_SET_BITS, First,
    META_EGRESS, META_FORM_SHIFT, META_IFINDEX_SHIFT, SLOT_BYTES_MAX, STAGED, Set, Slot, Sums, Verdict,
    WORDS_V4, WORDS_V6,
};
use mermin_wire::Headers;

/// Deltas that leave their slots between two looks at the crowd; a power of two.
const LOOK: u32 = 1_024;
/// Where fewer buffers than that were seen meanwhile, so that 3 of 10 pushed a delta out, it is one.
const CROWDED: u64 = LOOK as u64 * 10 / 3;
/// After so many deltas that had to leave fewer sets all are tried again.
const RETRY: u32 = 256 * LOOK;

const TCP: u8 = 6;
const FORM: u32 = 3;

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR_BESIDE: u64 = 0xc2b2_ae3d_27d4_eb4f;
const FACTOR_LAST: u64 = 0xd6e8_feb8_6659_fd93;

/// Multiplies with folds between are as good as random on dense and structured keys; the seed is a secret, so nobody can
/// choose flows that meet in one set. Addresses of IPv6 are mixed side by side, for a product waits for the one before, and the packet for the
/// last; each in a way of its own: in the same way, hosts of two networks with one another would take a few sets only.
#[inline(always)]
fn mix<const W: usize>(key: &[u64; W]) -> u64 {
    let seed = SEED.load();
    let mut x = fold::<FACTOR, 32>(seed ^ key[0]);
    if W != WORDS_V4 {
        x = fold::<FACTOR, 32>(x ^ key[1]);
        let beside = fold::<FACTOR_BESIDE, 31>(seed ^ key[2 % W]);
        x ^= fold::<FACTOR_BESIDE, 31>(beside ^ key[3 % W]);
    }
    fold::<FACTOR, 32>(x ^ key[W - 1]).wrapping_mul(FACTOR_LAST)
}

#[inline(always)]
fn fold<const FACTOR: u64, const SHIFT: u32>(x: u64) -> u64 {
    let x = x.wrapping_mul(FACTOR);
    x ^ x >> SHIFT
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
    seen: &Seen<'_>,
    h: &Headers,
) {
    let hash = mix(&key);
    let Some(set) = slots.get_ptr_mut(index(seen.range, hash, counters.crowd.fewer)) else { return };
    // SAFETY: this CPU's range in the live half. Bottom halves are off, so nobody else adds to it.
    let Set { ways, first } = unsafe { &mut *set };
    let way = if same(&ways[0].key, &key) {
        Some(0)
    } else if same(&ways[1].key, &key) {
        Some(1)
    } else {
        None
    };
    if let Some(way) = way
        && let slot = if way == 0 { &mut ways[0] } else { &mut ways[1] }
        && likely(slot.sums.stale == 0 && slot.sums.ttl == h.ttl && slot.sums.buffer_bytes < SLOT_BYTES_MAX)
    {
        let counts = seen.counts(counters, h);
        let sums = &mut slot.sums;
        sums.ip_bytes += counts.ip_bytes;
        sums.frame_bytes += counts.frame_bytes;
        let flags = u16::from(h.tcp_flags) | u16::from(h.has_tcp_flags) << 8;
        // SAFETY: two fields at once that lie side by side, aligned to both: packets and buffers, neither of which overflows into the other,
        // and TCP flags and whether they say something.
        unsafe {
            *(&raw mut sums.packets).cast::<u64>() += u64::from(counts.packets) | 1 << 32;
            if flags != 0 {
                *(&raw mut sums.tcp_flags).cast::<u16>() |= flags;
            }
        }
        sums.buffer_bytes += seen.length();
        sums.last = seen.now;
        return;
    }
    let way = way.unwrap_or_else(|| older(&ways[0].sums, &ways[1].sums));
    let (slot, first) = (&mut ways[way], &mut first[way]);
    // Who comes into a free slot has the time for an exact one; where flows push each other out, the tick has to do, but where
    // two connections with this key may have to be told apart.
    let exact = slot.sums.packets == 0 || h.protocol == TCP && is_closed(seen.epoch, hash);
    if slot.sums.packets != 0 {
        let (slot, first) = (&raw const *slot, &raw const *first);
        if W == WORDS_V4 {
            mermin_evict_v4(counters, slot.cast(), first, seen.epoch, seen.range);
        } else {
            mermin_evict_v6(counters, slot.cast(), first, seen.epoch, seen.range);
        }
    }
    // SAFETY: a helper without arguments.
    first.nanos = if exact { unsafe { bpf_ktime_get_boot_ns() as u32 | 1 } } else { 0 };
    for i in 0..W {
        slot.key[i] = key[i];
    }
    let counts = seen.counts(counters, h);
    let [vlan, inner_vlan] = seen.vlans(h);
    let sums = &mut slot.sums;
    sums.ip_bytes = counts.ip_bytes;
    sums.frame_bytes = counts.frame_bytes;
    sums.packets = counts.packets;
    sums.buffers = 1;
    sums.buffer_bytes = seen.length();
    sums.first = seen.now;
    sums.last = seen.now;
    sums.tcp_flags = h.tcp_flags;
    sums.has_tcp_flags = h.has_tcp_flags as u8;
    sums.ttl = h.ttl;
    sums.vlan = vlan;
    sums.inner_vlan = inner_vlan;
    sums.traffic_class = h.traffic_class;
    sums.stale = 0;
    sums.verdict = 0;
    if filter::is_on() {
        let key = &raw const slot.key;
        sums.verdict = if W == WORDS_V4 {
            mermin_filter_v4(key.cast(), seen.ifindex())
        } else {
            mermin_filter_v6(key.cast(), seen.ifindex())
        } as u8;
    }
    let words = macs(seen.skb(), seen.how());
    first.macs[0] = words[0];
    first.macs[1] = words[1];
    first.macs[2] = words[2];
}

/// Which of two is the older, of one age the smaller one: 0 or 1. By a branch: an answer from both slots would have to wait for the lines of
/// both, where the processor goes on with its guess.
#[inline(always)]
fn older(a: &Sums, b: &Sums) -> usize {
    let stamp = |sums: &Sums| u64::from(sums.last) << 32 | u64::from(sums.packets);
    usize::from(stamp(b) < stamp(a))
}

/// Moves a delta on: to the stage, and with others from there. A global subprogram: the program has no registers to spare.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_evict_v4(
    counters: *mut Counters,
    slot: *const Slot<WORDS_V4>,
    first: *const First,
    epoch: u32,
    range: u32,
) -> u32 {
    // SAFETY: the verifier has checked that pointers which are not null hold what they should.
    unsafe {
        if let (Some(counters), Some(slot), Some(first)) = (counters.as_mut(), slot.as_ref(), first.as_ref())
        {
            evict(counters, epoch, range, slot, first);
        }
    }
    0
}

/// The same of IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_evict_v6(
    counters: *mut Counters,
    slot: *const Slot<WORDS_V6>,
    first: *const First,
    epoch: u32,
    range: u32,
) -> u32 {
    // SAFETY: as above.
    unsafe {
        if let (Some(counters), Some(slot), Some(first)) = (counters.as_mut(), slot.as_ref(), first.as_ref())
        {
            evict(counters, epoch, range, slot, first);
        }
    }
    0
}

#[inline(always)]
fn evict<const W: usize>(counters: &mut Counters, epoch: u32, range: u32, slot: &Slot<W>, first: &First) {
    crowd(counters);
    let filtered = usize::from(slot.sums.verdict).wrapping_sub(1);
    if filter::is_on()
        && let Some(verdict) = counters.filtered.get_mut(filtered)
    {
        return give(verdict, &slot.sums);
    }
    let Some(stage) = STAGES.get_ptr_mut(range) else { return };
    // SAFETY: this CPU's element in the live half. Bottom halves are off, so nobody else is here.
    let stage = unsafe { &mut *stage };
    let at = stage.count as usize & (STAGED - 1);
    let event = &raw mut stage.events[at];
    let (key, sums) = (&slot.key, &slot.sums);
    let meta = key[W - 1] as u32;
    // SAFETY: an element of the array. Field by field: a whole struct becomes a call of `memcpy`, byte by byte.
    unsafe {
        if W == WORDS_V4 {
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
        (*event).ports = (key[W - 1] >> 32) as u32;
        (*event).fragment_id = 0;
        (*event).macs[0] = first.macs[0];
        (*event).macs[1] = first.macs[1];
        (*event).macs[2] = first.macs[2];
        (*event).vlan = sums.vlan;
        (*event).inner_vlan = sums.inner_vlan;
        (*event).protocol = meta as u8;
        (*event).version = if W == WORDS_V4 { 4 } else { 6 };
        (*event).traffic_class = sums.traffic_class;
        (*event).ttl = sums.ttl;
        (*event).tcp_flags = sums.tcp_flags;
        (*event).port_form = (meta >> META_FORM_SHIFT & FORM) as u8;
        (*event).fragment = 0;
        (*event).flags = EVENT_TICKS
            | if meta & META_EGRESS != 0 { EVENT_EGRESS } else { 0 }
            | if sums.has_tcp_flags != 0 { EVENT_HAS_TCP_FLAGS } else { 0 };
        (*event).pad[0] = 0;
        (*event).pad[1] = 0;
        (*event).pad[2] = 0;
        (*event).pad[3] = 0;
    }
    give(&mut counters.submitted, sums);
    let count = at + 1;
    if count < STAGED {
        stage.count = count as u64;
        return;
    }
    stage.count = 0;
    if RING.output_untyped::<[Event; STAGED]>(&stage.events, wakeup()).is_err() {
        for at in 0..STAGED {
            mermin_spill(counters, &raw const stage.events[at], epoch & 1);
        }
    }
}

/// Counts a delta that has to leave its slot, and now and then looks at how often that happens.
#[inline(always)]
fn crowd(counters: &mut Counters) {
    let moved = counters.crowd.moved.wrapping_add(1);
    counters.crowd.moved = moved;
    if unlikely(moved & (LOOK - 1) == 0) {
        mermin_crowd(counters);
    }
}

/// A CPU with all its sets goes on to fewer once their flows have been replaced and 3 of 10 buffers still push a delta out; one with
/// fewer tries them all after a while. A global subprogram: the verifier would walk all that follows once more for each of its ways.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_crowd(counters: *mut Counters) -> u32 {
    // SAFETY: the verifier has checked that a pointer which is not null holds what it should.
    let Some(counters) = (unsafe { counters.as_mut() }) else { return 0 };
    let Crowd { fewer, moved, looked } = counters.crowd;
    let seen = counters.seen_buffers.wrapping_sub(looked);
    counters.crowd.looked = counters.seen_buffers;
    let changes = match fewer {
        0 => moved > 2 << SET_BITS.load() && seen < CROWDED,
        _ => moved >= RETRY,
    };
    if changes {
        counters.crowd.fewer = fewer ^ FEWER_SET_BITS;
        counters.crowd.moved = 0;
    }
    0
}

#[inline(always)]
fn give(verdict: &mut Verdict, sums: &Sums) {
    verdict.packets += u64::from(sums.packets);
    verdict.bytes += sums.frame_bytes;
    verdict.buffers += u64::from(sums.buffers);
    verdict.buffer_bytes += u64::from(sums.buffer_bytes);
}

/// A TCP segment with SYN, FIN or RST.
pub(crate) struct Turn {
    pub(crate) epoch: u32,
    pub(crate) flags: u8,
}

impl Turn {
    /// Notes that a connection is closed; where one with such a key was, and another begins, what CPUs hold of it is stale. For each
    /// of its directions.
    #[inline(always)]
    pub(crate) fn take<const W: usize>(&self, key: &[u64; W]) {
        let hash = mix(key);
        if self.flags & FIN_RST != 0 {
            close(self.epoch, hash);
        } else if is_closed(self.epoch, hash) {
            let key = &raw const *key;
            if W == WORDS_V4 {
                mermin_stale_v4(key.cast(), self.epoch & 1);
            } else {
                mermin_stale_v6(key.cast(), self.epoch & 1);
            }
        }
    }
}

/// What any CPU holds of a key is of a connection that is over. A global subprogram, as is the one for each CPU: inline, the
/// verifier would walk every branch of every turn.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_stale_v4(key: *const [u64; WORDS_V4], parity: u32) -> u32 {
    // SAFETY: the verifier has checked that a pointer which is not null holds a key.
    let Some(words) = (unsafe { key.as_ref() }) else { return 0 };
    let hash = mix(words);
    for cpu in 0..CPUS.load() {
        let range = parity * CPUS.load() + cpu;
        mermin_stale_set_v4(key, index(range, hash, 0));
        mermin_stale_set_v4(key, index(range, hash, FEWER_SET_BITS));
    }
    0
}

/// The same of IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_stale_v6(key: *const [u64; WORDS_V6], parity: u32) -> u32 {
    // SAFETY: as above.
    let Some(words) = (unsafe { key.as_ref() }) else { return 0 };
    let hash = mix(words);
    for cpu in 0..CPUS.load() {
        let range = parity * CPUS.load() + cpu;
        mermin_stale_set_v6(key, index(range, hash, 0));
        mermin_stale_set_v6(key, index(range, hash, FEWER_SET_BITS));
    }
    0
}

/// In one set.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_stale_set_v4(key: *const [u64; WORDS_V4], index: u32) -> u32 {
    stale(&SLOTS4, key, index)
}

/// The same of IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_stale_set_v6(key: *const [u64; WORDS_V6], index: u32) -> u32 {
    stale(&SLOTS6, key, index)
}

#[inline(always)]
fn stale<const W: usize, const N: usize, const F: usize>(
    slots: &Array<Set<W>, N, F>,
    key: *const [u64; W],
    index: u32,
) -> u32 {
    // SAFETY: as above.
    let (Some(key), Some(set)) = (unsafe { key.as_ref() }, slots.get_ptr_mut(index)) else { return 0 };
    for way in 0..2 {
        // SAFETY: another CPU may write there: whatever is read, a delta ends early at worst.
        unsafe {
            let slot = &raw mut (*set).ways[way];
            if same(&read_volatile(&raw const (*slot).key), key) {
                write_volatile(&raw mut (*slot).sums.stale, 1);
            }
        }
    }
    0
}

/// Where the set of a hash lies in a range, of all its sets or the first of them.
#[inline(always)]
fn index(range: u32, hash: u64, fewer: u32) -> u32 {
    let bits = SET_BITS.load();
    (range << bits) + (hash >> (64 - bits) >> (fewer & 63)) as u32
}

/// Where the mark of a key lies: byte and bit.
#[inline(always)]
fn mark(hash: u64) -> (usize, u8) {
    ((hash >> 48) as usize & (mermin_abi::CLOSED - 1), 1 << (hash >> 45 & 7))
}

#[inline(always)]
fn close(epoch: u32, hash: u64) {
    if let Some(closed) = CLOSED.get_ptr_mut(epoch & 1) {
        let (byte, bit) = mark(hash);
        // SAFETY: an element of a mapped array. Where two CPUs write to a byte at one moment, a mark may be missing: then a delta is
        // not ended, which no count depends on.
        unsafe {
            let byte = &raw mut (*closed).keys[byte];
            write_volatile(byte, read_volatile(byte) | bit);
        }
    }
}

/// Whether a connection with such a key was closed in this epoch or the one before.
#[inline(always)]
fn is_closed(epoch: u32, hash: u64) -> bool {
    let (Some(now), Some(before)) = (CLOSED.get_ptr_mut(epoch & 1), CLOSED.get_ptr_mut(epoch & 1 ^ 1)) else {
        return false;
    };
    let (byte, bit) = mark(hash);
    // SAFETY: as above.
    unsafe {
        let now = read_volatile(&raw const (*now).keys[byte]);
        (now | read_volatile(&raw const (*before).keys[byte])) & bit != 0
    }
}
