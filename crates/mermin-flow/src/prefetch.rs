//! Asks the processor to load a value before it is needed: the flow table's misses overlap instead of queueing.
//!
//! The crate's only unsafe code. Plain early loads give about half of the gain (`docs/benchmarks.md`). On other
//! processors than x86-64 it does nothing until `core::hint::prefetch_read` is stable.
#![expect(
    unsafe_code,
    reason = "the intrinsic is unsafe only because of its target feature, which x86-64 always has"
)]

/// Bytes of a cache line.
const LINE: usize = 64;

/// Starts loading cache line `line` of `value`, counted from its beginning. Nothing of `value` is read.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T, line: usize) {
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
