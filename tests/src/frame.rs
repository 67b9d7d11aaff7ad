//! Builds frames from the inside out: a transport makes the IP packet, [`ethernet`] puts it on a link, [`tagged`]
//! adds VLAN tags. Checksums are right, so that the kernel takes what is sent and tshark has nothing to complain of.

use std::net::{IpAddr, SocketAddr};

/// TCP flags.
pub mod flag {
    /// Last data of the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// Data for the application.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// Protocol numbers and ethertypes that the tests use.
pub mod number {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// Ethertype of IPv4.
    pub const IPV4: u16 = 0x0800;
    /// Ethertype of IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// Ethertype of an 802.1Q tag.
    pub const DOT1Q: u16 = 0x8100;
    /// Ethertype of an 802.1ad tag.
    pub const DOT1AD: u16 = 0x88a8;
}

/// The two ends of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
}

impl Ends {
    /// Both from text, as `10.0.0.1:1234` or `[fd00::1]:1234`.
    ///
    /// # Panics
    /// When either is no socket address.
    #[must_use]
    pub fn new(source: &str, destination: &str) -> Self {
        let parse = |text: &str| text.parse().expect("a socket address");
        Self { source: parse(source), destination: parse(destination) }
    }

    /// The other way round.
    #[must_use]
    pub const fn back(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }

    fn ip(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        ip(self.source.ip(), self.destination.ip(), protocol, payload)
    }
}

/// What a TCP segment says beside its ports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// Union of [`flag`]s.
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
}

/// An IP packet with a TCP segment.
#[must_use]
pub fn tcp(ends: Ends, segment: Segment, data: &[u8]) -> Vec<u8> {
    let mut bytes = ports(ends);
    bytes.extend(segment.sequence.to_be_bytes());
    bytes.extend(segment.acknowledgement.to_be_bytes());
    bytes.extend([0x50, segment.flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(data);
    checked(ends, number::TCP, 16, &mut bytes);
    ends.ip(number::TCP, &bytes)
}

/// An IP packet with a UDP datagram.
#[must_use]
pub fn udp(ends: Ends, data: &[u8]) -> Vec<u8> {
    let mut bytes = ports(ends);
    bytes.extend(length(data.len() + 8));
    bytes.extend([0, 0]);
    bytes.extend(data);
    checked(ends, number::UDP, 6, &mut bytes);
    ends.ip(number::UDP, &bytes)
}

/// An IP packet with an SCTP packet that holds one DATA chunk. Its CRC is left 0: nobody here receives it.
#[must_use]
pub fn sctp(ends: Ends, data: &[u8]) -> Vec<u8> {
    let mut bytes = ports(ends);
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    bytes.extend([0, 3]);
    bytes.extend(length(data.len() + 16));
    bytes.extend([0; 12]);
    bytes.extend(data);
    ends.ip(number::SCTP, &bytes)
}

/// An IP packet with an ICMP or ICMPv6 message; `rest` is the header's second word.
#[must_use]
pub fn icmp(ends: Ends, kind: u8, code: u8, rest: u32, data: &[u8]) -> Vec<u8> {
    let protocol = if ends.source.is_ipv4() { number::ICMP } else { number::ICMPV6 };
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest.to_be_bytes());
    bytes.extend(data);
    if protocol == number::ICMP {
        let sum = checksum(&[&bytes]);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    } else {
        checked(ends, protocol, 2, &mut bytes);
    }
    ends.ip(protocol, &bytes)
}

/// An IP packet of any protocol.
///
/// # Panics
/// When the addresses are of different families or the payload is too long for the length field.
#[must_use]
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut bytes = vec![0x45, 0];
            bytes.extend(length(payload.len() + 20));
            bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            seal_ipv4(&mut bytes);
            bytes.extend(payload);
            bytes
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend(length(payload.len()));
            bytes.extend([protocol, 64]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend(payload);
            bytes
        }
        _ => panic!("{source} and {destination} are of different families"),
    }
}

/// An IPv6 packet with an extension header of 8 bytes put before its payload: number `kind`, zero options. Made for
/// hop-by-hop (0), routing (43) and destination options (60).
#[must_use]
pub fn with_extension(packet: &[u8], kind: u8) -> Vec<u8> {
    let (header, payload) = packet.split_at(40);
    let mut bytes = header.to_vec();
    bytes[4..6].copy_from_slice(&length(payload.len() + 8));
    let next = std::mem::replace(&mut bytes[6], kind);
    // PadN of six bytes in all; as a routing header: type 1, no segments left.
    bytes.extend([next, 0, 1, 0, 0, 0, 0, 0]);
    if kind != 43 {
        let at = bytes.len() - 5;
        bytes[at] = 4;
    }
    bytes.extend(payload);
    bytes
}

/// The packet with an authentication header of 24 bytes before its payload, of either family.
#[must_use]
pub fn with_ah(packet: &[u8]) -> Vec<u8> {
    let ipv4 = packet[0] >> 4 == 4;
    let (header, payload) = packet.split_at(if ipv4 { 20 } else { 40 });
    let mut bytes = header.to_vec();
    let next = std::mem::replace(&mut bytes[if ipv4 { 9 } else { 6 }], number::AH);
    if ipv4 {
        bytes[2..4].copy_from_slice(&length(packet.len() + 24));
        seal_ipv4(&mut bytes);
    } else {
        bytes[4..6].copy_from_slice(&length(payload.len() + 24));
    }
    bytes.extend([next, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]);
    bytes.extend([0; 12]);
    bytes.extend(payload);
    bytes
}

/// The packet in fragments whose payload is at most `at_most` bytes, a multiple of 8.
///
/// # Panics
/// When `at_most` is no multiple of 8.
#[must_use]
pub fn fragments(packet: &[u8], identification: u16, at_most: usize) -> Vec<Vec<u8>> {
    assert!(at_most.is_multiple_of(8), "fragment offsets count in units of 8 bytes");
    let ipv4 = packet[0] >> 4 == 4;
    let (header, payload) = packet.split_at(if ipv4 { 20 } else { 40 });
    let last = payload.len().div_ceil(at_most) - 1;
    let cut = |(index, part): (usize, &[u8])| {
        let offset = u16::try_from(index * at_most / 8).expect("a packet has at most 64 KiB");
        let more = index < last;
        let mut bytes = header.to_vec();
        if ipv4 {
            bytes[2..4].copy_from_slice(&length(20 + part.len()));
            bytes[4..6].copy_from_slice(&identification.to_be_bytes());
            bytes[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
            seal_ipv4(&mut bytes);
        } else {
            bytes[4..6].copy_from_slice(&length(8 + part.len()));
            let next = std::mem::replace(&mut bytes[6], number::FRAGMENT);
            bytes.extend([next, 0]);
            bytes.extend((offset << 3 | u16::from(more)).to_be_bytes());
            bytes.extend(u32::from(identification).to_be_bytes());
        }
        bytes.extend(part);
        bytes
    };
    payload.chunks(at_most).enumerate().map(cut).collect()
}

/// An Ethernet II frame around an IP packet, without padding.
#[must_use]
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { number::IPV4 } else { number::IPV6 };
    ethernet_of(kind, packet)
}

/// An Ethernet II frame of any ethertype.
#[must_use]
pub fn ethernet_of(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frame with VLAN tags, outermost first, each an ethertype and an id.
#[must_use]
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    for (kind, id) in tags {
        bytes.extend(kind.to_be_bytes());
        bytes.extend(id.to_be_bytes());
    }
    bytes.extend(&frame[12..]);
    bytes
}

fn ports(ends: Ends) -> Vec<u8> {
    [ends.source.port().to_be_bytes(), ends.destination.port().to_be_bytes()].concat()
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("fits a length field of 16 bits").to_be_bytes()
}

fn seal_ipv4(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = checksum(&[&header[..20]]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Writes the transport checksum, over the pseudo-header too, at `offset`.
fn checked(ends: Ends, protocol: u8, offset: usize, bytes: &mut [u8]) {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut pseudo = octets(ends.source.ip());
    pseudo.extend(octets(ends.destination.ip()));
    pseudo.extend(u32::try_from(bytes.len()).expect("fits").to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    let sum = match checksum(&[&pseudo, bytes]) {
        0 if protocol == number::UDP => 0xffff,
        sum => sum,
    };
    bytes[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071, over parts of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u64 = parts.iter().flat_map(|part| part.chunks(2)).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

#[cfg(test)]
mod tests {
    use super::{Ends, checksum, fragments, udp};

    #[test]
    fn a_sealed_header_sums_to_nothing() {
        let packet = udp(Ends::new("10.0.0.1:1", "10.0.0.2:2"), b"odd");
        assert_eq!(checksum(&[&packet[..20]]), 0);
    }

    #[test]
    fn fragments_hold_the_whole_payload() {
        for (source, destination, header) in
            [("10.0.0.1:1", "10.0.0.2:2", 20), ("[fd00::1]:1", "[fd00::2]:2", 48)]
        {
            let packet = udp(Ends::new(source, destination), &[7; 3000]);
            let parts = fragments(&packet, 9, 1400);
            assert_eq!(parts.len(), 3);
            let joined: Vec<u8> = parts.iter().flat_map(|part| part[header..].to_vec()).collect();
            assert_eq!(joined, packet[if header == 20 { 20 } else { 40 }..]);
        }
    }
}
