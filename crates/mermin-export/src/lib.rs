//! Outputs: text for people, JSON lines, log events, OTLP, Kafka; the attribute table.
//!
//! An output is a [`mermin_flow::Exporter`]. [`ExportConfig`] or [`OutputSpec::parse`] say which there are,
//! [`build_all`] opens them.

#![recursion_limit = "512"]
#![forbid(unsafe_code)]

mod agent;
pub mod attributes;
mod backoff;
mod buffer;
mod build;
mod config;
mod destination;
mod error;
mod form;
mod format;
pub mod ipfix;
mod json;
pub mod kafka;
mod lines;
mod log;
mod none;
pub mod otlp;
mod plan;
mod protobuf;
mod protocols;
#[cfg(test)]
mod sample;
pub mod schema;
mod secure;
mod spec;
mod text;
mod trouble;

pub use agent::{Agent, ClockError};
pub use buffer::{BufferKind, DiskBufferConfig, FsyncKind};
pub use build::{Color, Materials, Open, build_all, check_all, resolved};
pub use config::{ExportConfig, FileConfig, LineFormat, LogConfig, StdoutConfig};
pub use error::ExportError;
pub use format::Format;
pub use json::JsonLines;
pub use log::LogEvents;
pub use plan::{Plan, ReceiverConfig};
pub use protocols::keyword;
pub use spec::{OutputKind, OutputSpec, Target};
pub use text::{Style, TextLines};
