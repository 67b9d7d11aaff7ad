//! The build itself: flags, paths that must not show in the object, stripping.

use super::toolchain::Tools;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// v3 has atomics and 32-bit jumps. Packets are read in words although byte arrays have alignment 1: as a *link*
/// argument, because code is made there. BTF is made from debug information.
pub(super) const FLAGS: [&str; 4] = [
    "-Ctarget-cpu=v3",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
];
const TARGET: &str = "bpfel-unknown-none";

/// What is built: the package, and the file that cargo makes of it.
#[derive(Clone, Copy)]
pub(super) struct Part {
    package: &'static str,
    file: &'static str,
}

/// The programs that ship.
pub(super) const SHIPPED: Part = Part { package: "mermin-ebpf", file: "mermin-bpf" };
/// What the benchmark compares them with. It stays in the target folder.
pub(super) const COMPARED: Part = Part { package: "mermin-ebpf-bench", file: "mermin-bench-bpf" };

/// Builds, strips and returns the object.
pub(super) fn build(root: &Path, tools: &Tools, part: Part) -> Result<Vec<u8>> {
    let target_folder =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let status = Command::new("cargo")
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--profile=bpf"])
        .arg(format!("--package={}", part.package))
        .arg(format!("--target={TARGET}"))
        .arg("-Zbuild-std=core")
        .arg(format!("--target-dir={}", target_folder.display()))
        // The one unstable thing is building core for a target that has no prebuilt one.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(root, tools).join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .status()
        .context("cargo did not start")?;
    ensure!(status.success(), "the kernel programs do not build");
    let linked = target_folder.join(TARGET).join("bpf").join(part.file);
    let stripped = linked.with_extension("stripped");
    let status = Command::new(tools.strip).arg("-g").arg("-o").arg(&stripped).arg(&linked).status()?;
    ensure!(status.success(), "{} failed", tools.strip);
    fs::read(&stripped).with_context(|| stripped.display().to_string())
}

fn rust_flags(root: &Path, tools: &Tools) -> Vec<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut flags: Vec<String> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
    for (folder, name) in [(root, "/mermin"), (&cargo_home, "/cargo"), (&tools.sysroot, "/rust")] {
        flags.push(format!("--remap-path-prefix={}={name}", folder.display()));
    }
    flags
}
