//! The bytes on disk: what stands at the head of a segment and of an entry.
//!
//! Little endian, every part a multiple of 8 bytes. This layout is for ever: only so can a version that doesn't know an
//! entry's format still count what is in it. Checksums are XXH3, seeded by the spool's identity: what is left of another
//! spool in a block of the disk is not taken for one of this. An entry's is seeded by its place besides.

use crate::mark::Mark;
use mermin_flow::Amount;
use xxhash_rust::xxh3::xxh3_64_with_seed;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const SEGMENT_MAGIC: [u8; 8] = *b"merminSP";
const ENTRY_MAGIC: [u8; 4] = *b"mSpE";
const POSITION_MAGIC: [u8; 8] = *b"merminAK";
/// Of the layout in this file.
const LAYOUT: u32 = 1;
/// Entries begin at multiples of it, from the segment's begin.
pub(crate) const ALIGNMENT: usize = 8;

/// A [`Mark`] on disk.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawMark {
    entry: U64,
    records: U64,
    packets: U64,
    bytes: U64,
}

impl From<Mark> for RawMark {
    fn from(mark: Mark) -> Self {
        Self {
            entry: mark.entry.into(),
            records: mark.before.records.into(),
            packets: mark.before.packets.into(),
            bytes: mark.before.bytes.into(),
        }
    }
}

impl From<RawMark> for Mark {
    fn from(raw: RawMark) -> Self {
        let before =
            Amount { records: raw.records.get(), packets: raw.packets.get(), bytes: raw.bytes.get() };
        Self { entry: raw.entry.get(), before }
    }
}

/// The checksum of a struct whose last 8 bytes are the checksum.
fn checksum(raw: &[u8], identity: u64) -> U64 {
    xxh3_64_with_seed(&raw[..raw.len() - 8], identity).into()
}

/// What stands at a segment's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    /// Of the spool.
    pub(crate) identity: u64,
    /// Of the segment, as in the file's name.
    pub(crate) number: u64,
    /// Of its first entry.
    pub(crate) mark: Mark,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSegmentHead {
    magic: [u8; 8],
    layout: U32,
    unused: U32,
    identity: U64,
    number: U64,
    mark: RawMark,
    checksum: U64,
}

impl SegmentHead {
    pub(crate) const LEN: usize = size_of::<RawSegmentHead>();

    pub(crate) fn write(&self) -> [u8; Self::LEN] {
        let mut raw = RawSegmentHead {
            magic: SEGMENT_MAGIC,
            layout: LAYOUT.into(),
            unused: 0.into(),
            identity: self.identity.into(),
            number: self.number.into(),
            mark: self.mark.into(),
            checksum: 0.into(),
        };
        raw.checksum = checksum(raw.as_bytes(), self.identity);
        zerocopy::transmute!(raw)
    }

    /// `None`: damaged, of another layout, or no segment at all.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (raw, _) = RawSegmentHead::ref_from_prefix(bytes).ok()?;
        let identity = raw.identity.get();
        let good = raw.magic == SEGMENT_MAGIC
            && raw.layout == LAYOUT
            && raw.checksum == checksum(raw.as_bytes(), identity);
        good.then(|| Self { identity, number: raw.number.get(), mark: raw.mark.into() })
    }
}

/// A segment among those of all spools.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentId {
    /// Of the spool.
    pub(crate) identity: u64,
    /// Of the segment.
    pub(crate) number: u64,
}

impl SegmentId {
    /// Seeds the checksum of an entry's head at `offset`. It is one nowhere else: by a copy, which somebody made or which was
    /// left in a block of the disk, the spool would seem to end earlier than it does, and a number would be given twice.
    fn seed(self, offset: u64) -> u64 {
        let place = u128::from(self.number) << 64 | u128::from(offset);
        xxh3_64_with_seed(&place.to_le_bytes(), self.identity)
    }
}

/// What stands at an entry's begin; the payload follows, and zeros up to a multiple of [`ALIGNMENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryHead {
    /// Where it stands among all entries, and what the earlier ones carry.
    pub(crate) mark: Mark,
    /// What it carries.
    pub(crate) amount: Amount,
    /// Of the payload; see `codec`.
    pub(crate) format: u16,
    /// Length of the payload.
    pub(crate) length: u32,
    /// Of the payload, unseeded.
    pub(crate) payload_checksum: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntryHead {
    magic: [u8; 4],
    length: U32,
    mark: RawMark,
    records: U32,
    format: U16,
    unused: U16,
    packets: U64,
    bytes: U64,
    payload_checksum: U64,
    checksum: U64,
}

impl EntryHead {
    pub(crate) const LEN: usize = size_of::<RawEntryHead>();

    /// The mark of the entry behind this one.
    pub(crate) const fn next(&self) -> Mark {
        self.mark.after(self.amount)
    }

    /// For the place `offset` of `segment`, and no other.
    pub(crate) fn write(&self, segment: SegmentId, offset: u64) -> [u8; Self::LEN] {
        let mut raw = RawEntryHead {
            magic: ENTRY_MAGIC,
            length: self.length.into(),
            mark: self.mark.into(),
            records: u32::try_from(self.amount.records).unwrap_or(u32::MAX).into(),
            format: self.format.into(),
            unused: 0.into(),
            packets: self.amount.packets.into(),
            bytes: self.amount.bytes.into(),
            payload_checksum: self.payload_checksum.into(),
            checksum: 0.into(),
        };
        raw.checksum = checksum(raw.as_bytes(), segment.seed(offset));
        zerocopy::transmute!(raw)
    }

    /// `None`: no entry begins there, or its head is damaged.
    pub(crate) fn read(bytes: &[u8], segment: SegmentId, offset: u64) -> Option<Self> {
        let (raw, _) = RawEntryHead::ref_from_prefix(bytes).ok()?;
        if raw.magic != ENTRY_MAGIC || raw.checksum != checksum(raw.as_bytes(), segment.seed(offset)) {
            return None;
        }
        let records = u64::from(raw.records.get());
        Some(Self {
            mark: raw.mark.into(),
            amount: Amount { records, packets: raw.packets.get(), bytes: raw.bytes.get() },
            format: raw.format.get(),
            length: raw.length.get(),
            payload_checksum: raw.payload_checksum.get(),
        })
    }

    /// Bytes from this entry's begin to the next one's.
    pub(crate) const fn stride(&self) -> u64 {
        (Self::LEN + padded(self.length as usize)) as u64
    }
}

/// The next multiple of [`ALIGNMENT`].
pub(crate) const fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// One of the two slots of the position's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PositionSlot {
    /// Of the spool.
    pub(crate) identity: u64,
    /// The greater one counts.
    pub(crate) generation: u64,
    /// Of the first entry that is not acknowledged.
    pub(crate) mark: Mark,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPositionSlot {
    magic: [u8; 8],
    layout: U32,
    unused: U32,
    identity: U64,
    generation: U64,
    mark: RawMark,
    checksum: U64,
}

impl PositionSlot {
    pub(crate) const LEN: usize = size_of::<RawPositionSlot>();

    pub(crate) fn write(&self) -> [u8; Self::LEN] {
        let mut raw = RawPositionSlot {
            magic: POSITION_MAGIC,
            layout: LAYOUT.into(),
            unused: 0.into(),
            identity: self.identity.into(),
            generation: self.generation.into(),
            mark: self.mark.into(),
            checksum: 0.into(),
        };
        raw.checksum = checksum(raw.as_bytes(), self.identity);
        zerocopy::transmute!(raw)
    }

    /// `None`: damaged, half-written, or never written.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (raw, _) = RawPositionSlot::ref_from_prefix(bytes).ok()?;
        let identity = raw.identity.get();
        let good = raw.magic == POSITION_MAGIC
            && raw.layout == LAYOUT
            && raw.checksum == checksum(raw.as_bytes(), identity);
        good.then(|| Self { identity, generation: raw.generation.get(), mark: raw.mark.into() })
    }
}

/// Of a payload.
pub(crate) fn payload_checksum(payload: &[u8]) -> u64 {
    xxh3_64_with_seed(payload, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARK: Mark = Mark { entry: 3, before: Amount { records: 5, packets: 7, bytes: 11 } };
    const SEGMENT: SegmentHead = SegmentHead { identity: 13, number: 17, mark: MARK };
    const ID: SegmentId = SegmentId { identity: 19, number: 53 };
    const POSITION: PositionSlot = PositionSlot { identity: 19, generation: 23, mark: MARK };
    const ENTRY: EntryHead = EntryHead {
        mark: MARK,
        amount: Amount { records: 29, packets: 31, bytes: 37 },
        format: 41,
        length: 43,
        payload_checksum: 47,
    };

    /// Later versions read what this one wrote.
    #[test]
    fn the_layout_stays() {
        assert_eq!((SegmentHead::LEN, EntryHead::LEN, PositionSlot::LEN), (72, 80, 72));
        let sum = |bytes: &[u8]| xxh3_64_with_seed(bytes, 0);
        let sums = [sum(&SEGMENT.write()), sum(&ENTRY.write(ID, 72)), sum(&POSITION.write())];
        assert_eq!(sums, [5_259_388_747_104_200_307, 6_053_637_391_631_326_358, 755_372_278_806_848_784]);
    }

    #[test]
    fn what_is_written_is_read_and_an_entry_only_at_its_place() {
        assert_eq!(SegmentHead::read(&SEGMENT.write()), Some(SEGMENT));
        assert_eq!(PositionSlot::read(&POSITION.write()), Some(POSITION));
        let entry = ENTRY.write(ID, 72);
        assert_eq!(EntryHead::read(&entry, ID, 72), Some(ENTRY));
        let elsewhere =
            [(SegmentId { identity: 20, ..ID }, 72), (SegmentId { number: 54, ..ID }, 72), (ID, 80)];
        assert_eq!(elsewhere.map(|(segment, offset)| EntryHead::read(&entry, segment, offset)), [None; 3]);
        let next = Mark { entry: 4, before: Amount { records: 34, packets: 38, bytes: 48 } };
        assert_eq!((ENTRY.next(), ENTRY.stride()), (next, 80 + 48));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(bit in 0..72_usize * 8) {
            let flip = |bytes: &mut [u8]| bytes[bit / 8] ^= 1 << (bit % 8);
            let (mut segment, mut entry, mut position) = (SEGMENT.write(), ENTRY.write(ID, 72), POSITION.write());
            flip(&mut segment);
            flip(&mut entry);
            flip(&mut position);
            prop_assert_eq!(SegmentHead::read(&segment), None);
            prop_assert_eq!(EntryHead::read(&entry, ID, 72), None);
            prop_assert_eq!(PositionSlot::read(&position), None);
        }
    }
}
