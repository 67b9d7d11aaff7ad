//! The packet channel's room, as both its ends and the statistics see it.

use crate::credits::Credits;
use crate::packet_channel::WhenFull;
use crate::pulse::{ChannelPulse, CoalescingPulse};
use crate::shed::Shed;
use crate::waits::Waits;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct ChannelRoom {
    pub(crate) credits: Credits,
    /// How long batches were in the channel; only where somebody wants to know.
    pub(crate) waited: Option<Waits>,
    /// What waits in the reader, merged, because the channel was full; absent where nothing ever does.
    pub(crate) coalescing: Option<Coalescing>,
    /// What the agent does without: room in the reader may be among it.
    pub(crate) shed: Arc<Shed>,
}

impl ChannelRoom {
    /// For `capacity` observations.
    pub(crate) fn new(capacity: usize, when_full: WhenFull, detailed: bool) -> Self {
        let coalescing = match when_full {
            WhenFull::Coalesce { capacity, .. } => Some(Coalescing::new(capacity)),
            WhenFull::Wait | WhenFull::Drop => None,
        };
        let (waited, shed) = (detailed.then(Waits::default), Arc::default());
        Self { credits: Credits::new(capacity), waited, coalescing, shed }
    }

    pub(crate) fn pulse(&self, drops: u64) -> ChannelPulse {
        let credits = &self.credits;
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed) as u64;
        ChannelPulse {
            drops,
            capacity: credits.capacity as u64,
            depth: credits.used() as u64,
            high_water: load(&credits.high_water),
            waits: load(&credits.waits),
            wait: self.waited.as_ref().map(Waits::figures),
        }
    }
}

/// Counts of what waits in the reader for room; only the reader writes.
#[derive(Debug)]
pub(crate) struct Coalescing {
    capacity: AtomicUsize,
    depth: AtomicUsize,
    high_water: AtomicUsize,
    /// Observations that became part of others.
    merges: AtomicU64,
}

impl Coalescing {
    fn new(capacity: usize) -> Self {
        let (depth, high_water, merges) = Default::default();
        Self { capacity: AtomicUsize::new(capacity), depth, high_water, merges }
    }

    pub(crate) fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    pub(crate) fn pulse(&self) -> CoalescingPulse {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed) as u64;
        let (depth, high_water) = (load(&self.depth), load(&self.high_water));
        let capacity = load(&self.capacity);
        let room = ChannelPulse { capacity, depth, high_water, ..ChannelPulse::default() };
        CoalescingPulse { room, merges: self.merges.load(Ordering::Relaxed) }
    }

    /// So many wait now, and so many were merged so far.
    pub(crate) fn tell(&self, depth: usize, merges: u64) {
        self.depth.store(depth, Ordering::Relaxed);
        self.high_water.fetch_max(depth, Ordering::Relaxed);
        self.merges.store(merges, Ordering::Relaxed);
    }
}
