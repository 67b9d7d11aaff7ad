//! What is in `deploy/`, tried as far as it can be without a cluster's nodes.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "what fails here is a failed test")]

mod as_a_pod;
mod image;
mod kafka;
mod kubelet;
mod kubernetes;
mod least_privilege;
mod prometheus;
mod systemd;
