//! The `capture` section of the configuration.

use mermin_flow::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where packets come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureConfig {
    /// How packets are taken from the kernel.
    pub source: SourceKind,
    /// What the kernel hands over.
    pub mode: CaptureMode,
    /// Which interfaces. Only those that are up; they are chosen once, at start.
    pub interfaces: InterfacesConfig,
    /// What happens at the end to programs that were attached.
    pub on_exit: OnExit,
    /// Memory between kernel and reader, rounded to what the kernel takes. `af_packet` splits it over the interfaces,
    /// with no less than 256KiB for each.
    pub ring_bytes: ByteSize,
}

/// Patterns of interface names, with `*`, `?` and `[…]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InterfacesConfig {
    /// Interfaces to capture on. A pattern that fits none is an error.
    pub include: Vec<String>,
    /// Interfaces to leave out of those.
    pub exclude: Vec<String>,
}

/// How packets are taken from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// eBPF, or AF_PACKET where eBPF can't be used on any interface.
    #[default]
    Auto,
    /// eBPF programs on tc ingress and egress, or an error.
    Ebpf,
    /// A packet socket: needs only CAP_NET_RAW; its drops are known in packets, not in bytes.
    AfPacket,
}

/// What the kernel hands over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CaptureMode {
    /// One event per packet.
    #[default]
    Packet,
}

/// What happens at the end to programs that were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExit {
    /// They are taken off.
    #[default]
    Detach,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            source: SourceKind::default(),
            mode: CaptureMode::default(),
            interfaces: InterfacesConfig::default(),
            on_exit: OnExit::default(),
            ring_bytes: ByteSize(16 << 20),
        }
    }
}

impl Default for InterfacesConfig {
    fn default() -> Self {
        Self { include: vec!["*".to_owned()], exclude: vec!["lo".to_owned()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_the_contracts() {
        let expected = json!({
            "source": "auto",
            "mode": "packet",
            "interfaces": { "include": ["*"], "exclude": ["lo"] },
            "on_exit": "detach",
            "ring_bytes": "16MiB",
        });
        assert_eq!(serde_json::to_value(CaptureConfig::default()).unwrap(), expected);
        assert_eq!(serde_json::from_value::<CaptureConfig>(json!({})).unwrap(), CaptureConfig::default());
    }

    #[test]
    fn only_what_exists_is_accepted() {
        let read = |value| serde_json::from_value::<CaptureConfig>(value);
        assert_eq!(read(json!({ "source": "af_packet" })).unwrap().source, SourceKind::AfPacket);
        for bad in [
            json!({ "mode": "aggregate" }),
            json!({ "on_exit": "keep" }),
            json!({ "source": "pcap" }),
            json!({ "interfaces": { "includes": ["*"] } }),
            json!({ "interface": "eth0" }),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
