//! An output that does everything that outputs must not do.

use crate::bug::bug;
use mermin_flow::{Amount, Exporter, Failure, FlowId, FlowRecord, QUARANTINE, Receipt};
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Why what it holds is given up.
const AWAY: &str = "write_failed";

/// Panics at some records, and now and then for no reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touchy {
    pub(crate) name: String,
    /// While up, calls don't come back.
    pub(crate) hangs: Arc<AtomicBool>,
    /// While up, they don't either, and take a core.
    pub(crate) loops: Arc<AtomicBool>,
    /// While up, what it holds is given up.
    pub(crate) away: Arc<AtomicBool>,
    /// Records of this sequence, modulo 16: before it takes them.
    pub(crate) poison: Option<u32>,
    /// Calls, modulo 97, that panic when it has taken nothing, half or all of what they bring.
    pub(crate) moods: HashSet<usize>,
    /// Of what it holds it delivers all but so many.
    pub(crate) holds: usize,
    pub(crate) calls: usize,
    pub(crate) held: VecDeque<(FlowId, u32, Amount)>,
    pub(crate) received: Arc<Mutex<Vec<(FlowId, u32)>>>,
    /// Its panics of either kind.
    pub(crate) panics: Arc<Mutex<u64>>,
}

impl Touchy {
    fn panic(&self) -> ! {
        *self.panics.lock().unwrap() += 1;
        bug()
    }

    pub(crate) fn is_poison(&self, record: &FlowRecord) -> bool {
        Some(record.sequence % 16) == self.poison
    }

    fn deliver(&mut self, keep: usize, receipt: &mut Receipt) -> Result<(), Failure> {
        while self.hangs.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        while self.loops.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        if self.away.load(Ordering::Acquire) && !self.held.is_empty() {
            let dropped = receipt.dropped.entry(AWAY).or_default();
            self.held.drain(..).for_each(|(.., amount)| *dropped += amount);
            let error = std::io::Error::other("nobody answers");
            return Err(Failure { reason: AWAY, closed: false, error });
        }
        while self.held.len() > keep
            && let Some((id, sequence, amount)) = self.held.pop_front()
        {
            receipt.delivered += amount;
            self.received.lock().unwrap().push((id, sequence));
        }
        Ok(())
    }
}

impl Exporter for Touchy {
    fn name(&self) -> &str {
        &self.name
    }

    fn export(&mut self, records: &[FlowRecord], receipt: &mut Receipt) -> Result<(), Failure> {
        self.calls += 1;
        let mut result = Ok(());
        let mood = self.moods.contains(&(self.calls % 97)).then_some(records.len() * (self.calls % 3) / 2);
        for (place, record) in records.iter().enumerate() {
            if self.is_poison(record) || mood == Some(place) {
                self.panic();
            }
            self.held.push_back((record.id, record.sequence, Amount::of(record)));
            if place.is_multiple_of(3) {
                result = result.and(self.deliver(self.holds, receipt));
            }
        }
        result = result.and(self.deliver(self.holds, receipt));
        if mood == Some(records.len()) {
            self.panic();
        }
        result
    }

    fn flush(&mut self, receipt: &mut Receipt) -> Result<(), Failure> {
        self.calls += 1;
        if self.moods.contains(&(self.calls % 97)) {
            self.panic();
        }
        self.deliver(0, receipt)
    }

    fn idle(&mut self, receipt: &mut Receipt) -> Result<Option<Duration>, Failure> {
        self.flush(receipt).map(|()| None)
    }

    fn after_panic(&mut self) -> Option<u64> {
        Some(self.held.len() as u64)
    }

    fn quarantine(&mut self, record: &FlowRecord, receipt: &mut Receipt) -> Result<(), Failure> {
        let earlier = self.deliver(0, receipt);
        *receipt.dropped.entry(QUARANTINE).or_default() += Amount::of(record);
        earlier
    }

    fn passing_reasons(&self) -> &'static [&'static str] {
        &[AWAY]
    }
}
