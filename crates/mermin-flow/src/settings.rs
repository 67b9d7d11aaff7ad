//! The `flow` section as the packet path needs it: in nanoseconds, by idle class, per shard.

use crate::clock::Lateness;
use crate::config::FlowConfig;
use crate::entry::{Entry, IdleClass};
use crate::key::SHARDS;
use crate::report::Identification;

/// The settings of the `flow` section, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) active: u64,
    idle: [u64; IdleClass::COUNT],
    pub(crate) shortest_idle: u64,
    /// Flows of one shard.
    pub(crate) capacity: usize,
    pub(crate) start_records: bool,
    pub(crate) identification: Identification,
    /// Of the packets that are metered.
    pub(crate) lateness: Lateness,
}

impl Settings {
    pub(crate) fn new(config: &FlowConfig, agent_id: &str) -> Self {
        let other = config.idle_timeout.nanos();
        let idle = [
            other,
            config.udp_timeout.nanos(),
            config.icmp_timeout.nanos(),
            config.tcp_fin_timeout.nanos().min(other),
            config.tcp_rst_timeout.nanos().min(other),
        ];
        Self {
            active: config.active_timeout.nanos(),
            idle,
            shortest_idle: idle.into_iter().fold(other, u64::min),
            capacity: config.table_capacity.get().div_ceil(SHARDS),
            start_records: config.start_records,
            identification: Identification::new(agent_id, config.community_id_seed),
            lateness: Lateness::default(),
        }
    }

    #[inline(always)]
    pub(crate) const fn idle_deadline(&self, entry: &Entry) -> u64 {
        entry.last.saturating_add(self.idle[entry.idle_class as usize])
    }

    #[inline(always)]
    pub(crate) fn deadline(&self, entry: &Entry) -> u64 {
        self.idle_deadline(entry).min(entry.active_deadline)
    }
}
