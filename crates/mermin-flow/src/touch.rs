//! What a meter is doing, so that after a panic it is known what was done and what was not.

use crate::index::Place;
use crate::record::FlowEvent;
use crate::tally::Tally;

/// Written as the meter goes along; read after a panic only.
#[derive(Debug, Default)]
pub(crate) struct Touch {
    /// Which observation of the batch.
    pub(crate) observation: usize,
    /// The flow whose time was looked at last, or that was reported, and at which observation.
    flow: Option<(Place, usize)>,
    /// A record of this flow is being handed over.
    pub(crate) telling: Option<(Place, FlowEvent)>,
    /// The flow at this place has had its last record and is to be removed.
    pub(crate) ended: Option<Place>,
    /// Records that were taken and whose flows know it.
    pub(crate) told: u64,
    /// Flows that came from other meters, and what no record had carried of them.
    pub(crate) came: (u64, Tally),
    /// Flows that went to other meters, likewise.
    pub(crate) went: (u64, Tally),
}

impl Touch {
    /// A call begins. So many records were taken before.
    pub(crate) fn begin(&mut self, taken: u64) {
        (self.observation, self.flow, self.told) = (0, None, taken);
    }

    pub(crate) fn flow(&mut self, place: Place) {
        self.flow = Some((place, self.observation));
    }

    /// The flow that something was done to for the observation at hand.
    pub(crate) fn suspect(&self) -> Option<Place> {
        self.flow.filter(|(_, at)| *at == self.observation).map(|(place, _)| place)
    }

    /// The record of the flow at `place` was taken, and the flow knows it.
    pub(crate) fn told(&mut self, place: Place, event: FlowEvent) {
        self.telling = None;
        self.told += 1;
        if event == FlowEvent::End {
            self.ended = Some(place);
        }
    }
}
