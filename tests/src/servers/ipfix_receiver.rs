//! A collector's far end of TCP, with TLS or without: keeps each connection's messages, and can be gone for a while.

use super::place::Place;
use crate::ipfix::messages;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a read waits before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(10);

/// What came over one connection.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// Whole messages.
    pub messages: Vec<Vec<u8>>,
    /// Octets behind them.
    pub rest: usize,
    /// What went wrong.
    pub error: Option<String>,
    /// Whether the exporter ended it.
    pub ended: bool,
}

/// A listener and its connections.
#[derive(Debug)]
pub struct Receiver {
    place: Place,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    kept: Arc<Mutex<Vec<Connection>>>,
    running: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Receiver {
    /// Listens in a place at an address.
    #[must_use]
    pub fn start(place: &Place, address: SocketAddr, tls: Option<ServerConfig>) -> Self {
        let mut receiver = Self {
            place: place.clone(),
            address,
            tls: tls.map(Arc::new),
            kept: Arc::default(),
            running: None,
        };
        receiver.come_back();
        receiver
    }

    /// Listens again, where it did before.
    ///
    /// # Panics
    /// When it can't.
    pub fn come_back(&mut self) {
        // The standard library sets SO_REUSEADDR: connections that wind up don't hinder.
        let listener = self.place.inside(|| TcpListener::bind(self.address)).expect("the address is free");
        listener.set_nonblocking(true).expect("it is a socket");
        let (end, kept, tls) = (Arc::<AtomicBool>::default(), Arc::clone(&self.kept), self.tls.clone());
        let ends = Arc::clone(&end);
        let accept = move || {
            let mut readers = Vec::new();
            while !ends.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (ends, kept, tls) = (Arc::clone(&ends), Arc::clone(&kept), tls.clone());
                        readers.push(std::thread::spawn(move || keep(stream, tls, &ends, &kept)));
                    }
                    Err(_) => std::thread::sleep(LOOK),
                }
            }
            drop(listener);
            readers.into_iter().for_each(|reader| drop(reader.join()));
        };
        self.running = Some((end, std::thread::spawn(accept)));
    }

    /// Listens no more and ends its connections, when it has read what is there.
    pub fn go(&mut self) {
        if let Some((end, thread)) = self.running.take() {
            end.store(true, Ordering::Release);
            let _ = thread.join();
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has come so far, by connection.
    ///
    /// # Panics
    /// Never: no reader panics.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.kept.lock().expect("no holder panics").clone()
    }

    /// All that came, when it has ended.
    #[must_use]
    pub fn finish(mut self) -> Vec<Connection> {
        self.go();
        self.connections()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.go();
    }
}

/// Reads a connection to its end, or until it is to end and nothing more is there.
fn keep(stream: TcpStream, tls: Option<Arc<ServerConfig>>, ends: &AtomicBool, kept: &Mutex<Vec<Connection>>) {
    let place = {
        let mut kept = kept.lock().expect("no holder panics");
        kept.push(Connection::default());
        kept.len() - 1
    };
    let outcome = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(LOOK)));
    let outcome = outcome.and_then(|()| match tls {
        None => read(stream, ends, &mut |messages, rest| note(kept, place, messages, rest)),
        Some(tls) => {
            let session = ServerConnection::new(tls).map_err(io::Error::other)?;
            let stream = StreamOwned::new(session, stream);
            read(stream, ends, &mut |messages, rest| note(kept, place, messages, rest))
        }
    });
    let mut kept = kept.lock().expect("no holder panics");
    match outcome {
        Ok(ended) => kept[place].ended = ended,
        Err(error) => kept[place].error = Some(error.to_string()),
    }
}

fn note(kept: &Mutex<Vec<Connection>>, place: usize, messages: Vec<Vec<u8>>, rest: usize) {
    let connection = &mut kept.lock().expect("no holder panics")[place];
    connection.messages.extend(messages);
    connection.rest = rest;
}

/// Whether the other end closed it.
fn read(
    mut stream: impl Read,
    ends: &AtomicBool,
    note: &mut dyn FnMut(Vec<Vec<u8>>, usize),
) -> io::Result<bool> {
    let (mut octets, mut part) = (Vec::new(), vec![0; 65_536]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => return Ok(true),
            Ok(length) => {
                octets.extend_from_slice(&part[..length]);
                let whole = messages(&mut octets).map_err(io::Error::other)?;
                note(whole, octets.len());
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if ends.load(Ordering::Acquire) {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
