//! Who has which address in a Kubernetes cluster, and since when.

mod chosen;
mod client;
mod clock;
mod cluster;
mod config;
mod failure;
mod object;
mod pieces;
mod pulse;
mod rbac;
mod report;
mod request;
mod sink;
mod status;
mod strip;
mod texts;
mod watch;
mod watches;

#[cfg(test)]
mod real_server;
#[cfg(test)]
mod recorder;
#[cfg(test)]
mod scripted_server;

pub use cluster::{Cluster, Environment, KubernetesError};
pub use config::{KubernetesConfig, Scope, Switch};
pub use object::Kind;
pub use rbac::rbac_manifest;
pub use status::{KindReading, KindStatus, KubernetesStatus, WatchState, WatchesState};
