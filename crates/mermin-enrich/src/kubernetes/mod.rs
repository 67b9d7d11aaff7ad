//! Who has which address in a Kubernetes cluster, and since when.

mod object;

pub use object::Kind;
