//! `cargo xtask mutants`: changes one operator, condition or value of the code at a time and sees whether a test notices.
//!
//! A seeded sample, since all mutants take a day. Each is tested against the tests of its own crate alone, in a copy
//! of the checkout that cargo-mutants makes: captures beside the project are out of its sight. What the names of the
//! drawn mutants say decides, so a seed draws the same from the same sources on every machine.

use crate::run::{cargo, target_dir};
use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Code whose faults would make wrong numbers: what is drawn from, and with which arguments.
struct Part {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Which tests, one after the other: what the quick ones miss is left to the next. No crate has documentation tests.
    tests: &'static [&'static str],
}

const PARTS: [Part; 3] = [
    Part { name: "wire", arguments: &["--package=mermin-wire"], tests: &["--tests"] },
    Part { name: "flow", arguments: &["--package=mermin-flow"], tests: &["--lib", "--tests"] },
    Part {
        name: "ledger",
        arguments: &[
            "--package=mermin-pipeline",
            "--features=hold",
            "--file=crates/mermin-pipeline/src/{ledger,snapshot,record_queue,packet_channel,credits,cells,created_log,progress}.rs",
        ],
        tests: &["--lib", "--tests"],
    },
];

/// Properties with few cases, and tests that are quick to build: a sample is some hundred builds.
const ENVIRONMENT: [(&str, &str); 3] =
    [("PROPTEST_CASES", "96"), ("CARGO_PROFILE_TEST_OPT_LEVEL", "1"), ("CARGO_PROFILE_TEST_DEBUG", "false")];

#[derive(clap::Args)]
pub(crate) struct Mutants {
    /// Draws another sample for each number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many mutants of each part.
    #[arg(long, default_value_t = 75)]
    sample: usize,
    /// One part alone: wire, flow or ledger.
    #[arg(long, value_parser = PARTS.map(|part| part.name))]
    part: Option<String>,
    /// Names the drawn mutants and tests none.
    #[arg(long)]
    list: bool,
}

impl Mutants {
    pub(crate) fn run(self) -> Result<()> {
        let mut outcomes = Vec::new();
        for part in PARTS.iter().filter(|part| self.part.as_ref().is_none_or(|only| only == part.name)) {
            let sample = self.draw(part)?;
            if self.list {
                println!("{}", sample.join("\n"));
            } else {
                outcomes.push(test(part, sample)?);
            }
        }
        outcomes.iter().for_each(|outcome| println!("{outcome}"));
        Ok(())
    }

    /// The mutants with the smallest hashes of seed and name, in the order of the sources. Deleted fields are always
    /// among them: cargo-mutants 27.1 asks no filter about these.
    fn draw(&self, part: &Part) -> Result<Vec<String>> {
        let listed = mutants(part).arg("--list").output().context("cargo-mutants did not start")?;
        ensure!(
            listed.status.success(),
            "cargo mutants: {}; it is installed by: cargo install cargo-mutants --locked",
            String::from_utf8_lossy(&listed.stderr)
        );
        let listed = String::from_utf8(listed.stdout)?;
        let mut hashed: Vec<_> = listed
            .lines()
            .enumerate()
            .map(|(at, mutant)| {
                let drawn = !mutant.contains(": delete field ");
                (drawn, Sha256::digest(format!("{} {mutant}", self.seed)), at, mutant)
            })
            .collect();
        hashed.sort_unstable();
        hashed.truncate(self.sample);
        hashed.sort_unstable_by_key(|&(.., at, _)| at);
        Ok(hashed.into_iter().map(|(.., mutant)| mutant.to_owned()).collect())
    }
}

fn mutants(part: &Part) -> Command {
    let mut command = cargo(&["mutants", "--colors=never"]);
    command.args(part.arguments);
    command
}

/// Tests the sample; how many mutants ended how. One that makes a test run forever is caught.
fn test(part: &Part, sample: Vec<String>) -> Result<String> {
    let (mut left, mut caught, mut endless, mut unviable) = (sample, 0, 0, 0);
    for tests in part.tests {
        if left.is_empty() {
            break;
        }
        let folder = target_dir().join("mutants").join(part.name).join(tests.trim_start_matches('-'));
        run(part, &left, tests, &folder)?;
        let ended = |end: &str| -> Result<Vec<String>> {
            let path = folder.join("mutants.out").join(end).with_extension("txt");
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            Ok(text
                .lines()
                .filter(|mutant| left.iter().any(|drawn| drawn == mutant))
                .map(str::to_owned)
                .collect())
        };
        let (now_caught, now_endless) = (ended("caught")?.len(), ended("timeout")?.len());
        let (now_unviable, missed) = (ended("unviable")?.len(), ended("missed")?);
        let found = now_caught + now_endless + now_unviable + missed.len();
        ensure!(found == left.len(), "cargo mutants tested {found} of {} drawn", left.len());
        caught += now_caught + now_endless;
        endless += now_endless;
        unviable += now_unviable;
        left = missed;
    }
    let (name, tested) = (part.name, caught + left.len());
    let percent = 100.0 * caught as f64 / tested.max(1) as f64;
    left.iter().for_each(|mutant| println!("{name} missed: {mutant}"));
    Ok(format!(
        "{name}: {tested} tested, {caught} caught ({endless} by time limit), {percent:.1} %; {unviable} unviable"
    ))
}

fn run(part: &Part, mutants_left: &[String], tests: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut command = mutants(part);
    command.envs(ENVIRONMENT).env("CARGO_TARGET_DIR", target_dir().join("mutants/build"));
    command.arg("--no-shuffle").arg("--output").arg(folder);
    for mutant in mutants_left {
        command.arg("--re").arg(format!("^{}$", escaped(mutant)));
    }
    let status = command.args(["--", tests]).status()?;
    // 2: some were missed; 3: some ran into the time limit. Both are what this is for.
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo mutants ended with {status}");
    Ok(())
}

/// The name as a regular expression that matches nothing but it.
fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for letter in name.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}
