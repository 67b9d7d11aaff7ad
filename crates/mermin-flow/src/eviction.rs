//! Finds a shard's least recently seen flow. Costs nothing until the shard is full for the first time.
//!
//! A heap of (last seen, creation ordinal, place), built on first need. Packets don't move entries in it: an item
//! that comes to the top with an old `last` is put back with the current one. Each flow has one item; those of flows
//! that have ended are recognised by their ordinal and dropped at the top, and swept once they may be the majority,
//! so the heap holds at most two items a place, whether the shard is full again or not.

use crate::entry::Entry;
use crate::index::Place;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

type Item = Reverse<(u64, u64, Place)>;

#[derive(Debug, Default)]
pub(crate) struct Eviction {
    heap: Option<BinaryHeap<Item>>,
}

fn item(place: Place, entry: &Entry) -> Item {
    Reverse((entry.last, entry.ordinal, place))
}

impl Eviction {
    /// A flow will be at `place`, where none is yet.
    pub(crate) fn created(&mut self, place: Place, entry: &Entry, entries: &[Option<Entry>]) {
        let Some(heap) = &mut self.heap else { return };
        if heap.len() >= entries.len() * 2 {
            heap.retain(|Reverse((_, ordinal, place))| {
                matches!(entries.get(*place as usize), Some(Some(entry)) if entry.ordinal == *ordinal)
            });
        }
        heap.push(item(place, entry));
    }

    /// The flow that was seen least recently; of those seen at the same moment the oldest.
    pub(crate) fn least_recent(&mut self, entries: &[Option<Entry>]) -> Option<Place> {
        let heap = self.heap.get_or_insert_with(|| {
            let mut heap = BinaryHeap::with_capacity(entries.len() * 2);
            let flows = entries.iter().enumerate();
            heap.extend(
                flows.filter_map(|(place, entry)| entry.as_ref().map(|entry| item(place as Place, entry))),
            );
            heap
        });
        loop {
            let mut top = heap.peek_mut()?;
            let Reverse((last, ordinal, place)) = *top;
            match entries.get(place as usize).and_then(Option::as_ref) {
                Some(entry) if entry.ordinal == ordinal && entry.last == last => return Some(place),
                Some(entry) if entry.ordinal == ordinal => *top = item(place, entry),
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
