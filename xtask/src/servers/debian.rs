//! Programs taken out of Debian's packages without installing them, so that no service is started.

use crate::run::succeed;
use anyhow::{Context, Result, bail};
use mermin_tests::servers::Server;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What decides what is unpacked: the package bears the server's name.
pub(super) fn recipe(server: &Server) -> String {
    format!("Debian {} {}", server.name, server.version)
}

/// Fetches the package and moves its programs into `output`.
pub(super) fn unpack(server: &Server, output: &Path) -> Result<()> {
    if !Path::new("/etc/debian_version").exists() {
        let (version, programs) = (server.version, server.programs.join(", "));
        bail!("not Debian: put {programs} {version} into {} by hand", server.folder().display());
    }
    let work = output.join("package");
    fs::create_dir_all(&work)?;
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        // Fetched as root: the user that apt would use may not write into the cache of another.
        command.current_dir(&work).args(["-qq", "-o", "APT::Sandbox::User=root"]).args(words);
        succeed(&mut command)
    };
    apt(&["update"])?;
    apt(&["download", server.name])?;
    let archives = fs::read_dir(&work)?.flatten().map(|entry| entry.path());
    let archive = archives.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "deb"));
    let archive = archive.with_context(|| format!("Debian has no package {}", server.name))?;
    succeed(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&work))?;
    for program in server.programs {
        fs::rename(work.join("usr/bin").join(program), output.join(program))
            .with_context(|| format!("the package has no {program}"))?;
    }
    Ok(fs::remove_dir_all(work)?)
}
