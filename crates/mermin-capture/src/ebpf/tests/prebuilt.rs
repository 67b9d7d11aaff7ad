//! The committed object is what the sources give, as far as hashes can tell without the tools to build it.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            found.insert(path.strip_prefix(root()).unwrap().display().to_string());
        } else if !path.ends_with("tests") {
            files(&path, found);
        }
    }
}

/// Everything about the manifest that is no longer so.
fn stale(manifest: &str) -> Vec<String> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut found = BTreeSet::new();
    for folder in ["bpf/mermin-abi", "bpf/mermin-ebpf", "crates/mermin-wire"] {
        files(&root().join(folder), &mut found);
    }
    let mut wrong = Vec::new();
    for line in manifest.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let holds = match words[..] {
            ["object", hash] => digest(&fs::read(root().join("bpf/prebuilt/mermin.bpf.o")).unwrap()) == hash,
            ["input", hash, path] => found.remove(path) && digest(&fs::read(root().join(path)).unwrap()) == hash,
            ["package", name, version, checksum] => lock.contains(&format!(
                "name = \"{name}\"\nversion = \"{version}\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{checksum}\""
            )),
            ["section", name, hash] => workspace
                .split_once(&format!("[{name}]\n"))
                .is_some_and(|(_, rest)| digest(rest.split("\n[").next().unwrap_or(rest).trim_end().as_bytes()) == hash),
            _ => true,
        };
        if !holds {
            wrong.push(line.to_owned());
        }
    }
    wrong.extend(found.into_iter().map(|path| format!("not in the manifest: {path}")));
    wrong
}

#[test]
fn the_object_is_not_older_than_its_sources() {
    let manifest = fs::read_to_string(root().join("bpf/prebuilt/mermin.manifest")).unwrap();
    let wrong = stale(&manifest);
    assert!(wrong.is_empty(), "run `cargo xtask ebpf`; stale: {wrong:#?}");

    // The check sees a change of any kind.
    for line in manifest.lines().filter(|line| !line.starts_with(['#', 't', 'f'])) {
        let (front, hash) = (line.rfind(' ').unwrap(), line.len() - 2);
        let at = if line.starts_with("input") { line.find(' ').unwrap() + 1 } else { hash.max(front) };
        let mut changed = line.to_owned().into_bytes();
        changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
        let changed = manifest.replace(line, std::str::from_utf8(&changed).unwrap());
        assert!(!stale(&changed).is_empty(), "{line}");
    }
    let shorter = manifest.lines().filter(|line| !line.ends_with("meter.rs")).collect::<Vec<_>>().join("\n");
    assert_eq!(stale(&shorter), ["not in the manifest: bpf/mermin-ebpf/src/meter.rs"]);
}
