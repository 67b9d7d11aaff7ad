//! What the benchmark of the kernel programs compares with: nothing at all, and a plain hash of flows, with the kernel's
//! tick and with the clock since boot.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(core_intrinsics), allow(internal_features))]

#[cfg(target_arch = "bpf")]
#[expect(unreachable_pub, reason = "the kernel's loader finds programs by their symbols")]
mod programs {
    use aya_ebpf::bindings::{BPF_NOEXIST, TC_ACT_UNSPEC};
    use aya_ebpf::btf_maps::HashMap;
    use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns};
    use aya_ebpf::macros::{btf_map, classifier};
    use aya_ebpf::programs::TcContext;
    use core::intrinsics::{AtomicOrdering::Relaxed, atomic_or, atomic_xadd};

    /// Addresses of 16 bytes each, ports, interface, protocol: 44 bytes.
    type Key = [u32; 11];

    #[repr(C)]
    pub struct Value {
        packets: u64,
        bytes: u64,
        first: u64,
        last: u64,
        flags: u64,
    }

    #[btf_map]
    static FLOWS: HashMap<Key, Value, 2_097_152> = HashMap::new();

    /// Does nothing.
    #[classifier]
    pub fn bench_empty(_: TcContext) -> i32 {
        TC_ACT_UNSPEC
    }

    /// The plain hash with the kernel's tick.
    #[classifier]
    pub fn bench_hash_tick(context: TcContext) -> i32 {
        // SAFETY: inlined to a load.
        meter(&context, || unsafe { bpf_jiffies64() });
        TC_ACT_UNSPEC
    }

    /// The plain hash with the clock since boot.
    #[classifier]
    pub fn bench_hash_boot(context: TcContext) -> i32 {
        // SAFETY: a helper without arguments.
        meter(&context, || unsafe { bpf_ktime_get_boot_ns() });
        TC_ACT_UNSPEC
    }

    #[inline(always)]
    fn read<const N: usize>(context: &TcContext, offset: usize) -> Option<[u8; N]> {
        let at = context.data() + offset;
        if offset > 0x3fff || at + N > context.data_end() {
            return None;
        }
        // SAFETY: inside the packet: checked above.
        Some(unsafe { core::ptr::read(at as *const [u8; N]) })
    }

    #[inline(always)]
    fn word(bytes: &[u8], at: usize) -> u32 {
        match bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
            Some(word) => u32::from_ne_bytes(*word),
            None => 0,
        }
    }

    /// IPv4 without options and IPv6 without extension headers; TCP and UDP.
    #[inline(always)]
    fn meter(context: &TcContext, clock: impl Fn() -> u64) -> Option<()> {
        let ethertype = u16::from_be_bytes(read::<2>(context, 12)?);
        // Aligned for the double words that the compiler makes of two of its own.
        let mut place = core::mem::MaybeUninit::<[u64; 6]>::uninit();
        for n in 0..6 {
            // One by one: all at once they are cleared by a call, byte by byte.
            // SAFETY: within the place.
            unsafe { core::ptr::write_volatile(place.as_mut_ptr().cast::<u64>().add(n), 0) };
        }
        // SAFETY: all of it was written, and it has room for the key.
        let key = unsafe { &mut *place.as_mut_ptr().cast::<Key>() };
        let transport;
        if ethertype == 0x0800 {
            let ip = read::<20>(context, 14)?;
            key[0] = word(&ip, 12);
            key[4] = word(&ip, 16);
            key[10] = u32::from(ip[9]);
            transport = 34;
        } else if ethertype == 0x86dd {
            let ip = read::<40>(context, 14)?;
            for n in 0..8 {
                key[n] = word(&ip, 8 + 4 * n);
            }
            key[10] = u32::from(ip[6]);
            transport = 54;
        } else {
            return None;
        }
        let header = read::<14>(context, transport).or_else(|| {
            let udp = read::<8>(context, transport)?;
            let mut header = [0; 14];
            header[0] = udp[0];
            header[1] = udp[1];
            header[2] = udp[2];
            header[3] = udp[3];
            Some(header)
        })?;
        key[8] = word(&header, 0);
        // SAFETY: the program's context.
        let skb = unsafe { &*context.skb.skb };
        key[9] = skb.ifindex;
        let flags = if key[10] == 6 { u64::from(header[13]) } else { 0 };
        let (now, bytes) = (clock(), u64::from(skb.len));
        if let Some(flow) = FLOWS.get_ptr_mut(&*key) {
            add(flow, bytes, now, flags);
            return Some(());
        }
        let new = Value { packets: 1, bytes, first: now, last: now, flags };
        if FLOWS.insert(&*key, &new, BPF_NOEXIST.into()).is_err() {
            add(FLOWS.get_ptr_mut(&*key)?, bytes, now, flags);
        }
        Some(())
    }

    #[inline(always)]
    fn add(flow: *mut Value, bytes: u64, now: u64, flags: u64) {
        // SAFETY: an element of a preallocated hash.
        unsafe {
            atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*flow).packets, 1);
            atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*flow).bytes, bytes);
            atomic_or::<u64, u64, { Relaxed }>(&raw mut (*flow).flags, flags);
            core::ptr::write_volatile(&raw mut (*flow).last, now);
        }
    }

    /// What the kernel asks for before it lends GPL-only helpers.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    pub static LICENSE: [u8; 4] = *b"GPL\0";

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
