//! The maps shared with user space; the loader sets the sizes of `COUNTERS` and `RING`.

use crate::bytes::Scratch;
use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use mermin_abi::{ABI_VERSION, Control, Counters, PacketEvent};
use mermin_wire::Headers;

const MAPPED: usize = BPF_F_MMAPABLE as usize;

/// Written by user space.
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1, MAPPED> = Array::new();

/// By parity of the epoch, then by CPU.
#[btf_map]
pub(crate) static COUNTERS: Array<Counters, 2, MAPPED> = Array::new();

/// Events to user space.
#[btf_map]
pub(crate) static RING: RingBuf<PacketEvent, 4096> = RingBuf::new();

/// Headers of a walk off the straight line.
#[btf_map]
pub(crate) static WALK: PerCpuArray<Headers, 1> = PerCpuArray::new();

/// A header from outside the packet's linear part.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Possible CPUs. Set at load into frozen memory, so the verifier knows the value.
#[unsafe(no_mangle)]
pub(crate) static CPUS: Global<u32> = Global::new(1);

/// The loader sets its own version; a build whose symbol is missing is another object altogether.
#[unsafe(no_mangle)]
pub(crate) static ABI: Global<u32> = Global::new(ABI_VERSION);
