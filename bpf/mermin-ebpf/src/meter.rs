//! One verdict for every buffer. Packet mode: one ring event per metered buffer; aggregate mode: most are summed up.

use crate::bytes::{Direct, Reach};
use crate::filter;
use crate::maps::{CONTROL, COUNTERS, CPUS, MODE, RING, SLOTS4, SLOTS6};
use crate::parse::headers;
use crate::ring::wakeup;
use crate::slots::{Turn, account};
use crate::table::mermin_table;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_boot_ns};
use aya_ebpf::programs::TcContext;
use core::intrinsics::{likely, unlikely};
use core::mem::offset_of;
use core::ptr::read_volatile;
use mermin_abi::{
    Counters, ETHERTYPE_PROBES, ETHERTYPE_SLOTS, EVENT_EGRESS, EVENT_HAS_TCP_FLAGS, Event, IFINDEX_MAX,
    META_EGRESS, META_FORM_SHIFT, META_IFINDEX_SHIFT, META_V6, MODE_HASH, MODE_PACKET, Verdict, WORDS_V4,
    WORDS_V6,
};
use mermin_wire::{
    Buffer, Bytes as _, Counts, Fragment, Headers, Link, NO_VLAN, count, count_plain, plain_ipv4, plain_ipv6,
};

pub(crate) const FIN_RST: u8 = 0x05;
const FIN_SYN_RST: u8 = 0x07;

/// A buffer, and where it is counted.
pub(crate) struct Seen<'a> {
    context: &'a TcContext,
    link: Link,
    egress: u8,
    pub(crate) epoch: u32,
    /// Parity and CPU.
    pub(crate) range: u32,
    /// The kernel's tick (`jiffies`), its low half.
    pub(crate) now: u32,
    /// The packet took the short way, so its headers don't know the tag that the kernel holds beside it.
    is_plain: bool,
}

/// What the kernel holds beside the bytes is read where it is wanted: kept from the start it would cost stack.
impl<'a> Seen<'a> {
    /// `None`: nobody has shown life for too long, so nothing is counted. `epoch`: the live one unless known.
    #[inline(always)]
    fn new(
        context: &'a TcContext,
        link: Link,
        egress: u8,
        epoch: Option<u32>,
    ) -> Option<(Self, *mut Counters)> {
        // SAFETY: inlined to a load.
        let now = unsafe { bpf_jiffies64() };
        let epoch = match epoch {
            Some(epoch) => epoch,
            None => {
                let control = CONTROL.get_ptr(0)?;
                // SAFETY: an element of a mapped array; user space writes the aligned words at any time, hence volatile, and
                // once.
                unsafe {
                    // 0 becomes the latest of all.
                    let last = read_volatile(&raw const (*control).deadline).wrapping_sub(1);
                    if unlikely(now > last) {
                        return None;
                    }
                    read_volatile(&raw const (*control).epoch)
                }
            }
        };
        // SAFETY: a helper without arguments.
        let range = (epoch & 1) * CPUS.load() + unsafe { bpf_get_smp_processor_id() };
        let counters = COUNTERS.get_ptr_mut(range)?;
        let (now, is_plain) = (now as u32, true);
        Some((Self { context, link, egress, epoch, range, now, is_plain }, counters))
    }

    /// The same in a subprogram.
    #[inline(always)]
    pub(crate) fn walked(context: &'a TcContext, epoch: u32, how: u32) -> Option<(Self, *mut Counters)> {
        let (seen, counters) = Self::new(context, link(how), how as u8, Some(epoch))?;
        Some((Self { is_plain: false, ..seen }, counters))
    }

    #[inline(always)]
    pub(crate) fn skb(&self) -> *mut __sk_buff {
        self.context.skb.skb
    }

    /// Hook and link for a subprogram.
    #[inline(always)]
    pub(crate) fn how(&self) -> u32 {
        u32::from(self.egress) | if matches!(self.link, Link::Ip) { IP_LINK } else { 0 }
    }

    /// A word of the program's context at this offset, by an access that the verifier rewrites.
    #[inline(always)]
    fn word(&self, offset: usize) -> u32 {
        // SAFETY: the context is valid as long as the program runs, and callers name fields of it.
        unsafe { read_volatile(self.context.skb.skb.cast::<u32>().byte_add(offset)) }
    }

    #[inline(always)]
    pub(crate) fn length(&self) -> u32 {
        self.word(offset_of!(__sk_buff, len))
    }

    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.word(offset_of!(__sk_buff, ifindex))
    }

    /// Whether the kernel holds a tag beside the bytes.
    #[inline(always)]
    fn tagged(&self) -> u32 {
        self.word(offset_of!(__sk_buff, vlan_present)) & 1
    }

    /// VLAN id of that tag. Without branches: the verifier would walk everything behind it once for each side.
    #[inline(always)]
    fn tag(&self) -> u16 {
        let tci = self.word(offset_of!(__sk_buff, vlan_tci));
        (tci & 0x0fff | self.tagged().wrapping_sub(1)) as u16
    }

    #[inline(always)]
    fn buffer(&self) -> Buffer {
        Buffer {
            length: self.length(),
            segment_size: self.word(offset_of!(__sk_buff, gso_size)),
            segments: self.word(offset_of!(__sk_buff, gso_segs)),
            tag_beside: self.tagged() != 0,
        }
    }

    #[inline(always)]
    pub(crate) fn counts(&self, counters: &mut Counters, h: &Headers) -> Counts {
        if self.is_plain {
            // The number of segments is asked for where it is wanted.
            let segment_size = self.word(offset_of!(__sk_buff, gso_size));
            if likely(segment_size == 0) {
                let tag_beside = self.tagged() != 0;
                return count_plain(h, &Buffer { tag_beside, ..Buffer::packet(self.length()) });
            }
        }
        let counts = count(h, &self.buffer());
        if counts.length_over_frame {
            counters.ip_length_over_frame += 1;
        }
        counts
    }

    /// VLAN ids of the outermost and the second tag.
    #[inline(always)]
    pub(crate) fn vlans(&self, h: &Headers) -> [u16; 2] {
        if self.is_plain { [self.tag(), NO_VLAN] } else { [h.vlan, h.inner_vlan] }
    }

    /// The low half of a key's last word.
    #[inline(always)]
    pub(crate) fn meta(&self, h: &Headers) -> u32 {
        self.meta_at(h, self.ifindex())
    }

    /// The same where the interface is at hand.
    #[inline(always)]
    fn meta_at(&self, h: &Headers, ifindex: u32) -> u32 {
        ifindex << META_IFINDEX_SHIFT
            | (h.port_form as u32) << META_FORM_SHIFT
            | if h.version == 4 { 0 } else { META_V6 }
            | if self.egress & EVENT_EGRESS != 0 { META_EGRESS } else { 0 }
            | u32::from(h.protocol)
    }
}

/// What most packets are takes a line of its own; all else the long way.
#[inline(always)]
pub(crate) fn meter(context: &TcContext, link: Link, egress: u8) {
    let Some((seen, counters)) = Seen::new(context, link, egress, None) else { return };
    // SAFETY: this CPU's element of the live half. Bottom halves are off, so no other run is here.
    let counters = unsafe { &mut *counters };
    let length = seen.length();
    counters.seen_buffers += 1;
    counters.seen_bytes += u64::from(length);
    // Each version by itself: what is known of one costs the other no register.
    let (bytes, mut headers) = (Direct::new(context), Headers::tagged(length, NO_VLAN));
    let is_done = match version(&bytes, link, &mut headers) {
        4 => plain_ipv4(&bytes, &mut headers) && at_once(counters, &seen, &headers),
        6 => plain_ipv6(&bytes, &mut headers) && at_once(counters, &seen, &headers),
        _ => false,
    };
    if !is_done {
        mermin_rest(context.skb.skb, seen.epoch, seen.how());
    }
}

/// The IP version that the link header names, without a tag in it; where the IP header begins.
#[inline(always)]
fn version(bytes: &Direct, link: Link, h: &mut Headers) -> u8 {
    if matches!(link, Link::Ip) {
        return bytes.array::<2>(0).map_or(0, |[first, _]| first >> 4);
    }
    h.offset = 14;
    match bytes.array::<2>(12).map(u16::from_be_bytes) {
        Some(0x0800) => 4,
        Some(0x86dd) => 6,
        _ => 0,
    }
}

/// A plain packet; false: it goes the long way nevertheless.
#[inline(always)]
fn at_once(counters: &mut Counters, seen: &Seen<'_>, h: &Headers) -> bool {
    let (mode, ifindex) = (MODE.load(), seen.ifindex());
    if mode == MODE_PACKET {
        if !filter::filter_plain(counters, seen, h) {
            one_by_one(counters, seen, h);
        }
        return true;
    }
    if mode == MODE_HASH || h.tcp_flags & FIN_SYN_RST != 0 || ifindex > IFINDEX_MAX {
        return false;
    }
    sum_up(counters, seen, h, seen.meta_at(h, ifindex));
    true
}

const IP_LINK: u32 = 1 << 8;

#[inline(always)]
fn link(how: u32) -> Link {
    if how & IP_LINK != 0 { Link::Ip } else { Link::Ethernet }
}

/// MAC addresses of the frame as on the wire; zero where its link has none.
#[inline(always)]
pub(crate) fn macs(skb: *mut __sk_buff, how: u32) -> [u32; 3] {
    let Some(macs) = mermin_wire::macs(link(how), &Reach::new(&TcContext::new(skb))) else { return [0; 3] };
    let word = |at: usize| match macs[at..].first_chunk::<4>() {
        Some(word) => u32::from_ne_bytes(*word),
        None => 0,
    };
    [word(0), word(4), word(8)]
}

/// The long way, of a buffer that was counted as seen. A global subprogram: with a stack of its own, and what it needs
/// doesn't weigh on the short way.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_rest(skb: *mut __sk_buff, epoch: u32, how: u32) -> u32 {
    let context = TcContext::new(skb);
    let Some((seen, counters)) = Seen::walked(&context, epoch, how) else { return 0 };
    // SAFETY: this CPU's element of the live half. Bottom halves are off, so no other run is here.
    let counters = unsafe { &mut *counters };
    let length = seen.length();
    let Some((headers, complete)) = headers(&context, seen.link, length, seen.tag()) else { return 0 };
    if !complete {
        let (_, bytes) = seen.buffer().unmetered();
        let reason = u32::from(headers.reason);
        mermin_reject(counters, length, bytes as u32, reason, u32::from(headers.ethertype));
    } else if MODE.load() == MODE_PACKET {
        if !filter::filter(counters, &seen, headers) {
            one_by_one(counters, &seen, headers);
        }
    } else {
        aggregate(counters, &seen, headers);
    }
    0
}

/// Packet mode.
#[inline(always)]
fn one_by_one(counters: &mut Counters, seen: &Seen<'_>, h: &Headers) {
    let counts = seen.counts(counters, h);
    if !submit(counters, seen, h, &counts) {
        add(&mut counters.ring_full, counts.packets, counts.frame_bytes, seen.length());
    }
}

/// What begins or ends a connection, and fragments, go out by themselves while the ring has room: their order, exact time and
/// datagram count. All else is summed up.
#[inline(always)]
fn aggregate(counters: &mut Counters, seen: &Seen<'_>, h: &Headers) {
    let fits = seen.ifindex() <= IFINDEX_MAX;
    let in_hash = MODE.load() == MODE_HASH;
    let is_fragment = h.fragment as u8 != Fragment::Whole as u8;
    let turns = h.tcp_flags & FIN_SYN_RST != 0 && !is_fragment;
    // A slot has a verdict of its own.
    let is_alone = !fits || turns || is_fragment;
    if (is_alone || in_hash) && filter::filter(counters, seen, h) {
        return;
    }
    if fits && turns && !in_hash {
        mermin_turn(h, seen.meta(h), seen.epoch);
    }
    if is_alone {
        let counts = seen.counts(counters, h);
        if submit(counters, seen, h, &counts) {
            return;
        }
        if !fits {
            return add(&mut counters.ring_full, counts.packets, counts.frame_bytes, seen.length());
        }
        if h.fragment as u8 == Fragment::Later as u8 {
            counters.unresolved_fragments += u64::from(counts.packets);
        }
    }
    if !in_hash {
        return sum_up(counters, seen, h, seen.meta(h));
    }
    if mermin_table(seen.context.skb.skb, counters, h, seen.epoch, seen.how()) == 0 {
        let counts = seen.counts(counters, h);
        if turns || is_fragment || !submit(counters, seen, h, &counts) {
            add(&mut counters.table_full, counts.packets, counts.frame_bytes, seen.length());
        }
    }
}

/// A connection ends or begins: what is counted of the one before, on whichever CPU, mustn't be added to. A global subprogram: its
/// keys would lie below the stack of everything that the caller calls.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_turn(headers: *const Headers, meta: u32, epoch: u32) -> u32 {
    // SAFETY: the verifier has checked that a pointer which is not null holds whole `Headers`.
    let Some(h) = (unsafe { headers.as_ref() }) else { return 0 };
    let turn = Turn { epoch, flags: h.tcp_flags };
    if h.version == 4 {
        turn.take(&key4(h, meta));
        turn.take(&key4_back(h, meta));
    } else {
        turn.take(&key6(h, meta));
        turn.take(&key6_back(h, meta));
    }
    0
}

/// Adds a buffer to what is summed up of its flow.
#[inline(always)]
fn sum_up(counters: &mut Counters, seen: &Seen<'_>, h: &Headers, meta: u32) {
    if h.version == 4 {
        account(&SLOTS4, counters, key4(h, meta), seen, h);
    } else {
        account(&SLOTS6, counters, key6(h, meta), seen, h);
    }
}

#[inline(always)]
pub(crate) fn key4(h: &Headers, meta: u32) -> [u64; WORDS_V4] {
    [h.source[0] << 32 | h.destination[0], u64::from(h.ports) << 32 | u64::from(meta)]
}

#[inline(always)]
pub(crate) fn key6(h: &Headers, meta: u32) -> [u64; WORDS_V6] {
    let last = u64::from(h.ports) << 32 | u64::from(meta);
    [h.source[0], h.source[1], h.destination[0], h.destination[1], last]
}

/// The key of the other direction, at the interface's other hook.
#[inline(always)]
fn key4_back(h: &Headers, meta: u32) -> [u64; WORDS_V4] {
    let last = u64::from(h.ports.rotate_left(16)) << 32 | u64::from(meta ^ META_EGRESS);
    [h.destination[0] << 32 | h.source[0], last]
}

#[inline(always)]
fn key6_back(h: &Headers, meta: u32) -> [u64; WORDS_V6] {
    let last = u64::from(h.ports.rotate_left(16)) << 32 | u64::from(meta ^ META_EGRESS);
    [h.destination[0], h.destination[1], h.source[0], h.source[1], last]
}

#[inline(always)]
pub(crate) fn add(verdict: &mut Verdict, packets: u32, bytes: u64, length: u32) {
    verdict.packets += u64::from(packets);
    verdict.bytes += bytes;
    verdict.buffers += 1;
    verdict.buffer_bytes += u64::from(length);
}

/// Writes an event; false: the ring has no room.
#[inline(always)]
fn submit(counters: &mut Counters, seen: &Seen<'_>, h: &Headers, counts: &Counts) -> bool {
    let &Counts { packets, ip_bytes, frame_bytes, .. } = counts;
    let length = seen.length();
    let Some(mut entry) = RING.reserve_untyped::<Event>(0) else {
        return false;
    };
    // SAFETY: a helper without arguments.
    let time = unsafe { bpf_ktime_get_boot_ns() };
    let (macs, [vlan, inner_vlan]) = (macs(seen.skb(), seen.how()), seen.vlans(h));
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
        (*event).ifindex = seen.ifindex();
        (*event).ports = h.ports;
        (*event).fragment_id = h.fragment_id;
        (*event).vlan = vlan;
        (*event).inner_vlan = inner_vlan;
        (*event).protocol = h.protocol;
        (*event).version = h.version;
        (*event).traffic_class = h.traffic_class;
        (*event).ttl = h.ttl;
        (*event).pad[0] = 0;
        (*event).pad[1] = 0;
        (*event).pad[2] = 0;
        (*event).pad[3] = 0;
        (*event).tcp_flags = h.tcp_flags;
        (*event).port_form = h.port_form as u8;
        (*event).fragment = h.fragment as u8;
        (*event).flags = seen.egress | if h.has_tcp_flags { EVENT_HAS_TCP_FLAGS } else { 0 };
        (*event).macs[0] = macs[0];
        (*event).macs[1] = macs[1];
        (*event).macs[2] = macs[2];
    }
    entry.submit(wakeup());
    add(&mut counters.submitted, packets, frame_bytes, length);
    true
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
