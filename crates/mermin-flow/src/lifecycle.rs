//! What happens in a flow's life: it is created, reported, and ended by its deadlines, by another flow that takes its
//! ends, for want of room, or with the run.
//!
//! Time is the watermark that each observation carries. The rule that makes records independent of batches, ticks and the
//! number of workers: before anything else happens to a flow, its deadlines up to now are handled in order of time, the
//! periodic report before the end when both fall together.

use crate::community_id::CommunityId;
use crate::entry::{Entry, Facts};
use crate::fault;
use crate::index::Place;
use crate::key::FlowKey;
use crate::meter::{Meter, RecordSink};
use crate::observation::Observation;
use crate::record::{FlowEndReason, FlowEvent};
use crate::report;

impl Meter {
    #[cold]
    #[inline(never)]
    pub(crate) fn add_after_deadline(
        &mut self,
        place: Place,
        key: FlowKey,
        o: &Observation,
        sink: &mut impl RecordSink,
    ) {
        if !self.settle(place, o.began(), sink) {
            return self.create(key, o, sink);
        }
        let Some(entry) = self.table.entry(place) else { return };
        if entry.is_reopened_by(o) {
            if !self.supersede(place, o) {
                self.end(place, FlowEndReason::EndOfFlowDetected, sink);
            }
            return self.create(key, o, sink);
        }
        self.add(place, key, o, sink);
    }

    /// Handles everything of a shard that is due up to `now`.
    #[cold]
    #[inline(never)]
    pub(crate) fn advance_shard(&mut self, shard: usize, now: u64, sink: &mut impl RecordSink) {
        while let Some(place) = self.shards[shard].wheel.due(&mut self.links, now) {
            self.look_at(place, now, sink);
        }
        self.due[shard] = self.shards[shard].wheel.next();
    }

    /// Handles a flow's deadlines up to `now` and puts it where the next one is.
    fn look_at(&mut self, place: Place, now: u64, sink: &mut impl RecordSink) {
        if self.settle(place, now, sink)
            && let Some((entry, facts)) = self.table.get(place)
        {
            let wheel = &mut self.shards[usize::from(facts.shard)].wheel;
            wheel.schedule(&mut self.links, place, self.settings.deadline(entry));
        }
    }

    /// Handles a flow's deadlines up to `now` in order of time; whether the flow lives on.
    pub(crate) fn settle(&mut self, place: Place, now: u64, sink: &mut impl RecordSink) -> bool {
        self.touch.flow(place);
        let Some((entry, facts)) = self.table.get_mut(place) else { return false };
        fault::point();
        let is_due = entry.active_deadline <= self.settings.idle_deadline(entry).min(now);
        if let Some(changes) = self.changes.as_mut().filter(|_| is_due) {
            changes.mark(place);
        }
        let idle = self.settings.idle_deadline(entry);
        if entry.active_deadline <= idle.min(now) {
            // Every packet so far came before this deadline; later intervals up to `now` have none, and give no record.
            let has_packets = entry.delta.iter().any(|side| side.packets > 0);
            let active = self.settings.active;
            let passed = (idle.min(now) - entry.active_deadline) / active;
            let next = entry.active_deadline.saturating_add(active.saturating_mul(passed.saturating_add(1)));
            if has_packets && self.postpone_updates {
                facts.spread.left_out(passed.saturating_add(1));
            } else if has_packets {
                self.report(place, FlowEvent::Update, Some(FlowEndReason::ActiveTimeout), sink);
            }
            // Behind the report: after a panic in it, it is still due.
            if let Some(entry) = self.table.entry_mut(place) {
                entry.active_deadline = next;
            }
        }
        if idle > now {
            return true;
        }
        let closed = self.table.entry(place).is_some_and(Entry::is_closed);
        let reason = if closed { FlowEndReason::EndOfFlowDetected } else { FlowEndReason::IdleTimeout };
        self.end(place, reason, sink);
        false
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn create(&mut self, key: FlowKey, o: &Observation, sink: &mut impl RecordSink) {
        let number = usize::from(o.shard);
        self.make_room(number, o.began(), sink);
        // What may panic comes first, so that nothing is half done.
        sink.created(|| CommunityId::of(&key, self.settings.identification.seed));
        let shard = &mut self.shards[number];
        let ordinal = shard.ordinal;
        shard.held += 1;
        fault::point();
        self.book.created += 1;
        let (mut entry, mut facts) = (Entry::new(key, o, self.settings.active), Facts::new(o, ordinal));
        facts.spread.spans(o.span(), self.settings.active);
        entry.count(o, &mut facts);
        fault::point();
        self.book.metered += o.tally();
        let deadline = self.settings.deadline(&entry);
        self.samples.add(&facts, o);
        let place = self.table.insert(entry, facts);
        if let Some(changes) = &mut self.changes {
            changes.mark(place);
        }
        fault::point();
        shard.wheel.schedule(&mut self.links, place, deadline);
        shard.ordinal = ordinal + 1;
        shard.eviction.created(place, o.watermark, ordinal, self.settings.capacity, &self.table);
        if self.settings.start_records {
            self.report(place, FlowEvent::Start, None, sink);
        }
    }

    /// Where the shard is full, ends the flows whose time is over, swept or not; if there are none, the least recently
    /// seen one.
    fn make_room(&mut self, number: usize, now: u64, sink: &mut impl RecordSink) {
        let capacity = self.settings.capacity;
        while self.shards[number].held >= capacity {
            let shard = &mut self.shards[number];
            let places = shard.wheel.places(&self.links);
            let oldest = shard
                .eviction
                .least_recent(places, capacity, &self.table)
                .expect("a full shard has a least recently seen flow");
            // Under a flood of new flows even the least recent one is young, so nothing is due and nothing is walked.
            let due = |entry: &Entry| entry.last.saturating_add(self.settings.shortest_idle) <= now;
            if self.table.entry(oldest).is_some_and(due) {
                let mut next = shard.wheel.first_of_second();
                while let Some(place) = next {
                    next = self.links.behind(place);
                    self.look_at(place, now, sink);
                }
            }
            // There are more than fit after a change of the capacity.
            if self.shards[number].held >= capacity && self.settle(oldest, now, sink) {
                self.end(oldest, FlowEndReason::LackOfResources, sink);
                self.book.evicted += 1;
            }
        }
    }

    pub(crate) fn end(&mut self, place: Place, reason: FlowEndReason, sink: &mut impl RecordSink) {
        self.report(place, FlowEvent::End, Some(reason), sink);
        fault::point();
        let Some((_, facts)) = self.table.get(place) else { return };
        let shard = &mut self.shards[usize::from(facts.shard)];
        shard.held -= 1;
        shard.wheel.cancel(&mut self.links, place);
        fault::point();
        self.hops.forget(facts);
        if let Some(changes) = &mut self.changes {
            changes.gone(facts);
        }
        self.table.remove(place);
        self.touch.ended = None;
        self.book.released += 1;
    }

    pub(crate) fn report(
        &mut self,
        place: Place,
        event: FlowEvent,
        reason: Option<FlowEndReason>,
        sink: &mut impl RecordSink,
    ) {
        self.touch.flow(place);
        let Some((entry, facts)) = self.table.get_mut(place) else { return };
        let beside = report::Beside { samples: &self.samples, hops: &self.hops, points: &self.points };
        let record = report::record(entry, facts, (event, reason), beside, &self.settings);
        self.touch.telling = Some((place, event));
        fault::point();
        sink.record(record);
        fault::point();
        self.told(place, event);
    }

    /// The record of the flow at `place` was taken.
    pub(crate) fn told(&mut self, place: Place, event: FlowEvent) {
        self.changed(place);
        let Some((entry, facts)) = self.table.get_mut(place) else { return };
        if event != FlowEvent::Start {
            self.book.reported += entry.tally(facts);
            self.samples.forget(facts);
            self.hops.told(facts);
        }
        facts.told(entry, event);
        self.touch.told(place, event);
    }

    /// Reports what is due at `watermark`, then ends every flow.
    pub fn finish(&mut self, watermark: u64, sink: &mut impl RecordSink) {
        self.advance(watermark, sink);
        for place in 0..self.table.places() as Place {
            self.table.prefetch_removal(place + 8);
            if self.table.entry(place).is_some() && self.settle(place, watermark, sink) {
                self.end(place, FlowEndReason::ForcedEnd, sink);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowConfig;
    use crate::datagram::Orientation;
    use crate::key::HashSecret;
    use crate::record::FlowRecord;
    use crate::tally::Tally;
    use crate::tcp::{ACK, FIN, RST, SYN};
    use crate::testing::{Records, SECOND, T0, tcp, udp};
    use crate::units::Interval;
    use std::num::NonZeroUsize;

    /// Flows that are all of shard 0.
    struct Table {
        meter: Meter,
        records: Records,
    }

    impl Table {
        fn new(change: impl FnOnce(&mut FlowConfig)) -> Self {
            let mut config = FlowConfig::default();
            change(&mut config);
            Self { meter: Meter::new(&config, ""), records: Records::default() }
        }

        /// The packet, `at` seconds after `T0`.
        fn packet(&mut self, at: u64, mut o: Observation) {
            o.start = T0 + at * SECOND;
            o.end = o.start;
            o.watermark = o.start;
            self.observe(o);
            let book = self.meter.book();
            assert_eq!(book.metered, book.reported + self.meter.resident());
        }

        fn observe(&mut self, mut o: Observation) {
            o.orient(&HashSecret::new(1));
            o.shard = 0;
            self.meter.observe(&[o], &mut self.records);
        }

        /// Event, reason and packets both ways of each record so far.
        fn told(&mut self) -> Vec<(FlowEvent, Option<FlowEndReason>, u64, u64)> {
            let told =
                |r: FlowRecord| (r.event, r.end_reason, r.forward.delta.packets, r.reverse.delta.packets);
            self.records.0.drain(..).map(told).collect()
        }

        fn finish(&mut self, at: u64) {
            self.meter.finish(T0 + at * SECOND, &mut self.records);
            assert_eq!((self.meter.active(), self.meter.resident()), (0, Tally::ZERO));
            assert_eq!(self.meter.book().created, self.meter.book().released);
        }
    }

    const CLIENT: &str = "10.0.0.2:40000";
    const SERVER: &str = "10.0.0.1:443";

    fn up(flags: u8) -> Observation {
        Observation { tcp_flags: flags, has_tcp_flags: true, ..tcp(CLIENT, SERVER) }
    }

    fn down(flags: u8) -> Observation {
        Observation { tcp_flags: flags, has_tcp_flags: true, ..tcp(SERVER, CLIENT) }
    }

    use FlowEndReason::{ActiveTimeout, EndOfFlowDetected, ForcedEnd, IdleTimeout, LackOfResources};
    use FlowEvent::{End, Start, Update};

    /// What was merged while it waited was seen last when its last packet came, ahead of packets that came before that.
    #[test]
    fn the_least_recently_seen_flow_goes_though_a_later_one_was_metered_before_it() {
        let mut table =
            Table::new(|config| config.table_capacity = NonZeroUsize::new(2 * crate::SHARDS).unwrap());
        let flow = |port: u16, from: u64, to: u64| {
            let mut o = udp(&format!("10.0.0.2:{port}"), "10.0.0.1:53");
            (o.start, o.end, o.watermark) = (T0 + from * SECOND, T0 + to * SECOND, T0 + to * SECOND);
            o.packets = if from == to { 1 } else { 2 };
            o
        };
        for (port, from, to) in [(1, 0, 0), (2, 1, 1), (3, 2, 2), (4, 3, 9), (5, 5, 5), (6, 10, 10)] {
            table.observe(flow(port, from, to));
        }
        let gone: Vec<_> =
            table.records.0.iter().map(|record| record.source.port.unwrap_or_default()).collect();
        assert_eq!(gone, [1, 2, 3, 5], "the one of 3 to 9 s stays");
    }

    /// What is summed up elsewhere comes later than other packets of its time. Times in tenths of a second: until when time is
    /// held back, and of the packet.
    #[test]
    fn time_that_is_held_back_ends_no_flow_before_its_packets_come() {
        for (holds_back, expected) in [(true, &[2][..]), (false, &[1, 1])] {
            let (mut table, mut orientation) = (Table::new(|_| ()), Orientation::new(HashSecret::new(1)));
            for (until, at, mut o) in [
                (0, 0, udp("10.0.0.2:9", "10.0.0.1:53")),
                (295, 304, up(SYN)),
                (295, 299, udp("10.0.0.2:9", "10.0.0.1:53")),
                (305, 306, down(SYN | ACK)),
                // Thirty seconds behind the second packet and not yet.
                (598, 602, up(ACK)),
            ] {
                if holds_back {
                    orientation.hold_back(T0 + until * SECOND / 10);
                }
                o.start = T0 + at * SECOND / 10;
                o.end = o.start;
                orientation.prepare(&mut o);
                o.shard = 0;
                table.meter.observe(&[o], &mut table.records);
            }
            let ended = |table: &Table| {
                let ended = table.records.0.iter().filter(|record| record.protocol == 17);
                ended.map(|record| record.forward.total.packets).collect::<Vec<_>>()
            };
            assert_eq!(ended(&table).len(), expected.len() - 1);
            table.finish(70);
            assert_eq!(ended(&table), expected);
        }
    }

    #[test]
    fn counts_of_both_directions_and_a_forced_end() {
        let mut table = Table::new(|_| ());
        table.packet(0, up(SYN));
        table.packet(0, down(SYN | ACK));
        table.packet(1, up(ACK));
        table.finish(2);
        let record = table.records.0[0].clone();
        assert_eq!(record.source.port, Some(40_000));
        assert_eq!((record.forward.total.packets, record.reverse.total.packets), (2, 1));
        assert_eq!((record.forward.total.bytes, record.forward.total.frame_bytes), (120, 148));
        assert_eq!((record.start_time, record.end_time), (T0, T0 + SECOND));
        assert_eq!(record.forward.tcp_flags, Some(SYN | ACK));
        assert_eq!(table.told(), [(End, Some(ForcedEnd), 2, 1)]);
    }

    #[test]
    fn an_idle_gap_ends_a_flow_whether_swept_or_not() {
        for swept in [false, true] {
            let mut table = Table::new(|_| ());
            table.packet(0, up(ACK));
            table.packet(29, up(ACK));
            if swept {
                table.meter.advance(T0 + 59 * SECOND, &mut table.records);
            }
            table.packet(59, up(ACK));
            assert_eq!(table.told(), [(End, Some(IdleTimeout), 2, 0)]);
            table.finish(60);
            assert_eq!(table.told(), [(End, Some(ForcedEnd), 1, 0)]);
        }
    }

    #[test]
    fn an_active_interval_gives_one_record_and_an_empty_one_none() {
        let mut table = Table::new(|config| config.idle_timeout = Interval::seconds(1_000));
        for at in [0, 59, 60, 119, 300] {
            table.packet(at, up(ACK));
        }
        assert_eq!(table.told(), [(Update, Some(ActiveTimeout), 2, 0), (Update, Some(ActiveTimeout), 2, 0)]);
        table.finish(361);
        assert_eq!(table.told(), [(Update, Some(ActiveTimeout), 1, 0), (End, Some(ForcedEnd), 0, 0)]);
    }

    #[test]
    fn the_report_comes_before_the_end_when_both_are_due() {
        let mut table = Table::new(|config| config.active_timeout = Interval::seconds(30));
        table.packet(0, up(ACK));
        table.packet(500, up(ACK));
        assert_eq!(table.told(), [(Update, Some(ActiveTimeout), 1, 0), (End, Some(IdleTimeout), 0, 0)]);
    }

    #[test]
    fn a_postponed_report_is_in_the_next_one() {
        let mut table = Table::new(|config| config.idle_timeout = Interval::seconds(1_000));
        table.meter.postpone_updates(true);
        table.packet(0, up(ACK));
        table.packet(60, up(ACK));
        assert_eq!(table.told(), []);
        table.meter.postpone_updates(false);
        table.packet(120, up(ACK));
        assert_eq!(table.told(), [(Update, Some(ActiveTimeout), 2, 0)]);
    }

    /// Whatever is postponed, swept or not, and however the flow ends.
    #[test]
    fn a_record_tells_from_when_on_it_counts() {
        const ACTIVE: u64 = 60 * SECOND;
        let (mut state, mut postponed) = (7_u64, 0);
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..300 {
            let mut table = Table::new(|config| {
                config.idle_timeout = Interval::seconds(400);
                config.start_records = random(2) == 0;
            });
            let (mut at, mut uncounted) = (0, None);
            let mut check = |records: &mut Vec<FlowRecord>, uncounted: &mut Option<u64>| {
                for record in records.drain(..) {
                    let is_first = record.forward.delta == record.forward.total;
                    assert!(!is_first || record.counts_from == record.start_time);
                    let Some(first) = uncounted.filter(|_| record.tally != Tally::ZERO) else { continue };
                    assert!(record.counts_from <= first, "{} s", (first - record.counts_from) / SECOND);
                    postponed += u32::from(record.end_time > record.counts_from + ACTIVE);
                    *uncounted = None;
                }
            };
            for _ in 0..random(40) {
                let step = if random(4) == 0 { 150 } else { 20 };
                at += random(step);
                table.meter.postpone_updates(random(3) > 0);
                if random(2) == 0 {
                    table.meter.advance(T0 + at * SECOND, &mut table.records);
                    check(&mut table.records.0, &mut uncounted);
                }
                table.packet(at, up(ACK));
                check(&mut table.records.0, &mut uncounted);
                uncounted.get_or_insert(T0 + at * SECOND);
            }
            table.meter.postpone_updates(random(2) == 0);
            table.finish(at + random(600));
            check(&mut table.records.0, &mut uncounted);
        }
        assert!(postponed > 100, "{postponed}");
    }

    #[test]
    fn a_record_counts_from_one_interval_back_and_from_those_that_were_left_out() {
        let mut table = Table::new(|config| config.idle_timeout = Interval::seconds(1_000));
        // Packets at 0, 20, 40 … s, and the interval from 60 to 120 s left out.
        for at in (0..=300).step_by(20) {
            table.meter.postpone_updates((80..160).contains(&at));
            table.packet(at, up(ACK));
        }
        table.finish(301);
        let told = |r: &FlowRecord| ((r.end_time - T0) / SECOND, (r.counts_from - T0) / SECOND);
        let told: Vec<_> = table.records.0.iter().map(told).collect();
        assert_eq!(told, [(40, 0), (160, 39), (220, 159), (280, 219), (300, 239)]);
    }

    /// A wall clock that is set in the middle of a flow: the record tells it, and the flow goes on as if it was not.
    #[test]
    fn a_wall_clock_that_is_set_ends_no_flow_and_keeps_none() {
        const HOUR: i64 = 3_600 * SECOND as i64;
        for by in [HOUR, -HOUR] {
            let clock = crate::WallClock::default();
            let mut table = Table::new(|_| ());
            table.meter.tell_times_of(clock.clone());
            table.packet(0, up(ACK));
            clock.stepped(T0 + 10 * SECOND, by);
            table.packet(20, down(ACK));
            table.packet(30, udp("10.0.0.1:1", "10.0.0.2:53"));
            table.meter.advance(T0 + 49 * SECOND, &mut table.records);
            assert!(table.records.0.is_empty(), "{by}");
            table.meter.advance(T0 + 61 * SECOND, &mut table.records);
            let shown = |r: &FlowRecord| (r.start_shown(), r.end_shown(), r.clock_step());
            let shown: Vec<_> = table.records.0.iter().map(shown).collect();
            let after = |seconds: u64| (T0 + seconds * SECOND).wrapping_add_signed(by);
            assert_eq!(shown, [(T0, after(20), by), (after(30), after(30), 0)]);
            let times = |r: &FlowRecord| (r.start_time - T0, r.end_time - T0);
            assert_eq!(times(&table.records.0[0]), (0, 20 * SECOND), "its own time has no steps");
            assert_eq!(table.told(), [(End, Some(IdleTimeout), 1, 1), (End, Some(IdleTimeout), 1, 0)]);
        }
    }

    /// A packet of a queue that stood still: its interval was over before it came.
    #[test]
    fn a_record_counts_from_its_late_packets_on() {
        let mut table = Table::new(|config| config.idle_timeout = Interval::seconds(1_000));
        let mut orientation = Orientation::new(HashSecret::new(1));
        table.meter.allow_for(orientation.lateness());
        let (flow, other) = (up(ACK), udp("10.0.0.9:9", "10.0.0.1:53"));
        for (at, o) in [(0, flow), (70, other), (40, flow), (118, flow)] {
            let mut o = Observation { start: T0 + at * SECOND, end: T0 + at * SECOND, ..o };
            orientation.prepare(&mut o);
            o.shard = 0;
            table.meter.observe(&[o], &mut table.records);
        }
        table.finish(119);
        let ours = table.records.0.iter().filter(|record| record.protocol == 6);
        let told: Vec<_> = ours.map(|r| (r.forward.delta.packets, (r.counts_from - T0) / SECOND)).collect();
        // The first record is told before anything is late, and the late packet belongs to the second.
        assert_eq!(told, [(1, 0), (2, 118 - 60 - 30)]);
    }

    #[test]
    fn a_record_that_was_postponed_for_very_long_counts_from_the_start() {
        let mut table = Table::new(|config| config.idle_timeout = Interval::seconds(1_000));
        for at in [0, 60] {
            table.packet(at, up(ACK));
        }
        table.meter.postpone_updates(true);
        for interval in 1..=300 {
            table.packet(60 * interval + 59, up(ACK));
        }
        table.finish(60 * 300 + 60);
        let counts_from: Vec<_> = table.records.0.iter().map(|r| r.counts_from).collect();
        assert_eq!(counts_from, [T0, T0]);
    }

    #[test]
    fn fin_from_both_sides_or_from_the_only_one_ends_after_its_timeout() {
        let mut table = Table::new(|_| ());
        table.packet(0, up(FIN | ACK));
        table.packet(1, down(ACK));
        table.packet(20, down(ACK));
        assert_eq!(table.told(), [], "one side is open");
        table.packet(21, down(FIN | ACK));
        table.packet(22, up(ACK));
        table.packet(27, up(ACK));
        assert_eq!(table.told(), [(End, Some(EndOfFlowDetected), 2, 3)]);
        let mut table = Table::new(|_| ());
        table.packet(0, up(FIN));
        table.finish(6);
        assert_eq!(table.told(), [(End, Some(EndOfFlowDetected), 1, 0)]);
    }

    #[test]
    fn a_closed_flow_ends_after_its_short_timeout_without_another_packet() {
        for close in [FIN, RST] {
            let mut table = Table::new(|_| ());
            table.packet(0, up(ACK));
            table.packet(1, up(close | ACK));
            table.meter.advance(T0 + 5 * SECOND, &mut table.records);
            assert_eq!(table.told(), [], "{close}");
            table.meter.advance(T0 + 8 * SECOND, &mut table.records);
            assert_eq!(table.told(), [(End, Some(EndOfFlowDetected), 2, 0)], "{close}");
        }
    }

    #[test]
    fn a_syn_after_fin_or_rst_is_another_flow() {
        for close in [FIN, RST] {
            let mut table = Table::new(|_| ());
            table.packet(0, up(SYN));
            table.packet(0, down(close | ACK));
            table.packet(1, up(SYN));
            assert_eq!(table.told(), [(End, Some(EndOfFlowDetected), 1, 1)]);
            assert_eq!(table.meter.active(), 1);
        }
        let mut table = Table::new(|_| ());
        table.packet(0, up(FIN | ACK));
        table.packet(0, down(FIN | ACK));
        table.packet(1, down(SYN));
        assert_eq!(table.told(), [(End, Some(EndOfFlowDetected), 1, 1)]);
    }

    #[test]
    fn a_later_syn_names_the_initiator_until_the_flow_was_reported() {
        for start_records in [false, true] {
            let mut table = Table::new(|config| config.start_records = start_records);
            table.packet(0, Observation { ports: [443_u16.to_be(), 40_000_u16.to_be()], ..down(ACK) });
            table.packet(0, down(SYN));
            table.finish(1);
            let last = table.records.0.last().unwrap();
            assert_eq!(last.source.port, Some(if start_records { 40_000 } else { 443 }));
        }
    }

    #[test]
    fn start_records_carry_nothing() {
        let mut table = Table::new(|config| config.start_records = true);
        table.packet(0, up(SYN));
        table.finish(1);
        let sequences: Vec<_> = table.records.0.iter().map(|r| r.sequence).collect();
        assert_eq!(sequences, [0, 1]);
        assert_eq!(table.told(), [(Start, None, 0, 0), (End, Some(ForcedEnd), 1, 0)]);
    }

    #[test]
    fn at_the_bound_the_least_recently_seen_flow_goes() {
        let mut table = Table::new(|config| config.table_capacity = NonZeroUsize::new(3 * 64).unwrap());
        let flow = |n: u16| udp(&format!("10.0.0.1:{n}"), "10.0.0.2:53");
        for (at, n) in [(0, 1), (1, 2), (2, 3), (3, 1), (4, 4), (5, 5)] {
            table.packet(at, flow(n));
        }
        let ports = |table: &mut Table| -> Vec<_> {
            table.records.0.drain(..).map(|r| (r.end_reason, r.source.port.min(r.destination.port))).collect()
        };
        let gone = ports(&mut table);
        assert_eq!(gone.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), [Some(LackOfResources); 2]);
        assert_eq!(gone.iter().map(|(_, port)| *port).collect::<Vec<_>>(), [Some(2), Some(3)]);
        assert_eq!((table.meter.active(), table.meter.book().evicted), (3, 2));
    }

    #[test]
    fn a_flow_whose_time_is_over_makes_room_before_one_that_lives() {
        // All within one second of the wheel: no sweep comes between.
        for ticked in [false, true] {
            let mut table = Table::new(|config| {
                config.table_capacity = NonZeroUsize::new(2 * 64).unwrap();
                config.udp_timeout = "200ms".parse().unwrap();
            });
            let at = |ms: u64, o: Observation| Observation { watermark: T0 + ms * 1_000_000, ..o };
            let packet = |table: &mut Table, mut o: Observation| {
                (o.start, o.end) = (o.watermark, o.watermark);
                table.observe(o);
            };
            packet(&mut table, at(0, up(ACK)));
            packet(&mut table, at(10, udp("10.0.0.1:1", "10.0.0.2:53")));
            if ticked {
                table.meter.advance(T0 + 210_000_000, &mut table.records);
            }
            // The TCP flow was seen less recently, but it lives.
            packet(&mut table, at(215, udp("10.0.0.1:2", "10.0.0.2:53")));
            assert_eq!(table.told(), [(End, Some(IdleTimeout), 1, 0)]);
            assert_eq!(table.meter.book().evicted, 0, "it did not have to go for another");
            packet(&mut table, at(220, udp("10.0.0.1:3", "10.0.0.2:53")));
            assert_eq!(table.told(), [(End, Some(LackOfResources), 1, 0)]);
        }
    }

    #[test]
    fn flows_that_come_and_go_after_the_table_was_full_leave_nothing_behind() {
        let mut table = Table::new(|config| config.table_capacity = NonZeroUsize::new(4 * 64).unwrap());
        for n in 0..5 {
            table.packet(0, udp(&format!("10.0.0.1:{n}"), "10.0.0.2:53"));
        }
        for n in 0..1_000_u16 {
            table.packet(u64::from(n) * 40 + 40, udp(&format!("10.0.0.1:{n}"), "10.0.0.2:53"));
            assert!(table.meter.shards[0].eviction.held() <= 8);
        }
    }

    #[test]
    fn a_syn_never_makes_a_group_the_source() {
        let mut table = Table::new(|_| ());
        let group = tcp("239.1.2.3:5000", "10.0.0.1:443");
        table.packet(0, Observation { tcp_flags: ACK, has_tcp_flags: true, ..group });
        table.packet(0, Observation { tcp_flags: SYN, has_tcp_flags: true, ..group });
        table.finish(1);
        assert_eq!(table.records.0[0].source.address.to_string(), "10.0.0.1");
        assert_eq!(table.records.0[0].initiator, crate::Initiator::Multicast);
    }

    #[test]
    fn another_observation_point_of_the_same_direction_is_secondary() {
        let mut table = Table::new(|_| ());
        table.packet(0, up(SYN));
        table.packet(0, Observation { point: 1, ..up(SYN) });
        table.packet(0, Observation { point: 1, ..down(SYN | ACK) });
        table.packet(0, Observation { point: 0, ..down(SYN | ACK) });
        assert_eq!(table.meter.book.secondary.packets, 2);
        table.finish(1);
        assert_eq!(table.told(), [(End, Some(ForcedEnd), 1, 1)]);
    }

    #[test]
    fn segmented_buffers_leave_the_table_as_they_came() {
        let mut table = Table::new(|_| ());
        let segmented =
            Observation { packets: 10, frame_bytes: 15_000, buffers: 1, buffer_bytes: 14_600, ..up(ACK) };
        table.packet(0, segmented);
        table.packet(0, Observation { frame_bytes: 100, buffer_bytes: 104, ..up(ACK) });
        table.finish(1);
        let expected = Tally { packets: 11, bytes: 15_100, buffers: 2, buffer_bytes: 14_704 };
        assert_eq!(table.records.0[0].tally, expected);
        assert_eq!(table.meter.book.reported, expected);
    }
}
