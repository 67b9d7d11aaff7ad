//! A packet's bytes: directly where its linear part reaches, by helper past it.

use crate::maps::SCRATCH;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use mermin_wire::Bytes;

/// No offset into a packet may reach 65 535 for the verifier. Where the compiler knows the offset this costs nothing.
const OFFSET_MAX: usize = 0x3fff;

/// Direct packet access.
pub(crate) struct Direct {
    start: usize,
    end: usize,
}

impl Direct {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self { start: context.data(), end: context.data_end() }
    }
}

impl Bytes for Direct {
    #[inline(always)]
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > OFFSET_MAX {
            return None;
        }
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: [at, at + N) lies inside the packet: checked above, and once more by the verifier.
        Some(unsafe { core::ptr::read(at as *const [u8; N]) })
    }
}

/// The longest header that is read at once.
const HEADER_MAX: usize = 40;

/// Where the helper writes. Not the stack: the compiler reads words out of it that are not aligned, which the verifier
/// takes from a map but not from the stack.
#[repr(C)]
pub(crate) struct Scratch {
    bytes: [u64; HEADER_MAX / 8],
}

/// Direct access, then the helper.
pub(crate) struct Reach {
    direct: Direct,
    skb: *mut __sk_buff,
}

impl Reach {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self { direct: Direct::new(context), skb: context.skb.skb }
    }
}

impl Bytes for Reach {
    #[inline(always)]
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N <= HEADER_MAX) }
        if let Some(bytes) = self.direct.array(offset) {
            return Some(bytes);
        }
        let to = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: `skb` is the program's context; the helper writes N bytes, which `to` has room for, or fails.
        let failed = unsafe { bpf_skb_load_bytes(self.skb.cast(), offset as u32, to.cast(), N as u32) };
        if failed != 0 {
            return None;
        }
        // SAFETY: this CPU's element: the bytes that the helper has just written.
        Some(unsafe { core::ptr::read(to.cast::<[u8; N]>()) })
    }
}
