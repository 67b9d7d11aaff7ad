//! What the agent may take of the machine, and what it takes.
//!
//! The limits are the configuration's, else those of its control group. What it takes is told to the pipeline, which
//! sheds work while that is more (`mermin_pipeline::Budget`).

mod cores;
mod limits;
mod rate;
mod usage;

pub(crate) use cores::Cores;
pub(crate) use limits::Limits;
pub(crate) use rate::Rate;

use mermin_flow::ByteSize;
use mermin_pipeline::Budget;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use usage::Probe;

/// The `resources` section of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResourcesConfig {
    /// Cores that the agent takes at most, all its threads together. Over it, live, it does without periodic
    /// reports, then without names, then it samples packets, see `sampling`. Without this key: what its control group may
    /// have (`cpu.max`); without a limit there nothing is shed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cores>,
    /// Memory that the agent takes at most, rings of the kernel included. Near it, it puts periodic reports off and makes
    /// bounds smaller, down to an eighth: `flow.table_capacity` (flows beyond it end for lack of resources) and
    /// `pipeline.coalescing_capacity`. Where these don't fit from the start, they are smaller from the start. Without this
    /// key: what its control group may have (`memory.max`); without a limit there the bounds stay as they are configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// How far packets may be sampled, as the last step of a budget of processor time: at the lowest rate one in so many is
    /// metered, a power of two from 1 (all: the agent never samples) to 64. Beyond that the kernel drops what the agent has
    /// no time for. Deltas of sampled flows count a part; records carry estimates beside them.
    pub sampling: Rate,
}

impl ResourcesConfig {
    /// What the agent may have: of the configuration, else of its control group.
    pub(crate) fn limits(&self) -> Limits {
        self.over(Limits::of_this_process(Path::new("/")))
    }

    fn over(&self, group: Limits) -> Limits {
        Limits {
            cpu: self.cpu.map(Cores::get).or(group.cpu),
            memory: self.memory.map(|bytes| bytes.0).or(group.memory),
            ..group
        }
    }

    /// For the pipeline. `beside_resident`: bytes that are not among the resident ones, less those that are counted twice there.
    pub(crate) fn budget(&self, beside_resident: i64) -> Budget {
        let limits = self.limits();
        let (cpu, memory, sampling) = (limits.cpu, limits.memory, self.sampling.get());
        let mut probe = Probe::new(limits.throttling, beside_resident);
        Budget { cpu, memory, sampling, usage: Box::new(move || probe.look()), ..Budget::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_goes_before_the_control_groups_limits() {
        let group = Limits { cpu: Some(2.0), memory: Some(1 << 30), throttling: None };
        let none = ResourcesConfig::default();
        assert_eq!(
            (none.over(group.clone()).cpu, none.over(group.clone()).memory),
            (Some(2.0), Some(1 << 30))
        );
        let config = crate::config::parse("resources: {cpu: 0.25, memory: 64MiB}").unwrap().resources;
        let limits = config.over(group);
        assert_eq!((limits.cpu, limits.memory), (Some(0.25), Some(64 << 20)));
    }
}
