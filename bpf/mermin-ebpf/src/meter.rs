//! One verdict for every buffer. Packet mode: one ring event per metered buffer; aggregate mode: most go to slots.

use crate::bytes::{Direct, Reach};
use crate::maps::{AGGREGATE, CONTROL, COUNTERS, CPUS, RING, SLOTS4, SLOTS6};
use crate::parse::headers;
use crate::slots::account;
use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::TcContext;
use mermin_abi::{
    Counters, ETHERTYPE_PROBES, ETHERTYPE_SLOTS, EVENT_EGRESS, EVENT_HAS_TCP_FLAGS, Event, IFINDEX_MAX,
    META_EGRESS, META_FORM_SHIFT, META_IFINDEX_SHIFT, META_V6, Verdict,
};
use mermin_wire::{Buffer, Bytes as _, Counts, Fragment, Headers, Link, count, macs, plain_ipv4, plain_ipv6};

/// Everything about the buffer that is not in its bytes.
struct Seen {
    buffer: Buffer,
    vlan: u16,
    ifindex: u32,
    epoch: u32,
    /// Parity and CPU.
    range: u32,
    egress: u8,
}

impl Seen {
    /// `None` never happens; the verifier wants to see it.
    #[inline(always)]
    fn new(skb: &__sk_buff, egress: u8) -> Option<(Self, *mut Counters)> {
        let control = CONTROL.get_ptr(0)?;
        // SAFETY: an element of a mapped array; user space writes the aligned word at any time, hence volatile, and once.
        let epoch = unsafe { core::ptr::read_volatile(&raw const (*control).epoch) };
        // SAFETY: a helper without arguments.
        let range = (epoch & 1) * CPUS.load() + unsafe { bpf_get_smp_processor_id() };
        let counters = COUNTERS.get_ptr_mut(range)?;
        // Without branches: the verifier would walk everything below once for each side.
        let tagged = skb.vlan_present & 1;
        let vlan = (skb.vlan_tci & 0x0fff | tagged.wrapping_sub(1)) as u16;
        let buffer = Buffer {
            length: skb.len,
            segment_size: skb.gso_size,
            segments: skb.gso_segs,
            tag_beside: tagged != 0,
        };
        Some((Self { buffer, vlan, ifindex: skb.ifindex, epoch, range, egress }, counters))
    }
}

/// What most packets are takes a line of its own to their slot; all else the long way.
#[inline(always)]
pub(crate) fn meter(context: &TcContext, link: Link, egress: u8) {
    // SAFETY: the program's context; each field is read by an access that the verifier rewrites.
    let skb = unsafe { &*context.skb.skb };
    let Some((seen, counters)) = Seen::new(skb, egress) else { return };
    // SAFETY: this CPU's element of the live half. Bottom halves are off, so no other run is here.
    let counters = unsafe { &mut *counters };
    counters.seen_buffers += 1;
    counters.seen_bytes += u64::from(seen.buffer.length);
    let mut headers = Headers::tagged(seen.buffer.length, seen.vlan);
    if plain(&Direct::new(context), link, &mut headers) {
        return metered(context, counters, link, &seen, &headers);
    }
    let how = u32::from(egress) | if matches!(link, Link::Ip) { IP_LINK } else { 0 };
    mermin_rest(context.skb.skb, seen.epoch, how);
}

const IP_LINK: u32 = 1 << 8;

/// Whether the packet is plain; then its headers.
#[inline(always)]
fn plain(bytes: &Direct, link: Link, h: &mut Headers) -> bool {
    let version = match link {
        Link::Ip => match bytes.array::<2>(0) {
            Some([first, _]) => first >> 4,
            None => return false,
        },
        _ => {
            h.offset = 14;
            match bytes.array::<2>(12).map(u16::from_be_bytes) {
                Some(0x0800) => 4,
                Some(0x86dd) => 6,
                _ => return false,
            }
        }
    };
    if version == 4 { plain_ipv4(bytes, h) } else { version == 6 && plain_ipv6(bytes, h) }
}

/// The long way, of a buffer that was counted as seen. A global subprogram: with a stack of its own, and what it needs
/// doesn't weigh on the short way.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_rest(skb: *mut __sk_buff, epoch: u32, how: u32) -> u32 {
    let context = TcContext::new(skb);
    let link = if how & IP_LINK != 0 { Link::Ip } else { Link::Ethernet };
    // SAFETY: the program's context.
    let Some((mut seen, _)) = Seen::new(unsafe { &*skb }, how as u8) else { return 0 };
    // The word may have changed meanwhile: everything belongs to the epoch in which the buffer was seen.
    seen.range = seen.range - (seen.epoch & 1) * CPUS.load() + (epoch & 1) * CPUS.load();
    seen.epoch = epoch;
    let Some(counters) = COUNTERS.get_ptr_mut(seen.range) else { return 0 };
    // SAFETY: this CPU's element of the live half. Bottom halves are off, so no other run is here.
    let counters = unsafe { &mut *counters };
    let length = seen.buffer.length;
    let Some((headers, complete)) = headers(&context, link, length, seen.vlan) else { return 0 };
    if !complete {
        let (_, bytes) = seen.buffer.unmetered();
        mermin_reject(
            counters,
            length,
            bytes as u32,
            u32::from(headers.reason),
            u32::from(headers.ethertype),
        );
    } else {
        metered(&context, counters, link, &seen, headers);
    }
    0
}

/// A buffer whose headers are known: to a slot or to the ring. What makes a flow's beginning and end goes out by itself while
/// the ring has room: its time and order count. What belongs to a datagram has no slot.
#[inline(always)]
fn metered(context: &TcContext, counters: &mut Counters, link: Link, seen: &Seen, h: &Headers) {
    let counts = count(h, &seen.buffer);
    if counts.length_over_frame {
        counters.ip_length_over_frame += 1;
    }
    let has_slot = AGGREGATE.load() != 0 && has_slot(h, seen.ifindex);
    if (!has_slot || h.tcp_flags & FIN_SYN_RST != 0) && submit(context, counters, link, seen, h, &counts) {
        return;
    }
    if has_slot {
        aggregate(context, counters, link, seen, h, &counts);
    } else {
        add(&mut counters.ring_full, counts.packets, counts.frame_bytes, seen.buffer.length);
    }
}

/// A metered buffer on its way to a slot.
pub(crate) struct Packet<'a> {
    context: &'a TcContext,
    link: Link,
    pub(crate) headers: &'a Headers,
    pub(crate) counts: &'a Counts,
    pub(crate) length: u32,
    pub(crate) epoch: u32,
    /// Parity and CPU.
    pub(crate) range: u32,
}

impl Packet<'_> {
    #[inline(always)]
    pub(crate) fn macs(&self) -> [u32; 3] {
        mac_words(macs(self.link, &Reach::new(self.context)))
    }
}

const FIN_SYN_RST: u8 = 0x07;

/// Whether a packet can be summed up.
#[inline(always)]
fn has_slot(h: &Headers, ifindex: u32) -> bool {
    h.fragment as u8 == Fragment::Whole as u8 && ifindex <= IFINDEX_MAX
}

#[inline(always)]
fn aggregate(
    context: &TcContext,
    counters: &mut Counters,
    link: Link,
    seen: &Seen,
    h: &Headers,
    counts: &Counts,
) {
    let packet = Packet {
        context,
        link,
        headers: h,
        counts,
        length: seen.buffer.length,
        epoch: seen.epoch,
        range: seen.range,
    };
    let egress = if seen.egress & EVENT_EGRESS != 0 { META_EGRESS } else { 0 };
    let meta = seen.ifindex << META_IFINDEX_SHIFT
        | (h.port_form as u32) << META_FORM_SHIFT
        | egress
        | u32::from(h.protocol);
    let ports = u64::from(h.ports) << 32;
    if h.version == 4 {
        let key = [h.source[0] << 32 | h.destination[0], ports | u64::from(meta)];
        account(&SLOTS4, counters, key, &packet);
    } else {
        let meta = meta | META_V6;
        let key = [h.source[0], h.source[1], h.destination[0], h.destination[1], ports | u64::from(meta)];
        account(&SLOTS6, counters, key, &packet);
    }
}

#[inline(always)]
fn add(verdict: &mut Verdict, packets: u32, bytes: u64, length: u32) {
    verdict.packets += u64::from(packets);
    verdict.bytes += bytes;
    verdict.buffers += 1;
    verdict.buffer_bytes += u64::from(length);
}

/// Writes an event; false: the ring has no room.
#[inline(always)]
fn submit(
    context: &TcContext,
    counters: &mut Counters,
    link: Link,
    seen: &Seen,
    h: &Headers,
    counts: &Counts,
) -> bool {
    let &Counts { packets, ip_bytes, frame_bytes, .. } = counts;
    let length = seen.buffer.length;
    let Some(mut entry) = RING.reserve_untyped::<Event>(0) else {
        return false;
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
        (*event).first = time;
        (*event).last = time;
        (*event).epoch = seen.epoch;
        (*event).packets = packets;
        (*event).ip_bytes = ip_bytes;
        (*event).frame_bytes = frame_bytes;
        (*event).buffers = 1;
        (*event).buffer_bytes = length;
        (*event).ifindex = seen.ifindex;
        (*event).ports = h.ports;
        (*event).fragment_id = h.fragment_id;
        (*event).vlan = h.vlan;
        (*event).inner_vlan = h.inner_vlan;
        (*event).protocol = h.protocol;
        (*event).version = h.version;
        (*event).traffic_class = h.traffic_class;
        (*event).ttl_min = h.ttl;
        (*event).ttl_max = h.ttl;
        (*event).pad[0] = 0;
        (*event).pad[1] = 0;
        (*event).pad[2] = 0;
        (*event).tcp_flags = h.tcp_flags;
        (*event).port_form = h.port_form as u8;
        (*event).fragment = h.fragment as u8;
        (*event).flags = seen.egress | if h.has_tcp_flags { EVENT_HAS_TCP_FLAGS } else { 0 };
        let words = mac_words(macs);
        (*event).macs[0] = words[0];
        (*event).macs[1] = words[1];
        (*event).macs[2] = words[2];
    }
    entry.submit(if AGGREGATE.load() != 0 { BPF_RB_NO_WAKEUP.into() } else { 0 });
    add(&mut counters.submitted, packets, frame_bytes, length);
    true
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
