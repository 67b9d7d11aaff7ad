//! What the build must not contain, and what the kernel makes of it.

use anyhow::{Context as _, Result, ensure};
use aya::EbpfLoader;
use aya::programs::{Program, SchedClassifier};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, RelocationTarget};
use std::collections::BTreeMap;

/// Calls within the object that are meant. Anything else is a panic path, or a copy that became a byte loop.
const SUBPROGRAMS: [&str; 17] = [
    "mermin_crowd",
    "mermin_evict_v4",
    "mermin_evict_v6",
    "mermin_filter",
    "mermin_filter_v4",
    "mermin_filter_v6",
    "mermin_reject",
    "mermin_rest",
    "mermin_spill",
    "mermin_stale_set_v4",
    "mermin_stale_set_v6",
    "mermin_stale_v4",
    "mermin_stale_v6",
    "mermin_step",
    "mermin_table",
    "mermin_turn",
    "mermin_walk",
];
/// The kernel's limit is a million; ours notices a walk that was unrolled. Some 15 000: parser, slots of both IP versions,
/// event; the rest are loops over 256 CPUs.
const VERIFIED_INSTRUCTIONS_MAX: u32 = 40_000;
/// Over all frames of a call.
const STACK_MAX: u32 = 512;
/// A call of another function of the object.
const R_BPF_64_32: u32 = 10;

/// Callees by caller.
type Calls = BTreeMap<String, Vec<String>>;

/// Prints the calls of each program and fails on an unexpected one, or where frames could take more stack than there is.
pub(super) fn calls(elf: &[u8]) -> Result<()> {
    let file = object::File::parse(elf).context("the build is not an ELF file")?;
    let mut calls = Calls::new();
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
    let frames = frames(&file)?;
    let is_program = |name: &&String| name.starts_with("mermin_") && !SUBPROGRAMS.contains(&name.as_str());
    for caller in frames.keys().filter(is_program) {
        let deepest = deepest(caller, &frames, &calls);
        println!("{caller} and what it calls: {deepest} bytes of stack");
        ensure!(deepest <= STACK_MAX, "{caller} could take {deepest} bytes of stack, {STACK_MAX} are there");
    }
    Ok(())
}

/// Bytes of stack that each function touches. The verifier on the build machine may be more generous: kernels before 6.9 round
/// each frame up to 32 bytes.
fn frames(file: &object::File<'_>) -> Result<BTreeMap<String, u32>> {
    const STACK: u8 = 10;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let mut frames = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
        let Some(section) = symbol.section_index().and_then(|index| file.section_by_index(index).ok()) else {
            continue;
        };
        if section.kind() != object::SectionKind::Text {
            continue;
        }
        let code = section.data_range(symbol.address(), symbol.size())?.unwrap_or_default();
        let (mut depth, mut copy) = (0_u32, None);
        for code in code.as_chunks::<8>().0 {
            let [operation, registers, a, b, ..] = *code;
            let (to, from) = (registers & 0xf, registers >> 4);
            let offset = i16::from_le_bytes([a, b]).into();
            let immediate = i32::from_le_bytes([code[4], code[5], code[6], code[7]]);
            let touched = match operation & 0x07 {
                // Loads are relative to the one register, stores to the other.
                0x01 if from == STACK => offset,
                0x02 | 0x03 if to == STACK => offset,
                // A pointer into it is made of a copy.
                _ if operation == ADD && copy == Some(to) => immediate,
                _ => 0,
            };
            copy = (operation == MOVE && from == STACK).then_some(to);
            depth = depth.max(touched.min(0).unsigned_abs());
        }
        frames.insert(symbol.name()?.to_owned(), depth);
    }
    Ok(frames)
}

/// Bytes of stack of a function and the deepest of what it calls.
fn deepest(name: &str, frames: &BTreeMap<String, u32>, calls: &Calls) -> u32 {
    let below = calls.get(name).into_iter().flatten().map(|callee| deepest(callee, frames, calls)).max();
    frames.get(name).copied().unwrap_or_default().max(1).next_multiple_of(32) + below.unwrap_or_default()
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

/// Loads every program, with these constants, and prints what the verifier walked through. Without the privilege it says so.
pub(super) fn verify(elf: &[u8], constants: &[(&str, u32)]) -> Result<()> {
    let mut loader = EbpfLoader::new();
    for (name, value) in constants {
        loader.override_global(name, value, true);
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
