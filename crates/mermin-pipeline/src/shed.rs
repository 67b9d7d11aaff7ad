//! What an agent that is over its budget does without: the steps, and what they come to for the stages.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Something to do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Periodic reports are put off.
    Postpone,
    /// Records go without names.
    Nameless,
    /// Half as many packets are metered as were.
    Sample,
    /// The bounds are half of what they were.
    Halve,
}

/// What the agent does without at the moment, for the stages that do it.
#[derive(Debug, Default)]
pub(crate) struct Shed {
    postpone: AtomicBool,
    nameless: AtomicBool,
    sampling: AtomicU8,
    halvings: AtomicU8,
}

impl Shed {
    /// Periodic reports are put off.
    pub(crate) fn postpones(&self) -> bool {
        self.postpone.load(Ordering::Relaxed)
    }

    /// Records go without names.
    pub(crate) fn is_nameless(&self) -> bool {
        self.nameless.load(Ordering::Relaxed)
    }

    /// Of packets, one in 2 to this power is metered.
    pub(crate) fn sampling(&self) -> u8 {
        self.sampling.load(Ordering::Relaxed)
    }

    /// How often the bounds are halved.
    pub(crate) fn halvings(&self) -> u8 {
        self.halvings.load(Ordering::Relaxed)
    }

    /// What is left of a bound.
    pub(crate) fn bound(&self, configured: usize) -> usize {
        (configured >> self.halvings()).max(1)
    }

    pub(crate) fn take(&self, cpu: &[Step], memory: &[Step]) {
        let all = || cpu.iter().chain(memory);
        self.postpone.store(all().any(|step| *step == Step::Postpone), Ordering::Relaxed);
        self.nameless.store(all().any(|step| *step == Step::Nameless), Ordering::Relaxed);
        let times = |what: Step| all().filter(|step| **step == what).count() as u8;
        self.sampling.store(times(Step::Sample), Ordering::Relaxed);
        self.halvings.store(times(Step::Halve), Ordering::Relaxed);
    }
}
