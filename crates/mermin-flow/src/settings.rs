//! The `flow` section as the packet path needs it: in nanoseconds, by idle class, per shard.

use crate::clock::Lateness;
use crate::config::FlowConfig;
use crate::entry::{Entry, IdleClass};
use crate::key::SHARDS;
use crate::report::Identification;
use crate::wall::Steps;

/// The settings of the `flow` section, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) active: u64,
    idle: [u64; IdleClass::COUNT],
    pub(crate) shortest_idle: u64,
    /// Flows of one shard.
    pub(crate) capacity: usize,
    /// The same as it is configured.
    capacity_configured: usize,
    /// How often it is halved.
    halvings: u8,
    pub(crate) start_records: bool,
    pub(crate) identification: Identification,
    /// Of the packets that are metered.
    pub(crate) lateness: Lateness,
    /// Of the wall clock, by which records tell times.
    pub(crate) steps: Steps,
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
            0,
        ];
        let capacity = config.table_capacity.get().div_ceil(SHARDS);
        Self {
            active: config.active_timeout.nanos(),
            idle,
            shortest_idle: config.shortest_idle_timeout(),
            capacity,
            capacity_configured: capacity,
            halvings: 0,
            start_records: config.start_records,
            identification: Identification::new(agent_id, config.community_id_seed),
            lateness: Lateness::default(),
            steps: Steps::default(),
        }
    }

    /// Timeouts, capacity and whether starts are told become those of `config`. What identifies flows stays.
    pub(crate) fn change(&mut self, config: &FlowConfig) {
        let Self { active, idle, shortest_idle, capacity, start_records, .. } = Self::new(config, "");
        (self.active, self.idle, self.shortest_idle) = (active, idle, shortest_idle);
        (self.capacity_configured, self.start_records) = (capacity, start_records);
        self.bound(self.halvings);
    }

    /// A shard holds at most as many flows as are configured, halved so often, and one at least.
    pub(crate) fn bound(&mut self, halvings: u8) {
        self.halvings = halvings;
        self.capacity = self.capacity_configured.checked_shr(halvings.into()).unwrap_or(0).max(1);
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
