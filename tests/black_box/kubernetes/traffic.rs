//! Conversations between pods: who sends how much to whom, and their record.

use crate::kubernetes::town::Town;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Who speaks to whom; TCP where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) tcp: bool,
}

/// Sockets of those who answer, by address.
#[derive(Default)]
pub(super) struct Servers {
    udp: HashMap<SocketAddr, UdpSocket>,
    tcp: HashMap<SocketAddr, TcpListener>,
}

/// Datagrams that one direction of a conversation with these ports has.
pub(super) fn datagrams(pair: &Pair) -> u64 {
    1 + u64::from(pair.from.port() ^ pair.to.port()) % 4
}

/// Bytes of payload of each of a conversation's datagrams.
pub(super) fn length(pair: &Pair) -> usize {
    1 + usize::from(pair.from.port()) * 7 % 1_200
}

impl Servers {
    /// Answers at this address of the town.
    pub(super) fn open(&mut self, town: &Town, at: SocketAddr) {
        let (udp, tcp) = town.at(at.ip(), || (UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap()));
        self.add(at, udp);
        self.tcp.insert(at, tcp);
    }

    /// Answers with a socket that is bound.
    pub(super) fn add(&mut self, at: SocketAddr, socket: UdpSocket) {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        self.udp.insert(at, socket);
    }

    /// Datagrams to `to` and, where somebody answers there, as many back.
    pub(super) fn talk(&self, client: &UdpSocket, to: SocketAddr) -> Pair {
        let pair = Pair { from: client.local_addr().unwrap(), to, tcp: false };
        let (payload, mut buffer) = (vec![7; length(&pair)], [0; 2_000]);
        for _ in 0..datagrams(&pair) {
            client.send_to(&payload, to).unwrap();
            if let Some(server) = self.udp.get(&to) {
                let (received, back) = server.recv_from(&mut buffer).unwrap();
                assert_eq!((received, back), (payload.len(), pair.from));
                server.send_to(&payload, back).unwrap();
                assert_eq!(client.recv_from(&mut buffer).unwrap(), (payload.len(), to));
            }
        }
        pair
    }

    /// A connection from this address, with a few bytes in both directions; called where that address is.
    pub(super) fn connect(&self, from: IpAddr, to: SocketAddr) -> Pair {
        let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket(family, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::new(from, 0)).unwrap();
        connect(&socket, &to).unwrap();
        let mut client = TcpStream::from(socket);
        let (mut server, back) = self.tcp[&to].accept().unwrap();
        let mut buffer = [0; 5];
        client.write_all(b"hello").unwrap();
        server.read_exact(&mut buffer).unwrap();
        server.write_all(b"world").unwrap();
        client.read_exact(&mut buffer).unwrap();
        Pair { from: back, to, tcp: true }
    }
}

/// A socket of one who asks, opened where its address is.
pub(super) fn client(from: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}
