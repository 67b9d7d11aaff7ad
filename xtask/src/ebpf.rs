//! `cargo xtask ebpf`: builds the kernel programs into `bpf/prebuilt`, the same bytes on every machine.
//!
//! The object is committed, so that a plain `cargo build` needs none of the tools asked for here. Beside it lies a
//! manifest of everything that went in; a unit test of `mermin-capture` fails when the sources have moved on.

mod build;
mod inspect;
mod manifest;
mod toolchain;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use mermin_abi::{FILTERED_AT_ALL, FILTERED_BY_INTERFACE, MODE_HASH, MODE_PACKET, MODE_SLOTS};
use mermin_wire::{ADDRESS_RANGES, PORT_RANGES};
use std::fs;
use std::path::{Path, PathBuf};

/// Arguments of `cargo xtask ebpf`.
#[derive(Args)]
pub(crate) struct Ebpf {
    /// Writes nothing: fails unless the committed object is what the sources give.
    #[arg(long)]
    check: bool,
}

impl Ebpf {
    pub(crate) fn run(self) -> Result<()> {
        run(&self)
    }
}

fn run(arguments: &Ebpf) -> Result<()> {
    // Asked at run time: checkouts that share a target folder share this program too.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask ebpf`")?;
    let root = Path::new(&manifest).parent().context("xtask lies in the workspace")?;
    let tools = toolchain::find()?;
    inspect::verify(&build::build(root, &tools, build::COMPARED)?, &[])?;
    let object = build::build(root, &tools, build::SHIPPED)?;
    inspect::calls(&object)?;
    inspect::atomics(&object)?;
    // Those of a large machine: a loop over them takes the verifier longer.
    let cpus = ("CPUS", 256);
    inspect::verify(&object, &[cpus])?;
    println!("with filters, as many as there can be:");
    let filtered = FILTERED_AT_ALL | FILTERED_BY_INTERFACE;
    let [addresses, ports] = [ADDRESS_RANGES, PORT_RANGES].map(usize::ilog2);
    let filters = [
        cpus,
        ("FILTERED", filtered),
        ("FILTER_V4", addresses),
        ("FILTER_V6", addresses),
        ("FILTER_PORTS", ports),
    ];
    for mode in [MODE_SLOTS, MODE_PACKET, MODE_HASH] {
        inspect::verify(&object, &[&filters[..], &[("MODE", mode)]].concat())?;
    }
    let manifest = manifest::write(root, &tools, &object)?;
    let (object_path, manifest_path) = paths(root);
    if arguments.check {
        ensure!(
            fs::read(&object_path).is_ok_and(|committed| committed == object),
            "bpf/prebuilt/mermin.bpf.o is not what the sources give: run `cargo xtask ebpf` and commit bpf/prebuilt"
        );
        ensure!(
            fs::read_to_string(&manifest_path).is_ok_and(|committed| committed == manifest),
            "bpf/prebuilt/mermin.manifest is stale: run `cargo xtask ebpf` and commit bpf/prebuilt"
        );
        println!("bpf/prebuilt is what the sources give");
        return Ok(());
    }
    if let Some(folder) = object_path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&object_path, &object)?;
    fs::write(&manifest_path, manifest)?;
    println!("wrote bpf/prebuilt/mermin.bpf.o, {} bytes, and its manifest", object.len());
    Ok(())
}

fn paths(root: &Path) -> (PathBuf, PathBuf) {
    let folder = root.join("bpf/prebuilt");
    (folder.join("mermin.bpf.o"), folder.join("mermin.manifest"))
}
