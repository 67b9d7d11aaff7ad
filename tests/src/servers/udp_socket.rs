//! What the kernel says of a server's UDP socket: that it is there, what waits in it, and what found no room.

use std::fmt;
use std::net::SocketAddr;

/// A socket, as `/proc/net/udp` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpSocket {
    /// Bytes that wait to be read, the kernel's own overhead among them.
    pub waiting: u64,
    /// Datagrams that found its buffer full.
    pub dropped: u64,
}

impl UdpSocket {
    /// The one that is bound to the address, in the network namespace of this process.
    #[must_use]
    pub fn of(process: u32, address: SocketAddr) -> Option<Self> {
        Self::read(&format!("/proc/{process}/net"), address)
    }

    /// The one that is bound to the address, in this thread's network namespace.
    #[must_use]
    pub fn here(address: SocketAddr) -> Option<Self> {
        Self::read("/proc/thread-self/net", address)
    }

    /// The table is read in parts: while sockets come and go a line may be skipped.
    fn read(folder: &str, address: SocketAddr) -> Option<Self> {
        (0..5).find_map(|_| Self::read_once(folder, address))
    }

    fn read_once(folder: &str, address: SocketAddr) -> Option<Self> {
        let table = if address.is_ipv4() { "udp" } else { "udp6" };
        let table = std::fs::read_to_string(format!("{folder}/{table}")).ok()?;
        let local = Hexadecimal(address).to_string();
        let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (_, waiting) = words.get(4)?.split_once(':')?;
        Some(Self { waiting: u64::from_str_radix(waiting, 16).ok()?, dropped: words.last()?.parse().ok()? })
    }
}

/// An address as `/proc/net` writes it: words of 32 bits in the machine's order.
struct Hexadecimal(SocketAddr);

impl fmt::Display for Hexadecimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match self.0 {
            SocketAddr::V4(address) => address.ip().octets().to_vec(),
            SocketAddr::V6(address) => address.ip().octets().to_vec(),
        };
        for word in bytes.chunks_exact(4) {
            write!(formatter, "{:08X}", u32::from_ne_bytes(word.try_into().expect("four bytes")))?;
        }
        write!(formatter, ":{:04X}", self.0.port())
    }
}

#[cfg(test)]
mod tests {
    use super::UdpSocket;
    use std::net::UdpSocket as Socket;

    #[test]
    fn what_waits_is_seen_and_what_found_no_room() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let socket = Socket::bind(local).unwrap();
            let address = socket.local_addr().unwrap();
            let look = || UdpSocket::of(std::process::id(), address);
            assert_eq!(look(), Some(UdpSocket { waiting: 0, dropped: 0 }));
            let sender = Socket::bind(local).unwrap();
            sender.send_to(&[0; 100], address).unwrap();
            assert!(look().unwrap().waiting > 100 && look().unwrap().dropped == 0);
            while look().unwrap().dropped == 0 {
                sender.send_to(&[0; 60_000], address).unwrap();
            }
            drop(socket);
            assert_eq!(look(), None);
        }
    }
}
