//! Records to a collector of IPFIX (RFC 7011), or of NetFlow version 9.
//!
//! A record is encoded when it comes and waits in a window until it has a receipt. Messages are made of what waits there, at
//! the moment when they are sent, so that one that has to be sent again is made anew: with the templates, the number and the
//! size that are right then.
//!
//! Over UDP a record is delivered when the network has it, over TCP when the collector's host has acknowledged it. Neither says
//! that the collector has read it: IPFIX has no answer of that kind.

mod acknowledged;
mod bench;
mod config;
mod elements;
mod encode;
mod exporter;
mod ledger;
mod netflow9;
mod options;
mod pace;
mod plan;
mod reference;
mod session;
mod settings;
mod shape;
mod stream;
#[cfg(test)]
mod tests;
mod udp;
mod window;
mod wire;

pub use bench::IpfixMessages;
pub use config::{IpfixConfig, IpfixDirections, IpfixTls, IpfixTransport, IpfixVersion};
pub use ledger::{LedgerBoard, LedgerFigures, Term};
pub use plan::IpfixPlan;
pub use reference::ipfix_reference;
