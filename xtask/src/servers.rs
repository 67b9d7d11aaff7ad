//! `cargo xtask servers`: the real servers that tests talk to, built once per machine.
//!
//! They lie in the user's cache by name and version (`mermin_tests::servers`), so all checkouts share them. What is
//! built from Go modules is pinned by a go.mod and a go.sum in `tests/servers/NAME`, what comes as jars by a pom.xml and
//! their checksums; each folder says of which recipe it is, and another recipe builds it anew. A folder appears whole or
//! not at all.

mod debian;
mod go;
mod maven;

use crate::run::{root, succeed};
use anyhow::{Context, Result, bail, ensure};
use mermin_tests::servers::{ALL, FLINK, GOFLOW2, KAFKA, Server, cache};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Says of which recipe a folder is.
const STAMP: &str = "recipe.sha256";

/// Installs servers.
#[derive(clap::Args)]
pub(crate) struct Servers {
    /// kubernetes, etcd, otelcol, prometheus, runtime-default, goflow2, kafka, flink; all if none is given.
    names: Vec<String>,
}

impl Servers {
    pub(crate) fn run(self) -> Result<()> {
        for name in &self.names {
            let known = ALL.map(|server| server.name);
            ensure!(known.contains(&name.as_str()), "no server {name}: there are {}", known.join(", "));
        }
        let wanted =
            |server: &&&Server| self.names.is_empty() || self.names.iter().any(|name| name == server.name);
        fs::create_dir_all(cache())?;
        // Another checkout may be at it: whoever comes second finds the work done.
        let lock = fs::File::create(cache().join("lock"))?;
        lock.lock().context("can't lock the servers' folder")?;
        let caches = go::Caches::new();
        for server in ALL.iter().filter(wanted) {
            install(server, &caches)?;
        }
        caches.remove()
    }
}

fn install(server: &Server, caches: &go::Caches) -> Result<()> {
    let (folder, recipe) = (server.folder(), recipe(server)?);
    let is_there = fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == recipe);
    if is_there && server.installed().is_ok() {
        println!("{} {}: there", server.name, server.version);
        return Ok(());
    }
    println!("{} {}: building, some minutes, once per machine", server.name, server.version);
    let began = Instant::now();
    let partial = cache().join(format!("{}-{}.partial", server.name, server.version));
    remove(&partial)?;
    fs::create_dir_all(&partial)?;
    match (go::Build::of(server), server.name) {
        (Some(build), _) => build.run(&partial, caches)?,
        (None, name) if name == KAFKA.name => maven::fetch(&partial)?,
        (None, name) if name == FLINK.name => succeed(Command::new(flink_recipe()).arg(&partial))?,
        (None, _) => debian::unpack(server, &partial)?,
    }
    for program in server.programs {
        says_its_version(server, &partial.join(program))?;
    }
    fs::write(partial.join(STAMP), recipe)?;
    remove(&folder)?;
    fs::rename(&partial, &folder)?;
    println!("{} {}: built in {} s", server.name, server.version, began.elapsed().as_secs());
    Ok(())
}

/// A hash of all that decides what is built.
fn recipe(server: &Server) -> Result<String> {
    let (words, files) = match (go::Build::of(server), server.name) {
        (Some(build), _) => (build.command_line(Path::new("")).join(" "), build.files()?),
        (None, name) if name == KAFKA.name => (maven::PLUGIN.to_owned(), committed(&maven::folder())?),
        (None, name) if name == FLINK.name => (String::new(), vec![flink_recipe()]),
        (None, _) => (debian::recipe(server), Vec::new()),
    };
    let mut hash = Sha256::new();
    hash.update(words);
    for file in files {
        hash.update(fs::read(&file).with_context(|| format!("can't read {}", file.display()))?);
    }
    Ok(hexadecimal(hash))
}

/// Flink's libraries and a script that runs them, for the stream job's own tests, too.
fn flink_recipe() -> PathBuf {
    root().join("streams/tests/servers/flink.sh")
}

/// The files of a folder, sorted.
fn committed(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the program runs at all, and is what its folder says.
fn says_its_version(server: &Server, program: &Path) -> Result<()> {
    let question: &[&str] = match program.file_name().and_then(|name| name.to_str()) {
        Some("kubectl") => &["version", "--client"],
        Some(name) if name == GOFLOW2.name => &["-v"],
        Some(name) if name == KAFKA.name => &["kafka.Kafka", "--version"],
        _ => &["--version"],
    };
    let output = Command::new(program).args(question).output();
    let output = output.with_context(|| format!("can't run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !said.contains(server.version) {
        bail!("{} is not of version {}: {said}", program.display(), server.version);
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    Ok(())
}
