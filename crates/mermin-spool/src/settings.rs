//! How much, and how sure.

use crate::position::PositionFile;
use std::time::Duration;

/// The least bound.
pub(crate) const BYTES_MIN: u64 = 64 << 10;
/// Room comes back a segment at a time: an eighth of the bound, or this.
const SEGMENT_MAX: u64 = 16 << 20;

/// What a spool may use and what it promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Bound on the sizes of all files of the spool together, 64 KiB at least.
    pub bytes: u64,
    /// When the disk is waited for.
    pub fsync: Fsync,
}

/// When the disk is waited for. What [`crate::Spool::append`] took outlasts the process in any case: by a crash, `kill -9`
/// or an upgrade nothing is lost that the kernel has. A loss of power, or a crash of the kernel, loses what isn't synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// The kernel writes when it wants to: within 30 s mostly.
    Never,
    /// [`crate::Spool::tend`] syncs when this time has passed since it last did.
    Interval(Duration),
    /// An append returns when the disk has the entry.
    Each,
}

impl Default for Fsync {
    /// A second: `docs/design/0012-disk-buffer.md` says why.
    fn default() -> Self {
        Self::Interval(Duration::from_secs(1))
    }
}

impl SpoolSettings {
    /// Size at which a segment is full.
    pub(crate) fn segment_bytes(&self) -> u64 {
        (self.bytes / 8).min(SEGMENT_MAX)
    }

    /// Room for segments.
    pub(crate) const fn segments_bytes(&self) -> u64 {
        self.bytes - PositionFile::LEN
    }
}
