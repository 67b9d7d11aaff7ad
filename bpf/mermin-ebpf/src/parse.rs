//! The walk over a packet: the straight line inline, anything else one step per call of a subprogram.
//!
//! The subprogram is global: verified once, alone, whatever calls it. So the verifier sees a walk of any depth as a
//! handful of calls. A call costs about 10 ns, which the common packets don't pay.

use crate::bytes::{Direct, Reach};
use crate::maps::WALK;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use mermin_wire::{Headers, Link, Next, STEPS, step, straight};

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

/// Headers of the packet, and whether the walk ended in [`Next::Done`].
#[inline(always)]
pub(crate) fn headers(context: &TcContext, link: Link, length: u32, vlan: u16) -> (Headers, bool) {
    let mut headers = Headers::tagged(length, vlan);
    let next = straight(&Direct::new(context), link, &mut headers);
    if !next.is_end()
        && let Some(walk) = WALK.get_ptr_mut(0)
    {
        // Over headers in a map's memory: with the address of those on the stack taken, they would live there on the
        // straight line too, and the stack has no room for a second set.
        // SAFETY: this CPU's element; bottom halves are off, so nobody else is here.
        unsafe { *walk = headers };
        let end = mermin_walk(context.skb.skb, walk, next as u32);
        // SAFETY: as above.
        return (unsafe { *walk }, end == Next::Done as u32);
    }
    (headers, next == Next::Done)
}
