//! Several enrichers, one after the other; later ones may overrule earlier ones.

use crate::config::{EnrichConfig, Names};
use crate::conntrack::{Conntrack, ConntrackStatus};
use crate::direction::DirectionByHost;
use crate::host::HostAddresses;
use crate::kubernetes::{Cluster, Kubernetes, KubernetesError, KubernetesStatus};
use crate::names::NamesByNetwork;
use arc_swap::ArcSwapOption;
use mermin_flow::{Enricher, FlowConfig, FlowRecord, WallClock};
use std::sync::Arc;
use std::time::Duration;

/// The enrichers that are switched on and have something to say.
#[derive(Default)]
pub struct Chain {
    /// May change.
    names: ArcSwapOption<NamesByNetwork>,
    kubernetes: Option<Kubernetes>,
    conntrack: Option<Conntrack>,
    /// Where Kubernetes doesn't say which way a flow runs.
    direction: Option<DirectionByHost>,
}

impl Chain {
    /// From the configuration; `None` when there is nothing to add, so that the stage can be left out.
    ///
    /// `cluster` is what [`Cluster::find`] found. `live`: packets of this host, timed by this clock, not of a capture from
    /// somewhere; `flow` is how long flows may last before they are reported.
    ///
    /// # Errors
    /// When the cluster's credentials can't be used, or there is no thread to be had.
    pub fn build(
        config: &EnrichConfig,
        cluster: Option<&Cluster>,
        flow: &FlowConfig,
        live: Option<&WallClock>,
    ) -> Result<Option<Self>, KubernetesError> {
        let mut chain = Self::default();
        if !config.enabled {
            return Ok(None);
        }
        chain.rename(&config.names);
        // A capture may come from another host: its addresses are nobody's here.
        let host = live.and_then(|_| follow());
        if let Some(cluster) = cluster {
            let here = (host.unwrap_or_default(), live);
            chain.kubernetes = Some(Kubernetes::start(cluster, &config.kubernetes, flow, here)?);
        } else {
            chain.direction = host.map(DirectionByHost);
        }
        // What this host translates now says nothing of a capture.
        chain.conntrack = live.filter(|_| config.conntrack.enabled).and_then(|clock| {
            let conntrack = Conntrack::start(&config.conntrack, flow, clock);
            conntrack.inspect_err(|error| tracing::warn!("Translated addresses are not known: {error}")).ok()
        });
        let is_empty = chain.names.load().is_none()
            && chain.kubernetes.is_none()
            && chain.direction.is_none()
            && chain.conntrack.is_none();
        Ok((!is_empty).then_some(chain))
    }

    /// From now on networks have these names.
    pub fn rename(&self, names: &Names) {
        let named = (!names.0.is_empty()).then(|| Arc::new(NamesByNetwork::new(names)));
        self.names.store(named);
    }

    /// From now on flows have these timeouts, besides those that they had so far.
    pub fn expect(&self, flow: &FlowConfig) {
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.expect(flow);
        }
        if let Some(conntrack) = &self.conntrack {
            conntrack.expect(flow);
        }
    }

    /// How the watches of Kubernetes are, where there are any.
    #[must_use]
    pub fn kubernetes(&self) -> Option<&Arc<KubernetesStatus>> {
        self.kubernetes.as_ref().map(Kubernetes::status)
    }

    /// How the connection-tracking table is followed, where it is.
    #[must_use]
    pub fn conntrack(&self) -> Option<&Arc<ConntrackStatus>> {
        self.conntrack.as_ref().map(Conntrack::status)
    }
}

fn follow() -> Option<Arc<HostAddresses>> {
    let host = HostAddresses::follow();
    host.inspect_err(|error| tracing::warn!("Which way flows run is not known: {error}")).ok()
}

impl Enricher for Chain {
    fn enrich(&self, record: &mut FlowRecord) {
        if let Some(names) = &*self.names.load() {
            names.enrich(record);
        }
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.enrich(record);
        }
        if let Some(direction) = &self.direction {
            direction.enrich(record);
        }
        if let Some(conntrack) = &self.conntrack {
            conntrack.enrich(record);
        }
    }

    fn known_until(&self) -> u64 {
        let kubernetes = self.kubernetes.as_ref().map_or(u64::MAX, Enricher::known_until);
        kubernetes.min(self.conntrack.as_ref().map_or(u64::MAX, Enricher::known_until))
    }

    fn patience(&self) -> Duration {
        let kubernetes = self.kubernetes.as_ref().map_or(Duration::ZERO, Enricher::patience);
        // Connection tracking is never further behind than its own patience, so it doesn't use up the other's.
        kubernetes.max(self.conntrack.as_ref().map_or(Duration::ZERO, Enricher::patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mermin_tests::need;

    fn build(config: &EnrichConfig, live: bool) -> Option<Chain> {
        let clock = live.then(WallClock::default);
        Chain::build(config, None, &FlowConfig::default(), clock.as_ref()).unwrap()
    }

    #[test]
    fn a_chain_without_links_is_none() {
        let mut config = EnrichConfig::default();
        assert!(build(&config, false).is_none(), "a replay without names");
        assert!(build(&config, true).is_some_and(|chain| chain.direction.is_some()));
        config.names = serde_json::from_str(r#"{"10.0.0.0/8":"office"}"#).unwrap();
        let chain = build(&config, false).unwrap();
        assert!(chain.names.load().is_some() && chain.direction.is_none());
        assert_eq!((chain.known_until(), chain.patience()), (u64::MAX, Duration::ZERO));
        config.conntrack.enabled = true;
        assert!(build(&config, false).is_some_and(|chain| chain.conntrack().is_none()), "a replay");
        config.enabled = false;
        assert!(build(&config, true).is_none());
    }

    #[test]
    fn records_wait_for_the_kernels_events() {
        need!(crate::try_conntrack().map_err(|error| error.to_string()));
        let mut config = EnrichConfig::default();
        config.conntrack.enabled = true;
        let chain = build(&config, true).unwrap();
        assert!(chain.conntrack().is_some_and(|status| status.read().looks == 1));
        let (earlier, now) = (chain.known_until(), crate::clock::Clock::new().now());
        assert!(earlier < now && now - earlier < 10_000_000_000, "{earlier} {now}");
        assert_eq!(chain.patience(), Duration::from_millis(100));
    }

    #[test]
    fn networks_get_other_names() {
        let names = serde_json::from_str(r#"{"10.0.0.0/8":"office"}"#).unwrap();
        let chain = build(&EnrichConfig { names, ..EnrichConfig::default() }, false).unwrap();
        let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let name = |of: &str| {
            let names = chain.names.load();
            names.as_ref().and_then(|names| names.name(address(of)).map(|name| name.to_string()))
        };
        assert_eq!((name("10.1.1.1").as_deref(), name("192.0.2.1")), (Some("office"), None));
        chain.rename(&serde_json::from_str(r#"{"192.0.2.0/24":"lab"}"#).unwrap());
        assert_eq!((name("10.1.1.1"), name("192.0.2.1").as_deref()), (None, Some("lab")));
        chain.rename(&Names::default());
        assert_eq!(name("192.0.2.1"), None);
    }
}
