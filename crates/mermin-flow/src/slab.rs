//! Where flows lie: what every packet touches apart from what only records and first packets need.
//!
//! Two arrays of 128 bytes a flow. Packets that go to many flows pay for each page that they touch: half the bytes are
//! half the pages.

use crate::entry::{Entry, Facts};
use crate::index::Place;
use crate::large_pages::use_large_pages;
use crate::prefetch::prefetch;

/// Flows that address space is reserved for at first, 32 MiB. Memory is taken as they are written.
const RESERVED: usize = 1 << 17;

/// A flow on its way from one table to another.
pub(crate) type Flow = (Entry, Facts);

#[derive(Debug, Default)]
pub(crate) struct Slab {
    entries: Vec<Option<Entry>>,
    facts: Vec<Facts>,
    free: Vec<Place>,
}

impl Slab {
    /// Loads the two lines of the flow that every packet touches.
    #[inline(always)]
    pub(crate) fn prefetch(&self, place: Place) {
        // Not a look into the entry: whether the place holds a flow would itself be the miss that this is to hide.
        if let Some(entry) = self.entries.get(place as usize) {
            prefetch(entry, 0);
            prefetch(entry, 1);
        }
    }

    /// Loads the two lines that records need.
    pub(crate) fn prefetch_facts(&self, place: Place) {
        if let Some(facts) = self.facts.get(place as usize) {
            prefetch(facts, 0);
            prefetch(facts, 1);
        }
    }

    #[inline(always)]
    pub(crate) fn entry(&self, place: Place) -> Option<&Entry> {
        self.entries.get(place as usize)?.as_ref()
    }

    #[inline(always)]
    pub(crate) fn entry_mut(&mut self, place: Place) -> Option<&mut Entry> {
        self.entries.get_mut(place as usize)?.as_mut()
    }

    pub(crate) fn get(&self, place: Place) -> Option<(&Entry, &Facts)> {
        Some((self.entry(place)?, self.facts.get(place as usize)?))
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, place: Place) -> Option<(&mut Entry, &mut Facts)> {
        Some((self.entries.get_mut(place as usize)?.as_mut()?, self.facts.get_mut(place as usize)?))
    }

    /// Takes a flow in; where it lies from now on.
    pub(crate) fn insert(&mut self, entry: Entry, facts: Facts) -> Place {
        let place = self.free.pop().unwrap_or_else(|| self.grow());
        self.entries[place as usize] = Some(entry);
        self.facts[place as usize] = facts;
        place
    }

    /// One more place.
    fn grow(&mut self) -> Place {
        let place = self.entries.len();
        if place == self.entries.capacity() {
            let more = place.max(RESERVED);
            self.entries.reserve_exact(more);
            self.facts.reserve_exact(more);
            use_large_pages(self.entries.spare_capacity_mut());
            use_large_pages(self.facts.spare_capacity_mut());
        }
        self.entries.push(None);
        self.facts.push(Facts::EMPTY);
        place as Place
    }

    /// Makes the place vacant; the index hash of the flow that was there.
    pub(crate) fn remove(&mut self, place: Place) -> Option<u32> {
        self.entries.get_mut(place as usize)?.take()?;
        self.free.push(place);
        self.facts.get(place as usize).map(|facts| facts.hash)
    }

    /// Makes the place vacant; the flow that was there.
    pub(crate) fn take(&mut self, place: Place) -> Option<Flow> {
        let entry = self.entries.get_mut(place as usize)?.take()?;
        self.free.push(place);
        let facts = self.facts.get(place as usize)?.clone();
        Some((entry, facts))
    }

    /// Moves flows from the last places into vacant ones before them, until all that are left hold one, and gives back the
    /// memory behind. `moves` is told from where to where.
    pub(crate) fn compact(&mut self, mut moves: impl FnMut(Place, Place)) {
        let held = self.held();
        let mut vacant = std::mem::take(&mut self.free);
        vacant.retain(|place| (*place as usize) < held);
        for from in held..self.entries.len() {
            let Some(entry) = self.entries[from].take() else { continue };
            let to = vacant.pop().expect("there are as many vacant places before as flows behind");
            self.entries[to as usize] = Some(entry);
            self.facts[to as usize] = self.facts[from].clone();
            moves(from as Place, to);
        }
        self.entries.truncate(held);
        self.facts.truncate(held);
        self.entries.shrink_to_fit();
        self.facts.shrink_to_fit();
    }

    /// Makes the place vacant, wherever it stands in the list of vacant ones.
    pub(crate) fn vacate(&mut self, place: Place) {
        if let Some(entry) = self.entries.get_mut(place as usize) {
            *entry = None;
        }
    }

    /// Finds out anew which places are vacant.
    pub(crate) fn find_vacant(&mut self) {
        let vacant = self.entries.iter().enumerate().filter(|(_, entry)| entry.is_none());
        self.free = vacant.map(|(place, _)| place as Place).collect();
    }

    /// Places that have ever held a flow.
    pub(crate) const fn places(&self) -> usize {
        self.entries.len()
    }

    /// Flows held.
    pub(crate) const fn held(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, &Entry, &Facts)> {
        let flows = self.entries.iter().zip(&self.facts).enumerate();
        flows.filter_map(|(place, (entry, facts))| Some((place as Place, entry.as_ref()?, facts)))
    }
}
