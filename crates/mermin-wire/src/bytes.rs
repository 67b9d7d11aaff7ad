//! Reading bytes of a frame: what each source provides, and how words are taken from a header.
//!
//! Words, not bytes: a header that is taken apart into single bytes stays single bytes down to the machine code of
//! the BPF target, four times the instructions and six times the time.

/// Bytes of one frame, readable at any offset.
pub trait Bytes {
    /// `N` bytes at `offset`; `None` where the source doesn't hold them all.
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    #[inline(always)]
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.first_chunk::<N>().copied()
    }
}

/// `N` bytes of a header by position; a wrong position does not compile.
#[inline(always)]
pub(crate) fn part<const AT: usize, const N: usize, const M: usize>(header: &[u8; M]) -> [u8; N] {
    const { assert!(AT + N <= M) }
    match header[AT..].first_chunk::<N>() {
        Some(part) => *part,
        // The assertion rules this out; the BPF target can't have a panic path.
        None => [0; N],
    }
}

/// A 16-bit number in network byte order.
#[inline(always)]
pub(crate) fn be16<const AT: usize, const M: usize>(header: &[u8; M]) -> u16 {
    u16::from_be_bytes(part::<AT, 2, M>(header))
}

/// Four bytes as they are in memory.
#[inline(always)]
pub(crate) fn word<const AT: usize, const M: usize>(header: &[u8; M]) -> u32 {
    u32::from_ne_bytes(part::<AT, 4, M>(header))
}

/// Eight bytes as they are in memory.
#[inline(always)]
pub(crate) fn long<const AT: usize, const M: usize>(header: &[u8; M]) -> u64 {
    u64::from_ne_bytes(part::<AT, 8, M>(header))
}
