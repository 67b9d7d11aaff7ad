//! What the kernel counted, read from within a namespace: the independent side of the demo's comparison.

use std::fs;
use std::io;
use std::ops::Add;

/// Packets that one end has sent, by protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// TCP segments, IPv4 and IPv6, retransmissions included.
    pub(super) tcp: u64,
    /// UDP datagrams.
    pub(super) udp: u64,
    pub(super) icmp: u64,
    /// With neighbour discovery and multicast listener reports.
    pub(super) icmpv6: u64,
}

impl Add for Sent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tcp: self.tcp + other.tcp,
            udp: self.udp + other.udp,
            icmp: self.icmp + other.icmp,
            icmpv6: self.icmpv6 + other.icmpv6,
        }
    }
}

impl Sent {
    /// Of the calling thread's namespace, since it was made.
    pub(super) fn here() -> io::Result<Self> {
        let v4 = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let v6 = fs::read_to_string("/proc/thread-self/net/snmp6")?;
        let of = |protocol, name| named(&v4, protocol, name);
        Ok(Self {
            tcp: of("Tcp:", "OutSegs") + of("Tcp:", "RetransSegs"),
            udp: of("Udp:", "OutDatagrams") + single(&v6, "Udp6OutDatagrams"),
            icmp: of("Icmp:", "OutMsgs"),
            icmpv6: single(&v6, "Icmp6OutMsgs"),
        })
    }
}

/// A value of `snmp`: a line of names, then one of numbers, both starting with the protocol.
fn named(text: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return 0 };
    let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
    pairs.find(|(found, _)| *found == name).and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// A value of `snmp6`: name and number on a line.
fn single(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
}

/// What has crossed an interface, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Crossed {
    pub(super) buffers: u64,
    pub(super) bytes: u64,
}

impl Crossed {
    /// Of an interface in the calling thread's namespace.
    pub(super) fn on(interface: &str) -> io::Result<Self> {
        let text = fs::read_to_string("/proc/thread-self/net/dev")?;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
        let line = line.ok_or_else(|| io::Error::other(format!("{interface} is not in /proc/net/dev")))?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // Eight columns for received, then eight for sent; each begins with bytes and packets.
        let column = |at: usize| numbers.get(at).copied().unwrap_or(0);
        Ok(Self { buffers: column(1) + column(9), bytes: column(0) + column(8) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let snmp = "Ip: Forwarding X\nIp: 1 2\nTcp: RtoAlgorithm OutSegs RetransSegs\nTcp: 1 12 3\n\
                    Udp: InDatagrams OutDatagrams\nUdp: 5 6\nUdpLite: InDatagrams OutDatagrams\nUdpLite: 7 8\n";
        assert_eq!(named(snmp, "Tcp:", "OutSegs"), 12);
        assert_eq!(named(snmp, "Tcp:", "RetransSegs"), 3);
        assert_eq!(named(snmp, "Udp:", "OutDatagrams"), 6);
        assert_eq!(named(snmp, "Udp:", "absent"), 0);
        assert_eq!(single("Icmp6OutMsgs                    \t42\nIcmp6OutErrors \t7\n", "Icmp6OutMsgs"), 42);
    }
}
