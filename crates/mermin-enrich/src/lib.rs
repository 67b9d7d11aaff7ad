//! Names for the ends of a flow.
//!
//! A [`Chain`] of enrichers runs over each record, on several threads at once: [`NamesByNetwork`], [`Kubernetes`], the
//! connection-tracking table for translated addresses, and where there is no Kubernetes, the direction by this host's addresses.

#![forbid(unsafe_code)]

mod chain;
mod clock;
mod config;
mod conntrack;
mod direction;
mod host;
mod kubernetes;
mod names;
mod retention;

pub use chain::Chain;
pub use config::{EnrichConfig, Names};
pub use conntrack::{ConntrackConfig, ConntrackError, ConntrackReading, ConntrackStatus, try_conntrack};
pub use kubernetes::{
    Cluster, Environment, Kind, KindReading, KindStatus, Kubernetes, KubernetesConfig, KubernetesError,
    KubernetesStatus, Scope, Switch, WatchState, WatchesState, rbac_manifest,
};
pub use names::NamesByNetwork;
