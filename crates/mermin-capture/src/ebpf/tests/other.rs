//! What programs of another version of the shared structs have left: off, added up, and in the books of whoever comes next.

use super::can_run;
use super::kept::{alone, books, end, open, options, received, sent};
use crate::config::{CaptureMode, RING_BYTES};
use crate::ebpf::bpf::{self, Create, create_map};
use crate::ebpf::kept::{Kept as KeptState, WORDS};
use crate::ebpf::layout::{CONTROL, Field, Layout, Place};
use crate::ebpf::mapped::map;
use crate::ebpf::object::Mode;
use crate::ebpf::other::Past;
use crate::ebpf::pins::{Pins, folder_of_namespace};
use crate::ebpf::words::Words;
use crate::ebpf::{LeftBooks, clean_up, left};
use crate::testing::Kept;
use memmap2::MmapRaw;
use mermin_flow::{Loss, Observation, Polled, Source as _, Tally};
use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

const ANOTHER: &str = "abi99-another";

#[test]
fn what_lies_in_maps_of_another_version_is_lost_to_the_packet() {
    if !can_run("what_lies_in_maps_of_another_version_is_lost_to_the_packet") {
        return;
    }
    for mode in [CaptureMode::Packet, CaptureMode::Aggregate] {
        alone(|pair| {
            // Reads some, settles a part, and is killed; its programs go on.
            let wanted = options(mode, RING_BYTES);
            let mut source = open(&wanted);
            let settle = source.settlement().unwrap();
            sent(pair, 100);
            let mut memory = Kept::default();
            while source.sightings().is_none() {
                while source.poll(&mut memory, 32) == Polled::More {}
                source.wait(Duration::from_millis(1));
            }
            let done: Tally = memory.0.iter().take(40).map(Observation::tally).sum();
            settle(done);
            drop(source);
            sent(pair, 50);
            let namespace = folder_of_namespace().unwrap();
            let folder = fs::read_dir(&namespace).unwrap().next().unwrap().unwrap().path();
            fs::rename(folder, namespace.join(ANOTHER)).unwrap();

            let mut settled = done;
            let source = open(&wanted);
            assert!(!namespace.join(ANOTHER).exists());
            sent(pair, 30);
            let (sightings, kept) = end(source, &mut settled);
            assert_eq!(received(&kept), 30, "{mode:?}");
            assert_eq!(sightings.lost.get(&Loss::Crash), None);
            let lost = sightings.lost[&Loss::AbiChange];
            assert_eq!((lost + done).packets, 150, "{mode:?}");
            // It is told once.
            let (sightings, _) = end(open(&wanted), &mut settled);
            assert_eq!(sightings.lost.get(&Loss::AbiChange), None);
            let LeftBooks { due, lost: all, .. } = books(mode, RING_BYTES, &mut settled);
            assert_eq!((due, all), (settled + lost, lost));
        });
    }
}

fn tally(packets: u64) -> Tally {
    Tally { packets, bytes: packets * 100, buffers: packets, buffer_bytes: packets * 90 }
}

/// An array of four elements with a name in a folder.
fn array(folder: &Path, name: &str, size: u32) -> MmapRaw {
    let wanted = Create {
        map_type: 2,
        key_size: 4,
        value_size: size,
        max_entries: 4,
        map_flags: 1 << 10,
        ..Create::default()
    };
    let array = create_map(&wanted).unwrap();
    let path = CString::new(folder.join(name).as_os_str().as_bytes()).unwrap();
    bpf::pin(&path, array.as_fd()).unwrap();
    map(array.as_fd(), 4 * size.next_multiple_of(8) as usize).unwrap()
}

/// Leaves what a version with maps of its own would: of what was due up to an epoch 60 packets in memory, and in the elements of
/// its array 1 and 10 packets of the live epoch, 8, and 100 and 1 000 of the one before.
fn leave(layout: &Layout, committed: u32) {
    let pins = Pins::open().unwrap();
    let folder = folder_of_namespace().unwrap().join(ANOTHER);
    fs::create_dir_all(&folder).unwrap();
    let control = array(&folder, CONTROL, 24);
    // SAFETY: within the mapping, aligned.
    unsafe { control.as_mut_ptr().add(16).cast::<u32>().write(8) };
    let counts = array(&folder, "COUNTS", 36);
    for (index, packets) in [1, 10, 100, 1_000_u32].into_iter().enumerate() {
        let Tally { bytes, buffer_bytes, .. } = tally(packets.into());
        // SAFETY: as above.
        unsafe {
            let element = counts.as_mut_ptr().add(index * 40);
            element.add(4).cast::<u32>().write(buffer_bytes as u32);
            element.add(8).cast::<u64>().write(bytes);
            element.add(16).cast::<u32>().write(packets);
            element.add(24).cast::<u64>().write(packets.into());
        }
    }
    let words = Words::make().unwrap();
    let shape = options(CaptureMode::Packet, RING_BYTES).shape(Mode::Packet).unwrap();
    words.begin(&shape, &Past { due: tally(960), settled: tally(900), lost: tally(60), deadline: 0 });
    words.describe(layout);
    words.commit(committed, tally(1_020));
    let path = CString::new(folder.join(WORDS).as_os_str().as_bytes()).unwrap();
    bpf::pin(&path, words.map().as_fd()).unwrap();
    drop(pins);
}

fn layout() -> Layout {
    let mut layout = Layout {
        epoch: Field { offset: 16, width: 4 },
        deadline: Field { offset: 8, width: 8 },
        ..Layout::default()
    };
    let mut counts = Place::default();
    counts.map[..6].copy_from_slice(b"COUNTS");
    counts.fields = [(16, 4), (8, 8), (24, 8), (4, 4)].map(|(offset, width)| Field { offset, width });
    layout.places[2] = counts;
    layout
}

#[test]
fn maps_are_added_up_as_their_version_describes_them() {
    if !can_run("maps_are_added_up_as_their_version_describes_them") {
        return;
    }
    let wanted = options(CaptureMode::Packet, RING_BYTES);
    alone(|_| {
        for (committed, unread) in [(8, 0), (7, 1 + 10), (6, 1 + 10 + 100 + 1_000)] {
            leave(&layout(), committed);
            // Killed before its maps had their names.
            drop(KeptState::open(wanted.shape(Mode::Packet).unwrap(), None).unwrap());
            let mut settled = Tally::ZERO;
            let (sightings, _) = end(open(&wanted), &mut settled);
            assert_eq!(sightings.lost[&Loss::AbiChange], tally(unread + 60), "{committed}");
            let books = left().unwrap().books.unwrap();
            assert_eq!(books.due, tally(1_020 + unread) + settled);
            assert_eq!((books.settled, books.lost), (tally(900) + settled, tally(60 + 60 + unread)));
            let _ = clean_up().unwrap();
        }
    });
}

#[test]
fn a_description_that_does_not_fit_is_not_believed() {
    if !can_run("a_description_that_does_not_fit_is_not_believed") {
        return;
    }
    let breaks: [fn(&mut Layout); 4] = [
        |layout| layout.epoch.offset = 21,
        |layout| layout.places[2].fields[1] = Field { offset: u32::MAX, width: 8 },
        |layout| layout.places[2].fields[0].width = 2,
        |layout| layout.places[2].map[0] = b'D',
    ];
    alone(|_| {
        for spoil in breaks {
            let mut spoilt = layout();
            spoil(&mut spoilt);
            leave(&spoilt, 7);
            let mut settled = Tally::ZERO;
            let (sightings, _) = end(open(&options(CaptureMode::Packet, RING_BYTES)), &mut settled);
            assert_eq!(sightings.lost.get(&Loss::AbiChange), None);
            assert!(!folder_of_namespace().unwrap().join(ANOTHER).exists());
            let _ = clean_up().unwrap();
        }
    });
}
