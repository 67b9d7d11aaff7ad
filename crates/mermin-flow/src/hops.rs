//! The way of a direction's packets through the host, as a record tells it.

use crate::record::Counts;

/// What one observation point saw of a direction since the flow's previous record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The point's number.
    pub point: u16,
    /// Whether it saw the direction's first packet.
    pub first: bool,
    /// Whether the flow's counts have these in them. Otherwise they are of packets that another point has counted.
    pub counted: bool,
    /// What it saw.
    pub counts: Counts,
}

/// The hops of a flow in the order of packets' way: source to destination, then the other way. A direction without packets has
/// none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    /// By direction.
    pub directions: [Vec<Hop>; 2],
}

impl Hops {
    /// Takes in what was counted before more than one point had seen a direction.
    pub(crate) fn take_in_counts(&mut self, earlier: [Counts; 2]) {
        for (own, earlier) in self.directions.iter_mut().zip(earlier) {
            own.iter_mut().filter(|hop| hop.first).for_each(|hop| hop.counts += earlier);
        }
    }

    /// Takes in what the same points saw before.
    pub(crate) fn take_in(&mut self, earlier: &Self) {
        for (own, earlier) in self.directions.iter_mut().zip(&earlier.directions) {
            for before in earlier {
                match own.iter_mut().find(|hop| hop.point == before.point) {
                    Some(hop) => hop.counts += before.counts,
                    None => own.push(*before),
                }
            }
        }
    }
}
