//! Runs the program and reads what it wrote.

use crate::container::Container;
use crate::record::Record;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test: `MERMIN_BIN`, or the release build of this workspace.
///
/// # Panics
/// When neither is there.
#[must_use]
pub fn binary() -> PathBuf {
    let built = || {
        let root = crate::need::root();
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        target.join("release/mermin")
    };
    let path = std::env::var_os("MERMIN_BIN").map_or_else(built, PathBuf::from);
    assert!(
        path.is_file(),
        "no program at {}: `cargo build --release`, or MERMIN_BIN=path; `cargo xtask test` does both",
        path.display()
    );
    path
}

/// A command without what the test's own environment says to the program: there, `MERMIN_BIN` is an unknown key.
#[must_use]
pub fn plain(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MERMIN_")) {
        command.env_remove(name);
    }
    command
}

/// A command line of the program, with a folder of its own for statistics and whatever the test puts there.
#[derive(Debug)]
pub struct Program {
    arguments: Vec<OsString>,
    folder: TempDir,
    input: Vec<u8>,
    environment: Vec<(String, String)>,
    namespace: Option<String>,
    wrapper: Vec<String>,
    container: Option<Container>,
}

/// What a run left.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; 128 + signal where one ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The final statistics, where any were written.
    pub statistics: Option<Value>,
    /// How long it ran.
    pub took: Duration,
}

impl Program {
    /// `mermin COMMAND -o json --stats …`.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn new(command: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let statistics = folder.path().join("stats.json");
        let plain = Self {
            arguments: Vec::new(),
            folder,
            input: Vec::new(),
            environment: Vec::new(),
            namespace: None,
            wrapper: Vec::new(),
            container: None,
        };
        plain.arg(command).args(["-o", "json"]).arg("--stats").arg(statistics)
    }

    /// `mermin replay FILE…` to JSON lines.
    #[must_use]
    pub fn replay(files: &[&Path]) -> Self {
        Self::new("replay").args(files)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// `--set key=value`.
    #[must_use]
    pub fn set(self, setting: &str) -> Self {
        self.arg("--set").arg(setting)
    }

    /// Takes the place of `-o json`.
    #[must_use]
    pub fn output(mut self, kind: &str) -> Self {
        self.arguments[2] = kind.into();
        self
    }

    /// Leaves it to the configuration where records go.
    #[must_use]
    pub fn outputs_as_configured(mut self) -> Self {
        assert_eq!(self.arguments[1], "-o");
        self.arguments.drain(1..3);
        self
    }

    /// Gives it standard input.
    #[must_use]
    pub fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = bytes;
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs it in a network namespace.
    #[must_use]
    pub fn inside(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Runs it by way of another program, such as setpriv, which is given `words` and then the command line.
    #[must_use]
    pub fn under(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Runs it in a container, which gets the folder for statistics too.
    #[must_use]
    pub fn contained(mut self, container: Container) -> Self {
        self.container = Some(container.mounting(self.folder.path(), self.folder.path(), true));
        self
    }

    /// A folder that lasts as long as the run.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command, to be started otherwise than by [`Self::run`].
    #[must_use]
    pub fn command(&self) -> Command {
        if let Some(container) = &self.container {
            return container.command(&binary(), &self.arguments, &self.environment);
        }
        let mut words: Vec<OsString> = Vec::new();
        if let Some(name) = &self.namespace {
            words.extend(["ip", "netns", "exec", name].map(OsString::from));
        }
        words.extend(self.wrapper.iter().map(OsString::from));
        words.push(binary().into_os_string());
        let mut command = plain(&words[0]);
        command.args(&words[1..]);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn run(self) -> Outcome {
        let started = Instant::now();
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("it was piped");
        let input = self.input.clone();
        // A program that reads no input closes the pipe: not this test's failure.
        let writer = std::thread::spawn(move || stdin.write_all(&input).is_ok());
        let output = child.wait_with_output().expect("it was started");
        let _ = writer.join();
        self.outcome(&output, started)
    }

    /// Runs it to its end, with what `write` writes as its standard input and what it writes for `read`; `look` is called
    /// with its process id every few milliseconds.
    ///
    /// # Panics
    /// When it can't be started, closes its input, or `read` fails.
    #[must_use]
    pub fn run_watched(
        self,
        write: impl FnOnce(ChildStdin) -> io::Result<()> + Send,
        read: impl FnOnce(ChildStdout) -> io::Result<()> + Send,
        mut look: impl FnMut(u32),
    ) -> Outcome {
        let started = Instant::now();
        let mut command = self.command();
        let stderr = self.folder.path().join("stderr");
        let file = std::fs::File::create(&stderr).expect("the folder takes a file");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().expect("the program starts");
        let stdin = child.stdin.take().expect("it was piped");
        let stdout = child.stdout.take().expect("it was piped");
        let status = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(stdin));
            let reader = scope.spawn(|| read(stdout));
            let status = loop {
                if let Some(status) = child.try_wait().expect("it was started") {
                    break status;
                }
                look(child.id());
                std::thread::sleep(Duration::from_millis(5));
            };
            writer.join().expect("the writer does not panic").expect("it reads its input to the end");
            reader.join().expect("the reader does not panic").expect("what it writes can be read");
            status
        });
        let stderr = std::fs::read(stderr).unwrap_or_default();
        self.outcome(&Output { status, stdout: Vec::new(), stderr }, started)
    }

    /// Starts it and returns once it says that it captures: the first line on standard error.
    ///
    /// # Panics
    /// When it ends before that, or says nothing for 20 s.
    #[must_use]
    pub fn start(self) -> Running {
        self.start_with(Stdio::null())
    }

    /// The same, with its input as standard input.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_reading(self) -> Running {
        let path = self.folder.path().join("input");
        std::fs::write(&path, &self.input).expect("the folder takes a file");
        let input = std::fs::File::open(path).expect("it was just written");
        self.start_with(input.into())
    }

    fn start_with(self, input: Stdio) -> Running {
        let started = Instant::now();
        let folder = self.folder.path();
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        let file = |path: &Path| std::fs::File::create(path).expect("the folder takes a file");
        let mut command = self.command();
        command.stdin(input).stdout(file(&stdout)).stderr(file(&stderr));
        let mut child = command.spawn().expect("the program starts");
        loop {
            let said = std::fs::read_to_string(&stderr).unwrap_or_default();
            if said.contains("Packet reader task started") {
                return Running { program: self, child, started };
            }
            let ended = child.try_wait().expect("it was started");
            assert!(ended.is_none(), "ended early with {ended:?}: {said}");
            assert!(started.elapsed() < Duration::from_secs(20), "did not begin to capture: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn outcome(&self, output: &Output, started: Instant) -> Outcome {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let statistics = std::fs::read(self.folder.path().join("stats.json")).ok();
        let status = output.status;
        Outcome {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            statistics: statistics.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            took: started.elapsed(),
        }
    }
}

/// A program that captures until it is told to stop. Killed when the test lets go of it.
#[derive(Debug)]
pub struct Running {
    program: Program,
    child: Child,
    started: Instant,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, signal).expect("it is there");
    }

    /// Returns when it has taken the signals that were sent: further ones of a kind that waits would be lost.
    ///
    /// # Panics
    /// When it has not after 5 s.
    pub fn taken(&self) {
        let asked = Instant::now();
        let waits = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
            let pending = |line: &str| {
                line.starts_with("ShdPnd:") && line.chars().any(|sign| ('1'..='9').contains(&sign))
            };
            status.lines().any(pending)
        };
        while waits() {
            assert!(asked.elapsed() < Duration::from_secs(5), "a signal is not taken");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.program.folder().join("stderr")).unwrap_or_default()
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.program.folder().join("stdout")).unwrap_or_default()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended after `at_most`.
    #[must_use]
    pub fn wait(mut self, at_most: Duration) -> Outcome {
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it was started") {
                break status;
            }
            assert!(asked.elapsed() < at_most, "still running after {at_most:?}: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        };
        let read = |name: &str| std::fs::read(self.program.folder().join(name)).unwrap_or_default();
        let output = Output { status, stdout: read("stdout"), stderr: read("stderr") };
        let mut outcome = self.program.outcome(&output, self.started);
        outcome.took = asked.elapsed();
        outcome
    }

    /// Stops it as Ctrl-C does.
    #[must_use]
    pub fn interrupt(self) -> Outcome {
        self.signal(Signal::INT);
        self.wait(Duration::from_secs(10))
    }
}

/// What a process has started, and what these have.
fn started_by(id: u32) -> impl Iterator<Item = Pid> {
    let (mut open, mut found) = (vec![id], Vec::new());
    while let Some(id) = open.pop() {
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse::<u32>().ok());
        let before = open.len();
        open.extend(children);
        found.extend(open[before..].iter().filter_map(|id| Pid::from_raw(i32::try_from(*id).ok()?)));
    }
    found.into_iter()
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // A container's runtime that is killed leaves its container behind.
            for id in started_by(self.child.id()) {
                let _ = kill_process(id, Signal::KILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Outcome {
    /// The records on standard output.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        Record::parse_lines(&self.stdout)
    }

    /// The final statistics.
    ///
    /// # Panics
    /// When none were written.
    #[must_use]
    pub fn statistics(&self) -> &Value {
        self.statistics.as_ref().unwrap_or_else(|| panic!("no statistics; {}", self.stderr))
    }

    /// A number in the statistics by JSON pointer, 0 where absent.
    #[must_use]
    pub fn number(&self, pointer: &str) -> u64 {
        self.statistics().pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
    }

    /// The outcome again, if it ended with `code` and keeps the contract.
    ///
    /// # Panics
    /// When it doesn't.
    #[must_use]
    pub fn kept(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.stderr);
        let broken = crate::contract::check(&self.stdout, self.statistics.as_ref());
        assert!(broken.is_empty(), "contract broken:\n{}", broken.join("\n"));
        self
    }

    /// The outcome again, if it ended with `code` and its books keep the contract, wherever its records went.
    ///
    /// # Panics
    /// When it doesn't.
    #[must_use]
    pub fn kept_books(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.stderr);
        let broken = crate::contract::check_books(self.statistics());
        assert!(broken.is_empty(), "contract broken:\n{}", broken.join("\n"));
        self
    }
}
