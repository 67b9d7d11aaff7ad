//! Files that are cut, changed, removed, or of somebody else. What is not delivered is counted.

use super::{drain, entry, id, on_disk, open, segments, sum};
use crate::{Read, Spool, SpoolSettings};
use mermin_flow::Amount;
use std::fs::{self, File};
use std::path::Path;

const BOUND: u64 = 1 << 20;

/// The folder of a spool with entries 0, 1, 2 … in one segment, and where each ends there.
fn filled(entries: u64) -> (tempfile::TempDir, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), BOUND);
    let mut ends = Vec::new();
    for id in 0..entries {
        spool.append(&mut entry(id, 10 + 9 * id as usize)).unwrap();
        ends.push(spool.segments.back().unwrap().length);
    }
    (folder, ends)
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_head_that_alone_tells_of_a_loss_is_kept_until_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    // A segment each.
    (0..3).for_each(|id| open(folder.path(), BOUND).append(&mut entry(id, 10)).unwrap());
    let mut spool = open(folder.path(), BOUND);
    let first = super::batch(&mut spool);
    spool.acknowledge(first.position()).unwrap();
    drop(spool);
    let files = segments(folder.path());
    assert_eq!(files.len(), 2);
    fs::remove_file(&files[0]).unwrap();
    File::options().write(true).open(&files[1]).unwrap().set_len(100).unwrap();
    for _ in 0..2 {
        assert_eq!(open(folder.path(), BOUND).spooled(), sum(1..2));
    }
    assert_eq!(drain(&mut open(folder.path(), BOUND)), (Vec::new(), sum(1..2)));
    assert_eq!(open(folder.path(), BOUND).spooled(), Amount::default());
}

#[test]
fn what_is_cut_off_and_removed_at_the_start_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    let opened = |fsync| {
        let mut spool = open(folder.path(), 1 << 20);
        spool.append(&mut entry(0, 100)).unwrap();
        drop(spool);
        let last = segments(folder.path()).pop().unwrap();
        let mut bytes = fs::read(&last).unwrap();
        bytes.extend([1; 50]);
        fs::write(&last, &bytes).unwrap();
        // And one that has nothing worth keeping.
        fs::write(folder.path().join("00000000000000009999.segment"), [1; 50]).unwrap();
        crate::disk::synced::take();
        let spool = Spool::open(folder.path(), SpoolSettings { bytes: 1 << 20, fsync }).unwrap();
        assert_eq!(spool.recovery().torn_bytes, 100);
        (crate::disk::synced::take(), last)
    };
    let (synced, last) = opened(crate::Fsync::default());
    assert!(synced.contains(&last) && synced.contains(&folder.path().to_owned()), "{synced:?}");
    let (synced, _) = opened(crate::Fsync::Never);
    assert!(synced.is_empty(), "{synced:?}");
}

#[test]
fn a_tail_that_is_torn_at_any_byte_is_cut_off_and_counted() {
    let (folder, ends) = filled(4);
    let length = *ends.last().unwrap();
    for left in 0..=length {
        let torn = tempfile::tempdir().unwrap();
        copy(folder.path(), torn.path());
        let file = File::options().write(true).open(&segments(torn.path())[0]).unwrap();
        file.set_len(left).unwrap();
        let mut spool = open(torn.path(), BOUND);
        let whole = ends.iter().filter(|end| **end <= left).count() as u64;
        let end = whole.checked_sub(1).map_or(72, |last| ends[last as usize]);
        let recovery = spool.recovery();
        assert_eq!(recovery.spooled, sum(0..whole), "{left}");
        // Where its head is whole, what the torn one carried is known.
        let known = left >= end + 80;
        assert_eq!(recovery.torn, if known { sum([whole]) } else { Amount::default() }, "{left}");
        assert_eq!(recovery.torn_inexact, left > end && !known, "{left}");
        let counted = if left < 72 { left } else { left - end };
        assert_eq!(recovery.torn_bytes, counted, "{left}");
        spool.append(&mut entry(9, 20)).unwrap();
        let expected: Vec<_> = (0..whole).chain([9]).collect();
        assert_eq!(drain(&mut spool), (expected.clone(), Amount::default()), "{left}");
        assert_eq!(on_disk(torn.path()), spool.bytes());
        drop(spool);
        assert_eq!(drain(&mut open(torn.path(), BOUND)).0, expected, "{left}");
    }
}

#[test]
fn a_bit_that_flipped_costs_one_entry_at_most_and_is_counted() {
    let (folder, ends) = filled(4);
    for at in 0..*ends.last().unwrap() {
        let damaged = tempfile::tempdir().unwrap();
        copy(folder.path(), damaged.path());
        let path = &segments(damaged.path())[0];
        let mut bytes = fs::read(path).unwrap();
        bytes[at as usize] ^= 1 << (at % 8);
        fs::write(path, bytes).unwrap();
        let mut spool = open(damaged.path(), BOUND);
        let recovery = spool.recovery();
        assert_eq!(spool.spooled(), recovery.spooled);
        let (ids, lost) = drain(&mut spool);
        let hit = (at >= 72).then(|| ends.iter().position(|end| at < *end).unwrap() as u64);
        // Padding belongs to nobody.
        let missing: Vec<u64> = (0..4).filter(|id| !ids.contains(id)).collect();
        assert!(missing.is_empty() || missing == Vec::from_iter(hit), "{at}: {missing:?}");
        let mut counted = lost;
        counted += recovery.torn;
        let inexact = recovery.torn_inexact && missing == [3];
        assert!(inexact || counted == sum(missing.clone()), "{at}: {counted:?} for {missing:?}");
        assert_eq!(spool.spooled(), sum(ids), "{at}");
        spool.append(&mut entry(7, 1)).unwrap();
        assert_eq!(drain(&mut spool), (vec![7], Amount::default()), "{at}");
    }
}

#[test]
fn a_flipped_bit_in_the_position_costs_duplicates_only() {
    let (folder, _) = filled(4);
    let mut spool = open(folder.path(), BOUND);
    for _ in 0..3 {
        let stored = super::batch(&mut spool);
        spool.acknowledge(stored.position()).unwrap();
    }
    drop(spool);
    let written = |at: &usize| at % 4096 < 80 || at.is_multiple_of(97);
    for at in (0..8_192).filter(written) {
        let damaged = tempfile::tempdir().unwrap();
        copy(folder.path(), damaged.path());
        let path = damaged.path().join("position");
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (ids, lost) = drain(&mut open(damaged.path(), BOUND));
        assert!([vec![3], vec![2, 3]].contains(&ids), "{at}: {ids:?}");
        assert_eq!(lost, Amount::default());
    }
    // Without any, all that is there comes again.
    fs::remove_file(folder.path().join("position")).unwrap();
    assert_eq!(drain(&mut open(folder.path(), BOUND)), (vec![0, 1, 2, 3], Amount::default()));
}

/// A spool of some segments, each of some entries.
fn in_segments(folder: &Path) -> Spool {
    let mut spool = open(folder, 1 << 16);
    (0..40).for_each(|id| spool.append(&mut entry(id, 1_000)).unwrap());
    assert!(segments(folder).len() > 3);
    spool
}

#[test]
fn a_segment_that_was_removed_is_lost_to_the_record() {
    for reopen in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = in_segments(folder.path());
        if reopen {
            drop(spool);
            fs::remove_file(&segments(folder.path())[1]).unwrap();
            spool = open(folder.path(), 1 << 16);
        } else {
            fs::remove_file(&segments(folder.path())[1]).unwrap();
        }
        assert_eq!(spool.spooled(), sum(0..40));
        let (ids, lost) = drain(&mut spool);
        assert!(ids.len() < 36, "{ids:?}");
        assert_eq!(lost, sum((0..40).filter(|id| !ids.contains(id))));
        assert_eq!(spool.spooled(), sum(ids.clone()), "what is lost is out of it");
        spool.rewind();
        assert_eq!(drain(&mut spool), (ids, Amount::default()), "and is told once");
    }
}

/// What was delivered is not missed, whichever slot says how far that was.
#[test]
fn a_removed_segment_is_not_missed_when_the_last_position_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = in_segments(folder.path());
    for _ in 0..30 {
        let stored = super::batch(&mut spool);
        spool.acknowledge(stored.position()).unwrap();
        for slot in [0, 4_096] {
            let damaged = tempfile::tempdir().unwrap();
            copy(folder.path(), damaged.path());
            let path = damaged.path().join("position");
            let mut bytes = fs::read(&path).unwrap();
            bytes[slot + 40] ^= 1;
            fs::write(&path, bytes).unwrap();
            let (ids, lost) = drain(&mut open(damaged.path(), 1 << 16));
            assert_eq!(lost, Amount::default(), "behind {}", id(&stored));
            assert!(ids[0] == id(&stored) || ids[0] == id(&stored) + 1);
        }
    }
    assert!(segments(folder.path()).len() < 4);
}

#[test]
fn noise_in_the_middle_of_a_segment_costs_what_it_covers() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = in_segments(folder.path());
    let path = &segments(folder.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[1_500..3_700].fill(0xa5);
    fs::write(path, bytes).unwrap();
    let Ok(Some(Read::Batch(first))) = spool.read() else { panic!("the first is whole") };
    assert_eq!(id(&first), 0);
    // The second one's head is whole, the third's and fourth's are not.
    let (ids, lost) = drain(&mut spool);
    assert_eq!(ids, (4..40).collect::<Vec<_>>());
    assert_eq!(lost, sum(1..4));
    assert_eq!(spool.spooled(), sum((0..1).chain(4..40)));
    spool.acknowledge(first.position()).unwrap();
    assert_eq!(spool.spooled(), sum(4..40));
}

/// Or the spool would seem to end where the copy says: the next entry would get a number that another one has, and be hidden.
#[test]
fn an_entry_is_none_where_somebody_copied_it_to() {
    let folder = tempfile::tempdir().unwrap();
    drop(in_segments(folder.path()));
    let all = segments(folder.path());
    let last = all.last().unwrap();
    for from in [&all[0], last] {
        let copied = tempfile::tempdir().unwrap();
        copy(folder.path(), copied.path());
        let first = &fs::read(from).unwrap()[72..72 + 80 + 1_000];
        let mut bytes = fs::read(last).unwrap();
        bytes.extend_from_slice(first);
        fs::write(copied.path().join(last.file_name().unwrap()), bytes).unwrap();
        let mut spool = open(copied.path(), 1 << 16);
        let recovery = spool.recovery();
        assert_eq!((recovery.spooled, recovery.torn_bytes), (sum(0..40), first.len() as u64));
        spool.append(&mut entry(40, 10)).unwrap();
        assert_eq!(drain(&mut spool), ((0..41).collect(), Amount::default()));
    }
}

#[test]
fn files_of_another_spool_are_removed_and_others_left_alone() {
    let (other, _) = filled(3);
    let folder = tempfile::tempdir().unwrap();
    let mut spool = in_segments(folder.path());
    let stored = super::batch(&mut spool);
    spool.acknowledge(stored.position()).unwrap();
    drop(spool);
    let foreign = folder.path().join("00000000000000000050.segment");
    let renamed = folder.path().join("00000000000000000060.segment");
    fs::copy(&segments(other.path())[0], &foreign).unwrap();
    fs::copy(&segments(folder.path())[1], &renamed).unwrap();
    let notes = folder.path().join("notes");
    fs::write(&notes, b"mine").unwrap();
    let sizes = [&foreign, &renamed].map(|file| fs::metadata(file).unwrap().len());
    let mut spool = open(folder.path(), 1 << 16);
    assert_eq!(spool.recovery().torn_bytes, sizes.iter().sum::<u64>());
    assert!(spool.recovery().torn_inexact);
    assert_eq!([&foreign, &renamed, &notes].map(|file| file.exists()), [false, false, true]);
    assert_eq!(drain(&mut spool), ((1..40).collect(), Amount::default()));
    spool.append(&mut entry(40, 10)).unwrap();
    assert_eq!(drain(&mut spool).0, [40]);
}

#[test]
fn the_rest_of_a_begun_segment_is_no_trouble() {
    for rest in [0, 1, 71] {
        let (folder, _) = filled(2);
        let head = fs::read(&segments(folder.path())[0]).unwrap();
        fs::write(folder.path().join("00000000000000000001.segment"), &head[..rest]).unwrap();
        fs::write(folder.path().join("00000000000000000002.segment"), b"").unwrap();
        let mut spool = open(folder.path(), BOUND);
        assert_eq!(spool.recovery().torn_bytes, rest as u64);
        assert_eq!(segments(folder.path()).len(), 1);
        spool.append(&mut entry(2, 1)).unwrap();
        assert_eq!(drain(&mut spool), (vec![0, 1, 2], Amount::default()));
    }
}

/// A loss of power may bring back what was cut off.
#[test]
fn what_comes_back_after_it_was_cut_off_hides_nothing() {
    let (folder, ends) = filled(3);
    let path = segments(folder.path())[0].clone();
    let before = fs::read(&path).unwrap();
    let torn = &before[..before.len() - 4];
    fs::write(&path, torn).unwrap();
    let mut spool = open(folder.path(), BOUND);
    assert_eq!(fs::metadata(&path).unwrap().len(), ends[1]);
    spool.append(&mut entry(8, 30)).unwrap();
    drop(spool);
    fs::write(&path, torn).unwrap();
    let mut spool = open(folder.path(), BOUND);
    assert_eq!(drain(&mut spool).0, [0, 1, 8]);
}
