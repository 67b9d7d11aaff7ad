//! How the source is opened: settings, and what they mean for the maps.

use super::error::EbpfError;
use super::object::{self, Mode};
use super::words::Shape;
use crate::filters::Filtering;
use crate::links::Follow;
use crate::{AttachKind, CaptureConfig, CaptureMode, FilterRules, KernelTable, OnExit};
use mermin_abi::{Set, WORDS_V4, WORDS_V6};
use mermin_journal::SourceJournal;
use std::time::Duration;

/// How a source is opened.
#[derive(Clone, Debug)]
pub struct EbpfOptions {
    /// Size of the ring, rounded up to a power of two.
    pub ring_bytes: u64,
    /// How programs get on interfaces.
    pub attach: AttachKind,
    /// What the programs do.
    pub mode: CaptureMode,
    /// In aggregate mode.
    pub aggregation: Aggregation,
    /// Which packets are metered.
    pub filters: FilterRules,
    /// What happens to programs and maps at the end.
    pub on_exit: OnExit,
    /// The programs go on counting for so long without a sign of life from an agent.
    pub orphan_timeout: Duration,
    /// Where what is read is written down as well (`on_exit: keep`).
    pub journal: Option<SourceJournal>,
    /// Follows links that come and go; without it the interfaces of the start are all there will be.
    pub follow: Option<Follow>,
}

/// What the programs sum up in, and how often it is drained.
#[derive(Clone, Debug)]
pub struct Aggregation {
    /// Where packets are added first.
    pub table: KernelTable,
    /// Slots of each CPU, for each IP version in each of two halves, rounded up to a power of two of at least 4.
    pub slots: u32,
    /// Flows that find room in an epoch's hash.
    pub hash_flows: u32,
    /// The least time between two drains: so often while the hash fills.
    pub drain_min: Duration,
    /// The time between two drains otherwise.
    pub drain_max: Duration,
}

/// What slots of all CPUs, both halves and both IP versions take at most.
const SLOT_BYTES: u64 = 64 << 20;

/// What an agent that is well may miss of its own signs of life is a fraction of that.
const ORPHAN_TIMEOUT_MIN: Duration = Duration::from_secs(1);

impl Default for Aggregation {
    fn default() -> Self {
        EbpfOptions::default().aggregation
    }
}

impl Aggregation {
    /// Sets of two slots of each CPU, as a power of two. All CPUs together get no more than [`SLOT_BYTES`]: machines that could
    /// have very many have fewer for each.
    pub(super) fn set_bits(&self, cpus: u32) -> u32 {
        let each = (size_of::<Set<WORDS_V4>>() + size_of::<Set<WORDS_V6>>()) as u64;
        let fits = SLOT_BYTES / (2 * u64::from(cpus) * each);
        let wanted = self.slots.clamp(4, 1 << 20).next_power_of_two().ilog2() - 1;
        wanted.min(fits.max(2).ilog2())
    }
}

impl Default for EbpfOptions {
    fn default() -> Self {
        Self::of(&CaptureConfig::default())
    }
}

impl EbpfOptions {
    /// As configured, with the interfaces of the start.
    #[must_use]
    pub fn of(config: &CaptureConfig) -> Self {
        let aggregation = Aggregation {
            table: config.kernel_table,
            slots: config.kernel_slots,
            hash_flows: config.kernel_hash_flows,
            drain_min: config.drain_interval_min.0,
            drain_max: config.drain_interval_max.0,
        };
        Self {
            ring_bytes: config.ring_bytes.0,
            attach: config.attach,
            mode: config.mode,
            aggregation,
            filters: config.filters.clone(),
            on_exit: config.on_exit,
            orphan_timeout: config.orphan_timeout.0.max(ORPHAN_TIMEOUT_MIN),
            journal: None,
            follow: None,
        }
    }
}

impl EbpfOptions {
    /// What the programs do: for a possible predecessor's maps they take its word for where the slots are.
    pub(super) fn mode(&self) -> Result<Mode, EbpfError> {
        Ok(match (self.mode, self.aggregation.table) {
            (CaptureMode::Packet, _) => Mode::Packet,
            (CaptureMode::Aggregate, KernelTable::Slots) => {
                let set_bits = self.aggregation.set_bits(object::possible_cpus()?);
                Mode::Slots { set_bits, seed: secret() }
            }
            (CaptureMode::Aggregate, KernelTable::Hash) => Mode::Hash,
        })
    }

    /// What the maps are made for.
    pub(super) fn shape(&self, mode: Mode) -> Result<Shape, EbpfError> {
        Ok(Shape {
            cpus: object::possible_cpus()?,
            mode,
            ring_bytes: object::rounded(self.ring_bytes),
            hash_flows: if mode == Mode::Packet { 0 } else { self.aggregation.hash_flows },
            filters: Filtering::of(&self.filters).map_or(0, |filtering| filtering.fingerprint()),
        })
    }
}

/// Nobody's to guess.
fn secret() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_many_cpus_are_fewer_for_each() {
        let of = |slots, cpus| Aggregation { slots, ..Aggregation::default() }.set_bits(cpus);
        assert_eq!([of(4_096, 2), of(4_096, 32), of(4_097, 2), of(1, 2)], [11, 11, 12, 1]);
        assert_eq!([of(4_096, 64), of(4_096, 256), of(4_096, 8_192)], [10, 8, 3]);
        assert_eq!([of(u32::MAX, 2), of(4_096, u32::MAX / 2)], [15, 1]);
    }
}
