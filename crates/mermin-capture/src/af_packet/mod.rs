//! The live source without eBPF: packet sockets with a memory-mapped ring (TPACKET_V3). Needs only CAP_NET_RAW.
//!
//! One socket per interface: interfaces that were not chosen cost nothing, drops and failures belong to one interface,
//! and a flood on one leaves the others their room. The kernel fills blocks and hands over a block when it is full or a
//! moment after its first packet; reading one costs no system call. A header in front of each frame
//! (`PACKET_VNET_HDR`) says how a segmented buffer is cut, so packets and bytes are those on the wire; a VLAN tag that
//! the kernel took off the frame stands beside it.
//!
//! Every frame counts once: the kernel's own counters say how many it took and how many it had no room for, and what is
//! neither dropped nor read is in the ring. Limits: the bytes of dropped frames are not known; a buffer segmented in a
//! way that the header can't express (SCTP) is dropped by the kernel, and counted; the tap lies before tc ingress and
//! after tc egress, so what a tc program drops on the way out is not seen.

mod block;
mod closing;
mod error;
mod socket;
mod source;
mod stamps;
mod taps;
#[cfg(test)]
mod tests;

pub use error::AfPacketError;
pub use source::{AfPacketOptions, AfPacketSource, Skipped};
