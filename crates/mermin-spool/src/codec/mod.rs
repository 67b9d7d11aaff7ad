//! Flow records ↔ the payload of an entry.
//!
//! A payload is the length of a message (4 bytes, little endian) and the message, compressed by zstd. The message is laid out as `layout.rs` says. Its format is numbered in the entry's header, so a format that is not known costs the
//! entries that have it, and the header says how many records that is.
//!
//! Nothing but the program that wrote a record knows what the number of its observation point means, so a payload says
//! the points too, and a [`Decoder`] of a later run numbers them anew.

mod bytes;
mod decode;
mod encode;
mod layout;
mod names;
#[cfg(test)]
mod tests;

use crate::entry::{Entry, Stored};
use mermin_flow::{Amount, Counts, FlowRecord, ObservationPoints, Tally};
use std::sync::Arc;
use thiserror::Error;
use zstd::bulk::{Compressor, Decompressor};

/// What `layout.rs` says, compressed by zstd.
pub(crate) const FORMAT: u16 = 1;
/// One of zstd's fast levels: `docs/design/0012-disk-buffer.md` has the figures of others.
const LEVEL: i32 = -5;
/// A message's length. What the least of its parts becomes in memory takes some forty times as much, so nobody makes the
/// reader take more than 200 MiB; 500 records with a hundred labels each take half of it.
pub(crate) const MESSAGE_MAX: usize = 4 << 20;
/// Of the message's length.
const PREFIX: usize = 4;

/// An entry whose records can't be had, though nothing is damaged. Its [`Stored::amount`] is what is lost by that.
#[derive(Debug, Error)]
pub enum Undecodable {
    /// Written by a later version of the program.
    #[error("it is of format {0}, and this version reads {FORMAT}")]
    Format(u16),
    /// Not what zstd writes.
    #[error("it can't be decompressed")]
    Compression(#[source] std::io::Error),
    /// A value that this version doesn't know, or no message at all.
    #[error("its {0} is not what this version knows")]
    Content(&'static str),
    /// It has other records than its header says.
    #[error("it has {found:?}, and its header says {said:?}")]
    Amount {
        /// In the header.
        said: Amount,
        /// Decoded.
        found: Amount,
    },
}

/// Makes entries.
pub struct Encoder {
    points: Arc<ObservationPoints>,
    run: u64,
    compressor: Compressor<'static>,
    parts: encode::Parts,
    message: Vec<u8>,
}

/// Makes records of entries.
pub struct Decoder {
    points: Arc<ObservationPoints>,
    run: u64,
    decompressor: Decompressor<'static>,
}

/// Both for one output, whose records' points are among `points`.
#[must_use]
pub fn codec(points: Arc<ObservationPoints>) -> (Encoder, Decoder) {
    let run = crate::random::number();
    let compressor = Compressor::new(LEVEL).expect("the level is one of zstd's");
    let decompressor = Decompressor::new().expect("there is no dictionary to refuse");
    let encoder = Encoder {
        points: Arc::clone(&points),
        run,
        compressor,
        parts: encode::Parts::default(),
        message: Vec::new(),
    };
    (encoder, Decoder { points, run, decompressor })
}

impl Encoder {
    /// An entry of `records`. Takes a microsecond a record at most; needs no lock on the spool.
    #[must_use]
    pub fn encode(&mut self, records: &[FlowRecord]) -> Entry {
        let mut amount = Amount::default();
        for record in records {
            amount += Amount::of(record);
        }
        self.message.clear();
        encode::batch(records, &self.points, self.run, &mut self.parts, &mut self.message);
        let length = self.message.len();
        let prefix = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        Entry::with_payload(FORMAT, amount, length <= MESSAGE_MAX, |payload| {
            payload.extend_from_slice(&prefix);
            let begin = payload.len();
            payload.resize(begin + zstd::zstd_safe::compress_bound(length), 0);
            let written = self
                .compressor
                .compress_to_buffer(&self.message, &mut payload[begin..])
                .expect("the buffer is of zstd's own bound");
            payload.truncate(begin + written);
        })
    }
}

impl Decoder {
    /// The records of an entry, in order.
    ///
    /// # Errors
    /// None of them can be had: they are lost, and `stored.amount()` says how many.
    pub fn decode(&mut self, stored: &Stored) -> Result<Vec<FlowRecord>, Undecodable> {
        let records = self.payload(stored.format(), stored.payload())?;
        let mut found = Amount::default();
        for record in &records {
            found += Amount::of(record);
        }
        let said = stored.amount();
        if found == said { Ok(records) } else { Err(Undecodable::Amount { said, found }) }
    }

    /// The records of a payload that was kept elsewhere by the same version ([`Entry::into_payload`]).
    ///
    /// # Errors
    /// None of them can be had.
    pub fn kept(&mut self, payload: &[u8]) -> Result<Vec<FlowRecord>, Undecodable> {
        self.payload(FORMAT, payload)
    }

    /// The records of a message, which is what a payload is when it is decompressed. Here nothing but the layout is
    /// checked: checksums are the spool's.
    ///
    /// # Errors
    /// [`Undecodable::Content`].
    pub fn message(&self, message: &[u8]) -> Result<Vec<FlowRecord>, Undecodable> {
        decode::records(message, &self.points, self.run)
    }

    fn payload(&mut self, format: u16, payload: &[u8]) -> Result<Vec<FlowRecord>, Undecodable> {
        if format != FORMAT {
            return Err(Undecodable::Format(format));
        }
        let (prefix, compressed) =
            payload.split_first_chunk::<PREFIX>().ok_or(Undecodable::Content("length"))?;
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MESSAGE_MAX {
            return Err(Undecodable::Content("length"));
        }
        let message = self.decompressor.decompress(compressed, length).map_err(Undecodable::Compression)?;
        self.message(&message)
    }
}

/// A record's tally, where each buffer was a packet and nothing but the deltas is in it.
pub(crate) const fn expected_tally(forward: &Counts, reverse: &Counts) -> Tally {
    let packets = forward.packets.wrapping_add(reverse.packets);
    let bytes = forward.frame_bytes.wrapping_add(reverse.frame_bytes);
    Tally { packets, bytes, buffers: packets, buffer_bytes: bytes }
}
