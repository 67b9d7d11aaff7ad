//! Two connections with the same ends, one after the other, where packets of the first still come when the second has begun.
//!
//! What a source sums up comes after packets that were seen later ([`crate::Sink::hold_back`]). So a flow whose connection is
//! over and whose ends another one takes stays in the table, under a key that no observation has, until the watermark has come
//! to the first packet of the other. Packets that were seen before that are its own.

use crate::entry::IdleClass;
use crate::index::Place;
use crate::key::FlowKey;
use crate::meter::Meter;
use crate::observation::Observation;

/// Flows of one key that wait at once: more connections than can begin and end within the longest usual epoch, one after the other.
const WAITING_MAX: usize = 1_024;

impl Meter {
    /// Another connection has begun with `o` between the ends of the flow at `place`. Whether the flow has to wait for packets
    /// that came before; otherwise nothing has changed. One that was refused has none that were summed up.
    pub(crate) fn supersede(&mut self, place: Place, o: &Observation) -> bool {
        let Some(entry) = self.table.entry(place) else { return false };
        if o.watermark >= o.start || entry.was_refused() {
            return false;
        }
        // All of them lie in a row, which each look-up of the key goes through.
        if self.table.count(o.hash, &entry.key.superseded()) >= WAITING_MAX {
            return false;
        }
        self.changed(place);
        let Some((entry, facts)) = self.table.get_mut(place) else { return false };
        entry.key = entry.key.superseded();
        entry.idle_class = IdleClass::Superseded;
        entry.last = o.start;
        let deadline = self.settings.deadline(entry);
        self.shards[usize::from(facts.shard)].wheel.schedule(&mut self.links, place, deadline);
        true
    }

    /// Adds an observation that was seen before the flow with its key had begun to the flow that had that key then, if there is
    /// one; whether there was.
    #[cold]
    #[inline(never)]
    pub(crate) fn add_to_predecessor(&mut self, key: &FlowKey, o: &Observation) -> bool {
        let Some(place) = self.table.latest_before(o.hash, &key.superseded(), o.start) else { return false };
        self.count(place, o);
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::config::FlowConfig;
    use crate::datagram::Orientation;
    use crate::key::HashSecret;
    use crate::meter::Meter;
    use crate::observation::Observation;
    use crate::record::{FlowEndReason, FlowRecord};
    use crate::tally::Tally;
    use crate::tcp::{ACK, FIN, RST, SYN};
    use crate::testing::{Records, T0, tcp};

    const MS: u64 = 1_000_000;

    fn segment(ends: [&str; 2], flags: u8, packets: u32, times: [u64; 2]) -> Observation {
        let [start, end] = times.map(|time| T0 + time * MS);
        let bytes = u64::from(packets) * 40;
        let counts =
            Observation { packets, buffers: packets, bytes, frame_bytes: bytes, ..tcp(ends[0], ends[1]) };
        Observation {
            start,
            end,
            tcp_flags: flags,
            has_tcp_flags: true,
            buffer_bytes: packets * 40,
            ..counts
        }
    }

    const UP: [&str; 2] = ["10.0.0.2:40000", "10.0.0.1:443"];
    const DOWN: [&str; 2] = ["10.0.0.1:443", "10.0.0.2:40000"];

    /// Three connections within 30 ms: begins and ends as events, data as sums of the epoch behind them.
    #[test]
    fn sums_are_those_of_the_connection_that_they_were_seen_in() {
        for close in [FIN, RST] {
            let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
            let mut orientation = Orientation::new(HashSecret::new(1));
            orientation.hold_back(T0);
            let mut observe = |meter: &mut Meter, mut o: Observation| {
                orientation.prepare(&mut o);
                meter.observe(&[o], &mut records);
                assert_eq!(meter.book().metered, meter.book().reported + meter.resident());
            };
            for at in [0, 10, 20] {
                observe(&mut meter, segment(UP, SYN, 1, [at, at]));
                observe(&mut meter, segment(DOWN, SYN | ACK, 1, [at, at]));
                observe(&mut meter, segment(UP, close | ACK, 1, [at + 9, at + 9]));
            }
            assert_eq!(meter.active(), 3);
            for (at, packets) in [(20, 300), (0, 10), (10, 20)] {
                observe(&mut meter, segment(DOWN, ACK, packets, [at + 1, at + 8]));
                observe(&mut meter, segment(UP, ACK, 2 * packets, [at + 2, at + 7]));
            }
            meter.advance(T0 + 9 * MS, &mut records);
            assert_eq!(meter.active(), 3, "what came before the second one is still to come");
            meter.advance(T0 + 3_000 * MS, &mut records);
            assert_eq!(meter.active(), 1);
            meter.advance(T0 + 40_000 * MS, &mut records);
            records.0.sort_by_key(|record| record.start_time);
            let told = |record: &FlowRecord| {
                assert_eq!(record.sequence, 0);
                let started = (record.start_time - T0) / MS;
                (
                    started,
                    (record.end_time - T0) / MS,
                    record.forward.total.packets,
                    record.reverse.total.packets,
                )
            };
            let told: Vec<_> = records.0.iter().map(told).collect();
            assert_eq!(told, [(0, 9, 22, 11), (10, 19, 42, 21), (20, 29, 602, 301)], "{close}");
            let ids: std::collections::BTreeSet<_> = records.0.iter().map(|record| record.id).collect();
            assert_eq!(ids.len(), 3);
            assert_eq!(records.0[0].community_id, records.0[2].community_id);
            let reasons = records.0.iter().map(|record| record.end_reason);
            let expected =
                if close == FIN { FlowEndReason::IdleTimeout } else { FlowEndReason::EndOfFlowDetected };
            let ended = FlowEndReason::EndOfFlowDetected;
            assert_eq!(reasons.collect::<Vec<_>>(), [Some(ended), Some(ended), Some(expected)]);
            assert_eq!((meter.active(), meter.resident()), (0, Tally::ZERO));
        }
    }

    /// Whoever sends SYNs to a closed port from one port of its own fills no table.
    #[test]
    fn connections_that_were_refused_and_more_than_many_do_not_wait() {
        for (answer, waiting) in [(RST | ACK, 1), (SYN | ACK, super::WAITING_MAX + 1)] {
            let config =
                FlowConfig { table_capacity: 1_000_000.try_into().unwrap(), ..FlowConfig::default() };
            let (mut meter, mut records) = (Meter::new(&config, ""), Records::default());
            let mut orientation = Orientation::new(HashSecret::new(1));
            orientation.hold_back(T0);
            for at in 1..=super::WAITING_MAX as u64 + 500 {
                for (ends, flags) in [(UP, SYN), (DOWN, answer), (UP, RST)] {
                    let mut o = segment(ends, flags, 1, [at, at]);
                    orientation.prepare(&mut o);
                    meter.observe(&[o], &mut records);
                }
            }
            assert_eq!(meter.active(), waiting);
            assert_eq!(meter.book().metered, meter.book().reported + meter.resident());
        }
    }

    /// Where nothing is to come the flow ends at once, and what is late is the present one's.
    #[test]
    fn without_sums_to_come_a_flow_ends_when_another_takes_its_ends() {
        let (mut meter, mut records) = (Meter::new(&FlowConfig::default(), ""), Records::default());
        let mut orientation = Orientation::new(HashSecret::new(1));
        for (flags, at) in [(SYN, 0), (RST, 1), (SYN, 2), (ACK, 1)] {
            let mut o = segment(UP, flags, 1, [at, at]);
            orientation.prepare(&mut o);
            meter.observe(&[o], &mut records);
        }
        assert_eq!((meter.active(), records.0.len()), (1, 1));
        assert_eq!(records.0[0].forward.total.packets, 2);
    }

    /// What was superseded goes along with its shard, is found there, and ends with the run.
    #[test]
    fn a_flow_that_waits_moves_with_its_shard() {
        let meter = || Meter::new(&FlowConfig::default(), "");
        let (mut from, mut to, mut records) = (meter(), meter(), Records::default());
        let mut orientation = Orientation::new(HashSecret::new(1));
        orientation.hold_back(T0);
        let mut prepare = |flags, packets, at| {
            let mut o = segment(UP, flags, packets, [at, at]);
            orientation.prepare(&mut o);
            o
        };
        from.observe(&[prepare(SYN, 1, 0), prepare(RST, 1, 1), prepare(SYN, 1, 2)], &mut records);
        let late = prepare(ACK, 50, 1);
        for number in 0..crate::SHARDS {
            let moving = from.give_shard(number);
            to.take_shard(moving);
        }
        to.observe(&[late], &mut records);
        to.finish(T0 + 3 * MS, &mut records);
        let mut packets: Vec<_> = records.0.iter().map(|record| record.forward.total.packets).collect();
        packets.sort_unstable();
        assert_eq!(packets, [1, 52]);
    }
}
