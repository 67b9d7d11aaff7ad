//! Several enrichers, one after the other; later ones may overrule earlier ones.

use crate::config::EnrichConfig;
use crate::names::NamesByNetwork;
use mermin_flow::{Enricher, FlowRecord};

/// The enrichers that are switched on and have something to say.
#[derive(Default)]
pub struct Chain {
    links: Vec<Box<dyn Enricher>>,
}

impl Chain {
    /// From the configuration; `None` when there is nothing to add, so that the stage can be left out.
    #[must_use]
    pub fn build(config: &EnrichConfig) -> Option<Self> {
        let mut chain = Self::default();
        if config.enabled && !config.names.0.is_empty() {
            chain.links.push(Box::new(NamesByNetwork::new(&config.names)));
        }
        (!chain.links.is_empty()).then_some(chain)
    }
}

impl Enricher for Chain {
    fn enrich(&self, record: &mut FlowRecord) {
        for link in &self.links {
            link.enrich(record);
        }
    }
}
