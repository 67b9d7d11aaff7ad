//! Opening a folder, whatever state it was left in.

use crate::cursor::Cursor;
use crate::disk;
use crate::error::{self, SpoolError};
use crate::folder::Folder;
use crate::frame::{SegmentHead, SegmentId};
use crate::mark::Mark;
use crate::position::PositionFile;
use crate::segment::{self, Segment};
use mermin_flow::Amount;
use std::collections::VecDeque;
use std::fs::{self, File};

/// What was found when a spool was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// In the spool and to be read: what an earlier run left. It includes what turns out to be damaged when it is read.
    pub spooled: Amount,
    /// Cut off, because an append was interrupted, or no file of this spool: bytes.
    pub torn_bytes: u64,
    /// What the entries carried that were cut off and whose heads could be read. Nobody was told that they were stored,
    /// unless power was lost.
    pub torn: Amount,
    /// Whether more was cut off than `torn` says.
    pub torn_inexact: bool,
}

/// A folder that has been looked through.
pub(crate) struct Recovered {
    pub(crate) identity: u64,
    pub(crate) position: PositionFile,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) acknowledged: Cursor,
    pub(crate) tail: Mark,
    pub(crate) next_number: u64,
    pub(crate) recovery: Recovery,
}

/// Looks through the folder, cuts off what is torn. With `sync` the disk has that: else a loss of power may bring it
/// back, and it would be told as lost though nobody counted it.
pub(crate) fn recover(folder: &Folder, sync: bool) -> Result<Recovered, SpoolError> {
    let (position, slot) = PositionFile::open(&folder.position())?;
    let numbers = folder.segments()?;
    let mut heads = Vec::with_capacity(numbers.len());
    for number in &numbers {
        let path = folder.segment(*number);
        let file = File::open(&path).map_err(error::read(&path))?;
        let size = file.metadata().map_err(error::read(&path))?.len();
        heads.push((*number, size, segment::head(&file).map_err(error::read(&path))?));
    }
    let identity = slot.map(|slot| slot.identity);
    let identity = identity.or_else(|| heads.iter().find_map(|(.., head)| head.map(|head| head.identity)));
    let identity = identity.unwrap_or_else(crate::random::number);
    let position_mark = slot.map_or_else(Mark::default, |slot| slot.mark);
    let recovery = Recovery::default();
    let mut found =
        Found { folder, sync, identity, recovery, tail: position_mark, burned: 0, removed: false };
    let mut segments = found.own(&heads)?;
    found.end(&mut segments)?;
    if sync && found.removed {
        folder.sync()?;
    }
    let mark = match slot {
        Some(slot) => slot.mark,
        // Nobody knows what was acknowledged: all that is there is read again.
        None => found.first_entry(&segments)?.unwrap_or(found.tail),
    };
    let next_number = numbers.last().map_or(0, |last| last + 1);
    let segment = segments.front().map_or(next_number, |segment| segment.number);
    let acknowledged = Cursor { mark, segment, offset: SegmentHead::LEN as u64 };
    let Found { mut tail, mut recovery, burned, .. } = found;
    tail.entry += burned;
    recovery.spooled = tail.since(mark);
    Ok(Recovered { identity, position, segments, acknowledged, tail, next_number, recovery })
}

struct Found<'a> {
    folder: &'a Folder,
    sync: bool,
    identity: u64,
    recovery: Recovery,
    tail: Mark,
    /// Places behind the tail that are not given again.
    burned: u64,
    /// Files were.
    removed: bool,
}

impl Found<'_> {
    /// The segments of this spool; files that say they are something else are removed.
    fn own(&mut self, heads: &[(u64, u64, Option<SegmentHead>)]) -> Result<VecDeque<Segment>, SpoolError> {
        let mut segments = VecDeque::new();
        for (number, size, head) in heads {
            let own = |head: &SegmentHead| head.identity == self.identity && head.number == *number;
            if head.as_ref().is_none_or(own) {
                let first = head.map(|head| head.mark);
                self.tail = self.tail.later(first.unwrap_or_default());
                segments.push_back(Segment { number: *number, first, length: *size, size: *size });
            } else {
                // What it had is not known: it may be all of it, if it is the position that is somebody else's.
                self.recovery.torn_inexact |= *size > 0;
                self.remove(*number, *size)?;
            }
        }
        Ok(segments)
    }

    /// Finds the last good entry and cuts off what is behind it.
    fn end(&mut self, segments: &mut VecDeque<Segment>) -> Result<(), SpoolError> {
        while let Some(last) = segments.back_mut() {
            let path = self.folder.segment(last.number);
            let file = File::options().read(true).write(true).open(&path).map_err(error::write(&path))?;
            let end = segment::end(&file, last.size, self.id(last.number)).map_err(error::read(&path))?;
            let torn = end.torn_amount();
            self.recovery.torn.records += torn.records;
            self.recovery.torn.packets += torn.packets;
            self.recovery.torn.bytes += torn.bytes;
            self.recovery.torn_inexact |= end.unknown;
            // Without an entry its head still says what was before it.
            let head = last.first.map(|first| (SegmentHead::LEN as u64, first));
            let Some((length, tail)) = end.good.or(head) else {
                let (number, size) = (last.number, last.size);
                segments.pop_back();
                self.remove(number, size)?;
                self.burn(end.torn.entry);
                continue;
            };
            self.tail = self.tail.later(tail);
            if last.size > length {
                self.recovery.torn_bytes += last.size - length;
                file.set_len(length).map_err(error::write(&path))?;
                if self.sync {
                    disk::sync_file(&file, &path)?;
                }
                self.burn(end.torn.entry);
            }
            (last.length, last.size) = (length, length);
            return Ok(());
        }
        Ok(())
    }

    /// The first entry that there is.
    fn first_entry(&self, segments: &VecDeque<Segment>) -> Result<Option<Mark>, SpoolError> {
        for segment in segments {
            if segment.first.is_some() {
                return Ok(segment.first);
            }
            let path = self.folder.segment(segment.number);
            let file = File::open(&path).map_err(error::read(&path))?;
            let id = self.id(segment.number);
            let found = segment::find(&file, SegmentHead::LEN as u64, segment.length, id);
            if let Some((_, head)) = found.map_err(error::read(&path))? {
                return Ok(Some(head.mark));
            }
        }
        Ok(None)
    }

    const fn id(&self, number: u64) -> SegmentId {
        SegmentId { identity: self.identity, number }
    }

    /// No entry gets the place of one that was torn: a loss of power may bring it back.
    fn burn(&mut self, torn: u64) {
        self.burned += torn.max(1);
    }

    fn remove(&mut self, number: u64, size: u64) -> Result<(), SpoolError> {
        let path = self.folder.segment(number);
        self.recovery.torn_bytes += size;
        self.removed = true;
        fs::remove_file(&path).map_err(error::write(&path))
    }
}
