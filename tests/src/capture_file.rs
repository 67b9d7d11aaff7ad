//! Writes captures: classic pcap in microseconds or nanoseconds, and pcapng.

use std::io::{self, Write};

/// Link types of the captures that tests make (<https://www.tcpdump.org/linktypes.html>).
pub mod link {
    /// Ethernet.
    pub const ETHERNET: u32 = 1;
    /// PPP, which has no parser here.
    pub const PPP: u32 = 9;
    /// IPv4 or IPv6 without a link header.
    pub const RAW: u32 = 101;
    /// Linux cooked capture.
    pub const LINUX_SLL: u32 = 113;
}

/// Nanoseconds per second.
pub const SECOND: u64 = 1_000_000_000;
/// When the captures of tests begin: 2023-11-14T22:13:20Z.
pub const EPOCH: u64 = 1_700_000_000 * SECOND;

/// Unit of a classic capture's timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Magic 0xa1b2c3d4.
    Microseconds,
    /// Magic 0xa1b23c4d.
    Nanoseconds,
}

/// A classic capture, little endian.
#[derive(Debug)]
pub struct Pcap<W: Write> {
    out: W,
    resolution: Resolution,
    snap_length: u32,
}

impl<W: Write> Pcap<W> {
    /// Begins a capture; frames are cut at `snap_length` bytes.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn new(mut out: W, link: u32, resolution: Resolution, snap_length: u32) -> io::Result<Self> {
        let magic: u32 = if resolution == Resolution::Microseconds { 0xa1b2_c3d4 } else { 0xa1b2_3c4d };
        out.write_all(&magic.to_le_bytes())?;
        out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        out.write_all(&snap_length.to_le_bytes())?;
        out.write_all(&link.to_le_bytes())?;
        Ok(Self { out, resolution, snap_length })
    }

    /// Adds a frame; `time` is nanoseconds since 1970.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn frame(&mut self, time: u64, frame: &[u8]) -> io::Result<()> {
        self.part(time, frame, frame.len())
    }

    /// Adds a frame of `wire_length` bytes of which `captured` is the beginning.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn part(&mut self, time: u64, captured: &[u8], wire_length: usize) -> io::Result<()> {
        let kept = &captured[..captured.len().min(self.snap_length as usize)];
        let fraction = match self.resolution {
            Resolution::Microseconds => time % SECOND / 1000,
            Resolution::Nanoseconds => time % SECOND,
        };
        let mut head = [0; 16];
        for (word, value) in
            [time / SECOND, fraction, kept.len() as u64, wire_length as u64].into_iter().enumerate()
        {
            let value = u32::try_from(value).expect("fits a word of the record header");
            head[4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
        }
        self.out.write_all(&head)?;
        self.out.write_all(kept)
    }

    /// Ends it and gives the writer back.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// A whole classic capture of Ethernet frames in memory, each with its time.
#[must_use]
pub fn pcap(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let write = || {
        let mut capture = Pcap::new(Vec::new(), link::ETHERNET, Resolution::Nanoseconds, 262_144)?;
        for (time, frame) in frames {
            capture.frame(*time, frame)?;
        }
        capture.finish()
    };
    write().expect("memory takes everything")
}

/// The same as pcapng, with one interface in nanoseconds named `eth0`.
#[must_use]
pub fn pcapng(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut header = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    header.extend([1, 0, 0, 0]);
    header.extend([0xff; 8]);
    block(&mut out, 0x0a0d_0d0a, &header);
    let mut interface = vec![1, 0, 0, 0];
    interface.extend(262_144_u32.to_le_bytes());
    interface.extend([2, 0, 4, 0]);
    interface.extend(b"eth0");
    interface.extend([9, 0, 1, 0, 9, 0, 0, 0]);
    interface.extend([0; 4]);
    block(&mut out, 1, &interface);
    for (time, frame) in frames {
        let length = u32::try_from(frame.len()).expect("a frame").to_le_bytes();
        let mut packet = vec![0; 4];
        packet.extend(u32::try_from(time >> 32).expect("half of it").to_le_bytes());
        packet.extend(u32::try_from(time & 0xffff_ffff).expect("half of it").to_le_bytes());
        packet.extend(length);
        packet.extend(length);
        packet.extend(frame);
        packet.resize(packet.len().next_multiple_of(4), 0);
        block(&mut out, 6, &packet);
    }
    out
}

fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = u32::try_from(body.len() + 12).expect("a block").to_le_bytes();
    out.extend(kind.to_le_bytes());
    out.extend(length);
    out.extend(body);
    out.extend(length);
}
