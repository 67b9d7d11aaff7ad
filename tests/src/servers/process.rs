//! A server's process: started with its log in a file, waited for, signalled, and ended when let go of.
//!
//! Should the test program die without that (`kill -9`, an abort), the kernel ends the server: setpriv asks for a
//! signal at the parent's death. To the kernel the parent is the *thread* that started it, and a test's thread ends
//! with the test; so one thread that never ends starts all servers.

use super::place::Place;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// What this machine's environment may say of certificates and proxies: tests say it themselves.
const UNSET: [&str; 9] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "http_proxy",
    "https_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "KUBECONFIG",
];
/// A server that has not come up by then won't: three times what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with arguments; its output is added to `folder/NAME.log`.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(place: &Place, program: &Path, arguments: &[String], folder: &Path) -> Self {
        let name = program.file_name().expect("a program").to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("the folder takes a file");
        let mut command = place.command(program);
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a file can be had twice")).stderr(file);
        let child = spawn(without_surroundings(command)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, child, log }
    }

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

    /// Ends it by SIGKILL, and returns when it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it by SIGTERM, and returns when it is gone; whether it ended well.
    ///
    /// # Panics
    /// When it doesn't end.
    pub fn terminate(&mut self) -> bool {
        self.signal(Signal::TERM);
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it was started") {
                return status.success();
            }
            assert!(asked.elapsed() < PATIENCE, "{} does not end: {}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns when `up` says so.
    ///
    /// # Panics
    /// With the end of its log, when it ends before that or takes too long.
    pub fn wait_until(&mut self, mut up: impl FnMut() -> bool) {
        let began = Instant::now();
        while !up() {
            let ended = self.child.try_wait().expect("it was started");
            assert!(ended.is_none(), "{} ended with {ended:?}: {}", self.name, self.log());
            assert!(began.elapsed() < PATIENCE, "{} does not come up: {}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last lines of what it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client program's command, without what this machine's environment says of certificates.
#[must_use]
pub fn without_surroundings(mut command: Command) -> Command {
    for name in UNSET {
        command.env_remove(name);
    }
    command
}

/// Starts it from a thread that lives as long as the program.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, SyncSender<io::Result<Child>>);
    static STARTER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, taken) = sync_channel::<Order>(0);
        let work = move || {
            for (mut command, answer) in taken {
                let _ = answer.send(command.spawn());
            }
        };
        std::thread::Builder::new().name("starter".into()).spawn(work).expect("a thread");
        orders
    });
    let (answer, child) = sync_channel(1);
    starter.send((command, answer)).expect("the starter never ends");
    child.recv().expect("the starter answers")
}

#[cfg(test)]
mod tests {
    use super::{PATIENCE, Place, Process};
    use crate::need;
    use crate::need::tool;
    use crate::servers::folder::Folder;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    fn state(id: u32) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit(')').next()?.trim().chars().next()
    }

    fn sleeper(folder: &Folder) -> Process {
        Process::start(&Place::Here, Path::new("/bin/sleep"), &["100".into()], folder.path())
    }

    #[test]
    fn ends_with_its_owner_also_when_that_panics() {
        need!(tool("setpriv"));
        let folder = Folder::new();
        let id = std::sync::Mutex::new(0);
        let dies = std::panic::catch_unwind(|| {
            let process = sleeper(&folder);
            *id.lock().unwrap() = process.id();
            panic!("as a failing test does");
        });
        assert!(dies.is_err());
        let id = *id.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(id != 0 && state(id).is_none(), "{id} is there: {:?}", state(id));
    }

    fn is_sleep(id: u32) -> bool {
        std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name == "sleep\n")
    }

    #[test]
    fn outlives_the_thread_that_asked_for_it() {
        need!(tool("setpriv"));
        let folder = Folder::new();
        let start = || {
            let mut process = sleeper(&folder);
            let id = process.id();
            process.wait_until(|| is_sleep(id));
            process
        };
        let process = std::thread::scope(|scope| scope.spawn(start).join()).unwrap();
        // That thread is gone, and the kernel's signal for its children would come at once.
        std::thread::sleep(Duration::from_millis(300));
        assert!(state(process.id()).is_some_and(|state| state != 'Z'));
    }

    /// Run again by itself, with this variable, as the test program that is killed.
    const VICTIM: &str = "MERMIN_TESTS_VICTIM";

    #[test]
    fn ends_when_the_test_program_is_killed() {
        need!(tool("setpriv"));
        let folder = Folder::new();
        if let Some(file) = std::env::var_os(VICTIM) {
            let mut process = sleeper(&folder);
            let id = process.id();
            process.wait_until(|| is_sleep(id));
            std::fs::write(file, id.to_string()).unwrap();
            std::thread::sleep(Duration::from_secs(100));
        }
        let file = folder.path().join("id");
        let this = std::env::current_exe().unwrap();
        let arguments =
            ["--exact", "servers::process::tests::ends_when_the_test_program_is_killed"].map(String::from);
        let mut command = Command::new(this);
        command.args(arguments).env(VICTIM, &file).stdout(Stdio::null()).stderr(Stdio::null());
        let mut victim = command.spawn().unwrap();
        let wait = |until: &dyn Fn() -> bool| {
            let began = Instant::now();
            while !until() {
                assert!(began.elapsed() < PATIENCE, "it takes too long");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let id = || std::fs::read_to_string(&file).ok()?.parse().ok();
        wait(&|| id().is_some());
        let id: u32 = id().unwrap();
        assert!(is_sleep(id));
        victim.kill().unwrap();
        victim.wait().unwrap();
        wait(&|| state(id).is_none_or(|state| state == 'Z'));
    }
}
