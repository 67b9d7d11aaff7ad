//! What packets are taken from.

use super::View;
use mermin_capture::links::{LinkCounts, LinkOn, Links};
use std::sync::Arc;

/// The interfaces of a live run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capture {
    /// How packets are taken, as the first line of a run names it.
    pub(crate) source: String,
    /// Those that packets are taken from.
    pub(crate) interfaces: Vec<LinkOn>,
    pub(crate) counts: LinkCounts,
}

impl Capture {
    /// As `links` tell it, each time anew.
    pub(crate) fn of(source: &str, links: &Arc<Links>) -> View<Self> {
        let (source, links) = (source.to_owned(), Arc::clone(links));
        Box::new(move || Self { source: source.clone(), interfaces: links.on(), counts: links.counts() })
    }

    /// What has happened to interfaces, by name.
    pub(crate) fn events(&self) -> [(&'static str, u64); 7] {
        let counts = &self.counts;
        [
            ("attached", counts.attached),
            ("detached", counts.detached),
            ("failed", counts.failed),
            ("without_number", counts.without_number),
            ("resynced", counts.resyncs),
            ("moved", counts.moved),
            ("restored", counts.restored),
        ]
    }
}
