//! Network-flow observability: packets in, exact flow records out.
#![forbid(unsafe_code)]

pub mod config;
