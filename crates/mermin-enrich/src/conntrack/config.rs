//! The `enrich.conntrack` section of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;

/// The other tuple of connections whose addresses or ports this host translates, from the kernel's connection tracking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConntrackConfig {
    /// Whether the kernel is asked. It needs `CAP_NET_ADMIN`, and costs a message of the kernel for each connection that
    /// it tracks. A replay never asks: the table is of this host's connections, now.
    pub enabled: bool,
    /// Translated connections that are remembered at once, with those that ended in the last minutes: about 200 bytes
    /// each, taken as they come. Beyond it those that ended first are forgotten, then new ones are not taken.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub connections_max: NonZeroUsize,
}

impl Default for ConntrackConfig {
    fn default() -> Self {
        Self { enabled: false, connections_max: NonZeroUsize::new(131_072).expect("not zero") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_reads_and_prints() {
        let text = r#"{"enabled":true,"connections_max":7}"#;
        let config: ConntrackConfig = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
        assert_eq!(serde_json::from_str::<ConntrackConfig>("{}").unwrap(), ConntrackConfig::default());
        assert!(serde_json::from_str::<ConntrackConfig>(r#"{"connections_max":0}"#).is_err());
    }
}
