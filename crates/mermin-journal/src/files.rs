//! The folder and its files.

use crate::frame::{Damaged, Kind, entries, push};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("the journal in {} is in use", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder or a file in it can't be used.
    #[error("{} can't be used", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl JournalError {
    /// With its cause, on one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        match self {
            Self::InUse { .. } => self.to_string(),
            Self::Io { source, .. } => format!("{self}: {source}"),
        }
    }
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { path: path.to_owned(), source }
}

/// The folder, for this process alone.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    lock: File,
}

/// Lets go of it. Closing the file alone would not: a process that was forked meanwhile, and does not yet run its own
/// program, has it open, too.
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))?;
        let lock = path.join("lock");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&lock).map_err(at(&lock))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::InUse { folder: path.to_owned() }),
            Err(error) => Err(at(&lock)(error.into())),
        }
    }

    /// Numbers of the files of a kind, in order.
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<u64>, JournalError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(at(&self.path))? {
            let entry = entry.map_err(at(&self.path))?;
            let file = entry.file_name();
            let number: Option<u64> =
                file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// Where the file of a kind and number is.
pub(crate) fn path_of(folder: &Path, name: &str, number: u64) -> PathBuf {
    folder.join(format!("{name}.{number}"))
}

/// Makes a file that says whose it is.
pub(crate) fn create(path: &Path, whose: &[u8]) -> Result<File, JournalError> {
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(at(path))?;
    let mut header = Vec::new();
    push(&mut header, Kind::Header, &[whose]);
    file.write_all(&header).map_err(at(path))?;
    Ok(file)
}

/// What is in a file of this owner's behind its header; `None`: it is another's, or has no header.
pub(crate) fn content<'f>(
    file: &'f [u8],
    whose: &[u8],
) -> Option<impl Iterator<Item = Result<(Kind, &'f [u8]), Damaged>> + use<'f>> {
    let mut entries = entries(file);
    entries.next().filter(|header| *header == Ok((Kind::Header, whose))).map(|_| entries)
}
