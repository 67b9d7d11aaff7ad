//! Where a server runs: with the test program, or in a network namespace. 127.0.0.1 is another one in each.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::HashSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Mutex;

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The test program's own.
    #[default]
    Here,
    /// One that `ip netns` knows by this name.
    Namespace(String),
}

/// Below the ports that the system gives to clients, so that no connection takes one that was found free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

impl Place {
    /// A command that runs there, in the process that is started: nothing stands between it and a signal. The kernel
    /// kills it when the thread that starts it ends.
    #[must_use]
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Self::Namespace(name) = self {
            command.args(["ip", "netns", "exec", name]);
        }
        command.arg(program);
        command
    }

    /// Does something there: sockets that it opens belong there for good.
    ///
    /// # Panics
    /// When there is no such namespace, or with what `work` panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let Self::Namespace(name) = self else { return work() };
        let enter = || {
            let file = File::open(format!("/run/netns/{name}")).expect("the namespace is there");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may go there");
            work()
        };
        // The namespace is the thread's: a thread of its own leaves the caller where it is.
        let done = std::thread::scope(|scope| scope.spawn(enter).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// An address on 127.0.0.1 at which nothing listens; given out once by this program.
    ///
    /// # Panics
    /// When there is none left.
    #[must_use]
    pub fn free_address(&self) -> SocketAddr {
        static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
        let mut given = GIVEN.lock().expect("no holder panics");
        let given = given.get_or_insert_default();
        // Programs that run side by side begin at different places.
        let count = PORTS.end - PORTS.start;
        let begin = u16::try_from(std::process::id() * 97 % u32::from(count)).expect("below u16's end");
        let free = |port: u16| self.inside(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
        let port = (0..count)
            .map(|step| PORTS.start + (begin + step) % count)
            .find(|port| !given.contains(port) && free(*port))
            .expect("a free port");
        given.insert(port);
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }
}
