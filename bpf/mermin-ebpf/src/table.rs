//! The hash of an epoch: what neither slots nor ring have room for, or, on request, everything that is summed up.
//!
//! Shared by all CPUs, so everything that is merged is merged by atomic addition.

use crate::maps::{OVERFLOW, SPILL};
use crate::meter::{Seen, macs};
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::TcContext;
use core::intrinsics::{AtomicOrdering::Relaxed, atomic_xadd};
use mermin_abi::{
    Counters, EVENT_EGRESS, EVENT_HAS_TCP_FLAGS, Event, META_EGRESS, META_FORM_SHIFT, META_IFINDEX_SHIFT,
    META_V6, Overflow, OverflowKey, Verdict,
};
use mermin_wire::Headers;

/// The ring has no room for what is staged. A global subprogram: it has a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_spill(counters: *mut Counters, event: *const Event, parity: u32) -> u32 {
    // SAFETY: the verifier has checked that pointers which are not null hold what they should.
    let (Some(counters), Some(event)) = (unsafe { counters.as_mut() }, unsafe { event.as_ref() }) else {
        return 0;
    };
    let v6 = if event.version == 4 { 0 } else { META_V6 };
    let egress = if event.flags & EVENT_EGRESS != 0 { META_EGRESS } else { 0 };
    let meta = event.ifindex << META_IFINDEX_SHIFT
        | u32::from(event.port_form) << META_FORM_SHIFT
        | v6
        | egress
        | u32::from(event.protocol);
    let has_flags = u64::from(event.flags & EVENT_HAS_TCP_FLAGS != 0);
    let key: OverflowKey = [
        event.source[0],
        event.source[1],
        event.destination[0],
        event.destination[1],
        u64::from(event.ports) << 32 | u64::from(meta),
        u64::from(event.tcp_flags) | has_flags << 8 | u64::from(event.ttl) << 16,
    ];
    let Some(value) = SPILL.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's element; bottom halves are off, so nobody else is here.
    let value = unsafe { &mut *value };
    value.ip_bytes = event.ip_bytes;
    value.frame_bytes = event.frame_bytes;
    value.packets = u64::from(event.packets);
    value.buffers = u64::from(event.buffers);
    value.buffer_bytes = u64::from(event.buffer_bytes);
    value.first = event.first as u32;
    value.nanos = (event.first >> 32) as u32;
    value.last = event.last as u32;
    value.macs[0] = event.macs[0];
    value.macs[1] = event.macs[1];
    value.macs[2] = event.macs[2];
    value.vlan = event.vlan;
    value.inner_vlan = event.inner_vlan;
    value.traffic_class = event.traffic_class;
    take(&mut counters.submitted, value);
    if !put(counters, parity, &key, value) {
        give(&mut counters.table_full, value);
    }
    0
}

/// A packet by itself, where the hash serves alone; 0: there is no room for it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_table(
    skb: *mut __sk_buff,
    counters: *mut Counters,
    headers: *const Headers,
    epoch: u32,
    how: u32,
) -> u32 {
    let context = TcContext::new(skb);
    // SAFETY: the verifier has checked that pointers which are not null hold what they should.
    let (Some(counters), Some(h)) = (unsafe { counters.as_mut() }, unsafe { headers.as_ref() }) else {
        return 0;
    };
    let Some((seen, _)) = Seen::walked(&context, epoch, how) else { return 0 };
    u32::from(to_table(counters, &seen, h))
}

#[inline(always)]
fn to_table(counters: &mut Counters, seen: &Seen<'_>, h: &Headers) -> bool {
    let Some(value) = SPILL.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's element; bottom halves are off, so nobody else is here.
    let value = unsafe { &mut *value };
    let counts = seen.counts(counters, h);
    let last = u64::from(h.ports) << 32 | u64::from(seen.meta(h));
    let flags = u64::from(h.tcp_flags) | u64::from(h.has_tcp_flags) << 8 | u64::from(h.ttl) << 16;
    let key: OverflowKey = [h.source[0], h.source[1], h.destination[0], h.destination[1], last, flags];
    value.ip_bytes = counts.ip_bytes;
    value.frame_bytes = counts.frame_bytes;
    value.packets = u64::from(counts.packets);
    value.buffers = 1;
    value.buffer_bytes = u64::from(seen.length());
    value.first = seen.now;
    value.last = seen.now;
    if OVERFLOW.get(seen.epoch & 1).is_some_and(|hash| hash.get_ptr_mut(&key).is_some()) {
        value.nanos = 0;
    } else {
        // SAFETY: a helper without arguments.
        value.nanos = unsafe { bpf_ktime_get_boot_ns() } as u32 | 1;
        let (macs, [vlan, inner_vlan]) = (macs(seen.skb(), seen.how()), seen.vlans(h));
        value.macs[0] = macs[0];
        value.macs[1] = macs[1];
        value.macs[2] = macs[2];
        value.vlan = vlan;
        value.inner_vlan = inner_vlan;
        value.traffic_class = h.traffic_class;
    }
    put(counters, seen.epoch & 1, &key, value)
}

/// Into the hash of a half, if it has room.
#[inline(always)]
fn put(counters: &mut Counters, parity: u32, key: &OverflowKey, value: &Overflow) -> bool {
    let Some(hash) = OVERFLOW.get(parity) else { return false };
    if let Some(there) = hash.get_ptr_mut(key) {
        merge(there, value);
    } else if hash.insert(key, value, BPF_NOEXIST.into()).is_ok() {
        counters.inserted += 1;
    } else if let Some(there) = hash.get_ptr_mut(key) {
        // Another CPU was first.
        merge(there, value);
    } else {
        return false;
    }
    give(&mut counters.overflowed, value);
    true
}

#[inline(always)]
fn give(verdict: &mut Verdict, value: &Overflow) {
    verdict.packets += value.packets;
    verdict.bytes += value.frame_bytes;
    verdict.buffers += value.buffers;
    verdict.buffer_bytes += value.buffer_bytes;
}

#[inline(always)]
fn take(verdict: &mut Verdict, value: &Overflow) {
    verdict.packets -= value.packets;
    verdict.bytes -= value.frame_bytes;
    verdict.buffers -= value.buffers;
    verdict.buffer_bytes -= value.buffer_bytes;
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
