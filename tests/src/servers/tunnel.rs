//! A server's port in another network namespace: what connects to it there reaches the server here.
//!
//! So a program inside a namespace of a test can send to a server of the test's own, at the address that the server tells
//! its clients.

use crate::netns::Namespace;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Lasts until it is let go of; connections that there are go on.
#[derive(Debug)]
pub struct Tunnel {
    ended: Arc<AtomicBool>,
}

impl Tunnel {
    /// Has a namespace's own port at `server` lead to the one here.
    ///
    /// # Panics
    /// When the namespace has no such address, or the port is in use.
    #[must_use]
    pub fn into(namespace: &Namespace, server: SocketAddr) -> Self {
        let listener = namespace.within(|| TcpListener::bind(server).expect("the port is free in there"));
        listener.set_nonblocking(true).expect("a socket can");
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let _ = thread::spawn(move || {
            while !over.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((stream, _)) => connect(stream, server),
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self { ended }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// Copies both ways. A server that isn't there refuses: the other end is closed.
fn connect(client: TcpStream, server: SocketAddr) {
    let pass = |from: io::Result<TcpStream>, to: io::Result<TcpStream>| {
        let _ = thread::spawn(move || -> io::Result<()> {
            let (mut from, mut to) = (from?, to?);
            let copied = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
            copied.map(drop)
        });
    };
    let Ok(server) = client.set_nonblocking(false).and_then(|()| TcpStream::connect(server)) else { return };
    pass(client.try_clone(), server.try_clone());
    pass(Ok(server), Ok(client));
}
