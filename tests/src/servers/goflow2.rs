//! The real goflow2: takes NetFlow and IPFIX by UDP and writes each record as a line of JSON.
//!
//! It has one worker: with two, a data set may overtake its template, and its records are gone without a word. Of
//! elements that its own mapping doesn't know it drops the values; a mapping may name more.

use super::GOFLOW2;
use super::folder::Folder;
use super::http::{Client, Request};
use super::place::Place;
use super::process::Process;
use super::udp_socket::UdpSocket;
use serde_json::Value;
use std::net::SocketAddr;

const LINES: &str = "received.jsonl";

/// A running goflow2.
#[derive(Debug)]
pub struct Goflow2 {
    process: Process,
    netflow: SocketAddr,
    client: Client,
    folder: Folder,
}

impl Goflow2 {
    /// Whether its program is there.
    ///
    /// # Errors
    /// What is missing.
    pub fn installed() -> Result<(), String> {
        crate::need::tool("setpriv")?;
        GOFLOW2.installed()
    }

    /// Starts one; `mapping` is YAML as `-mapping` takes it.
    #[must_use]
    pub fn start(mapping: Option<&str>) -> Self {
        let place = Place::Here;
        let netflow = place.free_address();
        Self::start_at(&place, netflow, mapping)
    }

    /// Starts one in a place, listening there at an address.
    ///
    /// # Panics
    /// When it doesn't come up.
    #[must_use]
    pub fn start_at(place: &Place, netflow: SocketAddr, mapping: Option<&str>) -> Self {
        let folder = Folder::new();
        let http = place.free_address();
        let mut arguments = vec![
            // Every interface otherwise, and the same for its own HTTP.
            format!("-listen=netflow://{netflow}?count=1&workers=1"),
            format!("-addr={http}"),
            "-format=json".into(),
            format!("-transport.file={LINES}"),
        ];
        if let Some(mapping) = mapping {
            arguments.push(format!("-mapping={}", folder.write("mapping.yaml", mapping).display()));
        }
        let program = GOFLOW2.program("goflow2").unwrap_or_else(|missing| panic!("{missing}"));
        let mut process = Process::start(place, &program, &arguments, folder.path());
        let client = Client::plain(place, http);
        let id = process.id();
        process.wait_until(|| {
            UdpSocket::of(id, netflow).is_some()
                && client.send(Request::get("/metrics")).is_ok_and(|response| response.status == 200)
        });
        Self { process, netflow, client, folder }
    }

    /// Where it takes messages.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.netflow
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
        UdpSocket::of(self.process.id(), self.netflow).expect("it is there")
    }

    /// The sum of one of its own metrics over series that have all these labels.
    ///
    /// # Panics
    /// When it doesn't answer.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let page = self.client.send(Request::get("/metrics")).expect("it answers").text();
        let series = page.lines().filter_map(|line| line.strip_prefix(name));
        let series = series.filter(|rest| rest.starts_with(['{', ' ']));
        let wanted = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect::<Vec<_>>();
        let series = series.filter(|rest| wanted.iter().all(|label| rest.contains(label)));
        series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }

    /// Datagrams that it has taken so far and decoded, or tried to.
    #[must_use]
    pub fn decoded(&self) -> u64 {
        self.metric("goflow2_flow_decoding_time_seconds_count", &[])
    }

    /// Messages that it could not make sense of, whatever the reason: a set without its template among them.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.metric("goflow2_flow_process_nf_errors_total", &[])
    }

    /// Ends it, when it has decoded all that it was sent, and gives all its records.
    ///
    /// # Panics
    /// When it has not after 30 s, or when it wrote something that is no JSON.
    #[must_use]
    pub fn records(mut self) -> Vec<Value> {
        let began = std::time::Instant::now();
        let taken = || self.metric("goflow2_flow_traffic_packets_total", &[]);
        while self.socket().waiting > 0 || self.decoded() != taken() {
            assert!(began.elapsed().as_secs() < 30, "it does not come to an end: {}", self.process.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        self.process.terminate();
        self.received()
    }

    /// The records so far. Left out is a line that it is about to write.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[must_use]
    pub fn received(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join(LINES)).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
    }
}
