//! A disk that is full, a folder that goes.

use super::{batch, drain, entry, id, on_disk, open, sum};
use crate::{Read, SpoolError};
use mermin_flow::Amount;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// A mounted file system of `size`, for as long as it lives.
pub(super) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(super) fn mount(size: &std::ffi::CStr) -> Option<Self> {
        use rustix::mount::{MountFlags, mount};
        let folder = tempfile::tempdir().unwrap();
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), Some(size)).ok()?;
        Some(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_refuses_whole_entries_and_takes_them_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(c"size=1m") else {
        eprintln!(
            "SKIP a_full_disk_refuses_whole_entries_and_takes_them_when_there_is_room: the privilege to mount a tmpfs"
        );
        return;
    };
    let folder = disk.path().join("spool");
    let ballast = disk.path().join("ballast");
    // Not a multiple of an entry's or a page's length is left.
    fs::write(&ballast, vec![0; 700_001]).unwrap();
    let mut spool = open(&folder, 1 << 22);
    let mut stored = 0;
    let error = loop {
        match spool.append(&mut entry(stored, 5_000)) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, SpoolError::Write { source, .. } if source.kind() == ErrorKind::StorageFull),
        "{error}"
    );
    assert!(stored > 30, "{stored}");
    assert_eq!((spool.spooled(), on_disk(&folder)), (sum(0..stored), spool.bytes()));
    assert!(spool.append(&mut entry(stored, 5_000)).is_err());
    // Full as it is: what is in it is read, acknowledged, remembered, and its room is free.
    let first = batch(&mut spool);
    spool.acknowledge(first.position()).unwrap();
    drop(spool);
    let mut spool = open(&folder, 1 << 22);
    assert_eq!((spool.spooled(), spool.recovery().torn_bytes), (sum(1..stored), 0));
    fs::remove_file(&ballast).unwrap();
    spool.append(&mut entry(stored, 5_000)).unwrap();
    assert_eq!(drain(&mut spool), ((1..=stored).collect(), Amount::default()));

    // Room that acknowledging makes is room for what comes.
    let rest = (0..).map_while(|n| spool.append(&mut entry(stored + 1 + n, 5_000)).ok()).count() as u64;
    assert!(rest > 100, "{rest}");
    spool.rewind();
    while let Some(Read::Batch(stored)) = spool.read().unwrap() {
        spool.acknowledge(stored.position()).unwrap();
    }
    assert_eq!(spool.spooled(), Amount::default());
    spool.append(&mut entry(3, 300_000)).unwrap();
    assert_eq!(id(&batch(&mut spool)), 3);
}

/// As on a file system that needs room for what is overwritten.
#[test]
fn a_spool_opens_though_there_is_no_room_for_its_position() {
    let Some(disk) = SmallDisk::mount(c"size=256k") else {
        eprintln!(
            "SKIP a_spool_opens_though_there_is_no_room_for_its_position: the privilege to mount a tmpfs"
        );
        return;
    };
    let (folder, ballast) = (disk.path().join("spool"), disk.path().join("ballast"));
    let mut spool = open(&folder, 1 << 20);
    (0..3).for_each(|id| spool.append(&mut entry(id, 10)).unwrap());
    drop(spool);
    let fill = || {
        fs::File::create(folder.join("position")).unwrap();
        let mut ballast = fs::File::create(&ballast).unwrap();
        while std::io::Write::write(&mut ballast, &[0; 4096]).is_ok() {}
    };
    fill();
    let mut spool = open(&folder, 1 << 20);
    let first = batch(&mut spool);
    assert!(spool.acknowledge(first.position()).unwrap_err().is_full());
    assert_eq!(spool.spooled(), sum(1..3));
    // When there is some, what was acknowledged is remembered.
    fs::remove_file(&ballast).unwrap();
    spool.tend(std::time::Instant::now()).unwrap();
    drop(spool);
    let mut spool = open(&folder, 1 << 20);
    assert_eq!(drain(&mut spool), (vec![1, 2], Amount::default()));
}

#[test]
fn a_folder_that_was_removed_costs_what_was_in_it() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("spool");
    let mut spool = open(&folder, 1 << 20);
    (0..3).for_each(|id| spool.append(&mut entry(id, 10)).unwrap());
    fs::remove_dir_all(&folder).unwrap();
    spool.append(&mut entry(3, 10)).unwrap();
    spool.append(&mut entry(4, 10)).unwrap();
    assert_eq!(spool.spooled(), sum(0..5));
    assert!(matches!(crate::Spool::open(&folder, super::settings(1 << 20)), Err(SpoolError::InUse { .. })));
    let (ids, lost) = drain(&mut spool);
    assert_eq!((ids, lost), (vec![3, 4], sum(0..3)));
    assert_eq!(spool.spooled(), sum(3..5));
    drop(spool);
    assert_eq!(drain(&mut open(&folder, 1 << 20)).0, [3, 4]);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_until_it_can() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("spool");
    let mut spool = open(&folder, 1 << 20);
    spool.append(&mut entry(0, 10)).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, b"in the way").unwrap();
    for _ in 0..2 {
        let error = spool.append(&mut entry(1, 10)).unwrap_err();
        assert!(matches!(error, SpoolError::Folder { .. } | SpoolError::Write { .. }), "{error}");
        assert_eq!(spool.spooled(), sum(0..1));
    }
    let blocked = crate::Spool::open(&folder, super::settings(1 << 20));
    assert!(matches!(blocked, Err(SpoolError::Folder { .. })));
    fs::remove_file(&folder).unwrap();
    spool.append(&mut entry(1, 10)).unwrap();
    assert_eq!(drain(&mut spool), (vec![1], sum(0..1)));
}

#[test]
fn segments_that_were_removed_while_it_writes_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 1 << 20);
    spool.append(&mut entry(0, 10)).unwrap();
    fs::remove_file(&super::segments(folder.path())[0]).unwrap();
    spool.append(&mut entry(1, 10)).unwrap();
    drop(spool);
    assert_eq!(drain(&mut open(folder.path(), 1 << 20)).0, [1]);
}
