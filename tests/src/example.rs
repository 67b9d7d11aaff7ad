//! The capture in `examples/`: a little of everything that a host does, the same bytes each time it is made.

use crate::capture_file::{EPOCH, pcap};
use crate::frame::{Ends, Segment, ethernet, flag, icmp, tcp, udp};

/// Nanoseconds between frames.
const STEP: u64 = 1_250_000;

/// Frames with their times, in order.
struct Talk {
    time: u64,
    frames: Vec<(u64, Vec<u8>)>,
}

impl Talk {
    fn say(&mut self, packet: &[u8]) {
        self.frames.push((self.time, ethernet(packet)));
        self.time += STEP;
    }

    /// A TCP connection: handshake, a request, an answer in segments of 1 200 bytes, close from the server.
    fn exchange(&mut self, client: Ends, request: &[u8], answer: &[u8]) {
        let server = client.back();
        let (mut sent, mut answered) = (1000, 5000);
        let segment = |flags, sequence, acknowledgement| Segment { flags, sequence, acknowledgement };
        let length = |data: &[u8]| u32::try_from(data.len()).expect("short");
        self.say(&tcp(client, segment(flag::SYN, sent, 0), &[]));
        self.say(&tcp(server, segment(flag::SYN | flag::ACK, answered, sent + 1), &[]));
        (sent, answered) = (sent + 1, answered + 1);
        self.say(&tcp(client, segment(flag::ACK, sent, answered), &[]));
        self.say(&tcp(client, segment(flag::PSH | flag::ACK, sent, answered), request));
        sent += length(request);
        self.say(&tcp(server, segment(flag::ACK, answered, sent), &[]));
        for part in answer.chunks(1200) {
            self.say(&tcp(server, segment(flag::PSH | flag::ACK, answered, sent), part));
            answered += length(part);
            self.say(&tcp(client, segment(flag::ACK, sent, answered), &[]));
        }
        self.say(&tcp(server, segment(flag::FIN | flag::ACK, answered, sent), &[]));
        self.say(&tcp(client, segment(flag::FIN | flag::ACK, sent, answered + 1), &[]));
        self.say(&tcp(server, segment(flag::ACK, answered + 1, sent + 1), &[]));
    }

    fn name_lookup(&mut self, client: Ends, identification: u16) {
        let mut query = identification.to_be_bytes().to_vec();
        query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        query.extend(b"\x07example\x03com\x00\x00\x01\x00\x01");
        let mut answer = query.clone();
        answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80]);
        self.say(&udp(client, &query));
        self.say(&udp(client.back(), &answer));
    }

    fn ping(&mut self, ends: Ends, count: u32) {
        let (request, reply) = if ends.source.is_ipv4() { (8, 0) } else { (128, 129) };
        for sequence in 1..=count {
            self.say(&icmp(ends, request, 0, 0x002a_0000 | sequence, &[0x55; 56]));
            self.say(&icmp(ends.back(), reply, 0, 0x002a_0000 | sequence, &[0x55; 56]));
        }
    }
}

/// The capture's bytes: two name look-ups, web exchanges over IPv4 and IPv6, a refused connection, pings of both
/// families, a one-way UDP stream.
#[must_use]
pub fn web() -> Vec<u8> {
    let mut talk = Talk { time: EPOCH, frames: Vec::new() };
    talk.name_lookup(Ends::new("192.0.2.10:40001", "192.0.2.53:53"), 0x1001);
    let page = "HTTP/1.1 200 OK\r\ncontent-length: 2953\r\n\r\n".to_owned() + &"mermin ".repeat(422)[..2953];
    let request = b"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n";
    talk.exchange(Ends::new("192.0.2.10:40002", "192.0.2.80:80"), request, page.as_bytes());
    talk.name_lookup(Ends::new("[2001:db8::10]:40003", "[2001:db8::53]:53"), 0x1002);
    talk.exchange(Ends::new("[2001:db8::10]:40004", "[2001:db8::80]:80"), request, page.as_bytes());
    let refused = Ends::new("192.0.2.10:40005", "192.0.2.80:8080");
    talk.say(&tcp(refused, Segment { flags: flag::SYN, sequence: 9, acknowledgement: 0 }, &[]));
    talk.say(&tcp(
        refused.back(),
        Segment { flags: flag::RST | flag::ACK, sequence: 0, acknowledgement: 10 },
        &[],
    ));
    talk.ping(Ends::new("192.0.2.10:0", "192.0.2.80:0"), 3);
    talk.ping(Ends::new("[2001:db8::10]:0", "[2001:db8::80]:0"), 3);
    for _ in 0..5 {
        talk.say(&udp(Ends::new("192.0.2.10:40006", "192.0.2.99:5140"), b"<13>example: a line of a log"));
    }
    pcap(&talk.frames)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_capture_is_what_the_generator_makes() {
        let committed = std::fs::read(crate::need::root().join("examples/web.pcap")).unwrap();
        assert!(committed == super::web(), "`cargo xtask example-capture` makes another examples/web.pcap");
    }
}
