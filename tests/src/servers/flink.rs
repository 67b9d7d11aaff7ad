//! The stream job (`streams/`) on Apache Flink, in a process of its own that ends with its input.
//!
//! Flink's libraries are those of a cluster; job manager and task manager run in one process here, as Flink has it for tests
//! and development. `streams/tests/end-to-end` has them each in its own.

use super::{FLINK, process::without_surroundings};
use crate::need::{root, tool};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

/// A run of this job takes seconds.
const PATIENCE: &str = "180";

/// What Flink reaches into (its own `config.yaml` of the distribution has the same list).
const OPEN: [&str; 8] = [
    "java.base/java.lang",
    "java.base/java.net",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.time",
    "java.base/java.text",
];

/// Whether Flink and the job are there.
///
/// # Errors
/// What is missing, and how to get it.
pub fn installed() -> Result<(), String> {
    tool("java").and_then(|_| FLINK.installed())?;
    if jar().is_file() { Ok(()) } else { Err("no stream job: mvn -f streams/pom.xml package".to_owned()) }
}

fn jar() -> PathBuf {
    root().join("streams/target/mermin-streams.jar")
}

/// The job, with all that it reads.
#[derive(Debug)]
pub struct Job {
    command: Command,
}

impl Job {
    /// Over all that is in a broker's topics now.
    #[must_use]
    pub fn over(broker: SocketAddr) -> Self {
        let mut command = without_surroundings(Command::new("timeout"));
        let classes = format!("{}:{}/lib/*", jar().display(), FLINK.folder().display());
        command.args([PATIENCE, "java", "-Xmx768m"]);
        command.args(OPEN.map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
        command.args(["-cp", &classes, "mermin.streams.StreamJob", "--bounded", "true"]);
        command.args(["--brokers", &broker.to_string(), "--start", "earliest"]);
        Self { command }
    }

    /// With an option more: `--topic`, and its value.
    #[must_use]
    pub fn with(mut self, option: &str, value: &str) -> Self {
        self.command.args([option, value]);
        self
    }

    /// Returns when it has read all and written what comes of it.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn run_to_end(mut self) {
        let output = self.command.output().expect("timeout starts");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&said));
    }
}
