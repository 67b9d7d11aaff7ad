//! Where an output's records wait: in memory, or on disk.
//!
//! Each output with `buffer: disk` has a folder of its own within the configured one, named after it, so no two can share
//! one: a `/` of its name is written `%2F`.

use crate::error::ExportError;
use mermin_flow::ByteSize;
use mermin_spool::{Fsync, Spool, SpoolError, SpoolSettings};
use rustix::fs::{Access, access, statvfs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The least bound.
const BYTES_MIN: ByteSize = ByteSize(1 << 20);
/// The longest name of a file or folder on the file systems of Linux.
const NAME_MAX: usize = 255;

const FOLDER: &str = "export.disk_buffer.folder";

/// Where an output's records wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BufferKind {
    /// In its queue.
    #[default]
    Memory,
    /// In files, all of them: what was written there outlasts the agent, however it ends.
    Disk,
}

/// Where records of outputs with `buffer: disk` wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiskBufferConfig {
    /// Holds a folder for each of these outputs, named after it; an absolute path. Made where it isn't there, for the user
    /// that Mermin runs as and nobody else. On a disk: a folder in memory outlasts the agent, but not the machine.
    pub folder: PathBuf,
    /// Bound on the files of one output together, 1MiB at least. A record takes about 150 bytes. When it is reached records
    /// wait in the output's queue, and what has no room there is dropped and counted (`buffer_full`).
    pub bytes: ByteSize,
    /// When the disk is waited for. Whatever is said here, what was written outlasts the agent; this is about a loss of
    /// power and a crash of the kernel.
    pub fsync: FsyncKind,
}

impl Default for DiskBufferConfig {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("/var/lib/mermin/buffer"),
            bytes: ByteSize(512 << 20),
            fsync: FsyncKind::default(),
        }
    }
}

/// When the disk is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FsyncKind {
    /// Once a second: a loss of power costs the records of a second.
    #[default]
    Interval,
    /// With every batch: a loss of power costs nothing that waits here, and a batch takes as long as the disk does. (What a
    /// file output has written itself is the kernel's.)
    Each,
    /// Never: the kernel writes when it wants to, within half a minute mostly.
    Never,
}

impl DiskBufferConfig {
    /// Whether a buffer for this output could be opened, as far as that can be told without making anything. What should be
    /// known all the same, if there is anything.
    pub(crate) fn check(&self, output: &str) -> Result<Option<String>, ExportError> {
        let folder = self.folder_of(output)?;
        let failed = |source| ExportError::BufferFolder { folder: folder.clone(), source };
        let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        if !there.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        access(there, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| failed(error.into()))?;
        Ok(self.room(there, 0))
    }

    /// Opens the buffer of an output. What should be known all the same, if there is anything.
    pub(crate) fn open(&self, output: &str) -> Result<(Spool, Option<String>), ExportError> {
        let folder = self.folder_of(output)?;
        let fsync = match self.fsync {
            FsyncKind::Interval => Fsync::Interval(Duration::from_secs(1)),
            FsyncKind::Each => Fsync::Each,
            FsyncKind::Never => Fsync::Never,
        };
        let spool = Spool::open(&folder, SpoolSettings { bytes: self.bytes.0, fsync });
        let spool = spool.map_err(|error| match error {
            SpoolError::InUse { folder } => ExportError::BufferInUse { folder },
            SpoolError::Folder { source, .. }
            | SpoolError::Write { source, .. }
            | SpoolError::Sync { source, .. }
            | SpoolError::Read { source, .. } => ExportError::BufferFolder { folder, source },
            SpoolError::BoundTooSmall { .. } | SpoolError::Full { .. } | SpoolError::TooLarge { .. } => {
                too_small(self.bytes)
            }
        })?;
        let warning = self.room(&self.folder, spool.bytes());
        Ok((spool, warning))
    }

    fn folder_of(&self, output: &str) -> Result<PathBuf, ExportError> {
        if self.bytes < BYTES_MIN {
            return Err(too_small(self.bytes));
        }
        if !self.folder.is_absolute() {
            let what = format!("`{}` is not an absolute path", self.folder.display());
            let help = "name the whole path: an agent that is started elsewhere would not find its records"
                .to_owned();
            return Err(setting(FOLDER, what, help));
        }
        let name = output.replace('%', "%25").replace('/', "%2F");
        if name.len() > NAME_MAX {
            let what = format!("the output's name `{output}` is too long for that of its disk buffer");
            return Err(setting("export.files", what, "give it a shorter path".to_owned()));
        }
        Ok(self.folder.join(name))
    }

    /// Says so where the disk has less room than the buffer, which has so many bytes already, may take.
    fn room(&self, folder: &Path, has: u64) -> Option<String> {
        let disk = statvfs(folder).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        (free.saturating_add(has) < self.bytes.0).then(|| {
            let free = ByteSize((free >> 20) << 20);
            format!(
                "{}: the disk has {free} left, and export.disk_buffer.bytes is {}",
                folder.display(),
                self.bytes
            )
        })
    }
}

fn setting(place: &str, what: String, help: String) -> ExportError {
    ExportError::Setting { place: place.to_owned(), what, help }
}

fn too_small(bytes: ByteSize) -> ExportError {
    let what = format!("`{bytes}` is no size for a disk buffer");
    setting("export.disk_buffer.bytes", what, format!("give it {BYTES_MIN} at least"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> DiskBufferConfig {
        DiskBufferConfig { folder: folder.to_owned(), ..DiskBufferConfig::default() }
    }

    #[test]
    fn each_output_has_a_folder_of_its_own() {
        let config = DiskBufferConfig::default();
        let folders = ["otlp:logs", "json:/a/b", "json:/a%2Fb"].map(|name| config.folder_of(name).unwrap());
        let names = folders.each_ref().map(|folder| folder.file_name().unwrap().to_str().unwrap());
        assert_eq!(names, ["otlp:logs", "json:%2Fa%2Fb", "json:%2Fa%252Fb"]);
        assert!(folders.iter().all(|folder| folder.parent() == Some(&config.folder)));
    }

    #[test]
    fn what_cannot_be_is_said_with_a_way_out() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let small = DiskBufferConfig { bytes: ByteSize(1000), ..config(parent.path()) };
        for (config, output, what, help) in [
            (config(Path::new("here")), "json:a", "`here` is not an absolute path", "name the whole path"),
            (small, "json:a", "`1kB` is no size for a disk buffer", "give it 1MiB at least"),
            (config(parent.path()), &*"x".repeat(256), "the output's name `xxx", "give it a shorter path"),
            (config(&file.join("under")), "json:a", "the disk buffer in ", "mkdir -p"),
        ] {
            for error in [config.check(output).unwrap_err(), config.open(output).err().unwrap()] {
                let (said, way_out) = (error.to_string(), error.help().unwrap());
                assert!(said.starts_with(what) && way_out.contains(help), "{said}; {way_out}");
            }
        }
        assert!(file.metadata().unwrap().len() == 0);
    }

    #[test]
    fn one_agent_has_it_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let config = config(&parent.path().join("buffer"));
        assert!(config.check("otlp:logs").is_ok());
        assert!(!config.folder.exists(), "a check makes nothing");
        let (first, _) = config.open("otlp:logs").unwrap();
        assert!(matches!(config.open("otlp:logs"), Err(ExportError::BufferInUse { .. })));
        assert!(config.open("otlp:traces").is_ok());
        drop(first);
        assert!(config.open("otlp:logs").is_ok());
    }

    #[test]
    fn a_disk_without_so_much_room_is_said() {
        let parent = tempfile::tempdir().unwrap();
        let config = DiskBufferConfig { bytes: ByteSize(1 << 60), ..config(parent.path()) };
        let warning = config.check("json:a").unwrap().unwrap();
        assert!(warning.contains("left, and export.disk_buffer.bytes is "), "{warning}");
        assert_eq!(DiskBufferConfig { bytes: BYTES_MIN, ..config }.check("json:a").unwrap(), None);
    }
}
