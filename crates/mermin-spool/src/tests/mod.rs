//! The spool as a whole: against a model, under damage, on a full disk, killed.

mod crash;
mod damage;
mod disk;
mod model;

use crate::entry::Entry;
use crate::{Fsync, Read, Spool, SpoolSettings, Stored};
use mermin_flow::Amount;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// An entry that is told from others by its payload: `id`, and filling up to `length` bytes.
fn entry(id: u64, length: usize) -> Entry {
    Entry::with_payload(1, carried(id), true, |payload| {
        payload.extend_from_slice(&id.to_le_bytes());
        payload.resize(payload.len() + length.saturating_sub(8), id as u8);
    })
}

/// What it carries: no two sums of neighbours are alike.
fn carried(id: u64) -> Amount {
    Amount { records: 1 + id % 3, packets: 1_000 + id, bytes: 1_000_000 + id * id }
}

fn id(stored: &Stored) -> u64 {
    let (id, filling) = stored.payload().split_first_chunk::<8>().unwrap();
    let id = u64::from_le_bytes(*id);
    assert!(filling.iter().all(|byte| *byte == id as u8), "{id} is whole");
    assert_eq!(stored.amount(), carried(id));
    id
}

fn settings(bytes: u64) -> SpoolSettings {
    SpoolSettings { bytes, fsync: Fsync::Never }
}

fn open(folder: &Path, bytes: u64) -> Spool {
    Spool::open(folder, settings(bytes)).unwrap()
}

fn sum(ids: impl IntoIterator<Item = u64>) -> Amount {
    let mut sum = Amount::default();
    ids.into_iter().for_each(|id| sum += carried(id));
    sum
}

/// Sizes of all files in a folder.
fn on_disk(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// The files of a folder's segments, in order.
fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|end| end == "segment")).collect();
    files.sort();
    files
}

/// Reads all that is left: the batches' ids, and what is lost.
fn drain(spool: &mut Spool) -> (Vec<u64>, Amount) {
    let (mut ids, mut lost) = (Vec::new(), Amount::default());
    while let Some(read) = spool.read().unwrap() {
        match read {
            Read::Batch(stored) => ids.push(id(&stored)),
            Read::Lost(some) => lost += some.amount,
        }
    }
    (ids, lost)
}

fn batch(spool: &mut Spool) -> Stored {
    let Ok(Some(Read::Batch(stored))) = spool.read() else { panic!("a batch is there") };
    stored
}

#[test]
fn entries_come_in_order_and_what_is_acknowledged_does_not_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 1 << 20);
    assert!(spool.read().unwrap().is_none());
    (0..5).for_each(|id| spool.append(&mut entry(id, 100)).unwrap());
    let read: Vec<_> = (0..3).map(|_| batch(&mut spool)).collect();
    assert_eq!(read.iter().map(id).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(spool.spooled(), sum(0..5), "reading takes nothing out");
    spool.acknowledge(read[1].position()).unwrap();
    assert_eq!(spool.spooled(), sum(2..5));
    spool.acknowledge(read[0].position()).unwrap();
    assert_eq!(spool.spooled(), sum(2..5), "that was acknowledged before");
    spool.rewind();
    assert_eq!(drain(&mut spool).0, [2, 3, 4]);
    drop(spool);
    let mut spool = open(folder.path(), 1 << 20);
    assert_eq!((spool.recovery().spooled, spool.spooled()), (sum(2..5), sum(2..5)));
    assert_eq!((spool.recovery().torn_bytes, spool.recovery().torn_inexact), (0, false));
    spool.append(&mut entry(5, 0)).unwrap();
    assert_eq!(drain(&mut spool), (vec![2, 3, 4, 5], Amount::default()));
}

#[test]
fn the_bound_holds_and_acknowledging_makes_room() {
    const BOUND: u64 = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), BOUND);
    let (mut next, mut turns) = (0, 0);
    while turns < 20 {
        match spool.append(&mut entry(next, 1_000)) {
            Ok(()) => next += 1,
            Err(crate::SpoolError::Full { used, bytes: BOUND }) => {
                assert!(used > BOUND * 9 / 10, "{used}");
                let half = (0..next / 2).map_while(|_| spool.read().unwrap());
                let Some(Read::Batch(last)) = half.take(40).last() else { panic!("batches") };
                spool.acknowledge(last.position()).unwrap();
                turns += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(on_disk(folder.path()) <= BOUND);
        assert_eq!(on_disk(folder.path()), spool.bytes());
    }
    assert!(next > 500, "{next}");
    // All of it acknowledged: there is as much room as in a new one, also for one entry that takes it all.
    while let Some(Read::Batch(stored)) = spool.read().unwrap() {
        spool.acknowledge(stored.position()).unwrap();
    }
    assert_eq!(spool.spooled(), Amount::default());
    let all = BOUND as usize - 8_192 - 72 - 80 - 8;
    spool.append(&mut entry(next, all)).unwrap();
    assert_eq!(id(&batch(&mut spool)), next);
    assert!(on_disk(folder.path()) <= BOUND);
    let too_large = spool.append(&mut entry(next, all + 16));
    assert!(matches!(too_large, Err(crate::SpoolError::TooLarge { .. })), "{too_large:?}");
}

#[test]
fn the_head_of_a_new_segment_is_within_the_bound() {
    const BOUND: u64 = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), BOUND);
    spool.append(&mut entry(0, 1_000)).unwrap();
    let room = (BOUND - spool.bytes()) as usize / 8 * 8;
    let full = spool.append(&mut entry(1, room - 80));
    assert!(matches!(full, Err(crate::SpoolError::Full { .. })), "{full:?}");
    spool.append(&mut entry(1, room - 80 - 72)).unwrap();
    assert!(on_disk(folder.path()) <= BOUND);
}

#[test]
fn a_smaller_bound_takes_nothing_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 1 << 20);
    (0..200).for_each(|id| spool.append(&mut entry(id, 1_000)).unwrap());
    drop(spool);
    let mut spool = open(folder.path(), 1 << 16);
    assert!(matches!(spool.append(&mut entry(200, 10)), Err(crate::SpoolError::Full { .. })));
    let (ids, _) = drain(&mut spool);
    assert_eq!(ids, (0..200).collect::<Vec<_>>());
    spool.rewind();
    while let Some(Read::Batch(stored)) = spool.read().unwrap() {
        spool.acknowledge(stored.position()).unwrap();
    }
    spool.append(&mut entry(200, 10)).unwrap();
    let too_small = Spool::open(folder.path(), settings(1_000));
    assert!(matches!(too_small, Err(crate::SpoolError::BoundTooSmall { bytes: 1_000 })));
}

#[test]
fn one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), 1 << 20);
    let second = Spool::open(folder.path(), settings(1 << 20));
    let Err(error) = second else { panic!("it is in use") };
    assert_eq!(error.to_string(), format!("the disk buffer in {} is in use", folder.path().display()));
    drop(spool);
    open(folder.path(), 1 << 20);
}

#[test]
fn whatever_is_synced_when_all_of_it_is_there() {
    let each = Fsync::Each;
    let often = Fsync::Interval(Duration::from_millis(1));
    for fsync in [each, often, Fsync::Interval(Duration::from_secs(3_600))] {
        let folder = tempfile::tempdir().unwrap();
        let open = || Spool::open(folder.path(), SpoolSettings { bytes: 1 << 17, fsync }).unwrap();
        let mut spool = open();
        let mut now = Instant::now();
        for n in 0..60 {
            spool.append(&mut entry(n, 1_000)).unwrap();
            now += Duration::from_millis(1);
            spool.tend(now).unwrap();
            if fsync != Fsync::Interval(Duration::from_secs(3_600)) {
                assert!(!spool.unsynced.active && spool.unsynced.closed.is_empty());
            }
            if n % 2 == 0 {
                let stored = batch(&mut spool);
                spool.acknowledge(stored.position()).unwrap();
            }
        }
        drop(spool);
        assert_eq!(drain(&mut open()).0, (30..60).collect::<Vec<_>>());
    }
}

/// A file that is open has its room, though it was removed.
#[test]
fn a_segment_that_was_removed_is_not_kept_open_to_be_synced() {
    let folder = tempfile::tempdir().unwrap();
    let fsync = Fsync::Interval(Duration::from_secs(3_600));
    let mut spool = Spool::open(folder.path(), SpoolSettings { bytes: 1 << 16, fsync }).unwrap();
    for id in 0..100 {
        spool.append(&mut entry(id, 1_000)).unwrap();
        let stored = batch(&mut spool);
        spool.acknowledge(stored.position()).unwrap();
    }
    assert!(spool.unsynced.closed.len() < spool.segments.len(), "{}", spool.unsynced.closed.len());
}

#[test]
fn what_another_version_wrote_is_counted_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 1 << 20);
    let (mut encoder, mut decoder) = crate::codec(std::sync::Arc::default());
    let records = crate::testing::records(2);
    spool.append(&mut encoder.encode(&records)).unwrap();
    spool.append(&mut Entry::with_payload(9, carried(4), true, |payload| payload.push(1))).unwrap();
    spool.append(&mut encoder.encode(&records[..1])).unwrap();
    assert_eq!(decoder.decode(&batch(&mut spool)).unwrap(), records);
    let other = batch(&mut spool);
    assert!(matches!(decoder.decode(&other), Err(crate::Undecodable::Format(9))));
    assert_eq!(other.amount(), carried(4));
    spool.acknowledge(other.position()).unwrap();
    let last = batch(&mut spool);
    assert_eq!(decoder.decode(&last).unwrap(), records[..1]);
    assert_eq!(spool.spooled(), last.amount());
}

/// An output's threads share it behind a mutex, and have an encoder and a decoder each.
#[test]
fn all_of_it_goes_to_other_threads() {
    fn is_send<T: Send>() {}
    is_send::<(Spool, crate::Encoder, crate::Decoder, Entry, Stored)>();
}
