//! Opens a capture and takes off its compression, recognised by magic and not by name.

use super::damage::{AfterGzip, OpenError};
use flate2::bufread::GzDecoder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, ErrorKind, Read, stdin};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The name that stands for standard input.
const STANDARD_INPUT: &str = "-";
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A zstd file may begin with a skippable frame: `0x184d2a50` to `…5f`, little-endian.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// An opened FILE of which nothing was read.
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) input: Box<dyn Read + Send>,
}

/// A pipe, a terminal, a socket: what may keep its reader waiting.
struct Patient {
    file: File,
    interrupted: Arc<AtomicBool>,
}

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        loop {
            let ready = poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&LOOK_UP));
            if self.interrupted.load(Ordering::Acquire) {
                return Ok(0);
            }
            match ready {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.file.read(into),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Opens all, in order, or none.
pub(super) fn open_all(paths: &[PathBuf], interrupted: &Arc<AtomicBool>) -> Result<Vec<Opened>, OpenError> {
    let standard_inputs = paths.iter().filter(|path| path.as_os_str() == STANDARD_INPUT).count();
    if standard_inputs > 1 {
        return Err(OpenError::StandardInputTwice);
    }
    paths.iter().map(|path| open(path, interrupted)).collect()
}

fn open(path: &Path, interrupted: &Arc<AtomicBool>) -> Result<Opened, OpenError> {
    let failed = |source| OpenError::Open { path: path.to_owned(), source };
    let (name, file) = if path.as_os_str() == STANDARD_INPUT {
        // Not through the library's buffer, which would hold bytes that a poll doesn't see.
        let file = File::from(stdin().as_fd().try_clone_to_owned().map_err(failed)?);
        ("standard input".to_owned(), file)
    } else {
        (path.display().to_string(), File::open(path).map_err(failed)?)
    };
    let kind = file.metadata().map_err(failed)?.file_type();
    if kind.is_dir() {
        return Err(OpenError::Directory { path: path.to_owned() });
    }
    let input: Box<dyn Read + Send> = if kind.is_file() {
        Box::new(file)
    } else {
        Box::new(Patient { file, interrupted: Arc::clone(interrupted) })
    };
    Ok(Opened { name, input })
}

/// A stream of the capture's own bytes.
pub(super) struct Plain {
    pub(super) input: Box<dyn Read + Send>,
    pub(super) compressed: bool,
}

type Whole = BufReader<Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>>;

/// Looks at the first bytes and puts the right decompressor before the rest: gzip of any number of members, zstd of
/// any number of frames, or none.
pub(super) fn decompress(mut input: Box<dyn Read + Send>) -> io::Result<Plain> {
    let mut magic = Vec::with_capacity(4);
    input.by_ref().take(4).read_to_end(&mut magic)?;
    let gzip = magic.starts_with(&GZIP);
    let zstd = magic.starts_with(&ZSTD) || magic.get(1..) == Some(&ZSTD_SKIPPABLE) && magic[0] & 0xf0 == 0x50;
    let whole = Cursor::new(magic).chain(input);
    let buffered = |whole| -> Whole { BufReader::with_capacity(64 << 10, whole) };
    let input: Box<dyn Read + Send> = if gzip {
        Box::new(Pieces(Members(Some(GzDecoder::new(buffered(whole))))))
    } else if zstd {
        Box::new(Pieces(zstd::Decoder::with_buffer(buffered(whole))?))
    } else {
        Box::new(whole)
    };
    Ok(Plain { input, compressed: gzip || zstd })
}

/// The members of a gzip stream, one after the other. flate2's own reader of several takes what follows the last for a
/// header: a few bytes of anything look like a cut one.
struct Members<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let read = member.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            let next = member.get_mut().fill_buf()?;
            if next.is_empty() {
                break;
            }
            if next.iter().zip(GZIP).any(|(found, magic)| *found != magic) {
                return Err(io::Error::new(ErrorKind::InvalidData, AfterGzip));
            }
            self.0 = self.0.take().map(|member| GzDecoder::new(member.into_inner()));
        }
        Ok(0)
    }
}

/// Decompresses in pieces: what a decompressor wrote in the call that met damage is lost, so a call is small.
struct Pieces<R>(R);

impl<R: Read> Read for Pieces<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        const PIECE: usize = 16 << 10;
        let piece = into.len().min(PIECE);
        self.0.read(into.get_mut(..piece).unwrap_or_default())
    }
}
