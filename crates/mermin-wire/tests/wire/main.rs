//! The parser's rules, each by a frame made for it; its properties on any bytes; all captures at hand.

mod build;
mod captures;
mod counts;
mod filter;
mod ip;
mod link;
mod plain;
mod properties;
mod transport;
