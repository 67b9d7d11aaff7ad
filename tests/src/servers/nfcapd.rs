//! The real nfcapd: takes NetFlow and IPFIX by UDP and writes its own files, which nfdump reads.

use super::folder::Folder;
use super::place::Place;
use super::process::Process;
use super::udp_socket::UdpSocket;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const FLOWS: &str = "flows";

/// A running nfcapd.
#[derive(Debug)]
pub struct Nfcapd {
    process: Process,
    address: SocketAddr,
    folder: Folder,
}

/// What it says and has at its end.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// nfdump's objects, one for each flow.
    pub flows: Vec<Value>,
    /// Messages whose sequence number was not the one that was due.
    pub sequence_errors: u64,
    /// Messages that it could make nothing of.
    pub bad_packets: u64,
    /// Whatever else it wrote: what it can't decode it says here.
    pub log: String,
}

impl Nfcapd {
    /// Whether its programs are there.
    ///
    /// # Errors
    /// What is missing.
    pub fn installed() -> Result<(), String> {
        for name in ["setpriv", "nfcapd", "nfdump"] {
            crate::need::tool(name)?;
        }
        Ok(())
    }

    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let place = Place::Here;
        let address = place.free_address();
        Self::start_at(&place, address)
    }

    /// Starts one in a place, listening there at an address.
    ///
    /// # Panics
    /// When it doesn't come up.
    #[must_use]
    pub fn start_at(place: &Place, address: SocketAddr) -> Self {
        let folder = Folder::new();
        std::fs::create_dir(folder.path().join(FLOWS)).expect("the folder takes another");
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        // A file for an hour: here it is closed when the program ends.
        let words = ["-w", FLOWS, "-t", "3600", "-b", &ip, "-p", &port];
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let arguments: Vec<String> = words.into_iter().chain([family]).map(String::from).collect();
        let program = crate::need::tool("nfcapd").unwrap_or_else(|missing| panic!("{missing}"));
        let mut process = Process::start(place, &program, &arguments, folder.path());
        let id = process.id();
        process.wait_until(|| UdpSocket::of(id, address).is_some());
        Self { process, address, folder }
    }

    /// Where it takes messages.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What the kernel says of the socket that it takes messages from.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn socket(&self) -> UdpSocket {
        UdpSocket::of(self.process.id(), self.address).expect("it is there")
    }

    /// Ends it, when it has read all that it was sent, and gives what it has.
    ///
    /// # Panics
    /// When it has not after 30 s, or nfdump can't read its files.
    #[must_use]
    pub fn finish(mut self) -> Captured {
        let began = std::time::Instant::now();
        while self.socket().waiting > 0 {
            assert!(began.elapsed().as_secs() < 30, "it does not come to an end: {}", self.process.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        self.process.terminate();
        let log = self.process.log();
        // `Ident: 'none' Flows: 18, Packets: 36, Bytes: 3600, Sequence Errors: 1, Bad Packets: 0`, once for each file.
        let sum = |name: &str| {
            let after = |line: &str| line.split_once(name)?.1.split(',').next()?.trim().parse::<u64>().ok();
            let found: Vec<u64> = log.lines().filter_map(after).collect();
            assert!(!found.is_empty(), "nfcapd does not say its {name} {log}");
            found.iter().sum()
        };
        let (sequence_errors, bad_packets) = (sum("Sequence Errors:"), sum("Bad Packets:"));
        Captured { flows: nfdump(&self.folder.path().join(FLOWS)), sequence_errors, bad_packets, log }
    }
}

/// All flows in a folder. nfdump takes its time zone from the environment.
fn nfdump(folder: &Path) -> Vec<Value> {
    let output = Command::new("nfdump").arg("-R").arg(folder).args(["-o", "json"]).env("TZ", "UTC").output();
    let output = output.expect("nfdump starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nfdump: {said}");
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains('{') {
        return Vec::new();
    }
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("nfdump: {error}: {said}"))
}
