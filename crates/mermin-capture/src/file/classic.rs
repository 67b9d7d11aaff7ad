//! Classic pcap: a file header, then records of a fixed header and the captured bytes.
//!
//! The file header is read by `pcap-parser`, with all magics that it knows: microseconds and nanoseconds in both byte
//! orders, and the "modified" form with eight further bytes per record. The four words before each record are read
//! here (`docs/design/0005-capture-files.md` says why). The order of a record's two lengths before version 2.3 of the format (1996) is not known
//! here.

use super::damage::{Fault, Part};
use super::window::Window;
use super::{Captured, Step, Verdicts, captured_max};
use mermin_flow::Sink;
use mermin_wire::Link;
use pcap_parser::nom::Err;
use pcap_parser::parse_pcap_header;

const FILE_HEADER: usize = 24;
/// Seconds, their fraction, captured length, length on the wire.
const RECORD_HEADER: usize = 16;

/// A file whose header was read.
pub(super) struct Classic {
    big_endian: bool,
    nanos_per_unit: u64,
    link: Option<Link>,
    point: u16,
    captured_max: u32,
    /// Bytes of a record's header behind its four words.
    more_header: usize,
}

/// The "modified" form in big-endian byte order, which `pcap-parser` does not know, and the plain one, which it does.
const MODIFIED_BIG_ENDIAN: [u8; 4] = [0xa1, 0xb2, 0xcd, 0x34];
const BIG_ENDIAN: [u8; 4] = [0xa1, 0xb2, 0xc3, 0xd4];

/// Whether a file that begins with `magic`, of four bytes, is of this format.
pub(super) fn recognise(magic: &[u8]) -> bool {
    magic == MODIFIED_BIG_ENDIAN || !matches!(parse_pcap_header(magic), Err(Err::Error(_) | Err::Failure(_)))
}

impl Classic {
    /// Reads the file header. `point` is the number of the one unnamed interface.
    pub(super) fn open(window: &mut Window, point: u16) -> Result<Self, Fault> {
        let bytes = window.at_least(FILE_HEADER)?;
        let Some(mut file_header) = bytes.first_chunk::<FILE_HEADER>().copied() else {
            return Err(Fault::Cut(Part::Header));
        };
        let modified_big_endian = file_header.starts_with(&MODIFIED_BIG_ENDIAN);
        if modified_big_endian {
            file_header[..4].copy_from_slice(&BIG_ENDIAN);
        }
        let Ok((_, header)) = parse_pcap_header(&file_header) else { return Err(Fault::Cut(Part::Header)) };
        window.consume(FILE_HEADER);
        Ok(Self {
            big_endian: header.is_bigendian(),
            nanos_per_unit: if header.is_nanosecond_precision() { 1 } else { 1_000 },
            // The upper half holds other facts, for example the length of a frame check sequence.
            link: Link::from_linktype((header.network.0 & 0xffff) as u16),
            point,
            captured_max: captured_max(header.snaplen),
            more_header: if modified_big_endian || header.is_modified_format() { 8 } else { 0 },
        })
    }

    /// Gives at most `budget` packets their verdicts.
    pub(super) fn read(
        &self,
        window: &mut Window,
        mut budget: usize,
        verdicts: &mut Verdicts<'_, impl Sink>,
    ) -> Result<Step, Fault> {
        loop {
            // What is held is gone through by itself: the window moves on once, not once a packet.
            let held = window.bytes();
            let mut rest = held;
            let stopped = loop {
                if budget == 0 {
                    break Ok(None);
                }
                match self.record(&mut rest) {
                    Ok(packet) => {
                        let read = held.len() - rest.len();
                        verdicts.take(&packet, window.offset() + read as u64);
                    }
                    Err(stop) => break stop,
                }
                budget -= 1;
            };
            let done = held.len() - rest.len();
            window.consume(done);
            let Some(size) = stopped? else { return Ok(Step::Budget) };
            if !Self::has(window, size)? {
                return Ok(Step::End);
            }
        }
    }

    /// Takes a record off the front of `held`. Where that isn't all of one, how many bytes would be, as far as can be
    /// told; or what is wrong.
    #[inline(always)]
    fn record<'a>(&self, held: &mut &'a [u8]) -> Result<Captured<'a>, Result<Option<usize>, Fault>> {
        let header_size = RECORD_HEADER + self.more_header;
        let Some((header, rest)) = held.split_first_chunk::<RECORD_HEADER>() else {
            return Err(Ok(Some(header_size)));
        };
        let Some(rest) = rest.get(self.more_header..) else { return Err(Ok(Some(header_size))) };
        let [seconds, fraction, captured, wire] = self.words(header);
        if captured > self.captured_max {
            let (length, limit) = (u64::from(captured), u64::from(self.captured_max));
            return Err(Err(Fault::CapturedLength { length, limit }));
        }
        let Some((bytes, rest)) = rest.split_at_checked(captured as usize) else {
            return Err(Ok(Some(header_size + captured as usize)));
        };
        *held = rest;
        Ok(Captured {
            link: self.link,
            point: self.point,
            time: Some(u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.nanos_per_unit),
            // A record that claims fewer bytes on the wire than it holds is wrong about the wire.
            wire_length: wire.max(captured),
            bytes,
        })
    }

    #[inline(always)]
    fn words(&self, header: &[u8; RECORD_HEADER]) -> [u32; 4] {
        let [a, b, c, d] = header.as_chunks::<4>().0 else { return [0; 4] };
        let words = [a, b, c, d].map(|word| u32::from_le_bytes(*word));
        if self.big_endian { words.map(u32::swap_bytes) } else { words }
    }

    /// Has at least `size` bytes of the record read, if it is not the end of the file; whether there is a record.
    #[cold]
    fn has(window: &mut Window, size: usize) -> Result<bool, Fault> {
        match window.at_least(size)?.len() {
            0 => Ok(false),
            held if held < size => Err(Fault::Cut(Part::Record)),
            _ => Ok(true),
        }
    }
}
