//! Sources of observations: eBPF, AF_PACKET, capture files.
