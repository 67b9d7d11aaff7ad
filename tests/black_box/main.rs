//! Black-box tests: they know the program by its command line, its output and the packets on the wire.

#![expect(clippy::unwrap_used, reason = "what fails here is a failed test")]

mod bounded;
mod breakers;
mod captures;
mod community_id;
mod connections;
mod contract;
mod deterministic;
mod disk_buffer;
mod exact;
mod filters;
mod founding_document;
mod hops;
mod ipfix;
mod kafka;
mod kubernetes;
mod live;
mod live_exits;
mod metrics;
mod nat;
mod otlp;
mod pods;
mod reload;
mod robust;
mod sampling;
mod sources_agree;
mod storm;
mod tuning;
mod witness_tshark;
