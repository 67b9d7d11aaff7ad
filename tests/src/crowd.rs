//! A crowd of flows of one packet each, written as it is read: ten million make 600 MB that lie nowhere.
//!
//! All frames are one small UDP datagram with the flow's number in its source address and port. Checksums are those of
//! the first: nothing here verifies them.

use crate::capture_file::{EPOCH, Pcap, Resolution, link};
use crate::frame::{Ends, ethernet, udp};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the source address begins in an Ethernet frame with IPv4.
const SOURCE: usize = 14 + 12;
/// The low bits of a number that go into the source port, above [`FIRST_PORT`].
const PORT_BITS: u32 = 12;
const FIRST_PORT: u16 = 40_000;
/// Nanoseconds of capture time between packets: a million new flows a second. Ten million take less than the idle timeout.
const GAP: u64 = 1_000;

/// Distinct flows, at most 2^36; `written` tells how many have gone out. The first packet's time is [`EPOCH`].
///
/// # Errors
/// When `out` fails.
///
/// # Panics
/// Never: what doesn't fit is masked.
pub fn write(out: impl Write, flows: u64, written: &AtomicU64) -> io::Result<()> {
    write_from(EPOCH, out, flows, written)
}

/// The same, with the first packet's time, ns since 1970.
///
/// # Errors
/// As [`write()`].
///
/// # Panics
/// As [`write()`].
pub fn write_from(begin: u64, out: impl Write, flows: u64, written: &AtomicU64) -> io::Result<()> {
    let mut frame = ethernet(&udp(Ends::new("10.0.0.0:40000", "192.0.2.53:53"), b"crowd"));
    let mut capture = Pcap::new(out, link::ETHERNET, Resolution::Nanoseconds, 65_535)?;
    for number in 0..flows {
        let host = u32::try_from((number >> PORT_BITS) & 0xff_ffff).expect("24 bits");
        let port = FIRST_PORT + u16::try_from(number & ((1 << PORT_BITS) - 1)).expect("12 bits");
        frame[SOURCE..SOURCE + 4].copy_from_slice(&(10 << 24 | host).to_be_bytes());
        frame[SOURCE + 8..SOURCE + 10].copy_from_slice(&port.to_be_bytes());
        capture.frame(begin + number * GAP, &frame)?;
        written.store(number + 1, Ordering::Relaxed);
    }
    capture.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn all_flows_are_distinct() {
        let (mut bytes, written) = (Vec::new(), AtomicU64::new(0));
        super::write(&mut bytes, 20_000, &written).unwrap();
        let record = (bytes.len() - 24) / 20_000;
        let keys: HashSet<&[u8]> =
            bytes[24..].chunks(record).map(|record| &record[16 + super::SOURCE..][..12]).collect();
        assert_eq!((keys.len(), written.into_inner()), (20_000, 20_000));
    }
}
