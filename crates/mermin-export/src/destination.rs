//! Where lines go: standard output or a file, written with plain write(2), so that what returned is known exactly.
//!
//! Several outputs may share standard output; a lock that lasts over a whole buffer keeps their lines whole.

use rustix::event::{PollFd, PollFlags, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Seek, SeekFrom, StdoutLock, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Takes bytes.
pub(crate) trait Destination: Send {
    /// Held over the writes of one buffer.
    type Guard;

    /// Keeps other writers to the same place out.
    fn lock(&self) -> Self::Guard;

    /// Writes some of `bytes`, at least one; waits for room.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Removes the last `bytes` written, which are the beginning of a line that can't be finished. Says whether they
    /// are gone.
    fn take_back(&mut self, bytes: u64) -> bool;
}

/// An open file, or standard output.
#[derive(Debug)]
pub(crate) struct FileDestination {
    file: File,
    stdout: bool,
}

impl FileDestination {
    /// Standard output, past the standard library's buffer.
    pub(crate) fn stdout() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { file, stdout: true })
    }

    /// The file at `path`, made if it isn't there, and emptied unless `append`. Whatever is written goes to its end: an
    /// output that hangs and comes back does not write over what its successor wrote, nor leave a hole behind a rotation.
    pub(crate) fn open(path: &Path, append: bool) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        // A pipe or a device has no length.
        if !append && file.metadata()?.is_file() {
            file.set_len(0)?;
        }
        Ok(Self { file, stdout: false })
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.file.is_terminal()
    }

    /// Columns of the terminal, where it is one and says it.
    pub(crate) fn columns(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(&self.file).ok()?;
        (size.ws_col > 0).then_some(usize::from(size.ws_col))
    }
}

impl Destination for FileDestination {
    type Guard = Option<StdoutLock<'static>>;

    fn lock(&self) -> Self::Guard {
        self.stdout.then(|| io::stdout().lock())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => return Ok(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Standard output is non-blocking where another program that shares it has made it so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
                    match poll(&mut fds, None) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Only where the file ends with what was written: behind it may be what another program appended.
    fn take_back(&mut self, bytes: u64) -> bool {
        let shorten = || -> io::Result<bool> {
            let metadata = self.file.metadata()?;
            if !metadata.is_file() || (&self.file).stream_position()? != metadata.len() {
                return Ok(false);
            }
            let len = metadata.len().saturating_sub(bytes);
            self.file.set_len(len)?;
            (&self.file).seek(SeekFrom::Start(len))?;
            Ok(true)
        };
        shorten().unwrap_or(false)
    }
}
