//! The attributes that tell sums apart, picked out of a record's.

use crate::attributes::hops::NamedHop;
use crate::attributes::visit::{Key, Visitor};
use crate::attributes::{ATTRIBUTES, KEY, Kind, find};
use crate::error::ExportError;
use crate::otlp::encode::Attributes;
use crate::otlp::settings::problem;

/// Which they are.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// By line of the table.
    lines: Box<[bool]>,
    /// Members of families: `source.k8s.pod.label.app`.
    members: Vec<String>,
}

/// Attributes that are another value in every record, or in every record of a flow.
const UNIQUE: [&str; 7] = [
    "flow.id",
    "flow.sequence",
    "flow.community_id",
    "flow.start_time",
    "flow.end_time",
    "flow.nat.community_id",
    "flow.clock_step",
];

impl Choice {
    /// Of names as configured.
    pub(crate) fn of(names: &[String]) -> Result<Self, ExportError> {
        let mut choice = Self { lines: vec![false; ATTRIBUTES.len()].into(), members: Vec::new() };
        for name in names {
            let place = "export.otlp.metrics.attributes";
            let Some(attribute) = find(name) else {
                let what = format!("`{name}` is no attribute of a record");
                return Err(problem(place, what, nearest(name)));
            };
            let counts = matches!(attribute.kind, Kind::Count) && !attribute.unit.is_empty()
                || matches!(attribute.kind, Kind::Hops);
            if counts || UNIQUE.contains(&attribute.name) {
                let what = format!("`{name}` is different in every record: each would be a sum of its own");
                return Err(problem(place, what, "choose attributes that many records share"));
            }
            if attribute.name.ends_with(KEY) {
                choice.members.push(name.clone());
            } else {
                let line = ATTRIBUTES.iter().position(|known| known.name == attribute.name);
                choice.lines[line.expect("it was found there")] = true;
            }
        }
        Ok(choice)
    }

    /// Hands on to `writer` what is chosen.
    pub(crate) fn filter<'a>(&'a self, writer: Attributes<'a>) -> Chosen<'a> {
        Chosen { choice: self, writer }
    }
}

fn nearest(name: &str) -> String {
    let near = ATTRIBUTES
        .iter()
        .map(|attribute| (strsim::damerau_levenshtein(name, attribute.name), attribute.name))
        .min()
        .filter(|(distance, _)| *distance <= 4);
    match near {
        Some((_, near)) => format!("did you mean `{near}`?"),
        None => "docs/reference/records.md lists them all".to_owned(),
    }
}

/// See [`Choice::filter`].
pub(crate) struct Chosen<'a> {
    choice: &'a Choice,
    writer: Attributes<'a>,
}

impl Visitor for Chosen<'_> {
    #[inline(always)]
    fn text(&mut self, key: Key, value: &[u8]) {
        if self.choice.lines[key.index()] {
            self.writer.text(key, value);
        }
    }

    #[inline(always)]
    fn count(&mut self, key: Key, value: u64) {
        if self.choice.lines[key.index()] {
            self.writer.count(key, value);
        }
    }

    fn signed(&mut self, key: Key, value: i64) {
        if self.choice.lines[key.index()] {
            self.writer.signed(key, value);
        }
    }

    #[inline(always)]
    fn flags(&mut self, key: Key, flags: u8) {
        if self.choice.lines[key.index()] {
            self.writer.flags(key, flags);
        }
    }

    /// Different in every record, so never chosen.
    fn hops(&mut self, _: Key, _: &[NamedHop]) {}

    fn member(&mut self, end: &'static str, name: &str, value: &str) {
        let is = |chosen: &String| chosen.strip_prefix(end) == Some(name);
        if self.choice.members.iter().any(is) {
            self.writer.member(end, name, value);
        }
    }
}
