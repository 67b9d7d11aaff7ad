//! The tools that build the kernel programs, and what to type where one is missing.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const RUST: &str = "1.95";
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "22";

/// Tools of the right versions.
pub(super) struct Tools {
    pub(super) sysroot: PathBuf,
    pub(super) strip: &'static str,
    /// Name and version of each, for the manifest.
    pub(super) versions: Vec<(&'static str, String)>,
}

/// Finds all tools or fails with the command that installs the first missing one.
pub(super) fn find() -> Result<Tools> {
    let rustc = first_line("rustc", "--version").context("rustc is missing")?;
    if !rustc.starts_with(&format!("rustc {RUST}.")) {
        bail!(
            "the kernel programs are built with Rust {RUST}, not `{rustc}`; install and use it with:\n  \
             rustup toolchain install {RUST}.0 --component rust-src\n  cargo +{RUST}.0 xtask ebpf"
        );
    }
    let sysroot = PathBuf::from(first_line("rustc", "--print=sysroot").context("rustc says no sysroot")?);
    if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
        bail!("the standard library's source is missing; install it with:\n  rustup component add rust-src");
    }
    let linker = first_line("bpf-linker", "--version").unwrap_or_default();
    if linker != format!("bpf-linker {BPF_LINKER}") {
        bail!(
            "bpf-linker {BPF_LINKER} is missing{}; install it with:\n  \
             apt-get install llvm-{LLVM}-dev libpolly-{LLVM}-dev\n  \
             PATH=/usr/lib/llvm-{LLVM}/bin:$PATH RUSTFLAGS='-L /usr/lib/llvm-{LLVM}/lib' cargo install bpf-linker \
             --version {BPF_LINKER} --locked --no-default-features --features llvm-{LLVM}",
            if linker.is_empty() { String::new() } else { format!(" (found `{linker}`)") }
        );
    }
    let (strip, strip_version) = strip()?;
    let versions = vec![("rustc", rustc), ("bpf-linker", linker), ("llvm-strip", strip_version)];
    Ok(Tools { sysroot, strip, versions })
}

/// Another major version of LLVM may lay the file out differently.
fn strip() -> Result<(&'static str, String)> {
    for program in ["llvm-strip-22", "llvm-strip"] {
        let version = output(program, "--version").unwrap_or_default();
        if version.contains(&format!("version {LLVM}.")) {
            return Ok((program, format!("LLVM {LLVM}")));
        }
    }
    bail!("llvm-strip of LLVM {LLVM} is missing; install it with:\n  apt-get install llvm-{LLVM}")
}

fn first_line(program: &str, argument: &str) -> Option<String> {
    Some(output(program, argument)?.lines().next()?.trim().to_owned())
}

fn output(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).current_dir(Path::new("/")).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
