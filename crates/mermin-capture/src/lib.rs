//! Sources of observations: eBPF, AF_PACKET, capture files.

pub mod af_packet;
mod config;
pub mod ebpf;
pub mod file;
mod frame;
pub mod interfaces;
#[cfg(test)]
mod testing;

pub use config::{CaptureConfig, CaptureMode, InterfacesConfig, OnExit, SourceKind};
