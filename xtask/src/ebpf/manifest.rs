//! The manifest: what the object was made from, one line each, so that a diff says what changed.

use super::build::FLAGS;
use super::toolchain::Tools;
use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Folders whose every file goes into the object.
const INPUTS: [&str; 3] = ["bpf/mermin-abi", "bpf/mermin-ebpf", "crates/mermin-wire"];
/// Sections of the workspace's manifest that change the build.
const SECTIONS: [&str; 2] = ["workspace.package", "profile.bpf"];

/// The manifest's text.
pub(super) fn write(root: &Path, tools: &Tools, object: &[u8]) -> Result<String> {
    let mut text = String::from("# Written by `cargo xtask ebpf`: what mermin.bpf.o was made from.\n");
    writeln!(text, "object {}", digest(object))?;
    for (name, version) in &tools.versions {
        writeln!(text, "tool {name} = {version}")?;
    }
    for flag in FLAGS {
        writeln!(text, "flag {flag}")?;
    }
    let workspace = fs::read_to_string(root.join("Cargo.toml"))?;
    for name in SECTIONS {
        let section = section(&workspace, name).with_context(|| format!("[{name}] in Cargo.toml"))?;
        writeln!(text, "section {name} {}", digest(section.as_bytes()))?;
    }
    for package in packages(&fs::read_to_string(root.join("Cargo.lock"))?, "mermin-ebpf") {
        writeln!(text, "package {package}")?;
    }
    for folder in INPUTS {
        for path in files(root, folder)? {
            writeln!(text, "input {} {path}", digest(&fs::read(root.join(&path))?))?;
        }
    }
    Ok(text)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The lines of `[name]` up to the next section.
fn section<'t>(toml: &'t str, name: &str) -> Option<&'t str> {
    let header = format!("[{name}]\n");
    let start = toml.find(&header)? + header.len();
    let rest = toml.get(start..)?;
    Some(rest.get(..rest.find("\n[").unwrap_or(rest.len()))?.trim_end())
}

/// Names, versions and checksums of all registry packages that `root` needs, by the lock file.
fn packages(lock: &str, root: &str) -> Vec<String> {
    struct Package<'l> {
        version: &'l str,
        needs: Vec<&'l str>,
        /// Its line of the manifest; none for a package of the workspace.
        line: Option<String>,
    }
    // By name, every version that the workspace has of it.
    let mut known: BTreeMap<&str, Vec<Package<'_>>> = BTreeMap::new();
    for block in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'))
        };
        let (Some(name), Some(version)) = (value("name"), value("version")) else { continue };
        let needs = block.lines().filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\",")).collect();
        let line = value("checksum").map(|sum| format!("{name} {version} {sum}"));
        known.entry(name).or_default().push(Package { version, needs, line });
    }
    let mut found = BTreeSet::new();
    let mut lines = BTreeSet::new();
    let mut waiting = vec![root];
    while let Some(need) = waiting.pop() {
        // A version stands behind the name only where the lock file has several.
        let mut words = need.split(' ');
        let (name, wanted) = (words.next().unwrap_or_default(), words.next());
        for package in known.get(name).into_iter().flatten() {
            if wanted.is_none_or(|wanted| wanted == package.version) && found.insert((name, package.version))
            {
                waiting.extend(&package.needs);
                lines.extend(package.line.clone());
            }
        }
    }
    lines.into_iter().collect()
}

fn files(root: &Path, folder: &str) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(root.join(folder)).with_context(|| folder.to_owned())? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            // Tests change nothing in the object.
            if entry.file_name() != "tests" {
                paths.extend(files(root, &path)?);
            }
        } else {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::packages;

    #[test]
    fn of_two_versions_only_the_one_that_is_needed_counts() {
        let package = |name: &str, version: &str, needs: &[&str]| {
            let needs: String = needs.iter().map(|need| format!(" \"{need}\",\n")).collect();
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nchecksum = \"{name}{version}\"\n\
                 dependencies = [\n{needs}]\n\n"
            )
        };
        let lock: String = [
            package("root", "1.0.0", &["link 1.0.0", "sole"]),
            package("link", "1.0.0", &[]),
            package("link", "2.0.0", &[]),
            package("sole", "3.0.0", &["root"]),
            package("other", "1.0.0", &["link 2.0.0"]),
        ]
        .concat();
        assert_eq!(
            packages(&lock, "root"),
            ["link 1.0.0 link1.0.0", "root 1.0.0 root1.0.0", "sole 3.0.0 sole3.0.0"]
        );
    }
}
