//! A batch of records as it goes to the disk and as it comes back.

use crate::cursor::Cursor;
use crate::frame::{EntryHead, SegmentId, padded, payload_checksum};
use crate::mark::Mark;
use mermin_flow::Amount;

/// A batch of records, ready to be appended: made by [`crate::Encoder`].
#[derive(Debug)]
pub struct Entry {
    /// Room for the head, the payload, padding.
    bytes: Vec<u8>,
    length: usize,
    format: u16,
    amount: Amount,
    checksum: u64,
    /// Whether a decoder would take it.
    readable: bool,
}

impl Entry {
    /// `write` appends the payload.
    pub(crate) fn with_payload(
        format: u16,
        amount: Amount,
        readable: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        let mut bytes = vec![0; EntryHead::LEN];
        write(&mut bytes);
        let payload = &bytes[EntryHead::LEN..];
        let (length, checksum) = (payload.len(), payload_checksum(payload));
        bytes.resize(EntryHead::LEN + padded(length), 0);
        Self { bytes, length, format, amount, checksum, readable }
    }

    /// What it carries.
    #[must_use]
    pub const fn amount(&self) -> Amount {
        self.amount
    }

    /// Its payload and the format of that, to be kept elsewhere.
    #[must_use]
    pub fn into_payload(mut self) -> Vec<u8> {
        self.bytes.truncate(EntryHead::LEN + self.length);
        self.bytes.drain(..EntryHead::LEN);
        self.bytes
    }

    /// Bytes that it takes on disk.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether its length and its number of records can be said in a head.
    pub(crate) fn has_a_head(&self) -> bool {
        self.readable && u32::try_from(self.length).is_ok() && u32::try_from(self.amount.records).is_ok()
    }

    /// What is to be written at `offset` of `segment`, for the place `mark` among all entries.
    pub(crate) fn at(&mut self, mark: Mark, segment: SegmentId, offset: u64) -> &[u8] {
        let head = EntryHead {
            mark,
            amount: self.amount,
            format: self.format,
            length: self.length as u32,
            payload_checksum: self.checksum,
        };
        self.bytes[..EntryHead::LEN].copy_from_slice(&head.write(segment, offset));
        &self.bytes
    }
}

/// Where a batch that was read ends: what [`crate::Spool::acknowledge`] wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position(pub(crate) Cursor);

/// A batch that was read, undamaged: [`crate::Decoder`] makes records of it.
#[derive(Debug)]
pub struct Stored {
    pub(crate) head: EntryHead,
    pub(crate) payload: Vec<u8>,
    pub(crate) end: Cursor,
}

impl Stored {
    /// What it carries, also where it can't be decoded.
    #[must_use]
    pub const fn amount(&self) -> Amount {
        self.head.amount
    }

    /// To be acknowledged when its records are safe elsewhere, or given up.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position(self.end)
    }

    pub(crate) const fn format(&self) -> u16 {
        self.head.format
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// Batches that are there no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What they carried.
    pub amount: Amount,
    /// Bytes of files that were passed over.
    pub bytes: u64,
}
