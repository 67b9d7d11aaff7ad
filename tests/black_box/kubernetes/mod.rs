//! A real API server and live traffic between namespaces that carry pods' addresses.

mod agent;
mod cluster;
mod named;
mod outage;
mod town;
mod traffic;
