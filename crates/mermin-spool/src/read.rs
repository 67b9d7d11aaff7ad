//! The half that reads. Entries come in the order of their marks. Where the next one that can be read stands further on
//! than what is wanted, what is between was lost, and the difference of the two marks says how much.

use crate::cursor::Cursor;
use crate::entry::{Lost, Stored};
use crate::error::{self, SpoolError};
use crate::frame::{EntryHead, SegmentHead, SegmentId};
use crate::segment::{self, Segment};
use crate::spool::{Skip, Spool};
use mermin_flow::Amount;
use std::fs::File;
use std::io;

/// What reading gives.
#[derive(Debug)]
pub enum Read {
    /// A batch.
    Batch(Stored),
    /// Some batches were lost. They are out of [`Spool::spooled`] and not told again; nothing is to be acknowledged.
    Lost(Lost),
}

/// An entry that was found, and where.
struct Place {
    head: EntryHead,
    segment: Segment,
    offset: u64,
}

impl Spool {
    /// The next batch, in the order in which they were appended; `None` when all have been read.
    ///
    /// # Errors
    /// A file can't be opened or read now ([`SpoolError::Read`]); nothing is lost by that.
    pub fn read(&mut self) -> Result<Option<Read>, SpoolError> {
        let mut passed = 0;
        loop {
            if let Some(skip) = self.skips.get(&self.read.mark.entry) {
                self.read = skip.to;
                continue;
            }
            if self.read.mark.entry >= self.tail.entry {
                return Ok(None);
            }
            let found = self.find(&mut passed)?;
            let to = match &found {
                None => self.end(),
                Some(place) => {
                    let Place { head, segment, offset } = place;
                    Cursor { mark: head.mark, segment: segment.number, offset: *offset }
                }
            };
            if let Some(lost) = self.lose_up_to(to, &mut passed) {
                return Ok(Some(Read::Lost(lost)));
            }
            let Some(place) = found.filter(|place| place.head.mark.entry == self.read.mark.entry) else {
                continue;
            };
            match self.take(&place)? {
                Some(stored) => return Ok(Some(Read::Batch(stored))),
                None => passed += place.head.stride(),
            }
            let end = place.end();
            if let Some(lost) = self.lose_up_to(end, &mut passed) {
                return Ok(Some(Read::Lost(lost)));
            }
        }
    }

    /// Goes to the first entry that is not done with, so that what stands before it can be removed.
    pub(crate) fn seek(&mut self) -> Result<(), SpoolError> {
        // Whole segments at once, as far as their heads can be read.
        let mark = self.read.mark;
        let begins_before = |segment: &&Segment| segment.first.is_some_and(|first| first.entry <= mark.entry);
        let before = self.segments.iter().rfind(begins_before);
        if let Some(segment) = before {
            self.read.segment = segment.number;
        }
        if self.read.mark.entry >= self.tail.entry {
            self.read = Cursor { mark: self.read.mark, ..self.end() };
        } else if let Some(place) = self.find(&mut 0)? {
            self.read.segment = place.segment.number;
            self.read.offset = place.offset;
        }
        Ok(())
    }

    /// Behind everything that was appended.
    fn end(&self) -> Cursor {
        let (segment, offset) = match self.segments.back() {
            Some(last) => (last.number, last.length),
            None => (self.next_number, SegmentHead::LEN as u64),
        };
        Cursor { mark: self.tail, segment, offset }
    }

    /// The next entry with a head that is not before what is wanted. `passed`: bytes of which nothing is known.
    fn find(&mut self, passed: &mut u64) -> Result<Option<Place>, SpoolError> {
        let Cursor { mark, segment: mut number, mut offset } = self.read;
        loop {
            let at = self.segments.partition_point(|segment| segment.number < number);
            let Some(segment) = self.segments.get(at).copied() else { return Ok(None) };
            if segment.number != number {
                (number, offset) = (segment.number, SegmentHead::LEN as u64);
            }
            let id = SegmentId { identity: self.identity, number };
            let found = match self.file_of(segment.number)? {
                None => None,
                Some(file) => {
                    let found = segment::find(file, offset, segment.length, id);
                    found.map_err(error::read(self.folder.segment(number)))?
                }
            };
            let Some((place, head)) = found else {
                *passed += segment.length.saturating_sub(offset);
                (number, offset) = (number + 1, SegmentHead::LEN as u64);
                continue;
            };
            *passed += place - offset;
            if head.mark.entry >= mark.entry {
                return Ok(Some(Place { head, segment, offset: place }));
            }
            offset = place + head.stride();
        }
    }

    /// The file of a segment; `None`: it is gone.
    fn file_of(&mut self, number: u64) -> Result<Option<&File>, SpoolError> {
        if self.reading.as_ref().is_none_or(|(open, _)| *open != number) {
            let path = self.folder.segment(number);
            self.reading = match File::open(&path) {
                Ok(file) => Some((number, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(SpoolError::Read { path, source }),
            };
        }
        Ok(self.reading.as_ref().map(|(_, file)| file))
    }

    /// Reads what was found; `None`: it is damaged.
    fn take(&mut self, place: &Place) -> Result<Option<Stored>, SpoolError> {
        let Place { head, segment, offset } = *place;
        let path = self.folder.segment(segment.number);
        let Some(file) = self.file_of(segment.number)? else { return Ok(None) };
        let payload = segment::payload(file, offset, segment.length, &head).map_err(error::read(path))?;
        let Some(payload) = payload else { return Ok(None) };
        self.read = place.end();
        Ok(Some(Stored { head, payload, end: self.read }))
    }

    /// Goes to `to`, or up to what is known already not to be read. What is told of the way, if anything was on it.
    fn lose_up_to(&mut self, to: Cursor, passed: &mut u64) -> Option<Lost> {
        let from = self.read.mark;
        let next_skip = self.skips.range(from.entry..).next().map(|(_, skip)| skip.from);
        let mark = next_skip.filter(|skip| skip.entry < to.mark.entry).unwrap_or(to.mark);
        let to = Cursor { mark, ..to };
        if mark.entry <= from.entry {
            // Where it stands has become known.
            (self.read.segment, self.read.offset) = (to.segment, to.offset);
            return None;
        }
        let amount = mark.since(from);
        self.read = to;
        if self.acknowledged.mark.entry == from.entry {
            // `tend` tries again what fails.
            let _ = self.done_with(to);
        } else {
            self.skip(Skip { from, to });
        }
        let bytes = std::mem::take(passed);
        // A place that no entry ever had is not worth telling.
        (amount != Amount::default() || bytes > 0).then_some(Lost { amount, bytes })
    }
}

impl Place {
    const fn end(&self) -> Cursor {
        Cursor {
            mark: self.head.next(),
            segment: self.segment.number,
            offset: self.offset + self.head.stride(),
        }
    }
}
