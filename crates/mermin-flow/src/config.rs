//! The `flow` section of the configuration.

use crate::units::Interval;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;

/// How flows are kept and when they end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FlowConfig {
    /// Flows held at once, split evenly over 64 shards and rounded up to a multiple of them; memory is taken as flows
    /// come (about 300 bytes each). At the bound the shard's least recently seen flow ends early, with `lack of
    /// resources`.
    #[schemars(range(min = 1, max = 268_435_456))]
    pub table_capacity: NonZeroUsize,
    /// A flow that goes on gives a record each time this has passed since its start.
    pub active_timeout: Interval,
    /// A flow without packets for this long ends.
    pub idle_timeout: Interval,
    /// The idle timeout of UDP flows.
    pub udp_timeout: Interval,
    /// The idle timeout of ICMP and ICMPv6 flows.
    pub icmp_timeout: Interval,
    /// The idle timeout of TCP flows after FIN in each direction that has carried packets.
    pub tcp_fin_timeout: Interval,
    /// The idle timeout of TCP flows after RST.
    pub tcp_rst_timeout: Interval,
    /// Seed of the Community ID; all agents and tools whose ids are to match need the same.
    pub community_id_seed: u16,
    /// Whether a record is written when a flow is created.
    pub start_records: bool,
}

impl FlowConfig {
    /// The shortest time without packets that ends a flow of whatever kind, ns.
    #[must_use]
    pub fn shortest_idle_timeout(&self) -> u64 {
        let Self { idle_timeout, udp_timeout, icmp_timeout, tcp_fin_timeout, tcp_rst_timeout, .. } = self;
        let timeouts = [idle_timeout, udp_timeout, icmp_timeout, tcp_fin_timeout, tcp_rst_timeout];
        timeouts.map(|timeout| timeout.nanos()).into_iter().min().unwrap_or_default()
    }
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            table_capacity: NonZeroUsize::new(131_072).expect("not zero"),
            active_timeout: Interval::seconds(60),
            idle_timeout: Interval::seconds(30),
            udp_timeout: Interval::seconds(30),
            icmp_timeout: Interval::seconds(10),
            tcp_fin_timeout: Interval::seconds(5),
            tcp_rst_timeout: Interval::seconds(5),
            community_id_seed: 0,
            start_records: false,
        }
    }
}
