//! Kubernetes in the chain of enrichers: watches on one thread, lookups on the others, the index between.

use crate::clock::Clock;
use crate::host::HostAddresses;
use crate::kubernetes::cluster::{Cluster, KubernetesError};
use crate::kubernetes::config::KubernetesConfig;
use crate::kubernetes::directory::Directory;
use crate::kubernetes::identity::IdentityByAddress;
use crate::kubernetes::object::Kind;
use crate::kubernetes::shared::Shared;
use crate::kubernetes::status::KubernetesStatus;
use crate::kubernetes::watches::Watches;
use crate::retention::retention;
use mermin_flow::{Enricher, FlowConfig, FlowRecord, WallClock};
use std::sync::Arc;
use std::time::Duration;

/// Adds what a cluster's API server knows of both ends. The watches stop when this is dropped.
pub struct Kubernetes {
    watches: Watches,
    identity: IdentityByAddress,
    shared: Arc<Shared>,
    wait: Duration,
}

impl Kubernetes {
    /// Starts the watches. Records of flows with the timeouts of `flow` will ask, of times on the
    /// clock `live` where packets of this host are captured.
    ///
    /// # Errors
    /// When the credentials can't be used, or there is no thread to be had.
    pub fn start(
        cluster: &Cluster,
        config: &KubernetesConfig,
        flow: &FlowConfig,
        (host, live): (Arc<HostAddresses>, Option<&WallClock>),
    ) -> Result<Self, KubernetesError> {
        let clock = Clock::of(live);
        let watched = Kind::ALL.into_iter().filter(|kind| !config.leave_out.contains(kind)).collect();
        let shared =
            Arc::new(Shared::new((watched, config.scope), config.node.as_deref(), host, clock.now()));
        let directory = Directory::new(Arc::clone(&shared), retention(config.wait.0, flow));
        let watches = Watches::start(cluster, config, clock, directory)?;
        let identity = IdentityByAddress::new(Arc::clone(&shared), clock, config.wait.0);
        Ok(Self { watches, identity, shared, wait: config.wait.0 })
    }

    /// Records of flows with these timeouts will ask, too: what has ended is remembered for as long as they need from now
    /// on.
    pub(crate) fn expect(&self, flow: &FlowConfig) {
        self.shared.remember(retention(self.wait, flow));
    }

    /// How the watches are.
    #[must_use]
    pub fn status(&self) -> &Arc<KubernetesStatus> {
        self.watches.status()
    }
}

impl Enricher for Kubernetes {
    fn enrich(&self, record: &mut FlowRecord) {
        self.identity.enrich(record);
    }

    fn known_until(&self) -> u64 {
        self.identity.known_until()
    }

    fn patience(&self) -> Duration {
        self.identity.patience()
    }
}
