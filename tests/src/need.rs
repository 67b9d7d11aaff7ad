//! What tests need beside the program, and how they say that it is missing.
//!
//! `need!(tool("tshark"), captures());` at a test's begin prints `SKIP <test>: <what>` and returns where one is
//! missing; `cargo xtask test` counts these lines.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Skips the test unless all needs are met.
#[macro_export]
macro_rules! need {
    ($($need:expr),+ $(,)?) => {
        $(
            if let Err(missing) = $need {
                let name = std::thread::current().name().unwrap_or("?").to_owned();
                eprintln!("SKIP {name}: {missing}");
                return;
            }
        )+
    };
}

/// A program on the path.
///
/// # Errors
/// Its name, where it is missing.
pub fn tool(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    folders
        .find_map(|folder| Some(Path::new(folder).join(name)).filter(|file| file.is_file()))
        .ok_or(format!("no {name}"))
}

/// The folder of the shared captures.
///
/// # Errors
/// When it is absent.
pub fn captures() -> Result<PathBuf, String> {
    shared("pcaps")
}

/// A file or folder beside the project.
///
/// # Errors
/// When it is absent.
pub fn shared(name: &str) -> Result<PathBuf, String> {
    let path = root().join("../shared").join(name);
    path.canonicalize().map_err(|_| format!("no ../shared/{name}"))
}

/// The project's root.
///
/// # Panics
/// Never: this crate lies in a folder.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

/// Whether the test runs as root, with network namespaces to be had. Tried once: tests run side by side.
///
/// # Errors
/// What is missing.
pub fn namespaces() -> Result<(), String> {
    static TRIED: OnceLock<Result<(), String>> = OnceLock::new();
    TRIED.get_or_init(try_namespaces).clone()
}

fn try_namespaces() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not root".into());
    }
    tool("ip")?;
    let name = format!("mmn-probe-{}", std::process::id());
    let run = |verb: &str| {
        Command::new("ip").args(["netns", verb, &name]).output().is_ok_and(|out| out.status.success())
    };
    if run("add") && run("delete") { Ok(()) } else { Err("network namespaces can't be made".into()) }
}
