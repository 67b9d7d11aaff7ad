//! What a record of a flow that several observation points saw has beside others: a list for each direction.

use crate::form::FOREIGN_MAX;
use mermin_flow::{FlowRecord, Hop, ObservationPoint, ObservationPoints};
use std::sync::Arc;

/// Names, in the table's order.
pub(crate) const NAMES: [&str; 2] = ["flow.hops", "flow.reverse.hops"];

/// A hop as it stands in a record.
#[derive(Clone, Debug)]
pub(crate) struct NamedHop {
    /// `None`: its number has another point's name by now.
    point: Option<Arc<ObservationPoint>>,
    hop: Hop,
}

/// What a hop says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said<'a> {
    Text(&'a str),
    Truth(bool),
    Count(u64),
}

impl NamedHop {
    /// Names and values, in this order everywhere.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static str, Said<'_>)> {
        let point = self.point.as_deref();
        let interface = point.and_then(|point| point.interface.as_deref());
        let interface =
            interface.map(|name| ("interface", Said::Text(&name[..name.floor_char_boundary(FOREIGN_MAX)])));
        let hook = point.and_then(|point| point.hook).map(|hook| ("hook", Said::Text(hook.name())));
        let counts = self.hop.counts;
        let counts = [
            ("counted", Said::Truth(self.hop.counted)),
            ("packets", Said::Count(counts.packets)),
            ("bytes", Said::Count(counts.bytes)),
            ("frame_bytes", Said::Count(counts.frame_bytes)),
        ];
        interface.into_iter().chain(hook).chain(counts)
    }
}

/// The lists of a record; empty where a direction was seen at one point.
pub(crate) fn values(record: &FlowRecord, points: &ObservationPoints) -> [Vec<NamedHop>; 2] {
    let Some(hops) = &record.hops else { return [Vec::new(), Vec::new()] };
    let named = |hop: &Hop| NamedHop { point: points.at(hop.point, record.start_time), hop: *hop };
    [0, 1].map(|direction| hops.directions[direction].iter().map(named).collect())
}
