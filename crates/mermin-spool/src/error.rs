//! What can go wrong.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why something was not done.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The bound is below what one segment needs.
    #[error("a disk buffer needs {} bytes at least, not {bytes}", crate::settings::BYTES_MIN)]
    BoundTooSmall {
        /// As configured.
        bytes: u64,
    },
    /// Another process, or another spool of this one, has the folder.
    #[error("the disk buffer in {} is in use", folder.display())]
    InUse {
        /// Of the spool.
        folder: PathBuf,
    },
    /// The folder is at its bound: acknowledge, and there is room again.
    #[error("the disk buffer is full: {used} of {bytes} bytes are in use")]
    Full {
        /// Of all files.
        used: u64,
        /// The bound.
        bytes: u64,
    },
    /// An entry that has no room in an empty folder either, or more than a decoder takes.
    #[error("{size} bytes at once are too much for a disk buffer of {bytes}")]
    TooLarge {
        /// Of the entry.
        size: u64,
        /// The bound.
        bytes: u64,
    },
    /// The folder can't be made, looked into or locked.
    #[error("the disk buffer's folder {} can't be used", folder.display())]
    Folder {
        /// Of the spool.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing of it was kept.
    #[error("{} can't be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was written may not outlast a loss of power.
    #[error("{} can't be synced to the disk", path.display())]
    Sync {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that is there can't be opened or read now; nothing is lost by that.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SpoolError {
    /// Whether a file could not be written because the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }

    /// Whether a file or folder is gone that was there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Write { source, .. } | Self::Sync { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A function that says which file it was.
pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SpoolError {
    |source| SpoolError::Write { path: path.into(), source }
}

/// A function that says which file it was.
pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SpoolError {
    |source| SpoolError::Read { path: path.into(), source }
}

/// A function that says which file it was.
pub(crate) fn sync(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SpoolError {
    |source| SpoolError::Sync { path: path.into(), source }
}
