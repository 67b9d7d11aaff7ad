//! What others counted: the kernel's own counters in a namespace, and what its sockets say of themselves.
//!
//! Interface counters, `TcpInSegs` and tcpdump count socket buffers, so they witness wire packets only where
//! segmentation offload is off. `IpExtIn…Pkts` at the receiver and a socket's segments are right in any case.

use crate::netns::Namespace;
use std::collections::BTreeMap;

/// What a namespace's IPv4 receive path has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Wire packets: the sum over the four ECN codepoints.
    pub packets: u64,
    /// Socket buffers.
    pub buffers: u64,
    /// Bytes of the buffers: the headers of a merged buffer count once.
    pub bytes: u64,
}

/// The IPv4 receive path's counters.
#[must_use]
pub fn ip_received(namespace: &Namespace) -> Received {
    let extended = kernel_counters(namespace, "/proc/net/netstat");
    let plain = kernel_counters(namespace, "/proc/net/snmp");
    Received {
        packets: ["NoECT", "ECT0", "ECT1", "CE"]
            .iter()
            .map(|code| extended[&format!("IpExtIn{code}Pkts")])
            .sum(),
        buffers: plain["IpInReceives"],
        bytes: extended["IpExtInOctets"],
    }
}

/// `/proc/net/netstat` and `/proc/net/snmp`: a line of names, a line of values, for each group.
fn kernel_counters(namespace: &Namespace, file: &str) -> BTreeMap<String, u64> {
    let text = namespace.run(&format!("cat {file}"));
    let lines: Vec<&str> = text.lines().collect();
    let mut counters = BTreeMap::new();
    for pair in lines.chunks_exact(2) {
        let (Some((group, names)), Some((_, values))) = (pair[0].split_once(':'), pair[1].split_once(':'))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            counters.insert(format!("{group}{name}"), value.parse().unwrap_or_default());
        }
    }
    counters
}

/// Frames and bytes that an interface has sent and received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Frames received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
}

/// The counters of an interface.
///
/// # Panics
/// When there is no such interface.
#[must_use]
pub fn interface(namespace: &Namespace, name: &str) -> Interface {
    let read = |counter: &str| {
        let text = namespace.run(&format!("cat /sys/class/net/{name}/statistics/{counter}"));
        text.trim().parse().expect("a number")
    };
    Interface {
        received: read("rx_packets"),
        received_bytes: read("rx_bytes"),
        sent: read("tx_packets"),
        sent_bytes: read("tx_bytes"),
    }
}
