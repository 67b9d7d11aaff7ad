//! `cargo xtask test`: every test, and an honest count of those that could not run.
//!
//! A test that lacks a tool, a capture or a privilege prints `SKIP <test>: <what is missing>` and returns; libtest
//! counts it as passed, this runner as skipped. `--show-output` makes libtest print what passed tests wrote, so the
//! lines are seen here. With `CI=true` a skip is a failure.

use crate::failed::Failed;
use crate::run::{cargo, root, succeed, target_dir};
use crate::tools;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Crates that don't build for the host.
const KERNEL_ONLY: &[&str] = &["mermin-ebpf", "mermin-ebpf-bench"];

#[derive(clap::Args)]
pub(crate) struct Test {
    /// Don't install missing tools; tests that need them are skipped.
    #[arg(long)]
    no_install: bool,
    /// Run only tests whose name contains one of these.
    filter: Vec<String>,
}

#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    /// By test.
    skipped: BTreeMap<String, String>,
    /// Test programs that did not get as far as a result.
    broken: Vec<String>,
    /// For the end, where a reader looks first.
    failed_tests: Failed,
}

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        if !self.no_install {
            tools::install_missing()?;
        }
        println!("Building the release binary for the black-box tests");
        succeed(&mut cargo(&["build", "--release", "--package", "mermin", "--features", "kafka"]))?;
        let (mut count, started) = (Count::default(), Instant::now());
        // All at once: cargo gives dependencies the features that the chosen packages ask for, and builds them anew for
        // another choice. Only tests hold workers: release builds are without the feature. Kafka is in all that is tested.
        let mut tests = cargo(&[
            "test",
            "--workspace",
            "--no-fail-fast",
            "--features",
            "mermin-pipeline/hold,mermin/kafka,mermin-bench/kafka",
        ]);
        for name in KERNEL_ONLY {
            tests.args(["--exclude", name]);
        }
        // Where black-box tests look for the release binary.
        tests.env("CARGO_TARGET_DIR", target_dir());
        self.count_into(&mut count, tests)?;
        println!("\n{} s with building the tests", started.elapsed().as_secs());
        count.report()
    }

    fn count_into(&self, count: &mut Count, mut command: Command) -> Result<()> {
        // Two kinds of programs come here: libtest's, and rustdoc's, which take the same arguments.
        command.args(["--quiet", "--", "--show-output"]).args(&self.filter);
        let mut child = command
            .current_dir(root())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("can't run {command:?}"))?;
        let output = BufReader::new(child.stdout.take().expect("it was piped"));
        let failed_before = count.failed;
        for line in output.lines() {
            let line = line?;
            if count.take(&line) {
                println!("{line}");
            }
        }
        let status = child.wait()?;
        if !status.success() && count.failed == failed_before {
            count.broken.push(format!("{status} without a failed test (did they build?)"));
        }
        Ok(())
    }
}

impl Count {
    /// Counts a line of a test program's output; false where it says nothing that a reader wants.
    fn take(&mut self, line: &str) -> bool {
        let of_a_failed_one = self.failed_tests.take(line);
        if let Some((test, what)) = line.strip_prefix("SKIP ").and_then(|rest| rest.split_once(": ")) {
            self.skipped.insert(test.to_owned(), what.to_owned());
        } else if let Some((passed, failed)) = result_line(line) {
            self.passed += passed;
            self.failed += failed;
            return passed + failed > 0;
        }
        // libtest's frame around what passed tests wrote: headings, and the list of their names.
        let frame = line.is_empty()
            || line == "successes:"
            || line.starts_with("running ")
            || line.starts_with("---- ") && line.ends_with(" stdout ----")
            || line.chars().all(|sign| sign == '.')
            || line.starts_with("    ")
                && line.trim().chars().all(|sign| sign.is_alphanumeric() || "_:".contains(sign));
        of_a_failed_one || !frame
    }

    fn report(mut self) -> Result<()> {
        println!();
        for (test, what) in &self.skipped {
            println!("skipped {test}: {what}");
        }
        for what in &self.broken {
            println!("broken {what}");
        }
        print!("{}", self.failed_tests);
        self.failed += self.broken.len();
        let skipped = self.skipped.len();
        let passed = self.passed.saturating_sub(skipped);
        println!("{passed} passed, {} failed, {skipped} skipped", self.failed);
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        if self.failed > 0 {
            bail!("tests failed");
        }
        if ci && skipped > 0 {
            bail!("with CI=true nothing may be skipped");
        }
        Ok(())
    }
}

/// `test result: ok. 3 passed; 0 failed; …` as (3, 0).
fn result_line(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(word).and_then(|number| number.trim().parse().ok()))
    };
    Some((number(" passed")?, number(" failed")?))
}

#[cfg(test)]
mod tests {
    use super::{Count, result_line};

    #[test]
    fn reads_libtests_last_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.02s";
        assert_eq!(result_line(line), Some((12, 3)));
        assert_eq!(result_line("test tests::result ... ok"), None);
    }

    #[test]
    fn a_skip_is_counted_once_per_test_and_is_no_pass() {
        let mut count = Count::default();
        assert!(count.take("SKIP live::ping: no ethtool"));
        assert!(count.take("SKIP live::ping: not root"));
        count.take(
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        assert_eq!((count.passed, count.failed, count.skipped.len()), (2, 0, 1));
    }
}
