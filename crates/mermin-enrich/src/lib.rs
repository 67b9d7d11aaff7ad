//! Names for the ends of a flow.
//!
//! A [`Chain`] of enrichers runs over each record, on several threads at once, without locks. Today it has one link:
//! [`NamesByNetwork`].

#![forbid(unsafe_code)]

mod chain;
mod config;
#[cfg_attr(not(test), expect(dead_code, reason = "nothing watches yet"))]
mod kubernetes;
mod names;

pub use chain::Chain;
pub use config::{EnrichConfig, Names, Network, NetworkError};
pub use kubernetes::{
    Cluster, Environment, Kind, KindReading, KindStatus, KubernetesConfig, KubernetesError, KubernetesStatus,
    Scope, Switch, WatchState, WatchesState, rbac_manifest,
};
pub use names::NamesByNetwork;
