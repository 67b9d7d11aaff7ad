//! The spool's folder: which files are there, and that nobody else has it.
//!
//! `lock` is empty and locked as long as somebody has the folder (flock(2): the kernel lets go of it when the process
//! ends, however it ends). `position` is what is acknowledged. Segments are numbered. Other files are left alone.

use crate::disk;
use crate::error::SpoolError;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
const POSITION: &str = "position";
const SEGMENT: &str = ".segment";
/// Digits in a segment's name: names sort as numbers do.
const DIGITS: usize = 20;
/// Greater ones are nobody's, so that there is always a next one.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// A folder that nobody else has.
pub(crate) struct Folder {
    path: PathBuf,
    /// Locked.
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
    /// Makes the folder if it isn't there, for this user only: records say who talks to whom. With `sync` its name, and
    /// that of each folder that had to be made for it, outlasts a loss of power.
    pub(crate) fn open(path: &Path, sync: bool) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Folder { folder: path.to_owned(), source };
        let new: Vec<_> = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty()).collect();
        let new = new.into_iter().take_while(|folder| !folder.exists());
        let parents: Vec<_> = new.filter_map(Path::parent).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        for parent in parents.into_iter().filter(|_| sync) {
            let here = Path::new(".");
            disk::sync_folder(if parent.as_os_str().is_empty() { here } else { parent })?;
        }
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(SpoolError::InUse { folder: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Whether it is still the folder of that name.
    pub(crate) fn is_there(&self) -> bool {
        let same = || -> io::Result<bool> {
            let (there, ours) = (fs::metadata(self.path.join(LOCK))?, self.lock.metadata()?);
            Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
        };
        same().unwrap_or(false)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn position(&self) -> PathBuf {
        self.path.join(POSITION)
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:0DIGITS$}{SEGMENT}"))
    }

    /// The numbers of all segments, in order.
    pub(crate) fn segments(&self) -> Result<Vec<u64>, SpoolError> {
        let list = || -> io::Result<Vec<u64>> {
            let mut numbers = Vec::new();
            for file in fs::read_dir(&self.path)? {
                numbers.extend(file?.file_name().to_str().and_then(number));
            }
            numbers.sort_unstable();
            Ok(numbers)
        };
        list().map_err(|source| SpoolError::Folder { folder: self.path.clone(), source })
    }

    /// The names in it outlast a loss of power from now on.
    pub(crate) fn sync(&self) -> Result<(), SpoolError> {
        disk::sync_folder(&self.path)
    }
}

/// The number of the segment that has this name.
fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|number| plain && *number <= NUMBER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segments_name_is_its_number() {
        let names = ["00000000000000000007.segment", "09223372036854775807.segment"];
        assert_eq!(names.map(number), [Some(7), Some(NUMBER_MAX)]);
        let others = [
            "7.segment",
            "+0000000000000000007.segment",
            "18446744073709551615.segment",
            "99999999999999999999.segment",
            "lock",
        ];
        assert_eq!(others.map(number), [None; 5]);
    }

    #[test]
    fn one_has_it_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let folder = Folder::open(&path, false).unwrap();
        assert!(matches!(Folder::open(&path, false), Err(SpoolError::InUse { folder }) if folder == path));
        drop(folder);
        Folder::open(&path, false).unwrap();
    }

    #[test]
    fn the_names_of_folders_that_had_to_be_made_are_synced() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let synced = |sync| {
            drop(Folder::open(&path, sync).unwrap());
            disk::synced::take()
        };
        assert_eq!(synced(true), [parent.path().join("a"), parent.path().to_owned()]);
        assert!(synced(true).is_empty(), "they are there");
        fs::remove_dir_all(&path).unwrap();
        assert!(synced(false).is_empty(), "nobody wants it");
    }
}
