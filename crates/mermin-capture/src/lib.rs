//! Sources of observations: eBPF, AF_PACKET, capture files.

pub mod ebpf;
pub mod file;
mod frame;
pub mod interfaces;
