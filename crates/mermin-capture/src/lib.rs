//! Sources of observations: eBPF, AF_PACKET, capture files.

pub mod af_packet;
mod clock;
mod config;
mod discipline;
pub mod ebpf;
pub mod file;
mod filters;
mod frame;
pub mod interfaces;
pub mod links;
#[cfg(test)]
mod testing;

pub use config::{
    AttachKind, CaptureConfig, CaptureMode, InterfacesConfig, KernelTable, OnExit, RING_BYTES_MAX, SourceKind,
};
pub use discipline::{Discipline, discipline};
pub use filters::{
    FilterAction, FilterError, FilterMatch, FilterRule, FilterRules, PortRange, Protocol, RuleName,
};
