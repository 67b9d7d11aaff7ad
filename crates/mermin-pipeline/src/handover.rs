//! What becomes of the observations that the reader has prepared: they go to the threads of flow workers
//! (`packet_channel.rs`), or the reader meters them itself (`in_place.rs`).

use crate::cut::Cut;
use crate::look::Look;
use crate::snapshot::Marker;
use crate::tuning::Change;
use mermin_flow::{Observation, Tally};
use std::sync::Arc;

/// The reader's way to the flow tables.
pub(crate) trait Handover {
    /// Takes one oriented observation.
    fn push(&mut self, o: &Observation);

    /// A drain has ended: nothing should wait for more to come.
    fn flush(&mut self);

    /// Time has come to `watermark`, also for flows that have no packets.
    fn tick(&mut self, watermark: u64);

    /// A snapshot passes, behind everything that was handed over.
    fn mark(&mut self, marker: &Marker);

    /// A cut passes, behind everything that was handed over: nothing waits.
    fn cut(&mut self, cut: &Arc<Cut>);

    /// Somebody wants to see flows.
    fn look(&mut self, look: &Arc<Look>);

    /// Other settings count, behind everything that was handed over; time has come to `watermark`.
    fn change(&mut self, change: &Change, watermark: u64);

    /// Called often: goes on with looks that are under way in this thread.
    fn go_on_looking(&mut self) {}

    /// Tries again to hand over what had no room; whether the source may be read.
    fn has_room(&mut self) -> bool;

    /// Whether so much waits in the reader that it must not read.
    fn is_blocked(&self) -> bool;

    /// Whether something waits in the reader for room.
    fn waits(&self) -> bool;

    /// Observations that became part of others while they waited, so far.
    fn merges(&self) -> u64;

    /// Whether a worker has ended before it was told to.
    fn worker_gone(&self) -> bool;

    /// What waits in the reader.
    fn open(&self) -> Tally;

    /// What was dropped for want of room.
    fn lost(&self) -> Tally;

    /// From now on waits for room, whatever the configuration says: the end has come.
    fn wait_from_now(&mut self);

    /// Hands over what is left and ends all flows, time having come to `watermark`; what was dropped in all. The last cut passes
    /// behind that, if there is a journal.
    fn finish(self, watermark: u64, cut: Option<&Arc<Cut>>) -> Tally;
}
