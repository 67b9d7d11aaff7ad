//! Kafka's jars from Maven Central, with the checksums that are committed, and an archive of their classes.
//!
//! The archive (class data sharing, JDK 13 and later) is what a broker leaves that was started and stopped once: with it
//! the next one is up in 1.3 s instead of 4 s. Another JDK doesn't take it and starts as slowly as without.

use super::{committed, hexadecimal, remove};
use crate::run::{root, succeed};
use anyhow::{Context, Result, bail, ensure};
use mermin_tests::servers::KAFKA;
use mermin_tests::servers::kafka::Kafka;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies what a pom.xml needs into a folder.
pub(super) const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
const CHECKSUMS: &str = "jars.sha256";

/// What is committed for it.
pub(super) fn folder() -> PathBuf {
    root().join("tests/servers").join(KAFKA.name)
}

/// Puts jars, the script that runs them and the archive into a folder.
pub(super) fn fetch(output: &Path) -> Result<()> {
    for program in ["java", "mvn"] {
        let found = Command::new(program).arg("-version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            bail!("no {program}: on Debian, apt-get install default-jre-headless maven");
        }
    }
    let repository = output.join("repository");
    let mut maven = Command::new("mvn");
    // Wrong checksums of the registry end it; the repository is thrown away, as nobody needs it again.
    maven.args(["--batch-mode", "--quiet", "--no-transfer-progress", "--strict-checksums", "--file"]);
    maven.arg(folder().join("pom.xml")).arg(PLUGIN).args(["-DincludeScope=runtime", "-Dstyle.color=never"]);
    maven.arg(format!("-Dmaven.repo.local={}", repository.display()));
    maven.arg(format!("-DoutputDirectory={}", output.join("lib").display()));
    succeed(&mut maven)?;
    remove(&repository)?;
    are_the_committed(&output.join("lib"))?;
    for file in committed(&folder())? {
        fs::copy(&file, output.join(file.file_name().expect("it is a file")))?;
    }
    Kafka::archive_classes(output);
    ensure!(output.join("classes.jsa").is_file(), "java made no archive of Kafka's classes");
    Ok(())
}

/// Whether these are the jars whose checksums are committed, and all of them.
fn are_the_committed(jars: &Path) -> Result<()> {
    let listed = fs::read_to_string(folder().join(CHECKSUMS))?;
    let mut found = String::new();
    for jar in committed(jars)? {
        let mut hash = Sha256::new();
        hash.update(fs::read(&jar).with_context(|| format!("can't read {}", jar.display()))?);
        let name = jar.file_name().expect("it is a file").to_string_lossy();
        found += &format!("{}  {name}\n", hexadecimal(hash));
    }
    let other = |one: &str, two: &str| {
        one.lines().filter(|line| !two.lines().any(|other| other == *line)).collect::<Vec<_>>().join("\n")
    };
    ensure!(
        listed == found,
        "the jars are not those of {CHECKSUMS}; wanted and not there:\n{}\nthere and not wanted:\n{}",
        other(&listed, &found),
        other(&found, &listed)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{CHECKSUMS, KAFKA, folder};
    use std::fs;

    #[test]
    fn pom_and_checksums_name_the_same_version() {
        let read = |name: &str| fs::read_to_string(folder().join(name)).unwrap();
        assert!(read("pom.xml").contains(&format!("<version>{}</version>", KAFKA.version)));
        assert!(read(CHECKSUMS).contains(&format!("  kafka_2.13-{}.jar\n", KAFKA.version)));
    }
}
