//! What few flows have: in a table of its own beside their entries, by what a flow is called for as long as it lives.

use crate::entry::Facts;
use crate::key::SHARDS;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Ordinals are no secret, and all different.
#[derive(Debug, Default)]
pub(crate) struct ByOrdinal(u64);

impl Hasher for ByOrdinal {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    /// Odd, so that no two are alike, and spread over the upper bits, by which the table tells entries apart.
    fn write_u64(&mut self, ordinal: u64) {
        self.0 = (self.0 ^ ordinal).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Of a shard's flows, by ordinal.
pub(crate) type OfShard<T> = HashMap<u64, T, BuildHasherDefault<ByOrdinal>>;

/// A map with room for more than so many times what it holds is made smaller.
const SLACK: usize = 8;

/// Of all flows in a table, by shard.
#[derive(Debug)]
pub(crate) struct PerFlow<T>(Vec<OfShard<T>>);

impl<T> PerFlow<T> {
    /// Of a table without flows.
    pub(crate) fn new() -> Self {
        Self((0..SHARDS).map(|_| OfShard::default()).collect())
    }

    #[inline]
    pub(crate) fn get(&self, facts: &Facts) -> Option<&T> {
        let shard = &self.0[usize::from(facts.shard)];
        if shard.is_empty() { None } else { shard.get(&facts.ordinal) }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, facts: &Facts) -> Option<&mut T> {
        let shard = &mut self.0[usize::from(facts.shard)];
        if shard.is_empty() { None } else { shard.get_mut(&facts.ordinal) }
    }

    /// What the flow has; if that is nothing, `new`.
    pub(crate) fn get_or(&mut self, facts: &Facts, new: impl FnOnce() -> T) -> &mut T {
        self.0[usize::from(facts.shard)].entry(facts.ordinal).or_insert_with(new)
    }

    /// The flow has this from now on.
    pub(crate) fn insert(&mut self, facts: &Facts, what: T) {
        self.0[usize::from(facts.shard)].insert(facts.ordinal, what);
    }

    /// The flow has nothing any more.
    #[inline]
    pub(crate) fn forget(&mut self, facts: &Facts) {
        let shard = &mut self.0[usize::from(facts.shard)];
        if !shard.is_empty() && shard.remove(&facts.ordinal).is_some() {
            // Memory that flows of the past took is given back.
            if shard.is_empty() {
                *shard = OfShard::default();
            } else if shard.len() < shard.capacity() / SLACK {
                shard.shrink_to(2 * shard.len());
            }
        }
    }

    /// Takes out what is known of a shard's flows.
    pub(crate) fn give(&mut self, shard: usize) -> OfShard<T> {
        std::mem::take(&mut self.0[shard])
    }

    /// Takes in what another has given of a shard that has nothing here.
    pub(crate) fn take(&mut self, shard: usize, given: OfShard<T>) {
        self.0[shard] = given;
    }

    /// Flows that there is room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.iter().map(OfShard::capacity).sum()
    }
}
