//! One shard's flow table: the Metering Process (RFC 5470) for a 64th of all flows.
//!
//! Private to the worker that owns it. Time is the watermark that each observation carries. The rule that makes
//! records independent of batches, ticks and the number of workers: before anything else happens to a flow, its
//! deadlines up to now are handled in order of time, the periodic report before the end when both fall together.

use crate::config::FlowConfig;
use crate::entry::{Counted, Entry, Facts, IdleClass};
use crate::eviction::Eviction;
use crate::index::{Index, Place};
use crate::key::FlowKey;
use crate::observation::Observation;
use crate::record::{FlowEndReason, FlowEvent, FlowRecord};
use crate::report::{self, Identification};
use crate::slab::Slab;
use crate::tally::Tally;
use crate::wheel::Wheel;

/// Takes flow records as flows start, go on and end.
pub trait RecordSink {
    /// One record. Records of one flow come in order.
    fn record(&mut self, record: FlowRecord);

    /// A flow was created; `community_id` computes its id.
    fn created(&mut self, community_id: impl FnOnce() -> crate::CommunityId) {
        let _ = community_id;
    }
}

/// The settings of the `flow` section, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    active: u64,
    idle: [u64; IdleClass::COUNT],
    shortest_idle: u64,
    capacity: usize,
    start_records: bool,
    pub(crate) identification: Identification,
}

impl Settings {
    pub(crate) fn new(config: &FlowConfig, agent_id: &str) -> Self {
        let other = config.idle_timeout.nanos();
        let idle = [
            other,
            config.udp_timeout.nanos(),
            config.icmp_timeout.nanos(),
            config.tcp_fin_timeout.nanos().min(other),
            config.tcp_rst_timeout.nanos().min(other),
        ];
        Self {
            active: config.active_timeout.nanos(),
            idle,
            shortest_idle: idle.into_iter().fold(other, u64::min),
            capacity: config.table_capacity.get().div_ceil(crate::key::SHARDS),
            start_records: config.start_records,
            identification: Identification::new(agent_id, config.community_id_seed),
        }
    }

    #[inline(always)]
    const fn idle_deadline(&self, entry: &Entry) -> u64 {
        entry.last.saturating_add(self.idle[entry.idle_class as usize])
    }

    #[inline(always)]
    fn deadline(&self, entry: &Entry) -> u64 {
        self.idle_deadline(entry).min(entry.active_deadline)
    }
}

/// What a shard has done so far: its part of the metering book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterBook {
    /// Observations that stand in flows.
    pub metered: Tally,
    /// Observations of a direction that another observation point counts.
    pub secondary: Tally,
    /// What records have carried out of the flow table.
    pub reported: Tally,
    /// Flows created.
    pub created: u64,
    /// Flows ended.
    pub released: u64,
}

impl std::ops::AddAssign for MeterBook {
    fn add_assign(&mut self, other: Self) {
        self.metered += other.metered;
        self.secondary += other.secondary;
        self.reported += other.reported;
        self.created += other.created;
        self.released += other.released;
    }
}

#[derive(Debug)]
pub(crate) struct Shard {
    number: u8,
    index: Index,
    slab: Slab,
    wheel: Wheel,
    eviction: Eviction,
    ordinal: u64,
    pub(crate) postpone_updates: bool,
    pub(crate) book: MeterBook,
}

impl Shard {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            number,
            index: Index::new(),
            slab: Slab::default(),
            wheel: Wheel::new(),
            eviction: Eviction::default(),
            ordinal: 0,
            postpone_updates: false,
            book: MeterBook::default(),
        }
    }

    #[inline(always)]
    pub(crate) fn prefetch_index(&self, hash: u32) {
        self.index.prefetch(hash);
    }

    /// Loads the two lines of the flow that every packet touches.
    #[inline(always)]
    pub(crate) fn prefetch_entry(&self, hash: u32) {
        if let Some(place) = self.index.likely(hash) {
            self.slab.prefetch(place);
        }
    }

    /// Meters one oriented observation.
    #[inline(always)]
    pub(crate) fn observe(&mut self, o: &Observation, settings: &Settings, sink: &mut impl RecordSink) {
        if o.watermark >= self.wheel.next() {
            self.advance(o.watermark, settings, sink);
        }
        let key = FlowKey::of(o);
        let slab = &self.slab;
        let found =
            self.index.find(o.hash, |place| slab.entry(place).is_some_and(|entry| entry.key.same(&key)));
        match found {
            Some(place) => self.add(place, key, o, settings, sink),
            None => self.create(key, o, settings, sink),
        }
    }

    #[inline(always)]
    fn add(
        &mut self,
        place: Place,
        key: FlowKey,
        o: &Observation,
        settings: &Settings,
        sink: &mut impl RecordSink,
    ) {
        let Some((entry, facts)) = self.slab.get_mut(place) else { return };
        if o.watermark >= settings.deadline(entry) || entry.is_reopened_by(o) {
            return self.add_after_deadline(place, key, o, settings, sink);
        }
        match entry.count(o, facts) {
            Counted::Yes => self.book.metered += o.tally(),
            Counted::Sooner => {
                self.book.metered += o.tally();
                let deadline = settings.deadline(entry);
                self.wheel.schedule(place, deadline);
            }
            Counted::Secondary => self.book.secondary += o.tally(),
        }
    }

    #[cold]
    fn add_after_deadline(
        &mut self,
        place: Place,
        key: FlowKey,
        o: &Observation,
        settings: &Settings,
        sink: &mut impl RecordSink,
    ) {
        if !self.settle(place, o.watermark, settings, sink) {
            return self.create(key, o, settings, sink);
        }
        let Some(entry) = self.slab.entry(place) else { return };
        if entry.is_reopened_by(o) {
            self.end(place, FlowEndReason::EndOfFlowDetected, settings, sink);
            return self.create(key, o, settings, sink);
        }
        self.add(place, key, o, settings, sink);
    }

    /// Handles everything that is due up to `now`.
    pub(crate) fn advance(&mut self, now: u64, settings: &Settings, sink: &mut impl RecordSink) {
        while let Some(place) = self.wheel.due(now) {
            self.look_at(place, now, settings, sink);
        }
    }

    /// Handles a flow's deadlines up to `now` and puts it where the next one is.
    fn look_at(&mut self, place: Place, now: u64, settings: &Settings, sink: &mut impl RecordSink) {
        if self.settle(place, now, settings, sink)
            && let Some(entry) = self.slab.entry(place)
        {
            self.wheel.schedule(place, settings.deadline(entry));
        }
    }

    /// Handles a flow's deadlines up to `now` in order of time; whether the flow lives on.
    fn settle(&mut self, place: Place, now: u64, settings: &Settings, sink: &mut impl RecordSink) -> bool {
        let Some((entry, _)) = self.slab.get_mut(place) else { return false };
        let idle = settings.idle_deadline(entry);
        if entry.active_deadline <= idle.min(now) {
            // Every packet so far came before this deadline; later intervals up to `now` have none, and give no record.
            let has_packets = entry.delta.iter().any(|side| side.packets > 0);
            let passed = (idle.min(now) - entry.active_deadline) / settings.active;
            entry.active_deadline = entry
                .active_deadline
                .saturating_add(settings.active.saturating_mul(passed.saturating_add(1)));
            if has_packets && !self.postpone_updates {
                self.report(place, FlowEvent::Update, Some(FlowEndReason::ActiveTimeout), settings, sink);
            }
        }
        if idle > now {
            return true;
        }
        let closed = self.slab.entry(place).is_some_and(Entry::is_closed);
        let reason = if closed { FlowEndReason::EndOfFlowDetected } else { FlowEndReason::IdleTimeout };
        self.end(place, reason, settings, sink);
        false
    }

    #[cold]
    fn create(&mut self, key: FlowKey, o: &Observation, settings: &Settings, sink: &mut impl RecordSink) {
        let place = self.room(o.watermark, settings, sink);
        let (mut entry, mut facts) = (Entry::new(key, o, settings.active), Facts::new(o, self.ordinal));
        self.ordinal += 1;
        self.book.created += 1;
        sink.created(|| facts.community_id(&key, settings.identification.seed));
        let counted = entry.count(o, &mut facts);
        debug_assert_ne!(counted, Counted::Secondary, "the first packet's observation point is the flow's");
        self.book.metered += o.tally();
        self.index.insert(o.hash, place);
        self.wheel.schedule(place, settings.deadline(&entry));
        self.eviction.created(place, entry.last, facts.ordinal, &self.slab);
        self.slab.fill(place, entry, facts);
        if settings.start_records {
            self.report(place, FlowEvent::Start, None, settings, sink);
        }
    }

    /// A free place; at the bound the least recently seen flow makes room.
    fn room(&mut self, now: u64, settings: &Settings, sink: &mut impl RecordSink) -> Place {
        loop {
            if let Some(place) = self.slab.vacant(settings.capacity) {
                return place;
            }
            let oldest =
                self.eviction.least_recent(&self.slab).expect("a full shard has a least recently seen flow");
            self.make_room(oldest, now, settings, sink);
        }
    }

    /// Ends the flows whose time is over, swept or not; if there are none, the least recently seen one.
    fn make_room(&mut self, oldest: Place, now: u64, settings: &Settings, sink: &mut impl RecordSink) {
        // Under a flood of new flows even the least recent one is young, so nothing is due and nothing is walked.
        let due = |entry: &Entry| entry.last.saturating_add(settings.shortest_idle) <= now;
        if self.slab.entry(oldest).is_some_and(due) {
            let mut next = self.wheel.first_of_second();
            while let Some(place) = next {
                next = self.wheel.behind(place);
                self.look_at(place, now, settings, sink);
            }
        }
        if self.slab.held() == settings.capacity && self.settle(oldest, now, settings, sink) {
            self.end(oldest, FlowEndReason::LackOfResources, settings, sink);
        }
    }

    fn end(&mut self, place: Place, reason: FlowEndReason, settings: &Settings, sink: &mut impl RecordSink) {
        self.report(place, FlowEvent::End, Some(reason), settings, sink);
        if let Some(hash) = self.slab.vacate(place) {
            self.index.remove(hash, place);
            self.wheel.cancel(place);
            self.book.released += 1;
        }
    }

    fn report(
        &mut self,
        place: Place,
        event: FlowEvent,
        reason: Option<FlowEndReason>,
        settings: &Settings,
        sink: &mut impl RecordSink,
    ) {
        let Some((entry, facts)) = self.slab.get_mut(place) else { return };
        let record = report::record(entry, facts, self.number, event, reason, &settings.identification);
        self.book.reported += record.tally;
        sink.record(record);
    }

    /// Handles what is due at `now`, then ends every flow.
    pub(crate) fn finish(&mut self, now: u64, settings: &Settings, sink: &mut impl RecordSink) {
        self.advance(now, settings, sink);
        for place in 0..self.slab.places() as Place {
            if self.slab.entry(place).is_some() && self.settle(place, now, settings, sink) {
                self.end(place, FlowEndReason::ForcedEnd, settings, sink);
            }
        }
    }

    /// What is in the table and in no record, by looking at every flow.
    pub(crate) fn resident(&self) -> Tally {
        self.slab.iter().map(|(_, entry, facts)| entry.tally(facts)).sum()
    }

    /// Flows in the table.
    pub(crate) const fn active(&self) -> usize {
        self.slab.held()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::HashSecret;
    use crate::tcp::{ACK, FIN, RST, SYN};
    use crate::testing::{SECOND, T0, tcp, udp};
    use crate::units::Interval;
    use std::num::NonZeroUsize;

    #[derive(Default)]
    struct Records(Vec<FlowRecord>);

    impl RecordSink for Records {
        fn record(&mut self, record: FlowRecord) {
            self.0.push(record);
        }
    }

    struct Table {
        shard: Shard,
        settings: Settings,
        records: Records,
    }

    impl Table {
        fn new(change: impl FnOnce(&mut FlowConfig)) -> Self {
            let mut config = FlowConfig::default();
            change(&mut config);
            Self { shard: Shard::new(0), settings: Settings::new(&config, ""), records: Records::default() }
        }

        /// The packet, `at` seconds after `T0`.
        fn packet(&mut self, at: u64, mut o: Observation) {
            o.start = T0 + at * SECOND;
            o.end = o.start;
            o.watermark = o.start;
            o.orient(&HashSecret::new(1));
            self.shard.observe(&o, &self.settings, &mut self.records);
            let book = self.shard.book;
            assert_eq!(book.metered, book.reported + self.shard.resident());
        }

        /// Event, reason and packets both ways of each record so far.
        fn told(&mut self) -> Vec<(FlowEvent, Option<FlowEndReason>, u64, u64)> {
            let told =
                |r: FlowRecord| (r.event, r.end_reason, r.forward.delta.packets, r.reverse.delta.packets);
            self.records.0.drain(..).map(told).collect()
        }

        fn finish(&mut self, at: u64) {
            self.shard.finish(T0 + at * SECOND, &self.settings, &mut self.records);
            assert_eq!((self.shard.active(), self.shard.resident()), (0, Tally::ZERO));
            assert_eq!(self.shard.book.created, self.shard.book.released);
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
                table.shard.advance(T0 + 59 * SECOND, &table.settings, &mut table.records);
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
        table.shard.postpone_updates = true;
        table.packet(0, up(ACK));
        table.packet(60, up(ACK));
        assert_eq!(table.told(), []);
        table.shard.postpone_updates = false;
        table.packet(120, up(ACK));
        assert_eq!(table.told(), [(Update, Some(ActiveTimeout), 2, 0)]);
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
    fn a_syn_after_fin_or_rst_is_another_flow() {
        for close in [FIN, RST] {
            let mut table = Table::new(|_| ());
            table.packet(0, up(SYN));
            table.packet(0, down(close | ACK));
            table.packet(1, up(SYN));
            assert_eq!(table.told(), [(End, Some(EndOfFlowDetected), 1, 1)]);
            assert_eq!(table.shard.active(), 1);
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
        assert_eq!(table.shard.active(), 3);
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
                o.orient(&HashSecret::new(1));
                table.shard.observe(&o, &table.settings, &mut table.records);
            };
            packet(&mut table, at(0, up(ACK)));
            packet(&mut table, at(10, udp("10.0.0.1:1", "10.0.0.2:53")));
            if ticked {
                table.shard.advance(T0 + 210_000_000, &table.settings, &mut table.records);
            }
            // The TCP flow was seen less recently, but it lives.
            packet(&mut table, at(215, udp("10.0.0.1:2", "10.0.0.2:53")));
            assert_eq!(table.told(), [(End, Some(IdleTimeout), 1, 0)]);
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
            assert!(table.shard.eviction.held() <= 8);
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
        assert_eq!(table.shard.book.secondary.packets, 2);
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
        assert_eq!(table.shard.book.reported, expected);
    }
}
