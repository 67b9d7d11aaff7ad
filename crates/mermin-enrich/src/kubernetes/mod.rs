//! Who has which address in a Kubernetes cluster, and since when.

mod chosen;
mod client;
mod cluster;
mod config;
mod directory;
mod evidence;
mod failure;
mod identity;
mod index;
mod link;
mod object;
mod owner;
mod pieces;
mod pulse;
mod rbac;
mod report;
mod request;
mod resolve;
mod shared;
mod sink;
mod status;
mod strip;
mod tenure;
mod texts;
mod watch;
mod watches;

#[cfg(test)]
mod real_reuse;
#[cfg(test)]
mod real_server;
#[cfg(test)]
mod recorder;
#[cfg(test)]
mod scripted_server;
#[cfg(test)]
mod simulation;

pub use cluster::{Cluster, Environment, KubernetesError};
pub use config::{KubernetesConfig, Scope, Switch};
pub use link::Kubernetes;
pub use object::Kind;
pub use rbac::rbac_manifest;
pub use status::{KindReading, KindStatus, KubernetesStatus, WatchState, WatchesState};
