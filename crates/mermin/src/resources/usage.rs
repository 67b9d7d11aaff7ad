//! What this process takes.

use crate::metrics::Process;
use mermin_pipeline::Usage;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Looks at what the process takes.
pub(super) struct Probe {
    /// The control group's `cpu.stat`.
    throttling: Option<PathBuf>,
    /// Bytes that the kernel holds and that are not resident (the hash of the eBPF programs), less those that are counted twice
    /// (their ring buffer is mapped so that it needs no wrapping).
    beside_resident: i64,
}

impl Probe {
    pub(super) const fn new(throttling: Option<PathBuf>, beside_resident: i64) -> Self {
        Self { throttling, beside_resident }
    }

    /// Processor time is told by the kernel in its ticks, hundredths of a second as a rule.
    pub(super) fn look(&mut self) -> Usage {
        let (seconds, resident) = Process::taken();
        let cpu = Duration::from_secs_f64(seconds.unwrap_or_default());
        let memory = resident.unwrap_or_default().saturating_add_signed(self.beside_resident);
        let throttled = self.throttling.as_ref().and_then(|path| throttled(&fs::read_to_string(path).ok()?));
        Usage { cpu, memory, throttled: throttled.unwrap_or_default() }
    }
}

/// Periods of a group in which it was kept from running.
fn throttled(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_memory_of_this_process_are_told() {
        let mut probe = Probe::new(None, 0);
        let before = probe.look();
        let taken: Vec<u64> = (0..1 << 20).collect();
        while probe.look().cpu < before.cpu + Duration::from_millis(20) {
            std::hint::black_box(taken.iter().sum::<u64>());
        }
        let after = probe.look();
        // Other tests of this process may give back more than this one takes.
        assert!(after.memory > 1 << 20 && before.memory > 1 << 20, "{before:?} {after:?}");
        assert_eq!(after.throttled, 0);
        let mut less = Probe::new(None, i64::MIN);
        assert_eq!(less.look().memory, 0);
    }

    #[test]
    fn both_versions_tell_how_often_a_group_had_to_wait() {
        let two = "usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 70\n";
        let one = "nr_periods 10\nnr_throttled 4\nthrottled_time 70\n";
        assert_eq!([two, one, ""].map(throttled), [Some(3), Some(4), None]);
    }
}
