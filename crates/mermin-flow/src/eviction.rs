//! Finds a shard's least recently seen flow. Costs nothing until the shard is full for the first time.
//!
//! A heap of (last seen, creation ordinal, place), built on first need. Packets don't move entries in it: an item
//! that comes to the top with an old `last` is put back with the current one. Each flow has one item; those of flows
//! that ended otherwise are recognised by their ordinal and dropped, or swept when they have become the majority.

use crate::entry::Entry;
use crate::index::Place;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Default)]
pub(crate) struct Eviction {
    heap: Option<BinaryHeap<Reverse<(u64, u64, Place)>>>,
}

impl Eviction {
    /// A flow was created.
    pub(crate) fn created(&mut self, place: Place, entry: &Entry) {
        if let Some(heap) = &mut self.heap {
            heap.push(Reverse((entry.last, entry.ordinal, place)));
        }
    }

    /// The flow that was seen least recently; of those seen at the same moment the oldest.
    pub(crate) fn least_recent(&mut self, entries: &[Option<Entry>]) -> Option<Place> {
        let stale = |heap: &BinaryHeap<_>| heap.len() > entries.len() * 2;
        if self.heap.as_ref().is_none_or(stale) {
            let items = entries.iter().enumerate().filter_map(|(place, entry)| {
                entry.as_ref().map(|entry| Reverse((entry.last, entry.ordinal, place as Place)))
            });
            self.heap = Some(items.collect());
        }
        let heap = self.heap.as_mut()?;
        while let Some(Reverse((last, ordinal, place))) = heap.pop() {
            match entries.get(place as usize).and_then(Option::as_ref) {
                Some(entry) if entry.ordinal == ordinal && entry.last == last => return Some(place),
                Some(entry) if entry.ordinal == ordinal => heap.push(Reverse((entry.last, ordinal, place))),
                _ => {}
            }
        }
        None
    }
}
