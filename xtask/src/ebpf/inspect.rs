//! What the build must not contain, and what the kernel makes of it.

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::{Program, SchedClassifier};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, RelocationTarget};
use std::collections::BTreeMap;

/// Calls within the object that are meant. Anything else is a panic path, or a copy that became a byte loop.
const SUBPROGRAMS: [&str; 3] = ["mermin_reject", "mermin_step", "mermin_walk"];
/// The kernel's limit is a million; ours notices a walk that was unrolled.
const VERIFIED_INSTRUCTIONS_MAX: u32 = 10_000;
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

/// Loads every program and prints what the verifier walked through. Without the privilege it says so.
pub(super) fn verify(elf: &[u8]) -> Result<()> {
    let mut ebpf = match Ebpf::load(elf) {
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
