//! What can keep packet sockets from working.

use std::io;

/// Why AF_PACKET can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AfPacketError {
    /// The process lacks the capability.
    #[error("AF_PACKET needs CAP_NET_RAW, which this process lacks")]
    Permission,
    /// The kernel lacks something that is needed.
    #[error("this kernel can't do it: {what}")]
    Kernel {
        /// The operation.
        what: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// An interface can't be captured on: it has gone, or does not take it.
    #[error("the packet socket can't be bound")]
    Bind {
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// None of the chosen interfaces is there any more.
    #[error("none of the {count} chosen interfaces can be captured on")]
    NoInterface {
        /// How many.
        count: usize,
        /// The first one's answer.
        #[source]
        source: Option<io::Error>,
    },
}
