//! Two network namespaces joined by a veth pair: a network of the test's own, with real traffic.
//!
//! Names carry the process id and a counter, so tests run side by side; letting go of a [`Net`] removes everything.

use crate::witness::interface;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The left end's IPv4 address.
pub const LEFT: &str = "10.77.0.1";
/// The right end's IPv4 address.
pub const RIGHT: &str = "10.77.0.2";
/// The left end's IPv6 address.
pub const LEFT6: &str = "fd77::1";
/// The right end's IPv6 address.
pub const RIGHT6: &str = "fd77::2";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace; gone when let go of, with what runs in it.
#[derive(Debug)]
pub struct Namespace {
    /// As `ip netns` knows it.
    pub name: String,
}

impl Namespace {
    /// Makes one, loopback up.
    ///
    /// # Panics
    /// When that fails: call [`crate::need::namespaces`] before.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mmn-{prefix}-{}-{number}", std::process::id());
        ok(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// What stands for it: to move into, or to put a link's end into.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn file(&self) -> File {
        File::open(format!("/run/netns/{}", self.name)).expect("it was made")
    }

    /// Runs `act` on a thread inside.
    ///
    /// # Panics
    /// When `act` does, or the namespace is gone.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.file().as_fd(), network).expect("root may");
            act()
        };
        thread::scope(|scope| scope.spawn(inside).join().expect("what it does is asserted there"))
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command line, split at spaces, and gives its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let output = ok(self.command(words.next().expect("a program")).args(words));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `ip …` inside.
    pub fn ip(&self, line: &str) {
        let _ = self.run(&format!("ip {line}"));
    }

    /// Starts a command line that goes on until it is let go of, its standard output piped.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(&self, line: &str) -> Background {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        let child =
            command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Background(child.expect("it starts"))
    }

    /// Starts a server and returns when it listens on `port` (TCP) or is bound to it (UDP).
    ///
    /// # Panics
    /// When it has not after 10 s.
    #[must_use]
    pub fn serve(&self, line: &str, port: u16) -> Background {
        let server = self.start(line);
        let started = Instant::now();
        while self.run(&format!("ss -Hltun sport = :{port}")).is_empty() {
            assert!(started.elapsed() < Duration::from_secs(10), "{line} does not listen on {port}");
            thread::sleep(Duration::from_millis(10));
        }
        server
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// A program that runs beside the test; killed when let go of.
#[derive(Debug)]
pub struct Background(pub Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two namespaces and the veth pair between them: `left` on the left, `right` on the right.
#[derive(Debug)]
pub struct Net {
    /// Has [`LEFT`] and [`LEFT6`].
    pub left: Namespace,
    /// Has [`RIGHT`] and [`RIGHT6`].
    pub right: Namespace,
}

impl Net {
    /// Makes it, with addresses and neighbours of both families and no segmentation offload unless `offloads`.
    #[must_use]
    pub fn new(prefix: &str, offloads: bool) -> Self {
        let net = Self { left: Namespace::new(prefix), right: Namespace::new(prefix) };
        net.left.ip(&format!("link add left type veth peer name right netns {}", net.right.name));
        for (side, name, ipv4, ipv6) in
            [(&net.left, "left", LEFT, LEFT6), (&net.right, "right", RIGHT, RIGHT6)]
        {
            // The host's own chatter would be counted too: no link-local address, no duplicate detection, no router
            // solicitations. The listener reports that remain end before `settle` returns.
            for setting in
                [format!("conf.{name}.accept_dad=0"), format!("conf.{name}.router_solicitations=0")]
            {
                let _ = side.run(&format!("sysctl -q -w net.ipv6.{setting}"));
            }
            side.ip(&format!("link set {name} addrgenmode none"));
            side.ip(&format!("addr add {ipv4}/24 dev {name}"));
            side.ip(&format!("addr add {ipv6}/64 dev {name} nodad"));
            let state = if offloads { "on" } else { "off" };
            let _ = side
                .run(&format!("ethtool -K {name} tso {state} gso {state} gro {state} tx {state} rx {state}"));
            side.ip(&format!("link set {name} up"));
        }
        net.settle();
        net
    }

    /// Waits until nothing has crossed the link for a second.
    fn settle(&self) {
        let mut seen = interface(&self.left, "left");
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_secs(1) {
            thread::sleep(Duration::from_millis(50));
            let now = interface(&self.left, "left");
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }
}

/// Runs it; anything but success is a failed test.
fn ok(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
