//! The walk over a packet: the straight line inline, anything else one step per call of a subprogram.
//!
//! The subprogram is global: verified once, alone, whatever calls it. So the verifier sees a walk of any depth as a
//! handful of calls. A call costs about 10 ns, which the common packets don't pay.

use crate::bytes::Reach;
use crate::maps::WALK;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use mermin_wire::{Headers, Link, Next, STEPS, step};

/// One step of the walk. Pointers to memory as arguments are checked for null (Linux 5.12).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_step(skb: *mut __sk_buff, headers: *mut Headers, next: u32) -> u32 {
    // SAFETY: the verifier has checked that a pointer which is not null holds a whole `Headers`.
    let Some(headers) = (unsafe { headers.as_mut() }) else { return Next::Reject as u32 };
    step(&Reach::new(&TcContext::new(skb)), headers, Next::from_code(next)) as u32
}

/// The rest of the walk. Global for the same reason: to the caller it is one call, whatever the number of steps.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mermin_walk(skb: *mut __sk_buff, headers: *mut Headers, next: u32) -> u32 {
    let mut next = next;
    // One more than the steps: the last call says that there are too many.
    for _ in 0..=STEPS {
        if next <= Next::LAST_END {
            break;
        }
        next = mermin_step(skb, headers, next);
    }
    next
}

/// Headers of the packet, and whether the walk ended in [`Next::Done`]. They lie in a map's memory, not on the stack, which
/// the frames below need.
#[inline(always)]
pub(crate) fn headers(
    context: &TcContext,
    link: Link,
    length: u32,
    vlan: u16,
) -> Option<(&'static Headers, bool)> {
    let walk = WALK.get_ptr_mut(0)?;
    let start = Headers::tagged(length, vlan);
    // SAFETY: this CPU's element; bottom halves are off, so nobody else is here. What is zero is written word by word: all at
    // once it is cleared by a call, byte by byte.
    unsafe {
        for word in 0..size_of::<Headers>() / size_of::<u64>() {
            core::ptr::write_volatile(walk.cast::<u64>().add(word), 0);
        }
        (*walk).limit = start.limit;
        (*walk).vlan = start.vlan;
        (*walk).inner_vlan = start.inner_vlan;
        (*walk).reason = start.reason;
    }
    let end = mermin_walk(context.skb.skb, walk, link.first() as u32);
    // SAFETY: as above; nobody writes it before this run ends.
    Some((unsafe { &*walk }, end == Next::Done as u32))
}
