//! Network namespaces that belong to this process alone.
//!
//! They have no name and no mount: a thread unshares, keeps the file descriptor, and when the process ends, however it
//! ends, the kernel takes namespaces, interfaces and sockets away. So there is nothing to clean up.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::thread;

/// A network namespace.
#[derive(Debug)]
pub(super) struct Namespace(pub(super) File);

impl Namespace {
    /// A new one, empty but for a loopback interface that is down. No thread is in it yet.
    pub(super) fn new() -> io::Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net").map(Self)
        };
        thread::spawn(make).join().unwrap_or_else(|_| Err(io::Error::other("the thread died")))
    }

    /// Moves the calling thread, and those that it starts later, into it.
    pub(super) fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }
}
