//! What a source has read, until a cut covers it.

use crate::files::{JournalError, create, path_of};
use crate::frame::{Kind, push};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) const NAME: &str = "read";

/// The source's end of a journal, for each thread that reads: what it has read it appends before the kernel may forget it.
#[derive(Clone, Debug)]
pub struct ReadLog(Arc<Mutex<Files>>);

#[derive(Debug)]
struct Files {
    folder: PathBuf,
    whose: Vec<u8>,
    /// `None`: what is appended goes nowhere until the next cut.
    file: Option<File>,
    number: u64,
    /// Something was appended to the file.
    is_used: bool,
    buffer: Vec<u8>,
}

impl ReadLog {
    pub(crate) fn begin(folder: PathBuf, whose: Vec<u8>, number: u64) -> Result<Self, JournalError> {
        let file = Some(create(&path_of(&folder, NAME, number), &whose)?);
        Ok(Self(Arc::new(Mutex::new(Files {
            folder,
            whose,
            file,
            number,
            is_used: false,
            buffer: Vec::new(),
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what was read, in parts that belong together. It is there after a crash as soon as this has returned.
    ///
    /// # Errors
    /// The system's. Then neither this nor what follows it is there, until the next cut.
    pub fn append(&self, parts: &[&[u8]]) -> io::Result<()> {
        let files = &mut *self.lock();
        let Some(file) = &mut files.file else { return Ok(()) };
        files.buffer.clear();
        push(&mut files.buffer, Kind::Read, parts);
        let written = file.write_all(&files.buffer);
        files.is_used = true;
        if written.is_err() {
            // Behind one that was not written to its end nothing is found.
            files.file = None;
        }
        written
    }

    /// A cut is asked for: what follows is behind it. What the cut has to say for that: [`crate::Cut::read_from`].
    ///
    /// # Errors
    /// The next file can't be made; what follows stands behind the cut before.
    pub fn cut(&self) -> Result<u64, JournalError> {
        let files = &mut *self.lock();
        if files.file.is_some() && !files.is_used {
            return Ok(files.number);
        }
        files.file = Some(create(&path_of(&files.folder, NAME, files.number + 1), &files.whose)?);
        files.number += 1;
        files.is_used = false;
        Ok(files.number)
    }

    /// Until the next cut nobody will ask what was read. What [`crate::Journal::abandon`] wants to know: the first file to come.
    #[must_use]
    pub fn pause(&self) -> u64 {
        let mut files = self.lock();
        files.file = None;
        files.number + 1
    }
}
