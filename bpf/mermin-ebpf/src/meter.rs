//! Packet mode: one ring event per metered buffer, one verdict for every buffer.

use crate::bytes::Reach;
use crate::maps::{CONTROL, COUNTERS, CPUS, RING};
use crate::parse::headers;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::TcContext;
use mermin_abi::{Counters, ETHERTYPE_PROBES, ETHERTYPE_SLOTS, EVENT_HAS_TCP_FLAGS, PacketEvent, Verdict};
use mermin_wire::{Buffer, Counts, Headers, Link, count, macs};

/// Everything about the buffer that is not in its bytes.
struct Seen {
    buffer: Buffer,
    ifindex: u32,
    epoch: u32,
    egress: u8,
}

#[inline(always)]
pub(crate) fn meter(context: &TcContext, link: Link, egress: u8) {
    let Some(control) = CONTROL.get_ptr(0) else { return };
    // SAFETY: an element of a mapped array; user space writes the aligned word at any time, hence volatile, and once.
    let epoch = unsafe { core::ptr::read_volatile(&raw const (*control).epoch) };
    let cpus = CPUS.load();
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(counters) = COUNTERS.get_ptr_mut((epoch & 1) * cpus + cpu) else { return };
    // SAFETY: this CPU's element of the live half. Bottom halves are off, so no other run is here.
    let counters = unsafe { &mut *counters };
    // SAFETY: the program's context; each field is read by an access that the verifier rewrites.
    let skb = unsafe { &*context.skb.skb };
    let length = skb.len;
    counters.seen_buffers += 1;
    counters.seen_bytes += u64::from(length);

    // Without branches: the verifier would walk everything below once for each side.
    let tagged = skb.vlan_present & 1;
    let vlan = (skb.vlan_tci & 0x0fff | tagged.wrapping_sub(1)) as u16;
    let seen = Seen {
        buffer: Buffer {
            length,
            segment_size: skb.gso_size,
            segments: skb.gso_segs,
            tag_beside: tagged != 0,
        },
        ifindex: skb.ifindex,
        epoch,
        egress,
    };
    let (headers, metered) = headers(context, link, length, vlan);
    if metered {
        submit(context, counters, link, &seen, &headers);
    } else {
        let (_, bytes) = seen.buffer.unmetered();
        mermin_reject(
            counters,
            length,
            bytes as u32,
            u32::from(headers.reason),
            u32::from(headers.ethertype),
        );
    }
}

#[inline(always)]
fn add(verdict: &mut Verdict, packets: u32, bytes: u64, length: u32) {
    verdict.packets += u64::from(packets);
    verdict.bytes += bytes;
    verdict.buffers += 1;
    verdict.buffer_bytes += u64::from(length);
}

#[inline(always)]
fn submit(context: &TcContext, counters: &mut Counters, link: Link, seen: &Seen, h: &Headers) {
    let Counts { packets, ip_bytes, frame_bytes, length_over_frame } = count(h, &seen.buffer);
    let length = seen.buffer.length;
    let Some(mut entry) = RING.reserve_untyped::<PacketEvent>(0) else {
        return add(&mut counters.ring_full, packets, frame_bytes, length);
    };
    // SAFETY: a helper without arguments.
    let time = unsafe { bpf_ktime_get_boot_ns() };
    let macs = macs(link, &Reach::new(context));
    let event = entry.as_mut_ptr();
    // SAFETY: the entry holds a whole event, aligned to 8 bytes, and every field is written. Field by field: a whole
    // struct becomes a call of `memcpy`, byte by byte.
    unsafe {
        (*event).source[0] = h.source[0];
        (*event).source[1] = h.source[1];
        (*event).destination[0] = h.destination[0];
        (*event).destination[1] = h.destination[1];
        (*event).time = time;
        (*event).epoch = seen.epoch;
        (*event).packets = packets;
        (*event).ip_bytes = ip_bytes as u32;
        (*event).frame_bytes = frame_bytes as u32;
        (*event).buffer_bytes = length;
        (*event).ifindex = seen.ifindex;
        (*event).ports = h.ports;
        (*event).fragment_id = h.fragment_id;
        (*event).vlan = h.vlan;
        (*event).inner_vlan = h.inner_vlan;
        (*event).protocol = h.protocol;
        (*event).version = h.version;
        (*event).traffic_class = h.traffic_class;
        (*event).ttl = h.ttl;
        (*event).tcp_flags = h.tcp_flags;
        (*event).port_form = h.port_form as u8;
        (*event).fragment = h.fragment as u8;
        (*event).flags = seen.egress | if h.has_tcp_flags { EVENT_HAS_TCP_FLAGS } else { 0 };
        let words = mac_words(macs);
        (*event).macs[0] = words[0];
        (*event).macs[1] = words[1];
        (*event).macs[2] = words[2];
    }
    entry.submit(0);
    add(&mut counters.submitted, packets, frame_bytes, length);
    if length_over_frame {
        counters.ip_length_over_frame += 1;
    }
}

#[inline(always)]
fn mac_words(macs: Option<[u8; 12]>) -> [u32; 3] {
    let Some(macs) = macs else { return [0; 3] };
    let word = |at: usize| match macs[at..].first_chunk::<4>() {
        Some(word) => u32::from_ne_bytes(*word),
        None => 0,
    };
    [word(0), word(4), word(8)]
}

/// Counts a buffer that is not metered. A global subprogram: the reasons are constants where they arise, and the
/// verifier would walk this code once for each.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_reject(
    counters: *mut Counters,
    length: u32,
    bytes: u32,
    reason: u32,
    ethertype: u32,
) -> u32 {
    // SAFETY: the verifier has checked that a pointer which is not null holds whole `Counters`.
    let Some(counters) = (unsafe { counters.as_mut() }) else { return 0 };
    if let Some(verdict) = counters.unmetered.get_mut(reason as usize) {
        add(verdict, 1, u64::from(bytes), length);
    }
    if ethertype != 0 {
        count_ethertype(counters, u64::from(ethertype));
    }
    0
}

#[inline(always)]
fn count_ethertype(counters: &mut Counters, ethertype: u64) {
    for probe in 0..ETHERTYPE_PROBES {
        let slot = (ethertype as usize + probe) & (ETHERTYPE_SLOTS - 1);
        let Some(slot) = counters.ethertypes.get_mut(slot) else { return };
        if slot.ethertype == 0 || slot.ethertype == ethertype {
            slot.ethertype = ethertype;
            slot.packets += 1;
            return;
        }
    }
    counters.ethertypes_other += 1;
}
