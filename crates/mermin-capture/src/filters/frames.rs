//! Filters of a source that has frames itself.

use super::{Filtered, Filtering};
use mermin_flow::{ObservationPoints, Tally};
use mermin_wire::Question;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Filters, and what they have left out.
pub(crate) struct FrameFilter {
    filtering: Arc<Filtering>,
    points: Arc<ObservationPoints>,
    /// By observation point, the rules that its interface is right for, as far as they were wanted.
    rules: Vec<Option<u64>>,
    /// How often points had changed by then.
    changes: u64,
    filtered: Filtered,
}

impl FrameFilter {
    pub(crate) fn new(filtering: Arc<Filtering>, points: Arc<ObservationPoints>) -> Self {
        let changes = points.changes();
        Self { filtering, points, rules: Vec::new(), changes, filtered: Filtered::default() }
    }

    /// Counts a packet that is filtered; false: it is metered.
    pub(crate) fn filter(&mut self, about: Question, point: u16, tally: Tally) -> bool {
        let about = Question { rules: self.rules_of(point), ..about };
        let verdict = self.filtering.tables.verdict(self.filtering.sizes, &about);
        self.filtered.add(verdict, tally)
    }

    fn rules_of(&mut self, point: u16) -> u64 {
        let changes = self.points.changes();
        if changes != self.changes {
            self.rules.clear();
            self.changes = changes;
        }
        let at = usize::from(point);
        if let Some(Some(rules)) = self.rules.get(at) {
            return *rules;
        }
        let point = self.points.get(point);
        let name = point.as_ref().and_then(|point| point.interface.as_deref());
        let rules = self.filtering.rules_of(name);
        if self.rules.len() <= at {
            self.rules.resize(at + 1, None);
        }
        self.rules[at] = Some(rules);
        rules
    }

    /// By rule.
    pub(crate) fn book(&self) -> BTreeMap<Arc<str>, Tally> {
        self.filtering.book(&self.filtered)
    }
}
