//! Several enrichers, one after the other; later ones may overrule earlier ones.

use crate::config::EnrichConfig;
use crate::direction::DirectionByHost;
use crate::host::HostAddresses;
use crate::kubernetes::{Cluster, Kubernetes, KubernetesError, KubernetesStatus};
use crate::names::NamesByNetwork;
use mermin_flow::{Enricher, FlowConfig, FlowRecord};
use std::sync::Arc;
use std::time::Duration;

/// The enrichers that are switched on and have something to say.
#[derive(Default)]
pub struct Chain {
    names: Option<NamesByNetwork>,
    kubernetes: Option<Kubernetes>,
    /// Where Kubernetes doesn't say which way a flow runs.
    direction: Option<DirectionByHost>,
}

impl Chain {
    /// From the configuration; `None` when there is nothing to add, so that the stage can be left out.
    ///
    /// `cluster` is what [`Cluster::find`] found. `live`: packets of this host, not of a capture from somewhere; `flow`
    /// is how long flows may last before they are reported.
    ///
    /// # Errors
    /// When the cluster's credentials can't be used, or there is no thread to be had.
    pub fn build(
        config: &EnrichConfig,
        cluster: Option<&Cluster>,
        flow: &FlowConfig,
        live: bool,
    ) -> Result<Option<Self>, KubernetesError> {
        let mut chain = Self::default();
        if !config.enabled {
            return Ok(None);
        }
        if !config.names.0.is_empty() {
            chain.names = Some(NamesByNetwork::new(&config.names));
        }
        // A capture may come from another host: its addresses are nobody's here.
        let host = if live { follow() } else { None };
        if let Some(cluster) = cluster {
            let host = host.unwrap_or_default();
            chain.kubernetes = Some(Kubernetes::start(cluster, &config.kubernetes, flow, host)?);
        } else {
            chain.direction = host.map(DirectionByHost);
        }
        let is_empty = chain.names.is_none() && chain.kubernetes.is_none() && chain.direction.is_none();
        Ok((!is_empty).then_some(chain))
    }

    /// How the watches of Kubernetes are, where there are any.
    #[must_use]
    pub fn kubernetes(&self) -> Option<&Arc<KubernetesStatus>> {
        self.kubernetes.as_ref().map(Kubernetes::status)
    }
}

fn follow() -> Option<Arc<HostAddresses>> {
    let host = HostAddresses::follow();
    host.inspect_err(|error| tracing::warn!("Which way flows run is not known: {error}")).ok()
}

impl Enricher for Chain {
    fn enrich(&self, record: &mut FlowRecord) {
        if let Some(names) = &self.names {
            names.enrich(record);
        }
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.enrich(record);
        }
        if let Some(direction) = &self.direction {
            direction.enrich(record);
        }
    }

    fn known_until(&self) -> u64 {
        self.kubernetes.as_ref().map_or(u64::MAX, Enricher::known_until)
    }

    fn patience(&self) -> Duration {
        self.kubernetes.as_ref().map_or(Duration::ZERO, Enricher::patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(config: &EnrichConfig, live: bool) -> Option<Chain> {
        Chain::build(config, None, &FlowConfig::default(), live).unwrap()
    }

    #[test]
    fn a_chain_without_links_is_none() {
        let mut config = EnrichConfig::default();
        assert!(build(&config, false).is_none(), "a replay without names");
        assert!(build(&config, true).is_some_and(|chain| chain.direction.is_some()));
        config.names = serde_json::from_str(r#"{"10.0.0.0/8":"office"}"#).unwrap();
        let chain = build(&config, false).unwrap();
        assert!(chain.names.is_some() && chain.direction.is_none());
        assert_eq!((chain.known_until(), chain.patience()), (u64::MAX, Duration::ZERO));
        config.enabled = false;
        assert!(build(&config, true).is_none());
    }
}
