//! Finds a shard's least recently seen flow. Costs nothing until the shard is full for the first time.
//!
//! A heap of (last seen, creation ordinal, place), built on first need. Packets don't move entries in it: an item
//! that comes to the top with an old `last` is put back with the current one. Each flow has one item; those of flows
//! that have ended are recognised by their ordinal and dropped at the top, and swept once they may be the majority,
//! so the heap holds at most two items a place, whether the shard is full again or not.

use crate::index::Place;
use crate::slab::Slab;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

type Item = Reverse<(u64, u64, Place)>;

#[derive(Debug, Default)]
pub(crate) struct Eviction {
    heap: Option<BinaryHeap<Item>>,
}

impl Eviction {
    /// A flow that was last seen at `last` is at `place` from now on.
    pub(crate) fn created(&mut self, place: Place, last: u64, ordinal: u64, slab: &Slab) {
        let Some(heap) = &mut self.heap else { return };
        if heap.len() >= slab.places() * 2 {
            let lives = |place, ordinal| slab.get(place).is_some_and(|(_, facts)| facts.ordinal == ordinal);
            heap.retain(|Reverse((_, ordinal, place))| lives(*place, *ordinal));
        }
        heap.push(Reverse((last, ordinal, place)));
    }

    /// The flow that was seen least recently; of those seen at the same moment the oldest.
    pub(crate) fn least_recent(&mut self, slab: &Slab) -> Option<Place> {
        let heap = self.heap.get_or_insert_with(|| {
            let mut heap = BinaryHeap::with_capacity(slab.places() * 2);
            heap.extend(slab.iter().map(|(place, entry, facts)| Reverse((entry.last, facts.ordinal, place))));
            heap
        });
        loop {
            let mut top = heap.peek_mut()?;
            let Reverse((last, ordinal, place)) = *top;
            match slab.get(place) {
                Some((entry, facts)) if facts.ordinal == ordinal && entry.last == last => return Some(place),
                Some((entry, facts)) if facts.ordinal == ordinal => {
                    *top = Reverse((entry.last, ordinal, place));
                }
                _ => drop(PeekMut::pop(top)),
            }
        }
    }

    /// Items held, those of ended flows included.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.heap.as_ref().map_or(0, BinaryHeap::len)
    }
}
