//! Lines to a destination that takes them in part, refuses them or closes: what is delivered, dropped and taken back.

use super::*;
use crate::destination::FileDestination;
use crate::sample;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::Path;

/// `line N`, 8 bytes with its line feed, for the record with sequence N.
struct Eight;

impl Format for Eight {
    fn push(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("line{:3}\n", record.sequence).as_bytes());
    }
}

/// Does with each write what its script says; then takes all.
#[derive(Default)]
struct Scripted {
    taken: Vec<u8>,
    script: VecDeque<Result<usize, io::ErrorKind>>,
    takes_back: bool,
}

impl Destination for &mut Scripted {
    type Guard = ();
    fn lock(&self) {}
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = self.script.pop_front().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
        self.taken.extend_from_slice(&bytes[..some]);
        Ok(some)
    }
    fn take_back(&mut self, bytes: u64) -> bool {
        if self.takes_back {
            self.taken.truncate(self.taken.len() - usize::try_from(bytes).unwrap());
        }
        self.takes_back
    }
}

fn numbered(numbers: std::ops::Range<u32>) -> Vec<FlowRecord> {
    let record = |sequence| {
        let mut record = sample::udp();
        record.sequence = sequence;
        record.tally.packets = 1 << sequence.min(40);
        record
    };
    numbers.map(record).collect()
}

fn amount(numbers: std::ops::Range<u32>) -> Amount {
    let mut sum = Amount::default();
    numbered(numbers).iter().for_each(|record| sum += Amount::of(record));
    sum
}

/// Two calls' records are held; the write fails after 20 bytes, within the third line. Then two more are written.
fn fail_in_the_third_line(takes_back: bool, second_failure: bool) -> (String, Receipt) {
    let mut scripted = Scripted { takes_back, ..Scripted::default() };
    scripted.script.extend([Ok(5), Ok(15), Err(io::ErrorKind::StorageFull)]);
    if second_failure {
        scripted.script.push_back(Err(io::ErrorKind::StorageFull));
    }
    let mut receipt = Receipt::default();
    let mut lines = Lines::new("x".to_owned(), Eight, &mut scripted);
    lines.export(&numbered(0..2), &mut receipt).unwrap();
    lines.export(&numbered(2..5), &mut receipt).unwrap();
    assert_eq!(receipt, Receipt::default(), "nothing was written yet");
    let failure = lines.flush(&mut receipt).unwrap_err();
    assert_eq!((failure.reason, failure.closed), ("write_failed", false));
    assert_eq!(receipt.delivered, amount(0..2));
    assert_eq!(receipt.dropped["write_failed"], amount(2..5));
    lines.flush(&mut receipt).unwrap();
    if second_failure {
        lines.export(&numbered(5..6), &mut receipt).unwrap();
        lines.flush(&mut receipt).unwrap_err();
    }
    lines.export(&numbered(6..8), &mut receipt).unwrap();
    lines.flush(&mut receipt).unwrap();
    (String::from_utf8(scripted.taken).unwrap(), receipt)
}

#[test]
fn a_failed_write_delivers_whole_lines_only() {
    let (written, receipt) = fail_in_the_third_line(true, false);
    assert_eq!(written, "line  0\nline  1\nline  6\nline  7\n");
    assert_eq!(receipt.delivered.records, 4);
}

#[test]
fn a_beginning_that_stays_is_closed_by_a_line_feed() {
    for second_failure in [false, true] {
        let (written, receipt) = fail_in_the_third_line(false, second_failure);
        assert_eq!(written, "line  0\nline  1\nline\nline  6\nline  7\n");
        assert_eq!(receipt.delivered.records, 4);
        assert_eq!(receipt.dropped["write_failed"].records, 3 + u64::from(second_failure));
    }
}

#[test]
fn a_failure_between_lines_leaves_no_empty_line() {
    let mut scripted = Scripted::default();
    scripted.script.extend([Ok(8), Err(io::ErrorKind::StorageFull)]);
    let mut receipt = Receipt::default();
    let mut lines = Lines::new("x".to_owned(), Eight, &mut scripted);
    lines.export(&numbered(0..2), &mut receipt).unwrap();
    lines.flush(&mut receipt).unwrap_err();
    lines.export(&numbered(2..3), &mut receipt).unwrap();
    lines.flush(&mut receipt).unwrap();
    assert_eq!(scripted.taken, b"line  0\nline  2\n");
}

#[test]
fn a_closed_reader_ends_the_output_quietly() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
    let destination = FileDestination::open(Path::new(&path), true).unwrap();
    let mut lines = Lines::new("x".to_owned(), Eight, destination);
    let mut receipt = Receipt::default();
    lines.export(&numbered(0..1), &mut receipt).unwrap();
    lines.flush(&mut receipt).unwrap();
    drop(reader);
    lines.export(&numbered(1..3), &mut receipt).unwrap();
    let failure = lines.flush(&mut receipt).unwrap_err();
    assert_eq!((failure.reason, failure.closed), ("closed", true));
    assert_eq!((receipt.delivered, receipt.dropped["closed"]), (amount(0..1), amount(1..3)));
}

/// A failure before the end of a call's records accounts for the rest of them, too.
#[test]
fn a_full_buffer_is_written_within_a_call() {
    let many = numbered(0..40_000);
    let mut scripted = Scripted::default();
    scripted.script.extend([Ok(8), Err(io::ErrorKind::StorageFull)]);
    let mut receipt = Receipt::default();
    let mut lines = Lines::new("x".to_owned(), Eight, &mut scripted);
    lines.export(&many, &mut receipt).unwrap_err();
    assert_eq!((receipt.delivered.records, receipt.dropped["write_failed"].records), (1, 39_999));
    lines.export(&many, &mut receipt).unwrap();
    let early = receipt.delivered.records;
    assert!(early > 1 && early < 40_001, "{early}");
    lines.flush(&mut receipt).unwrap();
    assert_eq!(receipt.delivered.records, 40_001);
    assert!(lines.buffer.capacity() == BUFFER, "the buffer never grew");
}

#[test]
fn files_are_emptied_or_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    let write = |append, numbers| {
        let destination = FileDestination::open(&path, append).unwrap();
        let mut lines = Lines::new("x".to_owned(), Eight, destination);
        let mut receipt = Receipt::default();
        lines.export(&numbered(numbers), &mut receipt).unwrap();
        lines.flush(&mut receipt).unwrap();
    };
    write(false, 0..1);
    write(true, 1..2);
    assert_eq!(fs::read_to_string(&path).unwrap(), "line  0\nline  1\n");
    write(false, 2..3);
    assert_eq!(fs::read_to_string(&path).unwrap(), "line  2\n");
}

/// A mounted file system of 8 MiB, for as long as it lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        use rustix::mount::{MountFlags, mount};
        let folder = tempfile::tempdir().unwrap();
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(c"size=8m")).ok()?;
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_keeps_whole_lines_and_exact_counts() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIP a_full_disk_keeps_whole_lines_and_exact_counts: the privilege to mount a tmpfs");
        return;
    };
    for append in [true, false] {
        let path = disk.0.path().join("records");
        let ballast = disk.0.path().join("ballast");
        // Not a multiple of a record's or a page's length is left.
        fs::write(&ballast, vec![0; 8 * 1024 * 1024 - 1_000_000]).unwrap();
        let mut lines = Lines::new(
            "json".to_owned(),
            crate::JsonLines::new(sample::points()),
            FileDestination::open(&path, append).unwrap(),
        );
        let mut receipt = Receipt::default();
        let records = numbered(0..2_000);
        let failure = lines.export(&records, &mut receipt).unwrap_err();
        assert_eq!(failure.error.kind(), io::ErrorKind::StorageFull);
        let delivered = receipt.delivered.records;
        assert_eq!(delivered + receipt.dropped["write_failed"].records, 2_000);
        assert!(delivered > 0);
        let whole = |path: &Path| {
            let text = fs::read_to_string(path).unwrap();
            text.lines().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
            text.lines().count() as u64
        };
        assert_eq!(whole(&path), delivered);
        fs::remove_file(&ballast).unwrap();
        lines.export(&records[..10], &mut receipt).unwrap();
        lines.flush(&mut receipt).unwrap();
        assert_eq!((whole(&path), receipt.delivered.records), (delivered + 10, delivered + 10));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_another_program_appended_is_not_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shared");
    let mut ours = FileDestination::open(&path, false).unwrap();
    assert_eq!(ours.write(b"ours").unwrap(), 4);
    io::Write::write_all(&mut File::options().append(true).open(&path).unwrap(), b" theirs").unwrap();
    assert!(!ours.take_back(2));
    assert_eq!(fs::read_to_string(&path).unwrap(), "ours theirs");
}

#[test]
fn two_that_write_to_one_file_keep_each_other_s_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shared");
    fs::write(&path, "of an earlier run\n").unwrap();
    let mut first = FileDestination::open(&path, false).unwrap();
    first.write(b"first\n").unwrap();
    FileDestination::open(&path, true).unwrap().write(b"second\n").unwrap();
    first.write(b"first again, torn").unwrap();
    assert!(first.take_back(", torn".len() as u64));
    first.write(b"\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "first\nsecond\nfirst again\n");
}

/// As [`Eight`], but panics in the middle of the line of record 3.
struct Bug;

impl Format for Bug {
    fn push(&mut self, record: &FlowRecord, out: &mut Vec<u8>) {
        let begin = out.len();
        Eight.push(record, out);
        if record.sequence == 3 {
            out.truncate(begin + 4);
            panic!("this panic is the test's");
        }
    }
}

#[test]
fn a_record_that_it_panics_at_leaves_no_trace_and_can_be_given_up() {
    let mut scripted = Scripted::default();
    let mut receipt = Receipt::default();
    let mut lines = Lines::new("x".to_owned(), Bug, &mut scripted);
    lines.export(&numbered(0..1), &mut receipt).unwrap();
    let records = numbered(1..6);
    let export = |lines: &mut Lines<_, _>, records: &[FlowRecord], receipt: &mut Receipt| {
        let call = std::panic::AssertUnwindSafe(|| lines.export(records, receipt));
        std::panic::catch_unwind(call).is_ok()
    };
    assert!(!export(&mut lines, &records, &mut receipt));
    assert_eq!((lines.after_panic(), &receipt), (Some(3), &Receipt::default()), "it has 0, 1 and 2");
    assert!(!export(&mut lines, &records[2..3], &mut receipt));
    assert_eq!(lines.after_panic(), Some(3));
    lines.quarantine(&records[2], &mut receipt).unwrap();
    assert_eq!((receipt.delivered, receipt.dropped[QUARANTINE]), (amount(0..3), amount(3..4)));
    assert!(export(&mut lines, &records[3..], &mut receipt));
    lines.flush(&mut receipt).unwrap();
    assert_eq!(receipt.delivered.records, 5);
    let written = String::from_utf8(scripted.taken).unwrap();
    assert_eq!(written, "line  0\nline  1\nline  2\nline  4\nline  5\n");
}
