//! What the build must not contain, and what the kernel makes of it.

use anyhow::{Context as _, Result, ensure};
use aya::EbpfLoader;
use aya::programs::{Program, SchedClassifier};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, RelocationTarget};
use std::collections::BTreeMap;

/// Calls within the object that are meant. Anything else is a panic path, or a copy that became a byte loop.
const SUBPROGRAMS: [&str; 12] = [
    "mermin_evict_v4",
    "mermin_evict_v6",
    "mermin_reject",
    "mermin_rest",
    "mermin_spill",
    "mermin_stale_set_v4",
    "mermin_stale_set_v6",
    "mermin_stale_v4",
    "mermin_stale_v6",
    "mermin_step",
    "mermin_table",
    "mermin_walk",
];
/// The kernel's limit is a million; ours notices a walk that was unrolled. Some 15 000: parser, slots of both IP versions,
/// event; the rest is a loop over CPUs.
const VERIFIED_INSTRUCTIONS_MAX: u32 = 30_000;
/// A call of another function of the object.
const R_BPF_64_32: u32 = 10;

/// Prints the calls of each program and fails on an unexpected one.
pub(super) fn calls(elf: &[u8]) -> Result<()> {
    let file = object::File::parse(elf).context("the build is not an ELF file")?;
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for section in file.sections() {
        for (offset, relocation) in section.relocations() {
            if relocation.flags() != (RelocationFlags::Elf { r_type: R_BPF_64_32 }) {
                continue;
            }
            let RelocationTarget::Symbol(target) = relocation.target() else { continue };
            let callee = file.symbol_by_index(target)?.name()?.to_owned();
            let caller = file
                .symbols()
                .filter(|symbol| symbol.section_index() == Some(section.index()))
                .find(|symbol| (symbol.address()..symbol.address() + symbol.size()).contains(&offset))
                .and_then(|symbol| symbol.name().ok())
                .unwrap_or("?");
            calls.entry(caller.to_owned()).or_default().push(callee);
        }
    }
    for (caller, callees) in &calls {
        println!("{caller} calls {}", callees.join(", "));
        let unexpected: Vec<&str> =
            callees.iter().map(String::as_str).filter(|callee| !SUBPROGRAMS.contains(callee)).collect();
        ensure!(unexpected.is_empty(), "{caller} must not call {}", unexpected.join(", "));
    }
    Ok(())
}

/// Fails on an atomic operation that isn't a plain addition: arm64 takes no other before Linux 5.18.
pub(super) fn atomics(elf: &[u8]) -> Result<()> {
    /// `BPF_STX | BPF_ATOMIC` of 4 and of 8 bytes.
    const ATOMIC: [u8; 2] = [0xc3, 0xdb];
    let file = object::File::parse(elf).context("the build is not an ELF file")?;
    for section in file.sections().filter(|section| section.kind() == object::SectionKind::Text) {
        let (instructions, _) = section.data()?.as_chunks::<8>();
        let other = instructions.iter().find(|code| ATOMIC.contains(&code[0]) && code[4..] != [0; 4]);
        ensure!(other.is_none(), "{} has an atomic operation other than addition", section.name()?);
    }
    Ok(())
}

/// Loads every program and prints what the verifier walked through. Without the privilege it says so. `cpus`: so many, where the
/// programs ask.
pub(super) fn verify(elf: &[u8], cpus: Option<u32>) -> Result<()> {
    let mut loader = EbpfLoader::new();
    if let Some(cpus) = &cpus {
        loader.override_global("CPUS", cpus, true);
    }
    let mut ebpf = match loader.load(elf) {
        Ok(ebpf) => ebpf,
        Err(error) => {
            println!("not verified: loading needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON ({error})");
            return Ok(());
        }
    };
    for (name, program) in ebpf.programs_mut() {
        let instructions = load(program).with_context(|| format!("the kernel refuses {name}"))?;
        println!("{name}: {instructions} verified instructions");
        ensure!(
            instructions <= VERIFIED_INSTRUCTIONS_MAX,
            "{name} has more than {VERIFIED_INSTRUCTIONS_MAX} verified instructions"
        );
    }
    Ok(())
}

fn load(program: &mut Program) -> Result<u32> {
    let program: &mut SchedClassifier = program.try_into()?;
    program.load()?;
    program.info()?.verified_instruction_count().context("this kernel does not count (Linux 5.16)")
}
