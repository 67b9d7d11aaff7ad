//! Whether the servers that other tests rely on start, answer, take what is done to them, and leave nothing behind.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod collector;
mod control_plane;
mod faulty_collector;
mod ipfix;
mod kafka;
mod otlp;
mod prometheus;

use mermin_tests::servers::process::Process;

/// Whether this process is there, be it a zombie.
fn is_there(id: u32) -> bool {
    std::path::Path::new("/proc").join(id.to_string()).exists()
}

/// Whether it is there and ends with its owner.
fn ends_with<T>(owner: T, process: impl Fn(&T) -> &Process) -> bool {
    let id = process(&owner).id();
    let was = is_there(id);
    drop(owner);
    was && !is_there(id)
}
