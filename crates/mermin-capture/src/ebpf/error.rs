//! What can keep the programs from running.

use super::pins::Holder;
use std::io;
use std::sync::Arc;

/// Why eBPF can't be used, as a whole or on one device.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// The process lacks capabilities.
    #[error("eBPF needs {}, which this process lacks", missing.join(", "))]
    Permission {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// The capabilities are there, the kernel refuses all the same (lockdown, a container's seccomp filter, an LSM).
    #[error(
        "the kernel refuses eBPF although the capabilities are there: lockdown, seccomp or a security module"
    )]
    Forbidden,
    /// The kernel is one with PREEMPT_RT.
    #[error(
        "this kernel lets programs of one CPU interrupt each other (PREEMPT_RT): they could not count exactly"
    )]
    Preemptible,
    /// The kernel has no eBPF, or lacks something that the programs need.
    #[error("this kernel can't load the programs (Linux 5.15 or later with BTF is needed)")]
    Load {
        /// What aya says.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// The verifier refused a program.
    #[error("this kernel refuses the program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel says.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The embedded object lacks a part: a bug.
    #[error("the kernel object has no {name}")]
    Object {
        /// Map or program.
        name: &'static str,
    },
    /// Another agent of this network namespace keeps its state there.
    #[error(
        "another agent keeps what it counts in this network namespace (capture.on_exit: keep): {holder}{}",
        on(interfaces)
    )]
    Held {
        /// It.
        holder: Holder,
        /// Interfaces that its programs are on.
        interfaces: Vec<String>,
    },
    /// There is no bpffs for names of maps and links, or it can't be used.
    #[error("nothing can outlast this process (capture.on_exit: keep): no bpffs that it may use")]
    NoBpffs {
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// A map can't be mapped into memory, or no grace period can be had.
    #[error("{what} is not available")]
    Kernel {
        /// The operation.
        what: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// A device takes no program.
    #[error("no program can be attached to {interface}")]
    Attach {
        /// The device.
        interface: Arc<str>,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The programs on a device can't be listed.
    #[error("the programs on {interface} can't be listed")]
    Query {
        /// The device.
        interface: Arc<str>,
        /// What the kernel says.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// All selected devices refused.
    #[error("no program can be attached to any of the {count} selected interfaces")]
    NoInterface {
        /// How many.
        count: usize,
        /// The first device's answer.
        #[source]
        source: Option<Box<EbpfError>>,
    },
}

fn on(interfaces: &[String]) -> String {
    if interfaces.is_empty() { String::new() } else { format!(", on {}", interfaces.join(", ")) }
}
