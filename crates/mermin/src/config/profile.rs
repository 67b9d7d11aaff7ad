//! The tuning blocks of the documentation as `--profile` names. Each is a file in `examples/`, embedded.

/// A named set of settings between the defaults and the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// More than 10 000 packets a second.
    HighTraffic,
    /// Less than 1 000 packets a second.
    LowTraffic,
    /// Little memory.
    MemoryConstrained,
    /// More statistics, more verbose logging.
    Development,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::HighTraffic, Self::LowTraffic, Self::MemoryConstrained, Self::Development];

    /// As typed after `--profile`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HighTraffic => "high-traffic",
            Self::LowTraffic => "low-traffic",
            Self::MemoryConstrained => "memory-constrained",
            Self::Development => "development",
        }
    }

    /// Its settings, as YAML.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::HighTraffic => include_str!("../../../../examples/high-traffic.yaml"),
            Self::LowTraffic => include_str!("../../../../examples/low-traffic.yaml"),
            Self::MemoryConstrained => include_str!("../../../../examples/memory-constrained.yaml"),
            Self::Development => include_str!("../../../../examples/development.yaml"),
        }
    }
}
