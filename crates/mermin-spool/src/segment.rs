//! A segment: a file with a head and entries behind each other, written once and then only read and removed.

use crate::frame::{ALIGNMENT, EntryHead, SegmentHead, SegmentId, payload_checksum};
use crate::mark::Mark;
use mermin_flow::Amount;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// A read that the disk fails is tried so often again, in all of what is asked for at once.
const ATTEMPTS: u32 = 3;
/// Pause before the first of them; then twice as long.
const PAUSE: Duration = Duration::from_millis(10);

/// How much is looked through at once for the next head behind a damage.
const STRETCH: usize = 64 << 10;

/// What is known of a segment without reading it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// Of its first entry, where the head could be read.
    pub(crate) first: Option<Mark>,
    /// Up to here there are entries; behind it nothing is ever read.
    pub(crate) length: u64,
    /// Its size on disk, `length` at least.
    pub(crate) size: u64,
}

/// What bytes are read from.
pub(crate) trait ReadAt {
    /// As pread(2).
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
}

/// Reads from a file that the disk may fail to read: a path that is switched, a cable that is loose. Only what fails again
/// and again is damage.
struct Patient<'a, F> {
    file: &'a F,
    failed: Cell<u32>,
}

impl<'a, F: ReadAt> Patient<'a, F> {
    const fn new(file: &'a F) -> Self {
        Self { file, failed: Cell::new(0) }
    }

    /// As much as there is. A place that the disk can't read is damaged like one that reads wrong.
    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match self.file.read_at(&mut into[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    let failed = self.failed.get();
                    if failed == ATTEMPTS {
                        break;
                    }
                    self.failed.set(failed + 1);
                    std::thread::sleep(PAUSE * (1 << failed));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

/// As much as there is.
pub(crate) fn read_patiently(file: &impl ReadAt, into: &mut [u8], offset: u64) -> io::Result<usize> {
    Patient::new(file).read(into, offset)
}

/// The entry's head at `offset`. `None`: damaged, or `end` comes first.
fn head_at(
    file: &Patient<'_, impl ReadAt>,
    offset: u64,
    end: u64,
    id: SegmentId,
) -> io::Result<Option<EntryHead>> {
    if offset + EntryHead::LEN as u64 > end {
        return Ok(None);
    }
    let mut bytes = [0; EntryHead::LEN];
    let read = file.read(&mut bytes, offset)?;
    Ok(EntryHead::read(&bytes[..read], id, offset))
}

/// The first entry from `offset` on that has a head, and where it is. Nothing at `end` or behind it counts.
pub(crate) fn find(
    file: &impl ReadAt,
    offset: u64,
    end: u64,
    id: SegmentId,
) -> io::Result<Option<(u64, EntryHead)>> {
    find_in(&Patient::new(file), offset, end, id)
}

fn find_in(
    file: &Patient<'_, impl ReadAt>,
    offset: u64,
    end: u64,
    id: SegmentId,
) -> io::Result<Option<(u64, EntryHead)>> {
    if let Some(head) = head_at(file, offset, end, id)? {
        return Ok(Some((offset, head)));
    }
    let mut from = offset.next_multiple_of(ALIGNMENT as u64);
    let mut stretch = vec![0; STRETCH + EntryHead::LEN];
    while from + EntryHead::LEN as u64 <= end {
        let wanted = stretch.len().min((end - from) as usize);
        let read = file.read(&mut stretch[..wanted], from)?;
        for begin in (0..read.min(STRETCH)).step_by(ALIGNMENT) {
            let place = from + begin as u64;
            if let Some(head) = EntryHead::read(&stretch[begin..read], id, place) {
                return Ok(Some((place, head)));
            }
        }
        from += STRETCH as u64;
    }
    Ok(None)
}

/// The payload of the entry at `offset`. `None`: damaged.
pub(crate) fn payload(
    file: &impl ReadAt,
    offset: u64,
    end: u64,
    head: &EntryHead,
) -> io::Result<Option<Vec<u8>>> {
    payload_in(&Patient::new(file), offset, end, head)
}

fn payload_in(
    file: &Patient<'_, impl ReadAt>,
    offset: u64,
    end: u64,
    head: &EntryHead,
) -> io::Result<Option<Vec<u8>>> {
    if offset + head.stride() > end {
        return Ok(None);
    }
    let mut payload = vec![0; head.length as usize];
    let read = file.read(&mut payload, offset + EntryHead::LEN as u64)?;
    let good = read == payload.len() && payload_checksum(&payload) == head.payload_checksum;
    Ok(good.then_some(payload))
}

/// What is found at the end of the last segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Behind the last good entry; `None`: there is none.
    pub(crate) good: Option<(u64, Mark)>,
    /// Entries behind it whose head can be read, with what they carry.
    pub(crate) torn: Mark,
    /// Whether there is more than these.
    pub(crate) unknown: bool,
}

/// Reads all of a segment, to find where it ends.
pub(crate) fn end(file: &impl ReadAt, length: u64, id: SegmentId) -> io::Result<End> {
    let (file, mut end) = (Patient::new(file), End::default());
    let mut offset = SegmentHead::LEN as u64;
    while let Some((place, head)) = find_in(&file, offset, length, id)? {
        end.unknown |= place != offset;
        offset = place + head.stride();
        if payload_in(&file, place, length, &head)?.is_some() {
            // What is damaged before it is a hole: whoever reads finds that.
            end = End { good: Some((offset, head.next())), torn: Mark::default(), unknown: false };
        } else {
            end.torn = end.torn.after(head.amount);
        }
    }
    end.unknown |= offset < length;
    Ok(end)
}

/// The head of a segment.
pub(crate) fn head(file: &impl ReadAt) -> io::Result<Option<SegmentHead>> {
    let mut bytes = [0; SegmentHead::LEN];
    let read = read_patiently(file, &mut bytes, 0)?;
    Ok(SegmentHead::read(&bytes[..read]))
}

impl End {
    /// What the torn entries carry, as far as their heads can be read.
    pub(crate) const fn torn_amount(&self) -> Amount {
        self.torn.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;

    /// A disk that fails some reads.
    struct Flaky {
        bytes: Vec<u8>,
        failures: Cell<u32>,
    }

    impl ReadAt for Flaky {
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
            if let Some(left) = self.failures.get().checked_sub(1) {
                self.failures.set(left);
                return Err(rustix::io::Errno::IO.into());
            }
            let from = &self.bytes[self.bytes.len().min(offset as usize)..];
            let n = from.len().min(into.len());
            into[..n].copy_from_slice(&from[..n]);
            Ok(n)
        }
    }

    #[test]
    fn a_read_error_that_passes_is_no_damage() {
        let id = SegmentId { identity: 3, number: 0 };
        let head = SegmentHead { identity: 3, number: 0, mark: Mark::default() };
        let amount = Amount { records: 2, packets: 3, bytes: 4 };
        let mut entry = Entry::with_payload(1, amount, true, |payload| payload.extend([7; 100]));
        let offset = SegmentHead::LEN as u64;
        let bytes = [&head.write()[..], entry.at(Mark::default(), id, offset)].concat();
        let length = bytes.len() as u64;
        let flaky = |failures| Flaky { bytes: bytes.clone(), failures: Cell::new(failures) };
        for failures in 0..=ATTEMPTS {
            let file = flaky(failures);
            let end = end(&file, length, id).unwrap();
            assert_eq!((end.good, end.unknown), (Some((length, Mark::default().after(amount))), false));
            assert_eq!(super::head(&flaky(failures)).unwrap(), Some(head));
        }
        // What can't be read at all is no error either.
        let end = end(&flaky(u32::MAX), length, id).unwrap();
        assert_eq!((end.good, end.unknown), (None, true));
    }
}
