//! How large a request may be: it grows while answers come quickly, and shrinks when the collector finds it too large.

use super::config::OtlpBatch;
use std::time::Duration;

/// Records of the first requests.
const FIRST: usize = 512;

/// An answer within this time is quick, one after `SLOW` is slow.
const QUICK: Duration = Duration::from_millis(500);
const SLOW: Duration = Duration::from_secs(3);

/// Slow answers don't make requests smaller than this: many small requests help nobody.
const LEAST: usize = 64;

/// The present bounds.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    records: usize,
    records_max: usize,
    bytes: usize,
}

impl Pace {
    pub(crate) fn new(batch: &OtlpBatch) -> Self {
        let records_max = batch.records.get();
        let bytes = usize::try_from(batch.bytes.0).unwrap_or(usize::MAX);
        Self { records: FIRST.min(records_max), records_max, bytes }
    }

    /// Whether a request of this size goes out.
    #[inline]
    pub(crate) const fn is_full(&self, records: usize, bytes: usize, longest: usize) -> bool {
        records >= self.records || bytes.saturating_add(longest) > self.bytes
    }

    /// A request of so many records was taken.
    pub(crate) fn taken(&mut self, records: usize, after: Duration) {
        if after <= QUICK && records >= self.records {
            self.records = (self.records + self.records / 2 + 1).min(self.records_max);
        } else if after >= SLOW {
            self.records = (self.records - self.records / 4).max(LEAST.min(self.records_max));
        }
    }

    /// A request of so many bytes was too large. A collector's limit is one of bytes and stays, so this does too.
    pub(crate) fn too_large(&mut self, records: usize, bytes: usize) {
        self.bytes = self.bytes.min(bytes / 2).max(1);
        self.records = self.records.min(records / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(records: usize, bytes: u64) -> Pace {
        let batch = OtlpBatch {
            records: records.try_into().unwrap(),
            bytes: mermin_flow::ByteSize(bytes),
            ..OtlpBatch::default()
        };
        Pace::new(&batch)
    }

    /// The records of a full request.
    fn full(pace: &Pace) -> usize {
        (1..).find(|records| pace.is_full(*records, 0, 0)).unwrap()
    }

    #[test]
    fn quick_answers_let_it_grow_up_to_the_bound() {
        let mut pace = pace(2_000, 1 << 20);
        assert_eq!(full(&pace), 512);
        pace.taken(100, Duration::ZERO);
        assert_eq!(full(&pace), 512, "a small request proves nothing");
        let mut sizes = Vec::new();
        for _ in 0..5 {
            pace.taken(full(&pace), QUICK);
            sizes.push(full(&pace));
        }
        assert_eq!(sizes, [769, 1_154, 1_732, 2_000, 2_000]);
        pace.taken(2_000, SLOW);
        assert_eq!(full(&pace), 1_500);
        (0..100).for_each(|_| pace.taken(1_000, SLOW));
        assert_eq!(full(&pace), 64);
    }

    #[test]
    fn what_was_too_large_is_not_tried_again() {
        let mut pace = pace(8_192, 4_000);
        assert!(!pace.is_full(1, 3_900, 100) && pace.is_full(1, 3_901, 100));
        pace.too_large(10, 3_000);
        assert!(!pace.is_full(1, 1_500, 0) && pace.is_full(1, 1_501, 0));
        assert_eq!(full(&pace), 5);
        (0..100).for_each(|_| pace.taken(full(&pace), Duration::ZERO));
        assert!(full(&pace) > 1_000 && pace.is_full(1, 1_501, 0), "bytes stay");
        (0..100).for_each(|_| pace.too_large(1, 1));
        assert_eq!(full(&pace), 1);
    }
}
