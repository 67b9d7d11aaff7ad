//! Finds a shard's least recently seen flow. Costs nothing until the shard is full for the first time.
//!
//! Items of (last seen, creation ordinal, place), made on first need. Packets don't move them: an item that comes to
//! the top with an old `last` is put back with the current one. New flows queue up, for time and ordinal only grow;
//! only what had to be put back needs a heap, so that a flood of flows of one packet each is a plain queue. Each flow
//! has one item; those of flows that have ended are recognised by shard and ordinal and dropped at the top, and swept once
//! they may be the majority, so there are at most two items a place, whether the shard is full again or not.

use crate::flow_table::FlowTable;
use crate::index::Place;
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};

type Item = (u64, u64, Place);

#[derive(Debug)]
struct Order {
    /// As when the flow was created, in order.
    created: VecDeque<Item>,
    /// Seen again since.
    moved: BinaryHeap<Reverse<Item>>,
}

impl Order {
    /// Of a full shard, whose flows lie at `places`.
    fn of(places: impl Iterator<Item = Place>, capacity: usize, table: &FlowTable) -> Self {
        let mut moved = BinaryHeap::with_capacity(capacity);
        let item = |place| table.get(place).map(|(entry, facts)| Reverse((entry.last, facts.ordinal, place)));
        moved.extend(places.filter_map(item));
        Self { created: VecDeque::with_capacity(capacity), moved }
    }

    fn len(&self) -> usize {
        self.created.len() + self.moved.len()
    }
}

#[derive(Debug)]
pub(crate) struct Eviction {
    shard: u8,
    order: Option<Order>,
}

impl Eviction {
    /// Of shard `shard`.
    pub(crate) const fn new(shard: u8) -> Self {
        Self { shard, order: None }
    }

    /// A flow that was last seen at `last`, mostly no earlier than any flow before, is at `place` from now on.
    pub(crate) fn created(
        &mut self,
        place: Place,
        last: u64,
        ordinal: u64,
        capacity: usize,
        table: &FlowTable,
    ) {
        let Some(order) = &mut self.order else { return };
        if order.len() >= capacity * 2 {
            let lives =
                |item: &Item| table.get(item.2).is_some_and(|(_, facts)| facts.is(self.shard, item.1));
            order.created.retain(lives);
            order.moved.retain(|Reverse(item)| lives(item));
        }
        let item = (last, ordinal, place);
        if order.created.back().is_none_or(|before| *before < item) {
            order.created.push_back(item);
        } else {
            // One before it was made of packets that were merged, and was last seen later than this.
            order.moved.push(Reverse(item));
        }
    }

    /// The flow that was seen least recently, of a full shard; of those seen at the same moment the oldest. `places` are
    /// the shard's.
    pub(crate) fn least_recent(
        &mut self,
        places: impl Iterator<Item = Place>,
        capacity: usize,
        table: &FlowTable,
    ) -> Option<Place> {
        let Order { created, moved } = self.order.get_or_insert_with(|| Order::of(places, capacity, table));
        loop {
            let (new, old) = (created.front().copied(), moved.peek().map(|Reverse(item)| *item));
            let is_new = match (new, old) {
                (Some(new), Some(old)) => new < old,
                (new, _) => new.is_some(),
            };
            let (last, ordinal, place) = if is_new { new? } else { old? };
            let current = table
                .get(place)
                .filter(|(_, facts)| facts.is(self.shard, ordinal))
                .map(|(entry, _)| entry.last);
            if current == Some(last) {
                // A flood of new flows comes this way for each of them: the next victims are asked for in time.
                if let Some(&(_, _, place)) = created.get(2) {
                    table.prefetch_flow(place);
                }
                if let Some(&(_, _, place)) = created.get(1) {
                    table.prefetch_removal(place);
                }
                for Reverse((_, _, place)) in moved.as_slice().iter().take(3) {
                    table.prefetch_flow(*place);
                }
                return Some(place);
            }
            let current = current.map(|last| Reverse((last, ordinal, place)));
            if is_new {
                created.pop_front();
                moved.extend(current);
            } else if let Some(mut top) = moved.peek_mut() {
                match current {
                    Some(current) => *top = current,
                    None => drop(PeekMut::pop(top)),
                }
            }
        }
    }

    /// Items held, those of ended flows included; not by the count that the sweep goes by.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.order.as_ref().map_or(0, |order| [order.created.len(), order.moved.len()].into_iter().sum())
    }
}
