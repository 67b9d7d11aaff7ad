//! Where what is due stands in the maps of a version: written beside the counts that outlast a process, so that an agent of
//! another version, which doesn't know those maps, can still add up what they hold.
//!
//! What no version may change, from 5 on: this description, the map of counts (`words.rs`), the names of maps and links, and
//! that an array has as many elements for even epochs as, behind them, for odd ones.

use super::bpf::map_info;
use super::error::EbpfError;
use super::mapped::map;
use memmap2::MmapRaw;
use mermin_abi::{Control, Counters, Set, Slot, Sums, Verdict, WORDS_V4, WORDS_V6};
use mermin_flow::Tally;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, OwnedFd};

/// Places that a version may have.
const PLACES: usize = 8;

/// A number in an element of an array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) offset: u32,
    /// In bytes: 4 or 8.
    pub(super) width: u32,
}

/// A tally in each element of an array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The array's name, then zeros; zeros alone: there is no such place.
    pub(super) map: [u8; 16],
    /// Packets, bytes, buffers and their bytes.
    pub(super) fields: [Field; 4],
}

/// See the module's text.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The live epoch, in `CONTROL`.
    pub(super) epoch: Field,
    /// The tick from which on nothing is counted, there too.
    pub(super) deadline: Field,
    /// All that is due of an epoch stands in one of these.
    pub(super) places: [Place; PLACES],
}

/// The words of both.
pub(super) const CONTROL: &str = "CONTROL";

impl Layout {
    /// Of this version.
    pub(super) fn ours() -> Self {
        let mut layout = Self {
            epoch: Field { offset: offset_of!(Control, epoch) as u32, width: 4 },
            deadline: Field { offset: offset_of!(Control, deadline) as u32, width: 8 },
            ..Self::default()
        };
        let places = [
            counter(offset_of!(Counters, submitted)),
            counter(offset_of!(Counters, overflowed)),
            slot::<WORDS_V4>("SLOTS4", 0),
            slot::<WORDS_V4>("SLOTS4", 1),
            slot::<WORDS_V6>("SLOTS6", 0),
            slot::<WORDS_V6>("SLOTS6", 1),
        ];
        layout.places[..places.len()].copy_from_slice(&places);
        layout
    }
}

fn place(name: &str, at: usize, fields: [(usize, u32); 4]) -> Place {
    let mut place = Place::default();
    for (to, from) in place.map.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    place.fields = fields.map(|(offset, width)| Field { offset: (at + offset) as u32, width });
    place
}

fn counter(at: usize) -> Place {
    let fields = [
        (offset_of!(Verdict, packets), 8),
        (offset_of!(Verdict, bytes), 8),
        (offset_of!(Verdict, buffers), 8),
        (offset_of!(Verdict, buffer_bytes), 8),
    ];
    place("COUNTERS", at, fields)
}

fn slot<const W: usize>(name: &str, way: usize) -> Place {
    let at = offset_of!(Set<W>, ways) + way * size_of::<Slot<W>>() + offset_of!(Slot<W>, sums);
    let fields = [
        (offset_of!(Sums, packets), 4),
        (offset_of!(Sums, frame_bytes), 8),
        (offset_of!(Sums, buffers), 4),
        (offset_of!(Sums, buffer_bytes), 4),
    ];
    place(name, at, fields)
}

impl Place {
    /// The array's name, if there is such a place.
    pub(super) fn name(&self) -> Option<&str> {
        let end = self.map.iter().position(|byte| *byte == 0).unwrap_or(self.map.len());
        std::str::from_utf8(&self.map[..end]).ok().filter(|name| !name.is_empty())
    }
}

/// The elements of an array that was made by whatever version.
pub(super) struct Elements {
    mapped: MmapRaw,
    /// Bytes of one, and of one with what is between it and the next.
    size: usize,
    stride: usize,
    count: usize,
}

impl Elements {
    pub(super) fn of(array: &OwnedFd) -> Result<Self, EbpfError> {
        let info = map_info(array.as_fd()).map_err(strange)?;
        let (size, count) = (info.value_size as usize, info.max_entries as usize);
        let stride = size.next_multiple_of(8);
        Ok(Self { mapped: map(array.as_fd(), stride * count)?, size, stride, count })
    }

    /// A number in the element with this index.
    pub(super) fn number(&self, index: usize, field: Field) -> Result<u64, EbpfError> {
        let (offset, width) = (field.offset as usize, field.width as usize);
        let fits = offset.checked_add(width).is_some_and(|end| end <= self.size);
        if index >= self.count || !fits {
            return Err(strange(io::Error::other("a number beyond its element")));
        }
        // SAFETY: it lies within the element, which lies within the mapping; any bytes are valid.
        unsafe {
            let at = self.mapped.as_ptr().add(index * self.stride + offset);
            match width {
                4 => Ok(at.cast::<u32>().read_unaligned().into()),
                8 => Ok(at.cast::<u64>().read_unaligned()),
                _ => Err(strange(io::Error::other("a number of an unknown width"))),
            }
        }
    }

    /// The sum over the half of an epoch. Only when no program counts there.
    pub(super) fn sum(&self, epoch: u32, fields: &[Field; 4]) -> Result<Tally, EbpfError> {
        let half = self.count / 2;
        let first = if epoch & 1 == 0 { 0 } else { half };
        let mut sum = Tally::ZERO;
        for index in first..first + half {
            let [packets, bytes, buffers, buffer_bytes] = fields;
            sum += Tally {
                packets: self.number(index, *packets)?,
                bytes: self.number(index, *bytes)?,
                buffers: self.number(index, *buffers)?,
                buffer_bytes: self.number(index, *buffer_bytes)?,
            };
        }
        Ok(sum)
    }
}

fn strange(source: io::Error) -> EbpfError {
    EbpfError::Kernel { what: "maps of another version", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_names_what_it_describes() {
        let layout = Layout::ours();
        assert_eq!((layout.epoch.offset, layout.deadline.offset), (0, 8));
        let names: Vec<_> = layout.places.iter().filter_map(Place::name).collect();
        assert_eq!(names, ["COUNTERS", "COUNTERS", "SLOTS4", "SLOTS4", "SLOTS6", "SLOTS6"]);
        // Whoever changes this changes what other versions read.
        assert_eq!(size_of::<Layout>(), 16 + 8 * 48);
    }
}
