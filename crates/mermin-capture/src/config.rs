//! The `capture` section of the configuration.

use crate::filters::FilterRules;
use mermin_flow::{ByteSize, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// More than this of `ring_bytes` is not taken. The kernel's own limit on 64-bit machines is larger; this one still fits
/// its 32-bit number of bytes.
pub const RING_BYTES_MAX: u64 = 1 << 30;
/// The ring's size unless said otherwise: 131 000 events.
pub(crate) const RING_BYTES: u64 = 16 << 20;

/// Where packets come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureConfig {
    /// How packets are taken from the kernel.
    pub source: SourceKind,
    /// What eBPF programs hand over. AF_PACKET hands over every packet.
    pub mode: CaptureMode,
    /// What eBPF programs add packets to in `aggregate` mode.
    pub kernel_table: KernelTable,
    /// Flows that each CPU has a slot for, of each IP version; rounded up to a power of two. Takes 224 bytes for each, CPU and
    /// version, and 64MiB at most: machines with very many CPUs have fewer slots for each. Where at 3 of 10 packets a flow has to
    /// leave its slot for another one's, the CPU uses an eighth of them, which is faster, and tries all again now and then.
    #[schemars(range(min = 4, max = 1_048_576))]
    pub kernel_slots: u32,
    /// Flows that the hash takes in one drain interval. Takes some 350 bytes for each.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub kernel_hash_flows: u32,
    /// The least time between two drains of what the programs have summed up: so often while the hash fills. If it is more than
    /// `drain_interval_max`, that counts.
    pub drain_interval_min: Interval,
    /// The time between two drains otherwise. Records can come so much later.
    pub drain_interval_max: Interval,
    /// Which interfaces: those that are up, and those that come up while it runs.
    pub interfaces: InterfacesConfig,
    /// Which packets are metered: the first rule that a packet matches says so. What no rule matches is treated the other way
    /// than what the last one does: behind an `exclude` it is metered, behind an `include` it isn't, and is counted as
    /// `no_rule`. eBPF programs go by it in the kernel: what is filtered never comes to user space. At most 64 rules, which
    /// may divide the addresses of each IP version into 1024 ranges, and ports into 256.
    pub filters: FilterRules,
    /// How eBPF programs get on an interface.
    pub attach: AttachKind,
    /// What happens at the end to programs that were attached.
    pub on_exit: OnExit,
    /// How long eBPF programs go on counting without an agent that lives (`on_exit: keep`; on clsact also after `kill -9`); 1s at
    /// least. Then they let packets pass uncounted, and the next run says for how long (`anomalies.uncounted_ms`).
    pub orphan_timeout: Interval,
    /// Memory between kernel and reader, rounded to what the kernel takes, of which 1GiB is the most. `af_packet` splits
    /// it over the interfaces, with no less than 256KiB for each; one that comes later has what would be its share of that moment, on top.
    pub ring_bytes: ByteSize,
}

/// Patterns of interface names, with `*`, `?` and `[…]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InterfacesConfig {
    /// Interfaces to capture on. A pattern that fits none at the start is an error, unless `wait` is on.
    pub include: Vec<String>,
    /// Interfaces to leave out of those.
    pub exclude: Vec<String>,
    /// Start even if a pattern fits none yet, and wait for interfaces that it fits: on a node without pods, say.
    pub wait: bool,
}

/// How eBPF programs get on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttachKind {
    /// `tcx` for the first 32 interfaces of the start and wherever others use it too; `clsact` for the rest, and for
    /// interfaces that come later.
    #[default]
    Auto,
    /// Links of the multi-program interface (Linux 6.6). They go with the process, whatever ends it, and no classic
    /// filter can hide packets from them; each takes the kernel 10 to 20 ms, one after the other.
    Tcx,
    /// Filters of a clsact queueing discipline, in some tenths of a millisecond. After `kill -9` they stay until the next
    /// start.
    Clsact,
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
    /// Sums of packets by flow, once a second or sooner, and events of what begins or ends a TCP connection and of
    /// fragments.
    #[default]
    Aggregate,
    /// One event per packet: dearer, its times to the nanosecond, records a second sooner.
    Packet,
}

/// What eBPF programs add packets to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KernelTable {
    /// Slots of each CPU; what has to leave one goes to the ring, and to the hash if that is full.
    #[default]
    Slots,
    /// A hash that all CPUs share; what finds no room there goes to the ring. Slower; two connections with the same addresses and ports
    /// within one drain interval are not told apart.
    Hash,
}

impl CaptureMode {
    /// As the configuration has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aggregate => "aggregate",
            Self::Packet => "packet",
        }
    }
}

/// What happens at the end to programs that were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExit {
    /// They are taken off.
    #[default]
    Detach,
    /// They stay, and go on counting: the next run goes on with what they have counted, also after `kill -9`, and with what
    /// the journal has of its memory (`pipeline.journal`); what that hasn't it says is lost. `mermin cleanup` takes them off. Wants a bpffs, at `/run/mermin/bpf` or `/sys/fs/bpf`; where there is
    /// none, one is mounted at the former. Where that can't be, it is said in the log and as with `detach`.
    Keep,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            source: SourceKind::default(),
            mode: CaptureMode::default(),
            kernel_table: KernelTable::default(),
            kernel_slots: 4_096,
            kernel_hash_flows: 16_384,
            drain_interval_min: Interval::milliseconds(100),
            drain_interval_max: Interval::seconds(1),
            interfaces: InterfacesConfig::default(),
            filters: FilterRules::default(),
            attach: AttachKind::default(),
            on_exit: OnExit::default(),
            orphan_timeout: Interval::seconds(600),
            ring_bytes: ByteSize(RING_BYTES),
        }
    }
}

impl Default for InterfacesConfig {
    fn default() -> Self {
        Self { include: vec!["*".to_owned()], exclude: vec!["lo".to_owned()], wait: false }
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
            "mode": "aggregate",
            "kernel_table": "slots",
            "kernel_slots": 4_096,
            "kernel_hash_flows": 16_384,
            "drain_interval_min": "100ms",
            "drain_interval_max": "1s",
            "interfaces": { "include": ["*"], "exclude": ["lo"], "wait": false },
            "filters": [],
            "attach": "auto",
            "on_exit": "detach",
            "orphan_timeout": "10m",
            "ring_bytes": "16MiB",
        });
        assert_eq!(serde_json::to_value(CaptureConfig::default()).unwrap(), expected);
        assert_eq!(serde_json::from_value::<CaptureConfig>(json!({})).unwrap(), CaptureConfig::default());
    }

    #[test]
    fn only_what_exists_is_accepted() {
        let read = |value| serde_json::from_value::<CaptureConfig>(value);
        assert_eq!(read(json!({ "source": "af_packet" })).unwrap().source, SourceKind::AfPacket);
        assert_eq!(read(json!({ "on_exit": "keep" })).unwrap().on_exit, OnExit::Keep);
        for bad in [
            json!({ "on_exit": "stay" }),
            json!({ "source": "pcap" }),
            json!({ "interfaces": { "includes": ["*"] } }),
            json!({ "interface": "eth0" }),
            json!({ "kernel_table": "lru" }),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
