//! A UDP port that keeps every datagram: what an exporter sent, to be looked at, written as a capture, and sent on.

use super::place::Place;
use super::udp_socket::UdpSocket;
use crate::capture_file::{EPOCH, pcap};
use crate::frame::{Ends, ethernet, udp};
use rustix::net::sockopt;
use std::net::{SocketAddr, UdpSocket as Socket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// IANA's port of IPFIX, which tshark knows.
const COLLECTOR: &str = "192.0.2.1:4739";

/// One datagram.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// When it was read.
    pub at: Instant,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A port that is read until it is let go of.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    place: Place,
    kept: Arc<Mutex<Vec<Datagram>>>,
    end: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Tap {
    /// Listens on 127.0.0.1.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at(&Place::Here, Place::Here.free_address())
    }

    /// Listens in a place at an address.
    ///
    /// # Panics
    /// When it can't.
    #[must_use]
    pub fn start_at(place: &Place, address: SocketAddr) -> Self {
        let socket = place.inside(|| Socket::bind(address)).expect("the address is free");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("it is no zero");
        // All of a run, where the reader has to wait for a CPU. Without privilege it stays as it is.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20);
        let (kept, end) = (Arc::<Mutex<Vec<Datagram>>>::default(), Arc::<AtomicBool>::default());
        let (keeps, ends) = (Arc::clone(&kept), Arc::clone(&end));
        let read = move || {
            let mut bytes = vec![0; 65_536];
            loop {
                if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    let datagram = Datagram { from, at: Instant::now(), bytes: bytes[..length].to_vec() };
                    keeps.lock().expect("no holder panics").push(datagram);
                } else if ends.load(Ordering::Acquire) {
                    return;
                }
            }
        };
        let reader = std::thread::Builder::new().name("tap".into()).spawn(read).expect("a thread");
        Self { address, place: place.clone(), kept, end, reader: Some(reader) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has come so far.
    ///
    /// # Panics
    /// Never: the reader doesn't panic.
    #[must_use]
    pub fn so_far(&self) -> Vec<Datagram> {
        self.kept.lock().expect("no holder panics").clone()
    }

    /// All that has come.
    ///
    /// # Panics
    /// When a datagram found no room.
    #[must_use]
    pub fn finish(mut self) -> Vec<Datagram> {
        let socket = self.place.inside(|| UdpSocket::here(self.address)).expect("it is there");
        assert_eq!(socket.dropped, 0, "the test itself has lost datagrams");
        self.stop();
        std::mem::take(&mut *self.kept.lock().expect("no holder panics"))
    }

    fn stop(&mut self) {
        self.end.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Messages as a capture of datagrams to IPFIX's port, each with the port that it came from.
///
/// # Panics
/// Never: the address is one.
#[must_use]
pub fn capture<'a>(messages: impl IntoIterator<Item = (u16, &'a [u8])>) -> Vec<u8> {
    let frame = |(time, (port, bytes)): (u64, (u16, &[u8]))| {
        let ends = Ends::new(&format!("192.0.2.2:{port}"), COLLECTOR);
        (EPOCH + time * 1_000_000, ethernet(&udp(ends, bytes)))
    };
    pcap(&(0..).zip(messages).map(frame).collect::<Vec<_>>())
}

/// Sends datagrams on to a collector, from a port for each one that they came from, and not faster than it reads:
/// `waiting` tells the octets in its socket.
///
/// # Panics
/// When it doesn't read.
pub fn send_on(datagrams: &[Datagram], to: SocketAddr, waiting: impl Fn() -> u64) {
    let mut sockets = std::collections::HashMap::new();
    for datagram in datagrams {
        let began = Instant::now();
        while waiting() > 64 << 10 {
            assert!(began.elapsed() < Duration::from_secs(30), "the collector does not read");
            std::thread::sleep(Duration::from_millis(1));
        }
        let socket = sockets.entry(datagram.from);
        let socket = socket.or_insert_with(|| Socket::bind(("127.0.0.1", 0)).expect("a free port"));
        socket.send_to(&datagram.bytes, to).expect("somebody listens");
    }
}
