//! Records that wait for an output which lags behind: in order of importance, and fewer when there is no room.
//!
//! Each record has a place: its rank, then the order of arrival. The rank is the class that the user's rules give it, and
//! within a class what begins or ends a flow goes ahead of a periodic report. Records of one flow stay in order: whoever
//! waits ahead of a more important record of its own flow takes over that one's rank. So along a flow importance only
//! falls, and the whole order is that of one sorted map.
//!
//! Where there is no room, two neighbours of a flow become one record if the earlier is a periodic report: that costs
//! resolution and no count. The least important pair goes first. Only where there is no such pair a record is given up,
//! the least important and of those the latest. The flow's later records then still have the right totals, and their
//! sequence shows the gap.

use crate::priority::Class;
use mermin_flow::{FlowEvent, FlowId, FlowRecord};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

/// Where a record stands. The least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    class: Class,
    /// Not what begins or ends a flow.
    periodic: bool,
    arrival: u64,
}

impl Place {
    /// The same arrival, as important as another.
    const fn as_important_as(self, other: Self) -> Self {
        Self { arrival: self.arrival, ..other }
    }

    fn is_less_important_than(self, other: Self) -> bool {
        (self.class, self.periodic) > (other.class, other.periodic)
    }
}

struct Waiting {
    record: FlowRecord,
    /// When it came, where somebody wants to know.
    since: Option<Instant>,
}

/// What was done for want of room.
#[derive(Debug, PartialEq)]
pub(super) enum Shed {
    /// A record became part of its flow's next one.
    Merged,
    /// This one was given up.
    Dropped(Box<FlowRecord>),
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Backlog {
    waiting: BTreeMap<Place, Box<Waiting>>,
    /// The places of each flow's records, in order.
    flows: HashMap<FlowId, VecDeque<Place>>,
    /// Records into which the one of their flow ahead of them may go.
    mergeable: BTreeSet<Place>,
    arrivals: u64,
}

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, record: FlowRecord, class: Class, since: Option<Instant>) {
        let place = Place { class, periodic: record.event == FlowEvent::Update, arrival: self.arrivals };
        self.arrivals += 1;
        let flow = self.flows.entry(record.id).or_default();
        for before in flow.iter_mut().rev().take_while(|before| before.is_less_important_than(place)) {
            let lifted = before.as_important_as(place);
            if let Some(waiting) = self.waiting.remove(before) {
                self.waiting.insert(lifted, waiting);
            }
            if self.mergeable.remove(before) {
                self.mergeable.insert(lifted);
            }
            *before = lifted;
        }
        let before = flow.back().and_then(|before| self.waiting.get(before));
        if before.is_some_and(|before| before.record.may_go_into(&record)) {
            self.mergeable.insert(place);
        }
        flow.push_back(place);
        self.waiting.insert(place, Box::new(Waiting { record, since }));
    }

    /// Makes room for one record. `None` when nothing waits.
    pub(super) fn shed(&mut self) -> Option<Shed> {
        if let Some(place) = self.mergeable.pop_last() {
            self.merge(place);
            return Some(Shed::Merged);
        }
        // Nothing of its flow stands behind the last place of all.
        let (_, given_up) = self.waiting.pop_last()?;
        self.leave(given_up.record.id, VecDeque::pop_back);
        Some(Shed::Dropped(Box::new(given_up.record)))
    }

    /// The record at `place` takes in the one ahead of it in its flow, and that one's place.
    fn merge(&mut self, place: Place) {
        let Some(mut later) = self.waiting.remove(&place) else { return };
        let flow =
            self.flows.get_mut(&later.record.id).expect("each flow with a record that waits is listed");
        let at = flow.binary_search(&place).expect("a flow lists all its places, in order");
        flow.remove(at);
        let ahead = self.waiting.get_mut(&flow[at - 1]).expect("one may go into it");
        later.record.take_in(&ahead.record);
        ahead.record = later.record;
    }

    /// Takes the most important records, at most `n`, and when the first of them to come came.
    pub(super) fn take(&mut self, n: usize) -> (Vec<FlowRecord>, Option<Instant>) {
        let mut records = Vec::with_capacity(n.min(self.len()));
        let mut since: Option<Instant> = None;
        while records.len() < n
            && let Some((_, waiting)) = self.waiting.pop_first()
        {
            // Nothing of its flow stands ahead of the first place of all; nothing goes into what has left.
            if let Some(next) = self.leave(waiting.record.id, VecDeque::pop_front) {
                self.mergeable.remove(&next);
            }
            since = since.into_iter().chain(waiting.since).min();
            records.push(waiting.record);
        }
        (records, since)
    }

    /// A record of a flow has left at one of its ends. The first that is left.
    fn leave(
        &mut self,
        id: FlowId,
        end: impl FnOnce(&mut VecDeque<Place>) -> Option<Place>,
    ) -> Option<Place> {
        let flow = self.flows.get_mut(&id)?;
        end(flow);
        let first = flow.front().copied();
        if first.is_none() {
            self.flows.remove(&id);
        }
        first
    }
}

#[cfg(test)]
mod tests;
