//! The kernel programs: metering at tc ingress and egress (built for the BPF target by `cargo xtask ebpf`).
//!
//! Passive: every program lets the packet go on (`TC_ACT_UNSPEC`, which is `TCX_NEXT` too) and changes nothing. There
//! is one program per hook and kind of link, so that neither costs a branch or a lookup per packet. On any other
//! target the crate is an empty program, so that plain cargo commands pass over it.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(core_intrinsics), allow(internal_features))]

#[cfg(target_arch = "bpf")]
mod bytes;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod meter;
#[cfg(target_arch = "bpf")]
mod parse;
#[cfg(target_arch = "bpf")]
mod ring;
#[cfg(target_arch = "bpf")]
mod slots;
#[cfg(target_arch = "bpf")]
mod table;

#[cfg(target_arch = "bpf")]
#[expect(unreachable_pub, reason = "the kernel's loader finds programs by their symbols")]
mod programs {
    use crate::maps::CLOCK;
    use crate::meter::meter;
    use aya_ebpf::bindings::TC_ACT_UNSPEC;
    use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns};
    use aya_ebpf::macros::classifier;
    use aya_ebpf::programs::TcContext;
    use mermin_abi::EVENT_EGRESS;
    use mermin_wire::Link;

    const INGRESS: u8 = 0;

    /// Ingress of Ethernet devices.
    #[classifier]
    pub fn mermin_ingress(context: TcContext) -> i32 {
        meter(&context, Link::Ethernet, INGRESS);
        TC_ACT_UNSPEC
    }

    /// Egress of Ethernet devices.
    #[classifier]
    pub fn mermin_egress(context: TcContext) -> i32 {
        meter(&context, Link::Ethernet, EVENT_EGRESS);
        TC_ACT_UNSPEC
    }

    /// Ingress of devices without a link header.
    #[classifier]
    pub fn mermin_ingress_ip(context: TcContext) -> i32 {
        meter(&context, Link::Ip, INGRESS);
        TC_ACT_UNSPEC
    }

    /// Egress of devices without a link header.
    #[classifier]
    pub fn mermin_egress_ip(context: TcContext) -> i32 {
        meter(&context, Link::Ip, EVENT_EGRESS);
        TC_ACT_UNSPEC
    }

    /// On no hook: user space runs it to learn what time a tick is.
    #[classifier]
    pub fn mermin_clock(_: TcContext) -> i32 {
        if let Some(clock) = CLOCK.get_ptr_mut(0) {
            // SAFETY: an element of a mapped array, and helpers without arguments. Whoever reads it runs the program itself.
            unsafe {
                (*clock).ticks = bpf_jiffies64();
                (*clock).boot = bpf_ktime_get_boot_ns();
            }
        }
        TC_ACT_UNSPEC
    }

    /// What the kernel asks for before it lends GPL-only helpers.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "license")]
    pub static LICENSE: [u8; 4] = *b"GPL\0";

    /// No path leads here: a build with one fails on its call relocations.
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
