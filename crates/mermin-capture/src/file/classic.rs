//! Classic pcap: a file header, then records of a fixed header and the captured bytes.
//!
//! Header and records are read by `pcap-parser` out of the window: 2 ns per packet over reading the bytes alone.
//! All magics that it knows: microseconds and nanoseconds in both byte orders, and the "modified" form with eight
//! further bytes per record. The order of a record's two lengths before version 2.3 of the format (1996) is not known
//! here.

use super::damage::{Fault, Part};
use super::window::Window;
use super::{Captured, Step, captured_max};
use mermin_wire::Link;
use pcap_parser::nom::{Err, IResult, Needed};
use pcap_parser::{LegacyPcapBlock, PcapError, PcapHeader};
use pcap_parser::{parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header};

type ParseRecord = for<'a> fn(&'a [u8]) -> IResult<&'a [u8], LegacyPcapBlock<'a>, PcapError<&'a [u8]>>;

/// A file whose header was read.
pub(super) struct Classic {
    parse: ParseRecord,
    nanos_per_unit: u64,
    link: Option<Link>,
    point: u16,
    captured_max: u32,
    record_header: usize,
}

/// Whether a file that begins with `magic`, of four bytes, is of this format.
pub(super) fn recognise(magic: &[u8]) -> bool {
    !matches!(parse_pcap_header(magic), Err(Err::Error(_) | Err::Failure(_)))
}

impl Classic {
    /// Reads the file header. `point` is the number of the one unnamed interface.
    pub(super) fn open(window: &mut Window, point: u16) -> Result<Self, Fault> {
        let bytes = window.at_least(PcapHeader::new().size())?;
        let Ok((rest, header)) = parse_pcap_header(bytes) else { return Err(Fault::Cut(Part::Header)) };
        let length = bytes.len() - rest.len();
        window.consume(length);
        Ok(Self {
            parse: match (header.is_modified_format(), header.is_bigendian()) {
                (true, _) => parse_pcap_frame_modified,
                (false, true) => parse_pcap_frame_be,
                (false, false) => parse_pcap_frame,
            },
            nanos_per_unit: if header.is_nanosecond_precision() { 1 } else { 1_000 },
            // The upper half holds other facts, for example the length of a frame check sequence.
            link: Link::from_linktype((header.network.0 & 0xffff) as u16),
            point,
            captured_max: captured_max(header.snaplen),
            record_header: if header.is_modified_format() { 24 } else { 16 },
        })
    }

    /// Hands at most `budget` packets to `each`.
    pub(super) fn read(
        &self,
        window: &mut Window,
        mut budget: usize,
        mut each: impl FnMut(Captured<'_>),
    ) -> Result<Step, Fault> {
        while budget > 0 {
            let held = window.bytes();
            match (self.parse)(held) {
                Ok((rest, record)) => {
                    each(self.packet(&record)?);
                    let length = held.len() - rest.len();
                    window.consume(length);
                    budget -= 1;
                }
                Err(Err::Incomplete(Needed::Size(missing))) => {
                    if !self.wait_for(window, missing.get())? {
                        return Ok(Step::End);
                    }
                }
                Err(_) => return Err(Fault::Cut(Part::Record)),
            }
        }
        Ok(Step::Budget)
    }

    #[inline]
    fn packet<'a>(&self, record: &LegacyPcapBlock<'a>) -> Result<Captured<'a>, Fault> {
        let captured = record.data.len() as u32;
        if captured > self.captured_max {
            return Err(self.too_long(u64::from(captured)));
        }
        Ok(Captured {
            link: self.link,
            point: self.point,
            time: Some(
                u64::from(record.ts_sec) * 1_000_000_000 + u64::from(record.ts_usec) * self.nanos_per_unit,
            ),
            // A record that claims fewer bytes on the wire than it holds is wrong about the wire.
            wire_length: record.origlen.max(captured),
            bytes: record.data,
        })
    }

    /// Has `missing` more bytes read. False at the end of the file.
    #[cold]
    fn wait_for(&self, window: &mut Window, missing: usize) -> Result<bool, Fault> {
        let held = window.bytes().len();
        let captured = (held + missing).saturating_sub(self.record_header);
        if captured > self.captured_max as usize {
            return Err(self.too_long(captured as u64));
        }
        match window.at_least(held + missing)?.len() {
            0 => Ok(false),
            now if now < held + missing => Err(Fault::Cut(Part::Record)),
            _ => Ok(true),
        }
    }

    fn too_long(&self, length: u64) -> Fault {
        Fault::CapturedLength { length, limit: u64::from(self.captured_max) }
    }
}
