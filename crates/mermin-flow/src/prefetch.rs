//! Asks the processor for memory before it is needed: the flow table's misses overlap instead of queueing, and a batch
//! on its way between two cores is fetched while others are being filled.
//!
//! The crate's only unsafe code. Plain early loads give about half of the gain (`docs/benchmarks.md`). On other
//! processors than x86-64 it does nothing until `core::hint::prefetch_read` is stable.
#![expect(
    unsafe_code,
    reason = "prefetches need an intrinsic, unsafe only because of its target feature, or an instruction"
)]

use std::mem::MaybeUninit;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Starts loading cache line `line` of `value`, counted from its beginning. Nothing of `value` is read.
#[inline(always)]
pub fn prefetch<T>(value: &T, line: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = std::ptr::from_ref(value).cast::<i8>().wrapping_add(line * LINE);
        // SAFETY: SSE is part of x86-64; a prefetch does not fault and changes nothing but caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (value, line * LINE);
}

/// Starts taking all cache lines of `place` away from other cores, to write there soon. Nothing is read or written.
#[inline(always)]
pub fn prefetch_to_write<T>(place: &MaybeUninit<T>) {
    for line in 0..size_of::<T>().div_ceil(LINE) {
        #[cfg(target_arch = "x86_64")]
        {
            let address = std::ptr::from_ref(place).cast::<u8>().wrapping_add(line * LINE);
            // SAFETY: a prefetch does not fault and changes nothing but caches; processors without PREFETCHW take it
            // for a NOP. Not the intrinsic: for plain x86-64 it becomes a prefetch for reading.
            unsafe {
                std::arch::asm!("prefetchw byte ptr [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (place, line);
    }
}
