//! The queue: what is in it, and what the halves that write (`append.rs`) and read (`read.rs`) have in common.

use crate::cursor::Cursor;
use crate::disk;
use crate::entry::Position;
use crate::error::SpoolError;
use crate::folder::Folder;
use crate::mark::{Mark, minus};
use crate::position::PositionFile;
use crate::recover::{self, Recovered, Recovery};
use crate::segment::Segment;
use crate::settings::{BYTES_MIN, Fsync, SpoolSettings};
use mermin_flow::Amount;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the position is synced where every entry is: it costs duplicates only.
const POSITION_INTERVAL: Duration = Duration::from_secs(1);

/// A bounded queue of flow records in a folder. See the crate's text.
pub struct Spool {
    pub(crate) folder: Folder,
    pub(crate) position: PositionFile,
    pub(crate) identity: u64,
    pub(crate) settings: SpoolSettings,
    /// In order; the last one is written to while `active` is there.
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) active: Option<File>,
    pub(crate) next_number: u64,
    /// Behind the last entry.
    pub(crate) tail: Mark,
    /// What is read next.
    pub(crate) read: Cursor,
    /// Everything before it is done with.
    pub(crate) acknowledged: Cursor,
    /// Places from which reading goes on elsewhere: what is between was told as lost, or was never taken.
    pub(crate) skips: BTreeMap<u64, Skip>,
    /// What they carry.
    pub(crate) skipped: Amount,
    /// The segment that was read last.
    pub(crate) reading: Option<(u64, File)>,
    pub(crate) unsynced: Unsynced,
    position_is_stored: bool,
    /// As [`PositionFile::store_safely`] does it.
    position_is_safe: bool,
    recovery: Recovery,
}

/// A place, by the number of its entry, from which reading goes on elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skip {
    pub(crate) from: Mark,
    pub(crate) to: Cursor,
}

impl Skip {
    const fn amount(&self) -> Amount {
        self.to.mark.since(self.from)
    }
}

/// What the disk may not have yet.
pub(crate) struct Unsynced {
    /// Segments that are full, with their paths.
    pub(crate) closed: Vec<(PathBuf, File)>,
    /// The one that is written to.
    pub(crate) active: bool,
    /// Files were made or removed.
    pub(crate) names: bool,
    position: bool,
    since: Instant,
}

impl Spool {
    /// Opens or makes the spool in `folder`, whatever state it was left in: what is torn is cut off and stands in
    /// [`Spool::recovery`], what is damaged is told when it is read.
    ///
    /// # Errors
    /// [`SpoolError::InUse`]; [`SpoolError::BoundTooSmall`]; or the folder can't be written and read.
    pub fn open(folder: &Path, settings: SpoolSettings) -> Result<Self, SpoolError> {
        if settings.bytes < BYTES_MIN {
            return Err(SpoolError::BoundTooSmall { bytes: settings.bytes });
        }
        let sync = settings.fsync != Fsync::Never;
        let folder = Folder::open(folder, sync)?;
        let recovered = recover::recover(&folder, sync)?;
        let Recovered { identity, position, segments, acknowledged, tail, next_number, recovery } = recovered;
        let mut spool = Self {
            folder,
            position,
            identity,
            settings,
            segments,
            active: None,
            next_number,
            tail,
            read: acknowledged,
            acknowledged,
            skips: BTreeMap::new(),
            skipped: Amount::default(),
            reading: None,
            unsynced: Unsynced {
                closed: Vec::new(),
                active: false,
                names: false,
                position: false,
                since: Instant::now(),
            },
            position_is_stored: false,
            position_is_safe: false,
            recovery,
        };
        spool.seek()?;
        match spool.done_with(spool.read) {
            // Some file systems need room for what is overwritten. `tend` tries again; what is there can be read.
            Err(error) if error.is_full() => {}
            result => result?,
        }
        Ok(spool)
    }

    /// What was found when it was opened.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// As it was opened with.
    #[must_use]
    pub const fn settings(&self) -> SpoolSettings {
        self.settings
    }

    /// Whether [`Spool::read`] has more to tell.
    #[must_use]
    pub const fn has_unread(&self) -> bool {
        self.read.mark.entry < self.tail.entry
    }

    /// What is in it: appended, not acknowledged and not told as lost. Exact at any time.
    #[must_use]
    pub const fn spooled(&self) -> Amount {
        minus(self.tail.since(self.acknowledged.mark), self.skipped)
    }

    /// Size of all files. Never above [`SpoolSettings::bytes`], but where more was there when it was opened.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        PositionFile::LEN + self.segments.iter().map(|segment| segment.size).sum::<u64>()
    }

    /// Everything up to `position` is safe elsewhere, or given up: it is not read again, and its room is free as soon
    /// as a whole segment is.
    ///
    /// # Errors
    /// The position could not be written, or a segment not removed: records may be read twice by a later run. It counts
    /// as acknowledged all the same, and [`Spool::tend`] tries again.
    pub fn acknowledge(&mut self, position: Position) -> Result<(), SpoolError> {
        if position.0.mark.entry <= self.acknowledged.mark.entry {
            return Ok(());
        }
        debug_assert!(position.0.mark.entry <= self.tail.entry, "of this spool");
        self.done_with(position.0)
    }

    /// Everything before `to` is done with.
    pub(crate) fn done_with(&mut self, to: Cursor) -> Result<(), SpoolError> {
        self.acknowledged = to;
        let later = self.skips.split_off(&to.mark.entry);
        for skip in std::mem::replace(&mut self.skips, later).values() {
            self.skipped = minus(self.skipped, skip.amount());
        }
        while let Some(skip) = self.skips.remove(&self.acknowledged.mark.entry) {
            self.skipped = minus(self.skipped, skip.amount());
            self.acknowledged = skip.to;
        }
        if self.read.mark.entry < self.acknowledged.mark.entry {
            self.read = self.acknowledged;
        }
        (self.position_is_stored, self.position_is_safe) = (false, false);
        let stored = self.store_position();
        stored.and(self.reclaim())
    }

    fn store_position(&mut self) -> Result<(), SpoolError> {
        if !self.position_is_stored {
            self.position.store(self.identity, self.acknowledged.mark)?;
            self.position_is_stored = true;
            self.unsynced.position = true;
        }
        Ok(())
    }

    /// Nothing between these is ever read (again).
    pub(crate) fn skip(&mut self, skip: Skip) {
        let Amount { records, packets, bytes } = skip.amount();
        self.skipped.records += records;
        self.skipped.packets += packets;
        self.skipped.bytes += bytes;
        self.skips.insert(skip.from.entry, skip);
    }

    /// Reading begins again behind what is acknowledged.
    pub fn rewind(&mut self) {
        self.read = self.acknowledged;
    }

    /// Before a segment is removed.
    fn make_position_safe(&mut self) -> Result<(), SpoolError> {
        if self.position_is_safe {
            return Ok(());
        }
        let sync = self.settings.fsync != Fsync::Never;
        match self.position.store_safely(self.identity, self.acknowledged.mark, sync) {
            Ok(()) => (self.position_is_stored, self.position_is_safe) = (true, true),
            // Some file systems need room for what is overwritten (btrfs). Removing makes it, and `tend` tries again.
            Err(error) if error.is_full() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes segments that are done with.
    pub(crate) fn reclaim(&mut self) -> Result<(), SpoolError> {
        while let Some(first) = self.segments.front() {
            let done = self.acknowledged.segment > first.number
                || self.acknowledged.segment == first.number && self.acknowledged.offset >= first.length;
            // Its head may be all that tells of entries that were lost before it.
            let last = self.segments.len() == 1;
            let untold = last && self.acknowledged.mark.entry < self.tail.entry;
            if !done || untold || last && self.active.is_some() {
                break;
            }
            let number = first.number;
            self.make_position_safe()?;
            let path = self.folder.segment(number);
            match fs::remove_file(&path) {
                Ok(()) => self.unsynced.names = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(SpoolError::Write { path, source }),
            }
            self.reading.take_if(|(open, _)| *open == number);
            // Its room is free when nobody has it open.
            self.unsynced.closed.retain(|(closed, _)| *closed != path);
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Does what is due: syncs, and tries again what failed. To be called about as often as [`Fsync::Interval`] says,
    /// and after each append; costs nothing when nothing is due.
    ///
    /// # Errors
    /// What failed; the spool goes on.
    pub fn tend(&mut self, now: Instant) -> Result<(), SpoolError> {
        let interval = match self.settings.fsync {
            Fsync::Never => Duration::MAX,
            Fsync::Interval(interval) => interval,
            Fsync::Each => POSITION_INTERVAL,
        };
        let stored = self.store_position();
        if now.saturating_duration_since(self.unsynced.since) < interval {
            return stored;
        }
        self.unsynced.since = now;
        stored.and(self.reclaim()).and(self.sync())
    }

    /// The disk has everything that was appended and acknowledged, whatever [`SpoolSettings::fsync`] says.
    ///
    /// # Errors
    /// A file can't be synced. The kernel may have forgotten what it could not write: what is in that file is read as
    /// long as the machine runs, and is not written to any more.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        let mut result = Ok(());
        for (path, file) in self.unsynced.closed.drain(..) {
            result = result.and(disk::sync_file(&file, &path));
        }
        if std::mem::take(&mut self.unsynced.active)
            && let (Some(file), Some(segment)) = (&self.active, self.segments.back())
        {
            let path = self.folder.segment(segment.number);
            if let Err(error) = disk::sync_file(file, &path) {
                self.active = None;
                result = result.and(Err(error));
            }
        }
        if self.unsynced.names {
            let synced = self.folder.sync();
            self.unsynced.names = synced.is_err();
            result = result.and(synced);
        }
        if std::mem::take(&mut self.unsynced.position) {
            result = result.and(self.position.sync());
        }
        result
    }
}

impl Drop for Spool {
    /// What waits to be synced is, unless nothing ever is; a failure has nobody to hear of it, and costs nothing unless
    /// power is lost too.
    fn drop(&mut self) {
        if self.settings.fsync != Fsync::Never {
            let _ = self.sync();
        }
    }
}
