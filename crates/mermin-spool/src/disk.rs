//! Waiting for the disk.

use crate::error::{self, SpoolError};
use std::fs::File;
use std::path::Path;

/// The disk has what was written to the file, and its length.
pub(crate) fn sync_file(file: &File, path: &Path) -> Result<(), SpoolError> {
    #[cfg(test)]
    synced::note(path);
    file.sync_data().map_err(error::sync(path))
}

/// The names in the folder outlast a loss of power from now on.
pub(crate) fn sync_folder(path: &Path) -> Result<(), SpoolError> {
    #[cfg(test)]
    synced::note(path);
    File::open(path).and_then(|folder| folder.sync_all()).map_err(error::sync(path))
}

/// What this thread has synced: no test can cut the power.
#[cfg(test)]
pub(crate) mod synced {
    use std::cell::RefCell;
    use std::path::{Path, PathBuf};

    thread_local!(static PATHS: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) });

    pub(super) fn note(path: &Path) {
        PATHS.with_borrow_mut(|paths| paths.push(path.to_owned()));
    }

    /// Since it was last asked.
    pub(crate) fn take() -> Vec<PathBuf> {
        PATHS.take()
    }
}
