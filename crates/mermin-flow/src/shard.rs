//! What a shard has of its own: a 64th of all flows, with its own capacity, timers and creation ordinals, so that none of
//! these depends on how many workers there are. The flows themselves lie in the table of the worker.

use crate::eviction::Eviction;
use crate::wheel::Wheel;

#[derive(Debug)]
pub(crate) struct Shard {
    /// Flows in the table.
    pub(crate) held: usize,
    /// Flows created so far: with the shard's number, the key and the start time it makes the flow id.
    pub(crate) ordinal: u64,
    pub(crate) wheel: Wheel,
    pub(crate) eviction: Eviction,
}

impl Shard {
    pub(crate) fn new(number: u8) -> Self {
        Self { held: 0, ordinal: 0, wheel: Wheel::new(), eviction: Eviction::new(number) }
    }

    /// One more flow, created as the one of this ordinal.
    pub(crate) fn hold(&mut self, ordinal: u64) {
        self.held += 1;
        self.ordinal = self.ordinal.max(ordinal + 1);
    }
}
