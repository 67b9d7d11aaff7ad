//! Where an entry stands.

use mermin_flow::Amount;

/// The place of an entry among all that the spool ever had, and what those before it carry. It stands in every head on
/// disk, so that of two heads that can be read what was lost between them is their difference, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Entries before it.
    pub(crate) entry: u64,
    /// What they carry.
    pub(crate) before: Amount,
}

impl Mark {
    /// The place behind one entry more.
    pub(crate) const fn after(self, amount: Amount) -> Self {
        let Self { entry, before } = self;
        let before = Amount {
            records: before.records.wrapping_add(amount.records),
            packets: before.packets.wrapping_add(amount.packets),
            bytes: before.bytes.wrapping_add(amount.bytes),
        };
        Self { entry: entry.wrapping_add(1), before }
    }

    /// What the entries from `earlier` on carry.
    pub(crate) const fn since(self, earlier: Self) -> Amount {
        minus(self.before, earlier.before)
    }

    /// The one that stands further on.
    pub(crate) fn later(self, other: Self) -> Self {
        if other.entry > self.entry { other } else { self }
    }
}

/// `a − b`, where `b` is a part of `a`.
pub(crate) const fn minus(a: Amount, b: Amount) -> Amount {
    Amount {
        records: a.records.wrapping_sub(b.records),
        packets: a.packets.wrapping_sub(b.packets),
        bytes: a.bytes.wrapping_sub(b.bytes),
    }
}
