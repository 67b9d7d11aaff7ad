//! The maps shared with user space; the loader sets the sizes that depend on the machine and the configuration.

use crate::bytes::Scratch;
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use mermin_abi::{
    ABI_VERSION, Clock, Closed, Control, Counters, Event, Overflow, OverflowKey, Set, Stage, WORDS_V4,
    WORDS_V6,
};
use mermin_wire::{Filters, Headers};

const MAPPED: usize = BPF_F_MMAPABLE as usize;
const AS_NEEDED: usize = BPF_F_NO_PREALLOC as usize;

/// Written by user space.
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1, MAPPED> = Array::new();

/// Written by the program that reads clocks.
#[btf_map]
pub(crate) static CLOCK: Array<Clock, 1, MAPPED> = Array::new();

/// By parity of the epoch, then by CPU.
#[btf_map]
pub(crate) static COUNTERS: Array<Counters, 2, MAPPED> = Array::new();

/// Events to user space.
#[btf_map]
pub(crate) static RING: RingBuf<Event, 4096> = RingBuf::new();

/// What is on its way there, by parity and CPU.
#[btf_map]
pub(crate) static STAGES: Array<Stage, 2, MAPPED> = Array::new();

/// Slots of flows of IPv4, by parity, CPU and set.
#[btf_map]
pub(crate) static SLOTS4: Array<Set<WORDS_V4>, 2, MAPPED> = Array::new();

/// Slots of flows of IPv6.
#[btf_map]
pub(crate) static SLOTS6: Array<Set<WORDS_V6>, 2, MAPPED> = Array::new();

/// By parity.
#[btf_map]
pub(crate) static CLOSED: Array<Closed, 2, MAPPED> = Array::new();

pub(crate) type OverflowMap = HashMap<OverflowKey, Overflow, 4096>;

/// By parity, what neither slots nor ring have room for.
#[btf_map]
pub(crate) static OVERFLOW: ArrayOfMaps<OverflowMap, 2> = ArrayOfMaps::new();

/// A delta on its way into the hash: the stack has no room for it.
#[btf_map]
pub(crate) static SPILL: PerCpuArray<Overflow, 1> = PerCpuArray::new();

/// Headers of a walk off the straight line.
#[btf_map]
pub(crate) static WALK: PerCpuArray<Headers, 1> = PerCpuArray::new();

/// A header from outside the packet's linear part.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// What filters ask for. Written by user space before programs run.
#[btf_map]
pub(crate) static FILTERS: Array<Filters, 1, MAPPED> = Array::new();

/// By interface, the filters' rules that it is right for. Written by user space.
#[btf_map]
pub(crate) static INTERFACE_RULES: HashMap<u32, u64, 65_536, AS_NEEDED> = HashMap::new();

/// Possible CPUs. Set at load into frozen memory, so the verifier knows the value.
#[unsafe(no_mangle)]
pub(crate) static CPUS: Global<u32> = Global::new(1);

/// What is done with a metered packet; the verifier takes away what isn't.
#[unsafe(no_mangle)]
pub(crate) static MODE: Global<u32> = Global::new(mermin_abi::MODE_SLOTS);

/// Sets of slots per CPU and parity, as a power of two.
#[unsafe(no_mangle)]
pub(crate) static SET_BITS: Global<u32> = Global::new(11);

/// 0: there are no filters; else [`mermin_abi::FILTERED_AT_ALL`] and more.
#[unsafe(no_mangle)]
pub(crate) static FILTERED: Global<u32> = Global::new(0);

/// Ranges of IPv4 addresses in the filters' tables, as a power of two.
#[unsafe(no_mangle)]
pub(crate) static FILTER_V4: Global<u32> = Global::new(0);

/// Of IPv6 addresses.
#[unsafe(no_mangle)]
pub(crate) static FILTER_V6: Global<u32> = Global::new(0);

/// Of ports.
#[unsafe(no_mangle)]
pub(crate) static FILTER_PORTS: Global<u32> = Global::new(0);

/// Half of the ring's bytes.
#[unsafe(no_mangle)]
pub(crate) static RING_HALF: Global<u64> = Global::new(2048);

/// Nobody's to know.
#[unsafe(no_mangle)]
pub(crate) static SEED: Global<u64> = Global::new(0);

/// The loader sets its own version; a build whose symbol is missing is another object altogether.
#[unsafe(no_mangle)]
pub(crate) static ABI: Global<u32> = Global::new(ABI_VERSION);
