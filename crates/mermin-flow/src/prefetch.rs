//! Asks the processor to load a value before it is needed: the flow table's misses overlap instead of queueing.
//!
//! The crate's only unsafe code. Plain early loads give about half of the gain (`docs/benchmarks.md`). On other
//! processors than x86-64 it does nothing until `core::hint::prefetch_read` is stable.
#![expect(
    unsafe_code,
    reason = "the intrinsic is unsafe only because of its target feature, which x86-64 always has"
)]

/// Starts loading the cache line that holds the beginning of `value`.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64; a prefetch does not fault and changes nothing but caches.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
