//! Which packets are metered (`capture.filters`): rules as the configuration has them, and the tables that the kernel's
//! programs and [`crate::frame`] look packets up in.

mod frames;
mod rule;
mod tables;
#[cfg(test)]
mod tests;

pub(crate) use frames::FrameFilter;
pub use rule::{
    FilterAction, FilterError, FilterMatch, FilterRule, FilterRules, PortRange, Protocol, RuleName,
};

use glob::Pattern;
use mermin_flow::Tally;
use mermin_wire::{FILTERED, Filters, Sizes};
pub(crate) use rule::EARLIER_RULES;
use rule::NO_RULE;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// What was filtered, by verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filtered(Box<[Tally; FILTERED]>);

impl Default for Filtered {
    fn default() -> Self {
        Self(Box::new([Tally::ZERO; FILTERED]))
    }
}

impl Filtered {
    /// Adds what has this verdict; false: it is metered.
    pub(crate) fn add(&mut self, verdict: u8, tally: Tally) -> bool {
        let Some(sum) = self.0.get_mut(usize::from(verdict).wrapping_sub(1)) else { return false };
        *sum += tally;
        true
    }

    /// In the order of verdicts, from the first that isn't "metered" on.
    pub(crate) fn add_all(&mut self, tallies: impl IntoIterator<Item = Tally>) {
        self.0.iter_mut().zip(tallies).for_each(|(sum, tally)| *sum += tally);
    }

    /// In the same order.
    pub(crate) fn tallies(&self) -> impl Iterator<Item = Tally> {
        self.0.iter().copied()
    }
}

/// Rules as a source goes by them.
#[derive(Debug)]
pub(crate) struct Filtering {
    pub(crate) tables: Box<Filters>,
    pub(crate) sizes: Sizes,
    /// Of verdicts that there can be but "metered", each with its number less one.
    names: Vec<(usize, Arc<str>)>,
    /// Patterns of each rule.
    interfaces: Vec<Vec<Pattern>>,
    /// Not 0.
    fingerprint: u64,
}

impl Filtering {
    /// `None`: there are no rules.
    pub(crate) fn of(rules: &FilterRules) -> Option<Arc<Self>> {
        if rules.rules().is_empty() {
            return None;
        }
        let (tables, sizes) = tables::tables(rules);
        let excluding =
            rules.rules().iter().enumerate().filter(|(_, rule)| rule.action == FilterAction::Exclude);
        let mut names: Vec<_> = excluding.map(|(at, rule)| (at, rule.name.to_string().into())).collect();
        if rules.otherwise() == FilterAction::Exclude {
            names.push((FILTERED - 1, NO_RULE.into()));
        }
        let mut hasher = DefaultHasher::new();
        rules.hash(&mut hasher);
        Some(Arc::new(Self {
            tables,
            sizes,
            names,
            interfaces: rules.rules().iter().map(FilterRule::interfaces).collect(),
            fingerprint: hasher.finish() | 1,
        }))
    }

    /// Whether any rule asks for interfaces.
    pub(crate) fn is_by_interface(&self) -> bool {
        self.interfaces.iter().any(|patterns| !patterns.is_empty())
    }

    /// The rules, as bits, that an interface of this name is right for; without one, those that ask for none.
    pub(crate) fn rules_of(&self, name: Option<&str>) -> u64 {
        let fits = |patterns: &[Pattern]| {
            patterns.is_empty()
                || name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
        };
        let all = self.interfaces.iter().enumerate();
        all.fold(0, |bits, (at, patterns)| bits | u64::from(fits(patterns)) << at)
    }

    /// By name, what was filtered: also where that is nothing, so that the names depend on the rules alone.
    pub(crate) fn book(&self, filtered: &Filtered) -> BTreeMap<Arc<str>, Tally> {
        let by_name = |(at, name): &(usize, Arc<str>)| (Arc::clone(name), filtered.0[*at]);
        self.names.iter().map(by_name).collect()
    }

    /// Tells rules from others: what one run's programs have counted by number means the same to another run's.
    pub(crate) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}
