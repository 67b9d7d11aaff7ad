//! `cargo xtask fuzz`: runs the fuzz targets in `fuzz/`, with stable Rust and a C++ compiler and nothing else.
//!
//! The coverage that libFuzzer steers by comes from LLVM's own pass, which stable rustc can be asked for. What a run
//! finds is kept beside the build; `--adopt` puts what adds edges into the committed corpus.

use crate::run::{cargo, root, succeed, target_dir};
use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const TARGETS: [&str; 5] = ["parser", "capture", "config", "meter", "spool"];
/// Edges, and the operands of comparisons; what cargo-fuzz asks for too, without a sanitizer, which would need nightly.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// An input that takes longer, in seconds, or more memory, in MiB, is as bad as one that panics.
const LIMITS: [&str; 4] = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=4096", "-print_final_stats=1"];

/// Inputs that are committed for each target.
const CORPUS_MAX: usize = 60;

/// Runs fuzz targets, each over the committed corpus and what was found before.
#[derive(clap::Args)]
pub(crate) struct Fuzz {
    /// Seconds for each target.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Afterwards, makes the committed corpus anew from it and what was found: up to 60 inputs that reach the most edges.
    #[arg(long)]
    adopt: bool,
    /// Runs the target on this one input, for example a crash.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Targets; all if none is given.
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
}

impl Fuzz {
    pub(crate) fn run(self) -> Result<()> {
        let targets: Vec<&str> = if self.targets.is_empty() {
            TARGETS.to_vec()
        } else {
            self.targets.iter().map(String::as_str).collect()
        };
        let began = Instant::now();
        let programs = build()?;
        println!("fuzz: built in {} s", began.elapsed().as_secs());
        if let Some(input) = &self.replay {
            let [target] = targets[..] else { bail!("--replay needs one target") };
            return succeed(Command::new(programs.join(target)).args(LIMITS).arg(input));
        }
        let mut crashed = Vec::new();
        for target in targets {
            let place = Place::of(target)?;
            if !fuzz(&programs.join(target), target, self.seconds, &place)? {
                crashed.push(target);
            } else if self.adopt {
                adopt(&programs.join(target), &place)?;
            }
        }
        if !crashed.is_empty() {
            bail!("fuzzing found what must not happen in: {}", crashed.join(", "));
        }
        Ok(())
    }
}

/// The folders of one target.
struct Place {
    /// Committed.
    corpus: PathBuf,
    /// Found by earlier runs on this machine.
    found: PathBuf,
    /// Inputs that crash; libFuzzer puts the file's name behind it as it is.
    artifacts: PathBuf,
}

impl Place {
    fn of(target: &str) -> Result<Self> {
        let place = Self {
            corpus: root().join("fuzz/corpus").join(target),
            found: target_dir().join("fuzz/found").join(target),
            artifacts: root().join("fuzz/artifacts").join(target).join(""),
        };
        for folder in [&place.corpus, &place.found, &place.artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        }
        Ok(place)
    }
}

/// Builds all targets; the folder with the programs.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let folder = target_dir().join("fuzz");
    let mut command = cargo(&["build", "--release", "--locked", "--quiet"]);
    // With a target named, build scripts and macros are built without coverage.
    command.args(["--manifest-path", "fuzz/Cargo.toml", "--target", &host]);
    command.env("CARGO_TARGET_DIR", &folder).env("RUSTFLAGS", COVERAGE);
    succeed(&mut command)?;
    Ok(folder.join(host).join("release"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("can't run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc doesn't say what it runs on")?.to_owned())
}

/// Whether all went well; prints what was done in one line.
fn fuzz(program: &Path, target: &str, seconds: u32, place: &Place) -> Result<bool> {
    let mut command = Command::new(program);
    command.args(LIMITS).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}", place.artifacts.display()));
    command.args([&place.found, &place.corpus]).stdout(Stdio::null()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("can't run {}", program.display()))?;
    let mut said = Said::default();
    for line in BufReader::new(child.stderr.take().context("no standard error")?).split(b'\n') {
        said.line(&String::from_utf8_lossy(&line?));
    }
    let status = child.wait()?;
    let elapsed = began.elapsed().as_secs();
    println!(
        "fuzz {target:<8} {:>10} executions, {:>8}/s, {:>6} edges, {:>5} inputs in the corpus",
        said.executions,
        said.executions / elapsed.max(1),
        said.edges,
        said.inputs
    );
    if status.success() {
        return Ok(true);
    }
    eprintln!("{}", said.tail.join("\n"));
    if let Some(input) = &said.artifact {
        eprintln!("input:  {input}\nreplay: cargo xtask fuzz {target} --replay {input}");
    }
    Ok(false)
}

/// What libFuzzer has said so far.
#[derive(Default)]
struct Said {
    executions: u64,
    edges: u64,
    inputs: u64,
    artifact: Option<String>,
    /// The last lines that aren't about progress: the panic, where there was one.
    tail: Vec<String>,
}

impl Said {
    fn line(&mut self, line: &str) {
        const TAIL: usize = 60;
        let words: Vec<&str> = line.split_whitespace().collect();
        let behind =
            |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
        let number = |text: &&str| text.split('/').next().and_then(|number| number.parse().ok());
        if let Some(edges) = behind("cov:").and_then(number) {
            self.edges = edges;
            self.inputs = behind("corp:").and_then(number).unwrap_or(self.inputs);
            // A line of progress begins with the number of executions.
            let count = words.first().and_then(|word| word.strip_prefix('#'));
            self.executions = count.and_then(|count| count.parse().ok()).unwrap_or(self.executions);
        } else if let Some(count) = behind("stat::number_of_executed_units:").and_then(number) {
            self.executions = count;
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.artifact = Some(path.to_owned());
        } else if !line.starts_with("stat::") {
            if self.tail.len() == TAIL {
                self.tail.remove(0);
            }
            self.tail.push(line.to_owned());
        }
    }
}

/// Makes the committed corpus anew, of old and found inputs: those that reach the most edges.
fn adopt(program: &Path, place: &Place) -> Result<()> {
    let scratch = place.found.with_extension("merge");
    let control = place.found.with_extension("control");
    fs::create_dir_all(&scratch)?;
    // libFuzzer goes on with a control file that is already there.
    drop(fs::remove_file(&control));
    let mut command = Command::new(program);
    // How often an edge is passed doesn't count: that would ask for ten times the inputs.
    command.args(LIMITS).args(["-set_cover_merge=1", "-use_counters=0"]);
    command.arg(format!("-merge_control_file={}", control.display()));
    command.args([&scratch, &place.corpus, &place.found]);
    succeed(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    fs::remove_dir_all(&scratch)?;

    let merged = fs::read_to_string(&control)?;
    let inputs: Vec<Vec<u8>> = cover(&merged).into_iter().map(fs::read).collect::<Result<_, _>>()?;
    fs::remove_dir_all(&place.corpus)?;
    fs::create_dir_all(&place.corpus)?;
    for (number, input) in inputs.iter().enumerate() {
        fs::write(place.corpus.join(format!("{number:02}")), input)?;
    }
    let bytes: usize = inputs.iter().map(Vec::len).sum();
    println!("     {}: {} inputs, {bytes} bytes", place.corpus.display(), inputs.len());
    Ok(())
}

/// At most [`CORPUS_MAX`] files of a merge's control file, each the one that adds the most edges to those before it.
/// The file has two counts, then the names, then for each file a line `FT`, its number and its edges.
fn cover(control: &str) -> Vec<&str> {
    let names: Vec<&str> = control.lines().skip(2).take_while(|line| !line.starts_with("STARTED ")).collect();
    let mut left: Vec<(&str, HashSet<&str>)> = control
        .lines()
        .filter_map(|line| line.strip_prefix("FT "))
        .filter_map(|line| {
            let (number, edges) = line.split_once(' ').unwrap_or((line, ""));
            Some((*names.get(number.parse::<usize>().ok()?)?, edges.split_whitespace().collect()))
        })
        .collect();
    let mut chosen = Vec::new();
    while chosen.len() < CORPUS_MAX
        && let Some(best) = (0..left.len()).rev().max_by_key(|at| left[*at].1.len())
        && !left[best].1.is_empty()
    {
        let (name, edges) = left.swap_remove(best);
        left.iter_mut().for_each(|(_, others)| others.retain(|edge| !edges.contains(edge)));
        chosen.push(name);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_from_what_libfuzzer_says() {
        let mut said = Said::default();
        for line in [
            "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 30Mb",
            "#4096\tpulse  cov: 310 ft: 900 corp: 57/4096b lim: 43 exec/s: 2048 rss: 31Mb",
            "thread '<unnamed>' panicked at targets/parser.rs:30:5:",
            "artifact_prefix='fuzz/artifacts/parser/'; Test unit written to fuzz/artifacts/parser/crash-1f",
            "stat::number_of_executed_units: 5000",
            "stat::peak_rss_mb: 31",
        ] {
            said.line(line);
        }
        assert_eq!((said.executions, said.edges, said.inputs), (5_000, 310, 57));
        assert_eq!(said.artifact.as_deref(), Some("fuzz/artifacts/parser/crash-1f"));
        assert_eq!(said.tail, ["thread '<unnamed>' panicked at targets/parser.rs:30:5:"]);
    }

    #[test]
    fn inputs_that_add_the_most_come_first_and_others_not_at_all() {
        let control = "4\n0\na\nb\nc\nd\nSTARTED 0 9\nFT 0 1 2\nCOV 0\nSTARTED 1 9\nFT 1 1 2 3\nCOV 1\n\
            STARTED 2 9\nFT 2 4\nCOV 2\nSTARTED 3 9\nFT 3\nCOV 3\n";
        assert_eq!(cover(control), ["b", "c"]);
    }
}
