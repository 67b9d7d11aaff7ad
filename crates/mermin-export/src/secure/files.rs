//! Files that are read again when they change: tokens, passwords, certificates.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What tells one content of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    modified: Option<SystemTime>,
    len: u64,
    /// A file that was put in its place, as Kubernetes does with secrets.
    inode: u64,
}

/// Files by their marks when they were last looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched(Vec<(PathBuf, Option<Mark>)>);

fn mark(path: &Path) -> Option<Mark> {
    use std::os::unix::fs::MetadataExt;
    let data = fs::metadata(path).ok()?;
    Some(Mark { modified: data.modified().ok(), len: data.len(), inode: data.ino() })
}

impl Watched {
    pub(crate) fn new<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> Self {
        Self(paths.into_iter().map(|path| (path.clone(), mark(path))).collect())
    }

    /// Whether any has changed since the last look. One that is gone has not: it may be about to be replaced.
    pub(crate) fn have_changed(&mut self) -> bool {
        let mut changed = false;
        for (path, known) in &mut self.0 {
            let now = mark(path);
            if now.is_some() && now != *known {
                *known = now;
                changed = true;
            }
        }
        changed
    }
}

/// A secret in a file: its content without white space around it.
pub(crate) fn secret(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    let text = text.trim();
    if text.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_or_is_replaced_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "one").unwrap();
        let mut watched = Watched::new([&path]);
        assert!(!watched.have_changed());
        fs::write(&path, "three").unwrap();
        assert_eq!([watched.have_changed(), watched.have_changed()], [true, false]);
        let other = folder.path().join("other");
        fs::write(&other, "three").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(watched.have_changed());
        fs::remove_file(&path).unwrap();
        assert!(!watched.have_changed());
        fs::write(&path, "four and more").unwrap();
        assert!(watched.have_changed());
    }

    #[test]
    fn secrets_are_trimmed_and_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, " abc\n").unwrap();
        assert_eq!(secret(&path).unwrap(), "abc");
        fs::write(&path, "\n").unwrap();
        assert!(secret(&path).is_err());
    }
}
