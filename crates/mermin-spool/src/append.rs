//! The half that writes. An entry is one write to the end of the last segment; what fails is taken back, so that no file
//! ever holds half of one that anybody reads.

use crate::cursor::Cursor;
use crate::disk;
use crate::entry::Entry;
use crate::error::{self, SpoolError};
use crate::folder::Folder;
use crate::frame::{SegmentHead, SegmentId};
use crate::position::{PositionFile, is_removed};
use crate::segment::Segment;
use crate::settings::Fsync;
use crate::spool::{Skip, Spool};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

impl Spool {
    /// Takes a batch. When this returns it outlasts the process, and with [`Fsync::Each`] a loss of power.
    ///
    /// # Errors
    /// Nothing of it was taken: [`SpoolError::Full`] until more is acknowledged, [`SpoolError::TooLarge`] for ever, others
    /// as long as what is wrong with the disk lasts. The entry can be tried again, and what it carries is
    /// [`Entry::amount`].
    pub fn append(&mut self, entry: &mut Entry) -> Result<(), SpoolError> {
        let bytes = self.settings.bytes;
        if !entry.has_a_head() || SegmentHead::LEN as u64 + entry.size() > self.settings.segments_bytes() {
            return Err(SpoolError::TooLarge { size: entry.size(), bytes });
        }
        self.make_room(entry.size())?;
        match self.write(entry) {
            // Somebody has removed the folder: what was in it is gone, what comes need not be.
            Err(error) if error.is_missing() => {
                self.restore()?;
                self.write(entry)
            }
            result => result,
        }
    }

    /// Whether an entry of that size goes into the segment that is written to.
    fn fits(&self, size: u64) -> bool {
        let Some(last) = self.segments.back().filter(|_| self.active.is_some()) else { return false };
        last.length == SegmentHead::LEN as u64 || last.length + size <= self.settings.segment_bytes()
    }

    /// Makes sure that the bound is kept.
    fn make_room(&mut self, size: u64) -> Result<(), SpoolError> {
        let full = |spool: &Self| {
            let head = if spool.fits(size) { 0 } else { SegmentHead::LEN as u64 };
            spool.bytes() + head + size > spool.settings.bytes
        };
        if full(self) {
            // A segment that is written to is kept though all of it is acknowledged: not when its room is wanted.
            if self.acknowledged.mark.entry == self.tail.entry {
                self.close();
            }
            self.reclaim()?;
        }
        if full(self) {
            return Err(SpoolError::Full { used: self.bytes(), bytes: self.settings.bytes });
        }
        Ok(())
    }

    /// The last segment gets no more entries.
    fn close(&mut self) {
        let Some(file) = self.active.take() else { return };
        let unsynced = std::mem::take(&mut self.unsynced.active);
        if let Some(last) = self.segments.back().filter(|_| unsynced && self.settings.fsync != Fsync::Never) {
            self.unsynced.closed.push((self.folder.segment(last.number), file));
        }
    }

    fn write(&mut self, entry: &mut Entry) -> Result<(), SpoolError> {
        if !self.fits(entry.size()) {
            self.close();
            self.begin_segment()?;
        }
        let each = self.settings.fsync == Fsync::Each;
        let (Some(file), Some(last)) = (&self.active, self.segments.back_mut()) else {
            unreachable!("a segment was begun, or the entry fits into the last one");
        };
        let path = self.folder.segment(last.number);
        let id = SegmentId { identity: self.identity, number: last.number };
        let bytes = entry.at(self.tail, id, last.length);
        let mut result = put(file, &path, bytes, last.length, each);
        if result.is_ok() && each && self.unsynced.names {
            result = self.folder.sync();
            self.unsynced.names = result.is_err();
        }
        if let Err(error) = result {
            self.take_back(entry, &error);
            return Err(error);
        }
        last.length += entry.size();
        last.size = last.length;
        self.tail = self.tail.after(entry.amount());
        self.unsynced.active |= !each;
        Ok(())
    }

    /// Cuts off what was written of an entry that can't be kept.
    fn take_back(&mut self, entry: &Entry, error: &SpoolError) {
        let (Some(file), Some(last)) = (&self.active, self.segments.back_mut()) else { return };
        let cut = file.set_len(last.length);
        if cut.is_err() {
            // It stays in the file, whole or not, and a later run may read it: no other entry gets its place.
            last.size = last.length + entry.size();
            let mark = self.tail.after(entry.amount());
            let to = Cursor { mark, segment: last.number, offset: last.length };
            let from = std::mem::replace(&mut self.tail, mark);
            self.skip(Skip { from, to });
        }
        // A file that is gone, can't be synced or can't be cut is not written to again.
        if cut.is_err() || error.is_missing() || matches!(error, SpoolError::Sync { .. }) {
            self.close();
        }
    }

    fn begin_segment(&mut self) -> Result<(), SpoolError> {
        // Also where it fails: a file of that name may be there.
        let number = self.next_number;
        self.next_number += 1;
        let path = self.folder.segment(number);
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(error::write(&path))?;
        let head = SegmentHead { identity: self.identity, number, mark: self.tail };
        if let Err(source) = file.write_all_at(&head.write(), 0) {
            // What is left of it has no head, and the next run removes it; its room is too little to count.
            let _ = fs::remove_file(&path);
            return Err(SpoolError::Write { path, source });
        }
        let length = SegmentHead::LEN as u64;
        self.segments.push_back(Segment { number, first: Some(self.tail), length, size: length });
        self.active = Some(file);
        self.unsynced.names = true;
        Ok(())
    }

    /// Makes the folder again that somebody removed. Segments that went with it are told as lost when they are read.
    fn restore(&mut self) -> Result<(), SpoolError> {
        self.close();
        if !self.folder.is_there() {
            self.folder = Folder::open(self.folder.path(), self.settings.fsync != Fsync::Never)?;
        }
        let (position, _) = PositionFile::open(&self.folder.position())?;
        self.position = position;
        self.position.store(self.identity, self.acknowledged.mark)
    }
}

/// Writes an entry; with `each` the disk has it.
fn put(file: &File, path: &Path, bytes: &[u8], offset: u64, each: bool) -> Result<(), SpoolError> {
    file.write_all_at(bytes, offset).map_err(error::write(path))?;
    // Writing to a file that has no name any more succeeds, and keeps nothing.
    if is_removed(file).map_err(error::write(path))? {
        return Err(SpoolError::Write { path: path.to_owned(), source: io::ErrorKind::NotFound.into() });
    }
    if each { disk::sync_file(file, path) } else { Ok(()) }
}
