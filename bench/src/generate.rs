//! A capture of any length in constant memory: a flow's frames are made from its number whenever it speaks.
//!
//! Flows are chosen by Zipf's law through the inverse of its continuous form, so no table of weights is kept. Every
//! flow speaks once before that, in order, when there are packets enough. With `--each` every flow speaks that many
//! times, all flows in turn.

use crate::random::Random;
use anyhow::{Context, Result};
use mermin_tests::capture_file::{EPOCH, Pcap, Resolution, link};
use mermin_tests::frame::{Ends, Segment, ethernet, flag, tcp, udp};
use std::fs::File;
use std::io::BufWriter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

const SERVICES: [u16; 8] = [80, 443, 53, 5432, 6379, 8080, 9092, 3306];
const PAYLOADS: [usize; 6] = [0, 40, 200, 512, 1200, 1400];
const EXPONENT: f64 = 1.05;

/// Writes a capture: 15 % of flows are IPv6, 75 % TCP without handshakes, both directions, snap length 96.
#[derive(clap::Args)]
pub(crate) struct Capture {
    /// Where to.
    out: PathBuf,
    /// Packets in all; with `--each` the product of flows and it counts instead.
    #[arg(long, default_value_t = 4_000_000)]
    packets: u64,
    /// Distinct flows.
    #[arg(long, default_value_t = 100_000)]
    flows: u64,
    /// Packets of every flow, instead of Zipf's law.
    #[arg(long)]
    each: Option<u64>,
    /// Other seeds give other flows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nanoseconds of capture time between packets.
    #[arg(long, default_value_t = 2000)]
    gap: u64,
}

impl Capture {
    pub(crate) fn run(self) -> Result<()> {
        let file = File::create(&self.out).with_context(|| format!("can't create {}", self.out.display()))?;
        let out = BufWriter::with_capacity(1 << 20, file);
        let mut capture = Pcap::new(out, link::ETHERNET, Resolution::Microseconds, 96)?;
        let mut random = Random::new(self.seed);
        let packets = self.each.map_or(self.packets, |each| each * self.flows);
        for number in 0..packets {
            let flow = match self.each {
                Some(_) => number % self.flows,
                None if number < self.flows => number,
                None => zipf(&mut random, self.flows),
            };
            let (frame, wire) = frame(self.seed, flow, random.next() & 1 == 0);
            capture.part(EPOCH + number * self.gap, &frame, wire)?;
        }
        capture.finish()?;
        Ok(())
    }
}

/// A flow's number, small ones by far the most often.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "flows < 2^53"
)]
fn zipf(random: &mut Random, flows: u64) -> u64 {
    let power = 1.0 - EXPONENT;
    let last = (flows as f64 + 1.0).powf(power);
    let rank = (1.0 - random.unit() * (1.0 - last)).powf(1.0 / power);
    (rank as u64 - 1).min(flows - 1)
}

/// The headers of a flow's packet, and its length on the wire.
fn frame(seed: u64, flow: u64, back: bool) -> (Vec<u8>, usize) {
    let mut random = Random::new(seed ^ flow.wrapping_mul(0xd6e8_feb8_6659_fd93));
    let ipv6 = random.below(100) < 15;
    let is_tcp = random.below(100) < 75;
    let client = u16::try_from(32_768 + random.below(28_232)).expect("a port");
    let service = SERVICES[usize::try_from(random.below(8)).expect("below 8")];
    let host = u32::try_from(random.below(1 << 24)).expect("below 2^24");
    // The flow's own number is in the server's address: flows are distinct whatever the rest is.
    let server = u32::try_from(flow & 0xff_ffff).expect("below 2^24");
    let address = |network: u16, bits: u32| -> IpAddr {
        if ipv6 {
            let [a, b, c, d] = bits.to_be_bytes().map(u16::from);
            Ipv6Addr::new(0xfd00 + network, 0, 0, 0, 0, 0, a << 8 | b, c << 8 | d).into()
        } else {
            Ipv4Addr::from((10 + u32::from(network)) << 24 | bits).into()
        }
    };
    let ends = Ends {
        source: SocketAddr::new(address(0, host), client),
        destination: SocketAddr::new(address(1, server), service),
    };
    let ends = if back { ends.back() } else { ends };
    let data = PAYLOADS[usize::try_from(random.below(6)).expect("below 6")];
    let packet = if is_tcp {
        tcp(ends, Segment { flags: flag::PSH | flag::ACK, sequence: 1, acknowledgement: 1 }, &ZEROES[..data])
    } else {
        udp(ends, &ZEROES[..data])
    };
    let frame = ethernet(&packet);
    let wire = frame.len();
    (frame, wire)
}

static ZEROES: [u8; 1400] = [0; 1400];

#[cfg(test)]
mod tests {
    use super::{Random, frame, zipf};
    use std::collections::HashSet;

    #[test]
    fn flows_are_distinct_and_the_same_each_time() {
        let headers = |flow| frame(1, flow, false).0.into_iter().take(54).collect();
        let all: HashSet<Vec<u8>> = (0..10_000).map(headers).collect();
        assert_eq!(all.len(), 10_000);
        assert_eq!(frame(1, 7, true), frame(1, 7, true));
    }

    #[test]
    fn few_flows_have_most_packets() {
        let mut random = Random::new(3);
        let mut counts = vec![0_u32; 1000];
        for _ in 0..100_000 {
            counts[usize::try_from(zipf(&mut random, 1000)).unwrap()] += 1;
        }
        assert!(counts[0] > 5 * counts[9] && counts[9] > counts[500], "{:?}", &counts[..10]);
    }
}
