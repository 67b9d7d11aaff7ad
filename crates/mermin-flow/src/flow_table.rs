//! The flow table of one worker: an index that finds flows, and a slab where they lie.
//!
//! One table for all shards of the worker, not one a shard: then all of it is a few regions of memory, and what every
//! packet reads of the table itself stays in the first-level cache (figures in `docs/benchmarks.md`).

use crate::entry::{Entry, Facts};
use crate::index::{Index, Place};
use crate::key::FlowKey;
use crate::slab::{Flow, Slab};

#[derive(Debug)]
pub(crate) struct FlowTable {
    index: Index,
    slab: Slab,
}

impl FlowTable {
    pub(crate) fn new() -> Self {
        Self { index: Index::new(), slab: Slab::default() }
    }

    /// Starts loading what finds the flow.
    #[inline(always)]
    pub(crate) fn prefetch_index(&self, hash: u32) {
        self.index.prefetch(hash);
    }

    /// Starts loading the two lines of the flow that every packet touches; where it probably lies.
    #[inline(always)]
    pub(crate) fn prefetch_entry(&self, hash: u32) -> Option<Place> {
        let likely = self.index.likely(hash);
        if let Some(place) = likely {
            self.slab.prefetch(place);
        }
        likely
    }

    /// Starts loading all of the flow at `place`.
    pub(crate) fn prefetch_flow(&self, place: Place) {
        self.slab.prefetch(place);
        self.slab.prefetch_facts(place);
    }

    /// Starts loading what [`FlowTable::remove`] needs, once the flow itself has been loaded.
    pub(crate) fn prefetch_removal(&self, place: Place) {
        if let Some((_, facts)) = self.get(place) {
            self.index.prefetch(facts.hash);
        }
    }

    /// Where the flow with this key lies.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u32, key: &FlowKey) -> Option<Place> {
        self.index.find(hash, |place| self.slab.entry(place).is_some_and(|entry| entry.key.same(key)))
    }

    /// How many flows have this key.
    pub(crate) fn count(&self, hash: u32, key: &FlowKey) -> usize {
        let mut count = 0;
        self.index.find(hash, |place| {
            count += usize::from(self.slab.entry(place).is_some_and(|entry| entry.key.same(key)));
            false
        });
        count
    }

    /// Of the flows with this key, where the one lies that began last, not after `time`.
    pub(crate) fn latest_before(&self, hash: u32, key: &FlowKey, time: u64) -> Option<Place> {
        let mut latest = None;
        self.index.find(hash, |place| {
            if let Some((entry, facts)) = self.slab.get(place)
                && entry.key.same(key)
                && facts.start_time <= time
                && latest.is_none_or(|(start, _)| start < facts.start_time)
            {
                latest = Some((facts.start_time, place));
            }
            false
        });
        latest.map(|(_, place)| place)
    }

    #[inline(always)]
    pub(crate) fn entry_mut(&mut self, place: Place) -> Option<&mut Entry> {
        self.slab.entry_mut(place)
    }

    #[inline(always)]
    pub(crate) fn entry(&self, place: Place) -> Option<&Entry> {
        self.slab.entry(place)
    }

    #[inline(always)]
    pub(crate) fn get(&self, place: Place) -> Option<(&Entry, &Facts)> {
        self.slab.get(place)
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, place: Place) -> Option<(&mut Entry, &mut Facts)> {
        self.slab.get_mut(place)
    }

    /// Takes a flow in; where it lies from now on.
    pub(crate) fn insert(&mut self, entry: Entry, facts: Facts) -> Place {
        let hash = facts.hash;
        let place = self.slab.insert(entry, facts);
        self.index.insert(hash, place);
        place
    }

    /// Drops the flow at `place`.
    pub(crate) fn remove(&mut self, place: Place) {
        if let Some(hash) = self.slab.remove(place) {
            self.index.remove(hash, place);
        }
    }

    /// Takes the flow at `place` out.
    pub(crate) fn take(&mut self, place: Place) -> Option<Flow> {
        let (entry, facts) = self.slab.take(place)?;
        self.index.remove(facts.hash, place);
        Some((entry, facts))
    }

    /// Drops the flow at `place` and nothing else: the table is to be put in order anew.
    pub(crate) fn vacate(&mut self, place: Place) {
        self.slab.vacate(place);
    }

    /// Moves flows from behind into vacant places, until none is vacant, and gives the memory behind the last one back. `moves`
    /// is told from where to where.
    pub(crate) fn compact(&mut self, moves: impl FnMut(Place, Place)) {
        self.slab.compact(moves);
        self.index_anew();
    }

    /// Puts all in order by the entries alone: these are whole wherever a panic has left the rest.
    pub(crate) fn put_in_order(&mut self) {
        self.slab.find_vacant();
        self.index_anew();
    }

    fn index_anew(&mut self) {
        self.index = Index::with_room_for(self.slab.held());
        for (place, _, facts) in self.slab.iter() {
            self.index.insert(facts.hash, place);
        }
    }

    /// Places that have ever held a flow.
    pub(crate) const fn places(&self) -> usize {
        self.slab.places()
    }

    /// Flows held.
    pub(crate) const fn held(&self) -> usize {
        self.slab.held()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, &Entry, &Facts)> {
        self.slab.iter()
    }
}
