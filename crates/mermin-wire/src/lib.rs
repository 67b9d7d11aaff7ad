//! Bytes of a frame to headers: the one parser, for the kernel programs and user space.
//!
//! Every layer is a function without an inner loop that reads at one offset and says what comes [`Next`]; the caller
//! decides how often to go on. So the kernel's verifier sees one step at a time, and user space loops. A frame's
//! common layers have a straight line of their own ([`straight`]) made of the same functions; user space has a shorter
//! one for what most of any traffic is ([`plain_ipv4`], [`plain_ipv6`]).
//!
//! Limits: the outermost IP header makes the headers, tunnels are not entered; checksums are not verified; at most
//! [`STEPS`] layers are followed. Words of addresses and ports stay in network byte order.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("Mermin keeps words of packets in memory order and supports little-endian machines only");

mod bytes;
mod count;
mod filter;
mod headers;
mod ip;
mod link;
mod plain;
mod reason;
mod step;
mod transport;

pub use bytes::Bytes;
pub use count::{Buffer, Counts, count, count_plain};
pub use filter::{
    ADDRESS_RANGES, FILTERED, Filters, METERED, NO_RULE, Number, PORT_RANGES, Question, RULES, Ranges, Sets,
    Sizes,
};
pub use headers::{Fragment, Headers, NO_VLAN, PortForm};
pub use link::{Link, macs};
pub use plain::{link_header, plain_ipv4, plain_ipv6};
pub use reason::Unmetered;
pub use step::{Next, STEPS, parse, step, straight, walk};
