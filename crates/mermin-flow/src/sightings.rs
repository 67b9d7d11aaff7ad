//! A source's part of the first book: what it has seen, and the verdicts that it gave itself.

use crate::tally::Tally;
use mermin_wire::Unmetered;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a packet was lost before it was metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// The ring buffer between kernel and reader had no room.
    RingFull,
    /// What the kernel programs sum up in had no room, nor had the ring.
    KernelTableFull,
    /// The kernel dropped it at the AF_PACKET socket.
    SocketDrop,
    /// The packet channel had no room and `enable_backpressure` is off.
    PacketChannelFull,
    /// Reading or metering it panicked, and what could be tried again panicked again.
    WorkerQuarantine,
    /// It was in the memory of an earlier process, which was killed.
    Crash,
    /// It lay in maps of another version of the kernel programs.
    AbiChange,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::RingFull,
        Self::KernelTableFull,
        Self::SocketDrop,
        Self::PacketChannelFull,
        Self::WorkerQuarantine,
        Self::Crash,
        Self::AbiChange,
    ];

    /// The key in the ledger's `lost`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::KernelTableFull => "kernel_table_full",
            Self::SocketDrop => "socket_drop",
            Self::PacketChannelFull => "packet_channel_full",
            Self::WorkerQuarantine => "worker_quarantine",
            Self::Crash => "crash",
            Self::AbiChange => "abi_change",
        }
    }
}

/// Cumulative counts of one source since its start.
///
/// `seen` (in buffers) is raised at the source's entry, before anything is parsed; the others at its exits. Where
/// the two differ, packets have vanished: `seen == in_flight + Σ unmetered + Σ lost + handed to the sink`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    /// Raised at entry; only `buffers` and `buffer_bytes` are filled.
    pub seen: Tally,
    /// In the ring between kernel and reader: submitted, not read yet.
    pub in_ring: Tally,
    /// Summed up by the kernel programs in epochs that have ended, not read yet.
    pub in_kernel_table: Tally,
    /// By [`Unmetered`] as index.
    pub unmetered: [Tally; Unmetered::COUNT],
    /// Packets that filters leave out, by rule: of all that may leave any out.
    pub filtered: BTreeMap<Arc<str>, Tally>,
    /// Packets that the source could not take, by reason.
    pub lost: BTreeMap<Loss, Tally>,
    /// Non-IP packets by ethertype.
    pub ethertypes: BTreeMap<u16, u64>,
    /// Dotted paths below the ledger of counts that can't be known, for example `lost.socket_drop.bytes`.
    pub inexact: Vec<&'static str>,
    /// Times of the first and last packet that was not metered, of those with a time.
    pub unmetered_span: Option<(u64, u64)>,
    /// Oddities of packets that were metered all the same, by name, for example `ip_length_over_frame`.
    pub anomalies: BTreeMap<&'static str, u64>,
}

impl Sightings {
    /// Counts a packet that is not metered.
    #[inline]
    pub fn reject(&mut self, reason: Unmetered, tally: Tally) {
        self.unmetered[reason as usize] += tally;
    }

    /// After a panic: what was seen and has no exit, of a source that has handed over `observed` in all, is lost. Of
    /// how many packets a buffer would have been is not known; at least of one. Returns what was lost.
    #[cold]
    pub fn lose_in_panic(&mut self, observed: Tally) -> Tally {
        let exits = self.unmetered.iter().chain(self.filtered.values()).chain(self.lost.values());
        let out = observed + exits.copied().sum();
        let (buffers, buffer_bytes) =
            (self.seen.buffers - out.buffers, self.seen.buffer_bytes - out.buffer_bytes);
        let lost = Tally { packets: buffers, bytes: buffer_bytes, buffers, buffer_bytes };
        if buffers > 0 {
            *self.lost.entry(Loss::WorkerQuarantine).or_default() += lost;
        }
        lost
    }

    /// Notes the time of a packet that is not metered.
    #[inline]
    pub fn rejected_at(&mut self, time: u64) {
        let (first, last) = self.unmetered_span.unwrap_or((time, time));
        self.unmetered_span = Some((first.min(time), last.max(time)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_have_the_ledgers_names() {
        assert_eq!(
            Loss::ALL.map(Loss::name),
            [
                "ring_full",
                "kernel_table_full",
                "socket_drop",
                "packet_channel_full",
                "worker_quarantine",
                "crash",
                "abi_change"
            ]
        );
    }

    #[test]
    fn rejected_packets_span_a_time_in_any_order() {
        let mut sightings = Sightings::default();
        assert_eq!(sightings.unmetered_span, None);
        for (time, span) in [(5, (5, 5)), (9, (5, 9)), (3, (3, 9)), (4, (3, 9))] {
            sightings.rejected_at(time);
            assert_eq!(sightings.unmetered_span, Some(span));
        }
    }

    #[test]
    fn what_has_no_exit_after_a_panic_is_lost_once() {
        let mut sightings = Sightings::default();
        for length in [60, 70, 80, 90] {
            sightings.seen += Tally { buffers: 1, buffer_bytes: length, ..Tally::ZERO };
        }
        sightings.reject(Unmetered::Arp, Tally::frame(60));
        assert_eq!(sightings.lose_in_panic(Tally::frame(70) + Tally::frame(90)), Tally::frame(80));
        assert_eq!(sightings.lost, [(Loss::WorkerQuarantine, Tally::frame(80))].into());
        assert_eq!(sightings.lose_in_panic(Tally::frame(70) + Tally::frame(90)), Tally::ZERO);
        assert_eq!(sightings.lost[&Loss::WorkerQuarantine], Tally::frame(80));
    }

    #[test]
    fn a_rejected_packet_stands_under_its_reason() {
        let mut sightings = Sightings::default();
        sightings.reject(Unmetered::Arp, Tally::frame(60));
        sightings.reject(Unmetered::Arp, Tally::frame(42));
        assert_eq!(sightings.unmetered[Unmetered::Arp as usize], Tally::frame(60) + Tally::frame(42));
        assert_eq!(sightings.unmetered.into_iter().sum::<Tally>().packets, 2);
    }
}
