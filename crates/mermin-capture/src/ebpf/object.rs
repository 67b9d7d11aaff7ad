//! The kernel object: embedded, checked against its version, loaded.

use super::error::EbpfError;
use super::mapped::map;
use super::pins::Pins;
use super::privilege;
use crate::config::RING_BYTES_MAX;
use crate::filters::Filtering;
use aya::maps::{HashMap, Map, MapData};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader, util};
use mermin_abi::{ABI_VERSION, FILTERED_AT_ALL, FILTERED_BY_INTERFACE, MODE_HASH, MODE_PACKET, MODE_SLOTS};
use mermin_flow::Hook;
use mermin_wire::{Filters, Link};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Built by `cargo xtask ebpf` and committed; a test of this crate fails when its sources have moved on.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../bpf/prebuilt/mermin.bpf.o"));

pub(super) struct Object {
    pub(super) ebpf: Ebpf,
    /// Where its maps have names.
    pins: Option<Arc<Pins>>,
    /// Possible CPUs: as many counters in each half.
    pub(super) cpus: u32,
    /// Size of the ring.
    pub(super) ring_bytes: u64,
    /// Sets of slots for each CPU in each half, as a power of two.
    pub(super) set_bits: u32,
}

/// What the programs do with a metered packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Write an event.
    Packet,
    /// Add it to a slot: of so many sets for each CPU and half (as a power of two), found by this seed.
    Slots { set_bits: u32, seed: u64 },
    /// Add it to the epoch's hash.
    Hash,
}

/// The maps that programs of one process after the other count in. The others hold nothing between two runs of a program.
const SHARED: [&str; 8] = ["CONTROL", "COUNTERS", "RING", "STAGES", "SLOTS4", "SLOTS6", "CLOSED", "OVERFLOW"];

/// Reads clocks, on no hook.
pub(super) const CLOCK: &str = "mermin_clock";

/// A device without a link header has programs of its own.
pub(super) const fn program(link: Link, hook: Hook) -> &'static str {
    match (link, hook) {
        (Link::Ip, Hook::Ingress) => "mermin_ingress_ip",
        (Link::Ip, Hook::Egress) => "mermin_egress_ip",
        (_, Hook::Ingress) => "mermin_ingress",
        (_, Hook::Egress) => "mermin_egress",
    }
}

impl Object {
    /// Loads maps and programs with a ring of `ring_bytes`, rounded up to a power of two and at least a page. With `pins` the
    /// maps have names there: they are those that are there, or new ones.
    pub(super) fn load(
        ring_bytes: u64,
        mode: Mode,
        filtering: Option<&Filtering>,
        pins: Option<Arc<Pins>>,
    ) -> Result<Self, EbpfError> {
        let missing = privilege::missing();
        if !missing.is_empty() {
            return Err(EbpfError::Permission { missing });
        }
        if is_preemptible(Path::new("/proc/sys/kernel/version")) {
            return Err(EbpfError::Preemptible);
        }
        let cpus = possible_cpus()?;
        let ring = u32::try_from(rounded(ring_bytes)).unwrap_or(u32::MAX);
        let half = u64::from(ring / 2);
        let (mode, set_bits, seed) = match mode {
            Mode::Packet => (MODE_PACKET, 0, 0),
            Mode::Slots { set_bits, seed } => (MODE_SLOTS, set_bits, seed),
            Mode::Hash => (MODE_HASH, 0, 0),
        };
        let sets = (2 * cpus) << set_bits;
        let filtered = filtering.map_or(0, |filtering| {
            FILTERED_AT_ALL | if filtering.is_by_interface() { FILTERED_BY_INTERFACE } else { 0 }
        });
        let sizes = filtering.map(|filtering| filtering.sizes).unwrap_or_default();
        let mut loader = EbpfLoader::new();
        loader
            .override_global("CPUS", &cpus, true)
            .override_global("ABI", &ABI_VERSION, true)
            .override_global("MODE", &mode, true)
            .override_global("SET_BITS", &set_bits, true)
            .override_global("SEED", &seed, true)
            .override_global("RING_HALF", &half, true)
            .override_global("FILTERED", &filtered, true)
            .override_global("FILTER_V4", &sizes.v4, true)
            .override_global("FILTER_V6", &sizes.v6, true)
            .override_global("FILTER_PORTS", &sizes.ports, true)
            .map_max_entries("COUNTERS", 2 * cpus)
            .map_max_entries("STAGES", 2 * cpus)
            .map_max_entries("SLOTS4", sets)
            .map_max_entries("SLOTS6", sets)
            .map_max_entries("RING", ring);
        if let Some(pins) = &pins {
            for name in SHARED {
                loader.map_pin_path(name, pins.path(name));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(refused)?;
        if let Some(filtering) = filtering {
            write_filters(&ebpf, &filtering.tables)?;
        }
        for link in [Link::Ethernet, Link::Ip] {
            for hook in [Hook::Ingress, Hook::Egress] {
                let name = program(link, hook);
                load(classifier(&mut ebpf, name)?)
                    .map_err(|source| EbpfError::Program { program: name, source: Box::new(source) })?;
            }
        }
        load(classifier(&mut ebpf, CLOCK)?)
            .map_err(|source| EbpfError::Program { program: CLOCK, source: Box::new(source) })?;
        Ok(Self { ebpf, pins, cpus, ring_bytes: u64::from(ring), set_bits })
    }

    pub(super) fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, EbpfError> {
        classifier(&mut self.ebpf, name)
    }

    /// A descriptor of a program.
    pub(super) fn descriptor(&mut self, name: &'static str) -> Result<OwnedFd, EbpfError> {
        let program = self.program(name)?;
        let fd =
            program.fd().map_err(|source| EbpfError::Program { program: name, source: Box::new(source) })?;
        fd.as_fd()
            .try_clone_to_owned()
            .map_err(|source| EbpfError::Kernel { what: "another descriptor of a program", source })
    }

    /// Whether maps have names.
    pub(super) const fn keeps(&self) -> bool {
        self.pins.is_some()
    }

    /// A map beside the object's, which has a name where they have: that which is there, or a new one.
    pub(super) fn kept(&self, name: &str, make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
        let Some(pins) = &self.pins else { return make() };
        if let Ok(map) = pins.get(name) {
            return Ok(map);
        }
        let map = make()?;
        pins.pin(name, map.as_fd())?;
        Ok(map)
    }

    /// The descriptor of an array or the ring.
    pub(super) fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, EbpfError> {
        descriptor_of(&self.ebpf, name)
    }

    /// By the index of an interface, the filters' rules that it is right for.
    pub(super) fn interface_rules(&mut self) -> Result<HashMap<MapData, u32, u64>, EbpfError> {
        const NAME: &str = "INTERFACE_RULES";
        let map = self.ebpf.take_map(NAME).and_then(|map| HashMap::try_from(map).ok());
        map.ok_or(EbpfError::Object { name: NAME })
    }
}

fn descriptor_of<'e>(ebpf: &'e Ebpf, name: &'static str) -> Result<BorrowedFd<'e>, EbpfError> {
    match ebpf.map(name) {
        Some(Map::Array(data) | Map::RingBuf(data) | Map::ArrayOfMaps(data)) => Ok(data.fd().as_fd()),
        _ => Err(EbpfError::Object { name }),
    }
}

/// Before programs run.
fn write_filters(ebpf: &Ebpf, filters: &Filters) -> Result<(), EbpfError> {
    let mapped = map(descriptor_of(ebpf, "FILTERS")?, size_of::<Filters>())?;
    // SAFETY: the mapping holds one, aligned to a page. Integers only.
    unsafe { std::ptr::copy_nonoverlapping(filters, mapped.as_mut_ptr().cast(), 1) };
    Ok(())
}

/// Whether programs that run with bottom halves off can be interrupted by others of their CPU: kernels with PREEMPT_RT say so in
/// their version (`uname -v`).
fn is_preemptible(version: &Path) -> bool {
    std::fs::read_to_string(version).is_ok_and(|text| text.contains("PREEMPT_RT"))
}

/// Possible CPUs.
pub(super) fn possible_cpus() -> Result<u32, EbpfError> {
    let cpus = util::nr_cpus().map_err(|(what, source)| EbpfError::Kernel { what, source })?;
    Ok(u32::try_from(cpus).unwrap_or(u32::MAX / 2))
}

/// The size of the ring that is meant by `ring_bytes`.
pub(super) fn rounded(ring_bytes: u64) -> u64 {
    ring_bytes.clamp(page(), RING_BYTES_MAX).next_power_of_two()
}

/// The smallest ring, in bytes.
pub(super) fn page() -> u64 {
    // SAFETY: no memory is passed.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The verifier gives up with EAGAIN when a signal comes for the thread (a terminal is resized, a child ends): then again.
fn load(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    const ATTEMPTS: u32 = 20;
    let mut attempt = 1;
    loop {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == ErrorKind::WouldBlock && attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn classifier<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut SchedClassifier, EbpfError> {
    ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(EbpfError::Object { name })
}

/// The first thing that the kernel is asked to do is making a map.
fn refused(error: aya::EbpfError) -> EbpfError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
        {
            return EbpfError::Forbidden;
        }
        source = cause.source();
    }
    EbpfError::Load { source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_with_preempt_rt_is_known_by_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("version");
        assert!(!is_preemptible(&file));
        for (text, expected) in [
            ("#1 SMP PREEMPT_RT Debian 6.12.1-1 (2024-12-01)\n", true),
            ("#1 SMP PREEMPT_DYNAMIC Debian 6.12.1-1 (2024-12-01)\n", false),
            ("", false),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(is_preemptible(&file), expected);
        }
    }
}
