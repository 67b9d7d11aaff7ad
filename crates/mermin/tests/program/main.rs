//! The program as users run it.
#![expect(clippy::unwrap_used, reason = "a test")]

mod command_line;
mod diagnose;
mod live;
mod reload;
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A classic pcap: seconds, microseconds and bytes of each packet.
fn pcap(link_type: u32, packets: impl IntoIterator<Item = (u32, u32, Vec<u8>)>) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, link_type] {
        file.extend(word.to_le_bytes());
    }
    for (seconds, micros, bytes) in packets {
        let length = u32::try_from(bytes.len()).unwrap();
        for word in [seconds, micros, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(bytes);
    }
    file
}

/// A capture of one TCP connection attempt, 1.2.3.4:1122 to 5.6.7.8:3344, `packets` SYNs a microsecond apart.
fn capture(packets: u32) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    frame.extend([0x04, 0x62, 0x0d, 0x10, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 64, 0, 0, 0, 0]);
    pcap(1, (0..packets).map(|number| (1_700_000_000, number, frame.clone())))
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_mermin")
}

/// The program without what the tests' own environment says to it.
fn mermin(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env_remove("NO_COLOR").stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MERMIN_") {
            command.env_remove(name);
        }
    }
    command
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn ran(output: &Output) -> Ran {
    Ran {
        code: output.status.code().expect("not ended by a signal"),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn run(arguments: &[&str]) -> Ran {
    ran(&mermin(arguments).output().unwrap())
}
