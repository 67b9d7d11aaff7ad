//! The verdict of filters on a packet, or on the flow that comes into a slot.
//!
//! Global subprograms: verified once, alone, and with a stack of their own. They go by a flow's key, because the address of a
//! plain packet's headers must not be taken: that would put them on the stack, with filters and without.

use crate::maps::{FILTER_PORTS, FILTER_V4, FILTER_V6, FILTERED, FILTERS, INTERFACE_RULES, WALK};
use crate::meter::{Seen, add, key4, key6};
use core::ptr::write_volatile;
use mermin_abi::{Counters, FILTERED_BY_INTERFACE, META_FORM_SHIFT, WORDS_V4, WORDS_V6};
use mermin_wire::{Headers, PortForm, Question, Sizes};

/// Whether there are filters: a constant to the verifier, which takes away what is done with them.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    FILTERED.load() != 0
}

/// The verdict on a flow of IPv4.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_filter_v4(key: *const [u64; WORDS_V4], ifindex: u32) -> u32 {
    verdict(key, ifindex)
}

/// The same of IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_filter_v6(key: *const [u64; WORDS_V6], ifindex: u32) -> u32 {
    verdict(key, ifindex)
}

#[inline(always)]
fn verdict<const W: usize>(key: *const [u64; W], ifindex: u32) -> u32 {
    const FORM: u32 = 3;
    // SAFETY: the verifier has checked that a pointer which is not null holds a key.
    let (Some(key), Some(filters)) = (unsafe { key.as_ref() }, FILTERS.get_ptr(0)) else { return 0 };
    // SAFETY: an element of a mapped array, which user space has written before programs run.
    let filters = unsafe { &*filters };
    let rules = if FILTERED.load() & FILTERED_BY_INTERFACE == 0 {
        u64::MAX
    } else {
        // SAFETY: user space writes the word as a whole.
        unsafe { INTERFACE_RULES.get(ifindex) }.map_or(filters.any_interface, |rules| *rules)
    };
    let (ports, meta) = ((key[W - 1] >> 32) as u32, key[W - 1] as u32);
    let (source, destination) = if W == WORDS_V4 {
        ([key[0] >> 32, 0], [key[0] & 0xffff_ffff, 0])
    } else {
        ([key[0], key[1 % W]], [key[2 % W], key[3 % W]])
    };
    let about = Question {
        source,
        destination,
        ports,
        has_ports: meta >> META_FORM_SHIFT & FORM == PortForm::Ports as u32,
        version: if W == WORDS_V4 { 4 } else { 6 },
        protocol: meta as u8,
        rules,
    };
    let sizes = Sizes { v4: FILTER_V4.load(), v6: FILTER_V6.load(), ports: FILTER_PORTS.load() };
    filters.verdict(sizes, &about).into()
}

/// The verdict on a packet. A subprogram, because its keys would lie below all that the caller calls.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_filter(headers: *const Headers, meta: u32, ifindex: u32) -> u32 {
    // SAFETY: the verifier has checked that a pointer which is not null holds whole `Headers`.
    let Some(h) = (unsafe { headers.as_ref() }) else { return 0 };
    if h.version == 4 {
        let key = key4(h, meta);
        mermin_filter_v4(&raw const key, ifindex)
    } else {
        let key = key6(h, meta);
        mermin_filter_v6(&raw const key, ifindex)
    }
}

/// Counts a packet that is filtered; false: it is metered. Its headers have an address.
#[inline(always)]
pub(crate) fn filter(counters: &mut Counters, seen: &Seen<'_>, h: &Headers) -> bool {
    is_on() && count(counters, seen, h, mermin_filter(h, seen.meta(h), seen.ifindex()))
}

/// The same of a plain packet, whose key goes to the memory of walks: it isn't walked.
#[inline(always)]
pub(crate) fn filter_plain(counters: &mut Counters, seen: &Seen<'_>, h: &Headers) -> bool {
    if !is_on() {
        return false;
    }
    let (Some(key), meta) = (WALK.get_ptr_mut(0), seen.meta(h)) else { return false };
    let key = key.cast::<u64>();
    let put = |words: &[u64]| {
        for (at, word) in words.iter().enumerate() {
            // SAFETY: this CPU's element, which has more words than any key; bottom halves are off, so nobody else is here.
            unsafe { write_volatile(key.add(at), *word) };
        }
    };
    let verdict = if h.version == 4 {
        put(&key4(h, meta));
        mermin_filter_v4(key.cast(), seen.ifindex())
    } else {
        put(&key6(h, meta));
        mermin_filter_v6(key.cast(), seen.ifindex())
    };
    count(counters, seen, h, verdict)
}

#[inline(always)]
fn count(counters: &mut Counters, seen: &Seen<'_>, h: &Headers, verdict: u32) -> bool {
    // `METERED` becomes a number beyond all.
    let at = (verdict as usize).wrapping_sub(1);
    if at >= counters.filtered.len() {
        return false;
    }
    let counts = seen.counts(counters, h);
    if let Some(verdict) = counters.filtered.get_mut(at) {
        add(verdict, counts.packets, counts.frame_bytes, seen.length());
    }
    true
}
