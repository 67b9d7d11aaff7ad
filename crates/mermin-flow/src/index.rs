//! Hash to place: open addressing with linear probing, load at most one half, deletion by backward shift.
//!
//! A slot is the hash's 32 bits above the place plus one, so growth and deletion never touch the entries, and a probe
//! touches one only when all 32 bits agree.

use crate::prefetch::prefetch;

/// Where an entry lies in the slab.
pub(crate) type Place = u32;

const SMALLEST: usize = 16;

#[derive(Debug)]
pub(crate) struct Index {
    slots: Vec<u64>,
    /// 32 minus the logarithm of the number of slots.
    shift: u32,
    held: usize,
}

const fn slot(hash: u32, place: Place) -> u64 {
    (hash as u64) << 32 | (place as u64 + 1)
}

const fn hash_of(slot: u64) -> u32 {
    (slot >> 32) as u32
}

const fn place_of(slot: u64) -> Place {
    (slot as u32).wrapping_sub(1)
}

impl Index {
    pub(crate) fn new() -> Self {
        Self::with_room_for(0)
    }

    /// Takes in so many without growing.
    pub(crate) fn with_room_for(places: usize) -> Self {
        let slots = (places * 2).next_power_of_two().max(SMALLEST);
        Self { slots: vec![0; slots], shift: 32 - slots.trailing_zeros(), held: 0 }
    }

    #[inline(always)]
    fn home(&self, hash: u32) -> usize {
        (hash >> self.shift) as usize
    }

    #[inline(always)]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u32) {
        if let Some(slot) = self.slots.get(self.home(hash)) {
            prefetch(slot, 0);
        }
    }

    /// The first place whose whole hash agrees: the right one but for one in billions.
    #[inline(always)]
    pub(crate) fn likely(&self, hash: u32) -> Option<Place> {
        self.find(hash, |_| true)
    }

    /// The place with this hash that `is_it` accepts.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u32, mut is_it: impl FnMut(Place) -> bool) -> Option<Place> {
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if hash_of(slot) == hash && is_it(place_of(slot)) {
                return Some(place_of(slot));
            }
            at = self.after(at);
        }
    }

    pub(crate) fn insert(&mut self, hash: u32, place: Place) {
        if (self.held + 1) * 2 > self.slots.len() {
            self.grow();
        }
        self.put(slot(hash, place));
        self.held += 1;
    }

    fn put(&mut self, slot: u64) {
        let mut at = self.home(hash_of(slot));
        while self.slots[at] != 0 {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    fn grow(&mut self) {
        let larger = vec![0; self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, larger);
        self.shift -= 1;
        for slot in old.into_iter().filter(|slot| *slot != 0) {
            self.put(slot);
        }
    }

    /// Removes the slot of `place`, which must be there, and closes the gap: every slot behind it that may move
    /// nearer to its home does.
    pub(crate) fn remove(&mut self, hash: u32, place: Place) {
        let wanted = slot(hash, place);
        let mut gap = self.home(hash);
        while self.slots[gap] != wanted {
            if self.slots[gap] == 0 {
                debug_assert!(false, "only places that were inserted are removed");
                return;
            }
            gap = self.after(gap);
        }
        let mask = self.slots.len() - 1;
        let mut at = gap;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            let from_home = at.wrapping_sub(self.home(hash_of(slot))) & mask;
            let from_gap = at.wrapping_sub(gap) & mask;
            if from_home >= from_gap {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = 0;
        self.held -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Few distinct home positions, so that runs of probes form, wrap around and are cut in the middle.
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((any::<bool>(), 0_u32..6, 0_u32..40), 1..400)) {
            let (mut index, mut model) = (Index::new(), HashMap::new());
            for (insert, high, place) in steps {
                let hash = high.wrapping_mul(0x3fff_ffff) ^ (place % 3);
                if insert {
                    model.entry(place).or_insert_with(|| {
                        index.insert(hash, place);
                        hash
                    });
                } else if let Some(hash) = model.remove(&place) {
                    index.remove(hash, place);
                }
                prop_assert_eq!(index.held, model.len());
                prop_assert!(index.held * 2 <= index.slots.len(), "load at most one half");
                prop_assert_eq!(index.home(u32::MAX), index.slots.len() - 1, "all slots are homes");
                for (&place, &hash) in &model {
                    prop_assert_eq!(index.find(hash, |p| p == place), Some(place));
                }
                prop_assert_eq!(index.slots.iter().filter(|s| **s != 0).count(), model.len());
            }
        }
    }

    #[test]
    fn an_absent_hash_is_not_found() {
        let mut index = Index::new();
        index.insert(7, 0);
        assert_eq!(index.find(8, |_| true), None);
        assert_eq!(index.find(7, |_| false), None);
    }
}
