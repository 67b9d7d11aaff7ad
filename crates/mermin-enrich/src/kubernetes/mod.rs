//! Who has which address in a Kubernetes cluster, and since when.

mod config;
mod object;

pub use config::{KubernetesConfig, Scope, Switch};
pub use object::Kind;
