//! Certificates and the password on disk: they are renewed while the agent runs.

use super::config::KafkaConfig;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// What tells one file of a name from the next: inode, time of the last change in ns, bytes. Those behind a symbolic link.
type Mark = Option<(u64, i64, i64, u64)>;

/// The files of an output, as they were when it was last looked.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    marks: Vec<Mark>,
    looked: Instant,
}

fn mark(path: &PathBuf) -> Mark {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
}

impl Files {
    pub(super) fn of(config: &KafkaConfig) -> Self {
        let tls = config.tls.iter().flat_map(|tls| [&tls.ca, &tls.cert, &tls.key]);
        let password = config.sasl.iter().map(|sasl| sasl.password_file.as_path());
        let paths: Vec<_> = tls.flatten().map(PathBuf::as_path).chain(password).map(Path::to_owned).collect();
        let marks = paths.iter().map(mark).collect();
        Self { paths, marks, looked: Instant::now() }
    }

    /// Whether others are there than when it was last looked. One that is missing is about to come. Looks once in [`INTERVAL`].
    pub(super) fn have_changed(&mut self) -> bool {
        if self.paths.is_empty() || self.looked.elapsed() < INTERVAL {
            return false;
        }
        let before = self.marks.clone();
        self.look();
        if self.marks.iter().all(Option::is_some) {
            return self.marks != before;
        }
        self.marks = before;
        false
    }

    /// Those that are there now are known.
    pub(super) fn look(&mut self) {
        self.looked = Instant::now();
        self.marks = self.paths.iter().map(mark).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_of_the_name_is_a_change_and_none_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "old").unwrap();
        let sasl = serde_json::json!({"sasl": {"username": "u", "password_file": file}});
        let mut files = Files::of(&serde_json::from_value(sasl).unwrap());
        let mut changed = || {
            files.looked -= INTERVAL;
            let changed = files.have_changed();
            assert!(!files.have_changed(), "it was just looked");
            changed
        };
        assert!(!changed());
        fs::remove_file(&file).unwrap();
        assert!(!changed());
        // As kubelets do it: a link that comes to point to another folder.
        fs::write(folder.path().join("new"), "new").unwrap();
        std::os::unix::fs::symlink(folder.path().join("new"), &file).unwrap();
        assert!(changed());
        assert!(!changed());
    }
}
