//! Captures made byte by byte, in both formats and both byte orders.

use super::Order::{self, Big, Little};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// A UDP packet over IPv4 over Ethernet: 42 bytes of headers.
pub(super) fn frame(port: u16, payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend(((28 + payload) as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53]);
    frame.extend(((8 + payload) as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(vec![0xaa; payload]);
    frame
}

/// Writes words in one byte order.
struct Bytes(Order, Vec<u8>);
impl Bytes {
    fn half(&mut self, value: u16) -> &mut Self {
        self.1.extend(if self.0 == Big { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }
    fn word(&mut self, value: u32) -> &mut Self {
        self.1.extend(if self.0 == Big { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.1.extend(bytes);
        self
    }
    fn pad(&mut self) -> &mut Self {
        while !self.1.len().is_multiple_of(4) {
            self.1.push(0);
        }
        self
    }
}

pub(super) fn pcap(order: Order, magic: u32, network: u32, records: &[(u32, u32, Vec<u8>, u32)]) -> Vec<u8> {
    let mut file = Bytes(order, Vec::new());
    file.word(magic).half(2).half(4).word(0).word(0).word(65_535).word(network);
    for (seconds, fraction, data, wire) in records {
        file.word(*seconds).word(*fraction).word(data.len() as u32).word(*wire);
        if magic == 0xa1b2_cd34 {
            file.raw(&[9; 8]);
        }
        file.raw(data);
    }
    file.1
}

pub(super) fn plain(count: usize) -> Vec<u8> {
    let records: Vec<_> = (0..count).map(|i| (1_000 + i as u32, 7, frame(i as u16, 10), 52)).collect();
    pcap(Little, 0xa1b2_c3d4, 1, &records)
}

pub(super) fn block(order: Order, kind: u32, content: &[u8]) -> Vec<u8> {
    let mut block = Bytes(order, Vec::new());
    let length = 12 + content.len().next_multiple_of(4) as u32;
    block.word(kind).word(length).raw(content).pad().word(length);
    block.1
}

pub(super) fn section(order: Order) -> Vec<u8> {
    let mut content = Bytes(order, Vec::new());
    content.word(0x1a2b_3c4d).half(1).half(0).raw(&[0xff; 8]);
    block(order, 0x0a0d_0d0a, &content.1)
}

/// Link type, snap length, options by code.
pub(super) fn interface(order: Order, link: u16, snap: u32, options: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut content = Bytes(order, Vec::new());
    content.half(link).half(0).word(snap);
    for (code, value) in options {
        content.half(*code).half(value.len() as u16).raw(value).pad();
    }
    block(order, 1, &content.1)
}

pub(super) fn enhanced(order: Order, interface: u32, ticks: u64, data: &[u8], wire: u32) -> Vec<u8> {
    let mut content = Bytes(order, Vec::new());
    content.word(interface).word((ticks >> 32) as u32).word(ticks as u32).word(data.len() as u32).word(wire);
    // An option behind the data: a comment.
    content.raw(data).pad().half(1).half(2).raw(b"ok").pad();
    block(order, 6, &content.1)
}

pub(super) fn obsolete(order: Order, interface: u16, ticks: u64, data: &[u8]) -> Vec<u8> {
    let mut content = Bytes(order, Vec::new());
    content.half(interface).half(3).word((ticks >> 32) as u32).word(ticks as u32);
    content.word(data.len() as u32).word(data.len() as u32).raw(data);
    block(order, 2, &content.1)
}

pub(super) fn simple(order: Order, data: &[u8], wire: u32) -> Vec<u8> {
    let mut content = Bytes(order, Vec::new());
    content.word(wire).raw(data);
    block(order, 3, &content.1)
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
