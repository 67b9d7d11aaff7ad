//! What can be wrong with a capture file: before anything is read ([`OpenError`]) and while it is read ([`Damage`]).

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A FILE that can't be opened. Nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Missing, no permission, too many open files, ….
    #[error("{} can't be opened", .path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder.
    #[error("{} is a directory, not a capture", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
    },
    /// `-` more than once.
    #[error("standard input (`-`) is given twice")]
    StandardInputTwice,
}

/// Where and why reading a file ended before its end. All before it was delivered.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {}", self.told())]
pub struct Damage {
    /// The file as the user named it; `standard input` for `-`.
    pub file: String,
    /// Start of the header, record or block that is damaged.
    pub offset: u64,
    /// Whether `offset` counts decompressed bytes.
    pub compressed: bool,
    /// What is wrong.
    #[source]
    pub fault: Fault,
}

impl Damage {
    fn told(&self) -> String {
        let Self { offset, compressed, fault, .. } = self;
        match (fault, compressed) {
            // Of the file as a whole: a place would say nothing.
            (Fault::Empty | Fault::Magic { .. }, false) => fault.to_string(),
            (Fault::Empty | Fault::Magic { .. }, true) => format!("after decompression, {fault}"),
            (_, false) => format!("{fault} at byte {offset}"),
            (_, true) => format!("{fault} at byte {offset} of the uncompressed data"),
        }
    }

    /// What a user could do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self.fault {
            Fault::Empty => "nothing was delivered: get the capture with its content",
            Fault::Magic { .. } => {
                "name captures in pcap or pcapng, as they are or compressed by gzip or zstd"
            }
            Fault::AfterGzip => "all before it was delivered: cut off what is not part of the capture",
            Fault::Read { .. } => {
                "what lies before was delivered; look at the device, or copy the capture to another"
            }
            Fault::Panic => {
                "what lies before was delivered; this is a bug in mermin: please report it with the log"
            }
            _ if self.offset == 0 => "nothing was delivered: get a whole copy of the capture",
            _ => "what lies before the damage was delivered; get a whole copy of the capture",
        }
    }
}

/// The part of a file that ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The file header of a classic pcap.
    Header,
    /// A record of a classic pcap.
    Record,
    /// A block of a pcapng.
    Block,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Record => "record",
            Self::Block => "block",
        })
    }
}

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// 0 bytes.
    #[error("the file is empty")]
    Empty,
    /// Neither pcap nor pcapng (after decompression).
    #[error("not a pcap or pcapng file (it begins with {})", hex(.magic))]
    Magic {
        /// The first bytes.
        magic: Vec<u8>,
    },
    /// The file ends within a part of it.
    #[error("the file ends inside a {0}")]
    Cut(Part),
    /// A captured length beyond the file's snap length and beyond reason.
    #[error("a captured length of {length} bytes is beyond the limit of {limit}")]
    CapturedLength {
        /// As the record says.
        length: u64,
        /// What is taken at most.
        limit: u64,
    },
    /// A block's length is too small for its type, no multiple of four, beyond 16 MiB, or not the same at its end.
    #[error("a block's length is wrong ({length})")]
    BlockLength {
        /// As the block says at its front.
        length: u32,
    },
    /// A section header with an unknown byte-order magic.
    #[error("a section header has no byte-order magic")]
    ByteOrder,
    /// A section of a format version that is not 1.
    #[error("a section is of version {major}, which isn't known")]
    Version {
        /// The major version.
        major: u16,
    },
    /// A block's fields contradict its length.
    #[error("a block's content does not fit its length")]
    BlockContent,
    /// A packet of an interface that the section has not described.
    #[error("a packet belongs to interface {number}, which isn't described")]
    Interface {
        /// As the packet says.
        number: u32,
    },
    /// More interfaces in a section than are kept.
    #[error("a section describes more than {limit} interfaces")]
    Interfaces {
        /// What is kept at most.
        limit: usize,
    },
    /// The compressed data ends too early.
    #[error("the compressed data is cut")]
    CompressionCut,
    /// What follows a gzip member is no other one.
    #[error("the gzip data is followed by something else")]
    AfterGzip,
    /// The compressed data is wrong.
    #[error("the compressed data is damaged ({source})")]
    Compression {
        /// What the decompressor says.
        source: io::Error,
    },
    /// Reading it panicked.
    #[error("reading it panicked")]
    Panic,
    /// The system could not read on.
    #[error("the file can't be read further ({source})")]
    Read {
        /// What the system says.
        source: io::Error,
    },
}

/// A gzip stream's reader met [`Fault::AfterGzip`].
#[derive(Debug, thiserror::Error)]
#[error("something else follows")]
pub(super) struct AfterGzip;

impl From<io::Error> for Fault {
    fn from(source: io::Error) -> Self {
        if source.raw_os_error().is_some() {
            Self::Read { source }
        } else if source.get_ref().is_some_and(|inner| inner.is::<AfterGzip>()) {
            Self::AfterGzip
        } else if source.kind() == io::ErrorKind::UnexpectedEof {
            Self::CompressionCut
        } else {
            Self::Compression { source }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
