//! Counts and facts that outlast the process, in a pinned array that is mapped into memory.
//!
//! A write is never seen half done, whenever the process is killed: each cell holds its values twice, and one word says
//! which of them count.

use super::bpf::{Create, create_map};
use super::error::EbpfError;
use super::layout::Layout;
use super::mapped::map;
use super::object::Mode;
use super::other::Past;
use memmap2::MmapRaw;
use mermin_abi::{MODE_HASH, MODE_PACKET, MODE_SLOTS};
use mermin_flow::{Settlement, Tally};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// Values of a cell: a tally, and a number of the cell's own.
const VALUES: usize = 5;
/// Cells, the head's place included. Each worker takes two or three.
const CELLS: usize = 1_024;

const HEAD: usize = 0;
const DUE: usize = 1;
const CRASHED: usize = 2;
/// The description of the maps takes some.
const LAYOUT: usize = 3;
const FIRST_SETTLED: usize = LAYOUT + size_of::<Layout>().div_ceil(size_of::<Cell>());
/// What the head says when all else is written; another number: cells mean something else.
const COMPLETE: u32 = 2;

/// What the maps were made for. Written once, before anything counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) cpus: u32,
    pub(super) mode: Mode,
    pub(super) ring_bytes: u64,
    /// Entries of each half of the hash.
    pub(super) hash_flows: u32,
    /// Which filters have numbered what is filtered; 0: none.
    pub(super) filters: u64,
}

impl Shape {
    /// Whether one of `other`'s can go on where this one has ended: where the slots are is a secret of the older one.
    pub(super) fn fits(&self, other: &Self) -> bool {
        let bits = |mode| match mode {
            Mode::Slots { set_bits, .. } => set_bits,
            Mode::Packet | Mode::Hash => 0,
        };
        let of = |shape: &Self| {
            (
                shape.cpus,
                std::mem::discriminant(&shape.mode),
                bits(shape.mode),
                shape.ring_bytes,
                shape.hash_flows,
                shape.filters,
            )
        };
        of(self) == of(other)
    }
}

#[repr(C, align(128))]
struct Head {
    /// [`COMPLETE`], once all else is written.
    complete: AtomicU32,
    cpus: AtomicU32,
    mode: AtomicU32,
    set_bits: AtomicU32,
    hash_flows: AtomicU32,
    /// The last epoch whose half was cleared after its sums were committed.
    cleared: AtomicU32,
    ring_bytes: AtomicU64,
    seed: AtomicU64,
    filters: AtomicU64,
    /// Of these counts, among all that ever were.
    identity: AtomicU64,
    /// How often the maps were made anew.
    shapes: AtomicU32,
}

#[repr(C, align(128))]
struct Cell {
    copies: [[AtomicU64; VALUES]; 2],
    which: AtomicU64,
}

const _: () = assert!(align_of::<Cell>().is_multiple_of(align_of::<Layout>()));
const _: () = assert!(size_of::<Head>() == size_of::<Cell>() && size_of::<Cell>() == 128);

impl Cell {
    /// One writer at a time.
    fn set(&self, tally: Tally, number: u64) {
        let other = 1 - (self.which.load(Ordering::Relaxed) & 1);
        let values = [tally.packets, tally.bytes, tally.buffers, tally.buffer_bytes, number];
        for (word, value) in self.copies[other as usize].iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        self.which.store(other, Ordering::Release);
    }

    fn get(&self) -> (Tally, u64) {
        let copy = &self.copies[(self.which.load(Ordering::Acquire) & 1) as usize];
        let [packets, bytes, buffers, buffer_bytes, number] =
            std::array::from_fn(|i| copy[i].load(Ordering::Relaxed));
        (Tally { packets, bytes, buffers, buffer_bytes }, number)
    }
}

/// See the module's text. All counts are cumulative over all lives since the maps were made.
pub(super) struct Words {
    mapped: MmapRaw,
    /// Keeps the map where it has no name yet.
    map: OwnedFd,
    /// The next cell that nobody has.
    free: AtomicUsize,
}

impl Words {
    pub(super) fn make() -> Result<Self, EbpfError> {
        let array = Create {
            map_type: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: size_of::<Cell>() as u32,
            max_entries: CELLS as u32,
            map_flags: BPF_F_MMAPABLE,
            ..Create::default()
        };
        let failed = |source: io::Error| EbpfError::Kernel { what: "a map of counts", source };
        Self::of(create_map(&array).map_err(failed)?)
    }

    pub(super) fn of(map_of: OwnedFd) -> Result<Self, EbpfError> {
        let mapped = map(map_of.as_fd(), CELLS * size_of::<Cell>())?;
        Ok(Self { mapped, map: map_of, free: AtomicUsize::new(FIRST_SETTLED) })
    }

    pub(super) const fn map(&self) -> &OwnedFd {
        &self.map
    }

    fn head(&self) -> &Head {
        // SAFETY: the mapping begins with it, aligned to a page; atomic integers only, of which any bits are valid.
        unsafe { &*self.mapped.as_mut_ptr().cast::<Head>().add(HEAD) }
    }

    fn cell(&self, index: usize) -> &Cell {
        debug_assert!((DUE..CELLS).contains(&index));
        // SAFETY: the mapping holds `CELLS` of them; atomic integers only, of which any bits are valid.
        unsafe { &*self.mapped.as_mut_ptr().cast::<Cell>().add(index) }
    }

    /// For maps of this shape that hold nothing yet, as nothing has counted in them, after lives with maps of other versions.
    pub(super) fn begin(&self, shape: &Shape, past: &Past) {
        self.rename();
        // SAFETY: these cells are nobody else's; nobody reads them before the head is complete, or writes them after.
        unsafe { self.layout_cells().write(Layout::ours()) };
        self.commit(u32::MAX, past.due);
        self.cell(FIRST_SETTLED).set(past.settled, 0);
        self.set_crashed(past.lost + past.unread());
        self.reshape(shape);
        self.head().complete.store(COMPLETE, Ordering::Release);
    }

    #[cfg(test)]
    pub(super) fn describe(&self, layout: &Layout) {
        // SAFETY: as above, in a test.
        unsafe { self.layout_cells().write(*layout) };
    }

    fn layout_cells(&self) -> *mut Layout {
        self.mapped.as_mut_ptr().cast::<Cell>().wrapping_add(LAYOUT).cast()
    }

    /// The description of the maps. `None`: who made it did not come to the end of that, or cells mean something else.
    pub(super) fn layout(&self) -> Option<Layout> {
        let complete = self.head().complete.load(Ordering::Acquire) == COMPLETE;
        // SAFETY: aligned cells of the mapping; any bytes are valid for its integers, which nobody writes any more.
        complete.then(|| unsafe { self.layout_cells().read() })
    }

    /// From now on the maps are of this shape, and empty. What was due stays so.
    pub(super) fn reshape(&self, shape: &Shape) {
        let (mode, set_bits, seed) = match shape.mode {
            Mode::Packet => (MODE_PACKET, 0, 0),
            Mode::Slots { set_bits, seed } => (MODE_SLOTS, set_bits, seed),
            Mode::Hash => (MODE_HASH, 0, 0),
        };
        let head = self.head();
        head.shapes.fetch_add(1, Ordering::Relaxed);
        head.cpus.store(shape.cpus, Ordering::Relaxed);
        head.mode.store(mode, Ordering::Relaxed);
        head.set_bits.store(set_bits, Ordering::Relaxed);
        head.seed.store(seed, Ordering::Relaxed);
        head.hash_flows.store(shape.hash_flows, Ordering::Relaxed);
        head.ring_bytes.store(shape.ring_bytes, Ordering::Relaxed);
        head.filters.store(shape.filters, Ordering::Relaxed);
        // The one before the first.
        self.commit(u32::MAX, self.committed().1);
        self.cleared(u32::MAX);
    }

    /// `None`: who made it did not come to the end of that.
    pub(super) fn shape(&self) -> Option<Shape> {
        let head = self.head();
        if head.complete.load(Ordering::Acquire) != COMPLETE {
            return None;
        }
        let mode = match head.mode.load(Ordering::Relaxed) {
            MODE_PACKET => Mode::Packet,
            MODE_HASH => Mode::Hash,
            _ => Mode::Slots {
                set_bits: head.set_bits.load(Ordering::Relaxed),
                seed: head.seed.load(Ordering::Relaxed),
            },
        };
        Some(Shape {
            cpus: head.cpus.load(Ordering::Relaxed),
            mode,
            ring_bytes: head.ring_bytes.load(Ordering::Relaxed),
            hash_flows: head.hash_flows.load(Ordering::Relaxed),
            filters: head.filters.load(Ordering::Relaxed),
        })
    }

    /// The sums of `epoch` are read: from now on `due` is what was to be handed on of all epochs up to it.
    pub(super) fn commit(&self, epoch: u32, due: Tally) {
        self.cell(DUE).set(due, epoch.into());
    }

    /// The last committed epoch, and what was to be handed on up to it.
    pub(super) fn committed(&self) -> (u32, Tally) {
        let (due, epoch) = self.cell(DUE).get();
        (epoch as u32, due)
    }

    pub(super) fn cleared(&self, epoch: u32) {
        self.head().cleared.store(epoch, Ordering::Release);
    }

    pub(super) fn last_cleared(&self) -> u32 {
        self.head().cleared.load(Ordering::Acquire)
    }

    /// What was in memory of lives that were killed.
    pub(super) fn crashed(&self) -> Tally {
        self.cell(CRASHED).get().0
    }

    pub(super) fn set_crashed(&self, crashed: Tally) {
        self.cell(CRASHED).set(crashed, 0);
    }

    /// Nobody goes on from what was said of these counts so far.
    pub(super) fn rename(&self) {
        self.head().identity.store(random(), Ordering::Release);
    }

    /// Tells these counts from any others, and from themselves before somebody went on without a journal.
    pub(super) fn identity(&self) -> u64 {
        self.head().identity.load(Ordering::Acquire)
    }

    /// How often the maps were made anew: numbers of epochs, and positions in the ring, are of these.
    pub(super) fn shapes(&self) -> u32 {
        self.head().shapes.load(Ordering::Relaxed)
    }

    /// A journal knows what has come to an end: less than what stood here, of which some is gone on with. Before anybody counts.
    pub(super) fn set_settled(&self, settled: Tally) {
        (FIRST_SETTLED + 1..CELLS).for_each(|index| self.cell(index).set(Tally::ZERO, 0));
        self.cell(FIRST_SETTLED).set(settled, 0);
    }

    /// What has come to an end in all lives so far: was released, or given another verdict.
    pub(super) fn settled(&self) -> Tally {
        (FIRST_SETTLED..CELLS).map(|index| self.cell(index).get().0).sum()
    }
}

/// Nobody has had it before.
fn random() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0)
}

/// The next cell for a count of this life, which begins at zero; it goes on from what earlier lives have left there.
/// `None`: all are taken; what would stand there is told as lost if the process is killed.
pub(super) fn settlement(words: &Arc<Words>) -> Option<Settlement> {
    let index = words.free.fetch_add(1, Ordering::Relaxed);
    if index >= CELLS {
        return None;
    }
    let words = Arc::clone(words);
    let before = words.cell(index).get().0;
    Some(Box::new(move |tally| words.cell(index).set(before + tally, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell() -> Cell {
        Cell { copies: Default::default(), which: AtomicU64::new(0) }
    }

    #[test]
    fn what_is_written_counts_when_all_of_it_is_there() {
        let cell = cell();
        cell.set(Tally::frame(60), 7);
        assert_eq!(cell.get(), (Tally::frame(60), 7));
        // Killed within the next write.
        let other = 1 - cell.which.load(Ordering::Relaxed);
        cell.copies[other as usize][0].store(99, Ordering::Relaxed);
        assert_eq!(cell.get(), (Tally::frame(60), 7));
        cell.set(Tally::frame(1_500), 8);
        assert_eq!(cell.get(), (Tally::frame(1_500), 8));
    }

    #[test]
    fn only_maps_of_the_same_shape_are_gone_on_with() {
        let slots = |set_bits, seed| Mode::Slots { set_bits, seed };
        let shape = Shape { cpus: 2, mode: slots(11, 1), ring_bytes: 4_096, hash_flows: 16, filters: 1 };
        assert!(shape.fits(&Shape { mode: slots(11, 2), ..shape }), "the seed is the older one's");
        for other in [
            Shape { cpus: 4, ..shape },
            Shape { mode: slots(10, 1), ..shape },
            Shape { mode: Mode::Packet, ..shape },
            Shape { ring_bytes: 8_192, ..shape },
            Shape { hash_flows: 17, ..shape },
            Shape { filters: 0, ..shape },
        ] {
            assert!(!shape.fits(&other), "{other:?}");
        }
    }
}
