//! Asks the kernel for pages of 2 MiB behind the flow table.
//!
//! A packet's flow may lie anywhere in the table; with pages of 4 KiB each packet then waits for page tables too
//! (figures in `docs/benchmarks.md`). Only whole large pages inside an array are asked for, so that a table of a few
//! thousand flows stays as small as it is. A kernel that has none to give, or is told not to, changes nothing.
#![expect(unsafe_code, reason = "madvise is unsafe, as some of its advice discards memory")]

use std::mem::MaybeUninit;

#[cfg(target_os = "linux")]
const LARGE: usize = 2 << 20;

/// Asks for large pages for as much of `memory` as whole ones fit into.
pub(crate) fn use_large_pages<T>(memory: &mut [MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        let bytes = size_of_val(memory);
        let start = memory.as_mut_ptr().cast::<u8>();
        let skipped = start.addr().next_multiple_of(LARGE) - start.addr();
        let length = bytes.saturating_sub(skipped) / LARGE * LARGE;
        if length > 0 {
            let aligned = start.wrapping_add(skipped).cast();
            // SAFETY: the range lies within `memory`, which nobody else refers to; the advice discards nothing.
            // An error means that the kernel has no large pages.
            let _ = unsafe { rustix::mm::madvise(aligned, length, rustix::mm::Advice::LinuxHugepage) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}
