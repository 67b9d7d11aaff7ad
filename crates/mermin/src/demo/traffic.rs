//! Real traffic between the two namespaces: TCP, UDP and ICMP over IPv4 and IPv6, from threads of this process.

use super::namespace::Namespace;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const TCP_PORT: u16 = 8080;
const UDP_PORT: u16 = 5353;
/// Short connections per address family.
const CONNECTIONS: usize = 40;
const DATAGRAMS: usize = 50;
const PINGS: u16 = 5;
/// Bytes of the one larger transfer.
const TRANSFER: usize = 4 << 20;
/// Nothing here waits longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes the traffic from the calling thread's namespace to `addresses` in `far`.
pub(super) fn make(far: &Namespace, addresses: &[IpAddr]) -> io::Result<()> {
    for address in addresses {
        let server = serve_tcp(far, *address)?;
        for number in 0..CONNECTIONS {
            exchange(SocketAddr::new(*address, TCP_PORT), 200 + 10 * number)?;
        }
        exchange(SocketAddr::new(*address, TCP_PORT), TRANSFER)?;
        join(server)?;
        udp(far, *address)?;
        ping(*address)?;
    }
    Ok(())
}

fn join<T>(thread: JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread died")))
}

/// Retries while the link comes up and its addresses become usable.
pub(super) fn soon<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            result => return result,
        }
    }
}

/// Answers every connection with as many bytes as it was sent, and ends after the last.
fn serve_tcp(far: &Namespace, address: IpAddr) -> io::Result<JoinHandle<io::Result<()>>> {
    let listener = within(far, move || soon(|| TcpListener::bind((address, TCP_PORT))))?;
    Ok(thread::spawn(move || {
        for _ in 0..=CONNECTIONS {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut received = Vec::new();
            stream.read_to_end(&mut received)?;
            stream.write_all(&received)?;
        }
        Ok(())
    }))
}

/// Runs `work` on a thread inside `namespace`: sockets belong to the namespace in which they were made.
pub(super) fn within<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = Namespace(namespace.0.try_clone()?);
    join(thread::spawn(move || {
        namespace.enter()?;
        work()
    }))
}

fn exchange(server: SocketAddr, bytes: usize) -> io::Result<()> {
    let mut stream = soon(|| TcpStream::connect_timeout(&server, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&vec![b'm'; bytes])?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.len() == bytes { Ok(()) } else { Err(io::Error::other("an answer was cut short")) }
}

fn udp(far: &Namespace, address: IpAddr) -> io::Result<()> {
    let server = within(far, move || soon(|| UdpSocket::bind((address, UDP_PORT))))?;
    let client = UdpSocket::bind((if address.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let mut buffer = [0; 1500];
    for number in 0..DATAGRAMS {
        client.send_to(&buffer[..100 + number], (address, UDP_PORT))?;
        let (length, from) = server.recv_from(&mut buffer)?;
        server.send_to(&buffer[..length], from)?;
        client.recv(&mut buffer)?;
    }
    Ok(())
}

/// Echo requests from a datagram socket, for which the kernel fills in identifier and checksum.
fn ping(address: IpAddr) -> io::Result<()> {
    // Of this namespace; a new one allows nobody.
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
    let (family, protocol, request) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    let patience = TimeVal::new(PATIENCE.as_secs().try_into().map_err(io::Error::other)?, 0);
    setsockopt(&socket, ReceiveTimeout, &patience)?;
    let to = SockaddrStorage::from(SocketAddr::new(address, 0));
    for sequence in 0..PINGS {
        let mut message = [0; 64];
        message[0] = request;
        message[6..8].copy_from_slice(&sequence.to_be_bytes());
        sendto(socket.as_raw_fd(), &message, &to, MsgFlags::empty())?;
        recv(socket.as_raw_fd(), &mut message, MsgFlags::empty())?;
    }
    Ok(())
}
