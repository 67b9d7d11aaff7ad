//! The file that says what is acknowledged.
//!
//! Two slots in a file of a fixed size, written by turns: a half-written slot is noticed by its checksum, and the other
//! one is the position before. Nothing is created or renamed, so it can be written while the disk is full, which is when
//! acknowledging must make room.

use crate::disk;
use crate::error::{self, SpoolError};
use crate::frame::PositionSlot;
use crate::mark::Mark;
use crate::segment;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Slots are that far apart: no disk's sector has both.
const SLOT: usize = 4096;

/// See the module's text.
pub(crate) struct PositionFile {
    file: File,
    path: PathBuf,
    generation: u64,
}

impl PositionFile {
    /// Bytes on disk.
    pub(crate) const LEN: u64 = 2 * SLOT as u64;

    /// Opens or makes it. What it says, if anything.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<PositionSlot>), SpoolError> {
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(error::write(path))?;
        let length = file.metadata().map_err(error::write(path))?.len();
        if length != Self::LEN {
            // New, or its making was interrupted. Written rather than stretched: the blocks must be there.
            let rest = vec![0; Self::LEN.saturating_sub(length) as usize];
            let written = file.write_all_at(&rest, length.min(Self::LEN));
            match written.and_then(|()| file.set_len(Self::LEN)) {
                // What waits can be read all the same; storing tries again.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                result => result.map_err(error::write(path))?,
            }
        }
        let mut bytes = vec![0; 2 * SLOT];
        segment::read_patiently(&file, &mut bytes, 0).map_err(error::write(path))?;
        let slots = bytes.chunks(SLOT).filter_map(PositionSlot::read);
        let latest = slots.max_by_key(|slot| slot.generation);
        let generation = latest.map_or(0, |slot| slot.generation);
        Ok((Self { file, path: path.to_owned(), generation }, latest))
    }

    /// Writes what is acknowledged.
    pub(crate) fn store(&mut self, identity: u64, mark: Mark) -> Result<(), SpoolError> {
        let slot = PositionSlot { identity, generation: self.generation + 1, mark };
        let place = slot.generation % 2 * SLOT as u64;
        self.file.write_all_at(&slot.write(), place).map_err(error::write(&self.path))?;
        self.generation = slot.generation;
        Ok(())
    }

    /// Writes it into both slots, and with `sync` waits for the disk: what is before it is about to be removed, and must
    /// not be missed by a later run.
    pub(crate) fn store_safely(&mut self, identity: u64, mark: Mark, sync: bool) -> Result<(), SpoolError> {
        self.store(identity, mark)?;
        self.store(identity, mark)?;
        if sync { self.sync() } else { Ok(()) }
    }

    pub(crate) fn sync(&self) -> Result<(), SpoolError> {
        disk::sync_file(&self.file, &self.path)
    }
}

/// Whether a file that was open has been removed.
pub(crate) fn is_removed(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(file.metadata()?.nlink() == 0)
}
