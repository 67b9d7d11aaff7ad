//! What one source after the other counts in the same maps: together what was sent, whoever reads it.

use super::can_run;
use crate::config::{CaptureMode, OnExit, RING_BYTES};
use crate::ebpf::kept::Kept as KeptState;
use crate::ebpf::mapped::Mapped;
use crate::ebpf::object::{Mode, Object, possible_cpus};
use crate::ebpf::words::Words;
use crate::ebpf::{EbpfError, EbpfOptions, EbpfSource, LeftBooks, clean_up, left};
use crate::testing::{Kept, PORT, Pair, interface, send, sender};
use mermin_flow::{Loss, ObservationPoints, Polled, Sightings, Source as _, Tally};
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn options(mode: CaptureMode, ring_bytes: u64) -> EbpfOptions {
    EbpfOptions { ring_bytes, mode, on_exit: OnExit::Keep, ..EbpfOptions::default() }
}

pub(super) fn open(options: &EbpfOptions) -> EbpfSource {
    let points = Arc::new(ObservationPoints::default());
    EbpfSource::open(&[interface("vb")], &points, options).unwrap().source
}

/// Ends a life in good order: all that was handed on is settled.
pub(super) fn end(mut source: EbpfSource, settled: &mut Tally) -> (Sightings, Kept) {
    let settle = source.settlement().unwrap();
    let mut kept = Kept::default();
    source.close();
    while source.poll(&mut kept, 100) != Polled::Ended {
        source.wait(Duration::from_millis(1));
    }
    let sightings = source.sightings().unwrap();
    assert_eq!([sightings.in_ring, sightings.in_kernel_table], [Tally::ZERO; 2]);
    let lost: Tally = sightings.lost.values().copied().sum();
    let out = kept.tally() + lost + sightings.unmetered.iter().copied().sum();
    assert_eq!(
        (sightings.seen.buffers, sightings.seen.buffer_bytes),
        (out.buffers, out.buffer_bytes),
        "{sightings:?}"
    );
    settle(kept.tally());
    *settled += kept.tally();
    (sightings, kept)
}

pub(super) fn received(kept: &Kept) -> u64 {
    kept.to(PORT).iter().filter(|o| o.point == 0).map(|o| u64::from(o.packets)).sum()
}

/// In a namespace of its own, with a receiver; whatever happens nothing is left.
pub(super) fn alone(test: impl Fn(&Pair) + Sync) {
    let pair = Pair::new();
    for namespace in [&pair.here, &pair.there] {
        // Nothing but what the test sends is metered: what comes in between two looks at the books is in one of them.
        let off = || std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        Pair::inside(namespace, off).unwrap();
    }
    Pair::inside(&pair.there, || {
        let _receiver = UdpSocket::bind(("10.9.0.2", PORT)).unwrap();
        test(&pair);
        let _ = clean_up().unwrap();
        assert_eq!(left(), None);
    });
}

pub(super) fn sent(pair: &Pair, packets: usize) {
    Pair::inside(&pair.here, || send(&sender(), packets, 100));
}

/// What all lives have read. The last one may have handed on what came after its last epoch: another one closes that.
pub(super) fn books(mode: CaptureMode, ring_bytes: u64, settled: &mut Tally) -> LeftBooks {
    end(open(&options(mode, ring_bytes)), settled);
    left().unwrap().books.unwrap()
}

#[test]
fn what_is_counted_between_two_runs_is_in_the_second_ones_books() {
    if !can_run("what_is_counted_between_two_runs_is_in_the_second_ones_books") {
        return;
    }
    for mode in [CaptureMode::Packet, CaptureMode::Aggregate] {
        alone(|pair| {
            let mut settled = Tally::ZERO;
            let source = open(&options(mode, RING_BYTES));
            sent(pair, 100);
            let (_, kept) = end(source, &mut settled);
            assert_eq!(received(&kept), 100);
            // Nobody reads.
            sent(pair, 70);
            assert_eq!(left().unwrap().interfaces, ["vb"]);
            let source = open(&options(mode, RING_BYTES));
            sent(pair, 30);
            let (sightings, kept) = end(source, &mut settled);
            assert_eq!(received(&kept), 100, "{mode:?}");
            assert_eq!(sightings.lost.get(&Loss::Crash), None);
            let LeftBooks { due, lost, .. } = books(mode, RING_BYTES, &mut settled);
            assert_eq!((due, lost), (settled, Tally::ZERO));
        });
    }
}

#[test]
fn what_was_in_memory_of_a_run_that_was_killed_is_lost_to_the_packet() {
    if !can_run("what_was_in_memory_of_a_run_that_was_killed_is_lost_to_the_packet") {
        return;
    }
    for mode in [CaptureMode::Packet, CaptureMode::Aggregate] {
        alone(|pair| {
            // Reads some of the ring, hears of an epoch or two, and of all of it settles a part.
            let mut source = open(&options(mode, RING_BYTES));
            let settle = source.settlement().unwrap();
            sent(pair, 100);
            let mut memory = Kept::default();
            let mut looks = 0;
            while looks < 3 {
                while source.poll(&mut memory, 32) == Polled::More {}
                looks += usize::from(source.sightings().is_some());
                source.wait(Duration::from_millis(1));
            }
            sent(pair, 20);
            let _ = source.poll(&mut memory, 7);
            let all = memory.tally();
            let done: Tally = memory.0.iter().take(40).map(mermin_flow::Observation::tally).sum();
            settle(done);
            drop(source);
            sent(pair, 50);

            let mut settled = done;
            let (sightings, kept) = end(open(&options(mode, RING_BYTES)), &mut settled);
            let lost = sightings.lost.get(&Loss::Crash).copied().unwrap_or_default();
            assert_eq!(lost, all - done, "{mode:?}");
            assert_eq!(received(&memory) + received(&kept), 170);
            // It is told once.
            let (sightings, _) = end(open(&options(mode, RING_BYTES)), &mut settled);
            assert_eq!(sightings.lost.get(&Loss::Crash), None);
            let books = books(mode, RING_BYTES, &mut settled);
            assert_eq!((books.due, books.lost), (settled + lost, lost));
        });
    }
}

/// Begins the next epoch as a run does, and goes no further: as if it were killed. With the epoch that it has left, it does
/// what `then` does.
fn killed_after_the_flip(options: &EbpfOptions, then: impl FnOnce(&Words, u32)) {
    let mode = match options.mode {
        CaptureMode::Packet => Mode::Packet,
        CaptureMode::Aggregate => {
            Mode::Slots { set_bits: options.aggregation.set_bits(possible_cpus().unwrap()), seed: 0 }
        }
    };
    let state = KeptState::open(options.shape(mode).unwrap(), None).unwrap();
    let object = Object::load(state.shape.ring_bytes, state.shape.mode, None, Some(Arc::clone(&state.pins)));
    let mapped = Mapped::new(&object.unwrap()).unwrap();
    let left = mapped.live();
    mapped.go_live(left + 1);
    then(&state.words, left);
}

#[test]
fn an_epoch_that_was_left_and_not_read_is_read_once() {
    if !can_run("an_epoch_that_was_left_and_not_read_is_read_once") {
        return;
    }
    for mode in [CaptureMode::Packet, CaptureMode::Aggregate] {
        alone(|pair| {
            let mut settled = Tally::ZERO;
            end(open(&options(mode, RING_BYTES)), &mut settled);
            sent(pair, 70);
            killed_after_the_flip(&options(mode, RING_BYTES), |_, _| {});
            sent(pair, 20);
            let (sightings, kept) = end(open(&options(mode, RING_BYTES)), &mut settled);
            assert_eq!(received(&kept), 90, "{mode:?}");
            assert_eq!(sightings.lost.get(&Loss::Crash), None);
            assert_eq!(books(mode, RING_BYTES, &mut settled).due, settled);
        });
    }
}

#[test]
fn an_epoch_that_was_committed_and_not_cleared_is_not_read_again() {
    if !can_run("an_epoch_that_was_committed_and_not_cleared_is_not_read_again") {
        return;
    }
    let mode = CaptureMode::Aggregate;
    alone(|pair| {
        let mut settled = Tally::ZERO;
        end(open(&options(mode, RING_BYTES)), &mut settled);
        sent(pair, 70);
        let packets = Tally { packets: 70, bytes: 70 * 142, buffers: 70, buffer_bytes: 70 * 142 };
        killed_after_the_flip(&options(mode, RING_BYTES), |words, left| {
            words.commit(left, words.committed().1 + packets);
        });
        sent(pair, 20);
        let (sightings, kept) = end(open(&options(mode, RING_BYTES)), &mut settled);
        // The sums were in the memory of the run that was killed.
        assert_eq!(received(&kept), 20);
        assert_eq!(sightings.lost[&Loss::Crash], packets);
    });
}

#[test]
fn maps_of_another_size_are_emptied_and_made_anew() {
    if !can_run("maps_of_another_size_are_emptied_and_made_anew") {
        return;
    }
    let (packet, aggregate) = (CaptureMode::Packet, CaptureMode::Aggregate);
    for (before, after) in [((packet, 1 << 20), (packet, 1 << 21)), ((aggregate, 1 << 20), (packet, 1 << 20))]
    {
        alone(|pair| {
            let mut settled = Tally::ZERO;
            let source = open(&options(before.0, before.1));
            sent(pair, 100);
            let (_, kept) = end(source, &mut settled);
            assert_eq!(received(&kept), 100);
            sent(pair, 70);
            let source = open(&options(after.0, after.1));
            sent(pair, 30);
            let (sightings, kept) = end(source, &mut settled);
            assert_eq!(received(&kept), 100, "{before:?} {after:?}");
            assert_eq!(sightings.lost.get(&Loss::Crash), None);
            let books = books(after.0, after.1, &mut settled);
            assert_eq!((books.due, books.lost), (settled, Tally::ZERO));
        });
    }
}

#[test]
fn a_second_agent_in_the_same_network_namespace_is_refused() {
    if !can_run("a_second_agent_in_the_same_network_namespace_is_refused") {
        return;
    }
    alone(|pair| {
        let mode = CaptureMode::Packet;
        let first = open(&options(mode, RING_BYTES));
        let points = Arc::new(ObservationPoints::default());
        let second = EbpfSource::open(&[interface("vb")], &points, &options(mode, RING_BYTES));
        let Err(EbpfError::Held { interfaces, .. }) = second else { panic!("two have the same maps") };
        assert_eq!(interfaces, ["vb"]);
        assert!(matches!(clean_up(), Err(EbpfError::Held { .. })));
        assert!(left().unwrap().holder.is_some());
        // One that keeps nothing, and one in another namespace, are no second ones.
        let detaching = EbpfOptions { on_exit: OnExit::Detach, ..options(mode, RING_BYTES) };
        assert!(EbpfSource::open(&[interface("vb")], &points, &detaching).is_ok());
        Pair::inside(&pair.here, || {
            let points = Arc::new(ObservationPoints::default());
            let other = EbpfSource::open(&[interface("va")], &points, &options(mode, RING_BYTES));
            assert!(other.is_ok());
            drop(other);
            assert_eq!(clean_up().unwrap().links, ["va"]);
        });
        drop(first);
        let removed = clean_up().unwrap();
        assert_eq!(removed.links, ["vb"]);
        assert!(removed.names > 8, "{removed:?}");
    });
}
