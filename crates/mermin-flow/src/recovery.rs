//! What comes after a panic: the meter is put in order, and what it panicked at is tried once more, by itself.
//!
//! A meter that has panicked may stand in the middle of something. Its entries are whole (a packet is added to one by
//! plain arithmetic), everything else is made anew from them: table, wheels, counts. What became of the observation it
//! was at is told by the books: what stands in flows and records now, less what stood there before. If nothing of it
//! does, it is metered once more; if that panics too, it is given up. A flow that panics when its time has come is given
//! up with what no record has carried of it. Both are counted: `quarantined`. Nothing else is lost, and no flow is split.

use crate::community_id::CommunityId;
use crate::index::Place;
use crate::key::FlowKey;
use crate::meter::{Meter, RecordSink};
use crate::observation::Observation;
use crate::record::FlowEvent;
use crate::tally::Tally;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A sink that can say what it has taken.
pub trait CountingSink: RecordSink {
    /// Records taken so far. After a panic within [`RecordSink::record`] it tells whether that record was taken.
    fn taken(&self) -> u64;
}

/// A panic that was contained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What it said.
    pub message: String,
    /// What was given up because of it.
    pub given_up: Option<GivenUp>,
}

/// What a meter has given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// An observation of this flow, or what was left of it.
    Observation(CommunityId, Tally),
    /// What no record had carried of this flow.
    Flow(CommunityId, Tally),
    /// It is not known of what: counts did not add up.
    Unknown(Tally),
}

impl GivenUp {
    /// How much.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        let (Self::Observation(_, tally) | Self::Flow(_, tally) | Self::Unknown(tally)) = self;
        *tally
    }
}

/// A flow, by its shard and the shard's creation ordinal.
type Suspect = (u8, u64);

/// Times that metering one observation may panic before it is given up, where every time another flow was at hand.
const TRIES: u32 = 4;

/// What panics at the same observation, or outside any, have in common.
#[derive(Default)]
struct Suspicion {
    flow: Option<Suspect>,
    times: u32,
}

impl Suspicion {
    /// Another panic, with this flow at hand. Whether it was at hand at the last one too.
    fn is_the_same(&mut self, flow: Option<Suspect>) -> bool {
        self.times += 1;
        std::mem::replace(&mut self.flow, flow) == flow && self.times > 1
    }
}

/// What a panic said.
#[must_use]
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

impl Meter {
    /// As [`Meter::observe`], and contains panics; each is told.
    pub fn observe_contained(
        &mut self,
        batch: &[Observation],
        sink: &mut impl CountingSink,
        mut tell: impl FnMut(Incident),
    ) {
        let mut rest = batch;
        let mut suspicion: Option<Suspicion> = None;
        while !rest.is_empty() {
            // What it has panicked at is tried by itself.
            let part = if suspicion.is_some() { &rest[..1] } else { rest };
            let before = self.begin(sink);
            let result = catch_unwind(AssertUnwindSafe(|| self.observe(part, sink)));
            let Err(payload) = result else {
                (rest, suspicion) = (&rest[part.len()..], None);
                continue;
            };
            let at = self.touch.observation.min(part.len() - 1);
            let (suspect, settled) = self.recover(before, &part[..=at], sink.taken());
            rest = &rest[at..];
            let given_up = match settled {
                Settled::Untouched => {
                    let panics = suspicion.get_or_insert_default();
                    let (same, times) = (panics.is_the_same(suspect), panics.times);
                    let flow = suspect.filter(|_| same).and_then(|flow| self.give_up_flow(flow));
                    if flow.is_none() && (same || times >= TRIES) {
                        Some(self.give_up_observation(&rest[0], rest[0].tally()))
                    } else {
                        flow
                    }
                }
                Settled::Counted => {
                    self.start_again(&rest[0], sink);
                    None
                }
                Settled::Short(tally) => Some(self.give_up_observation(&rest[0], tally)),
            };
            let is_through =
                settled != Settled::Untouched || matches!(given_up, Some(GivenUp::Observation(..)));
            if is_through {
                (rest, suspicion) = (&rest[1..], None);
            }
            tell(Incident { message: panic_message(&*payload), given_up });
        }
    }

    /// As [`Meter::advance`], and contains panics; each is told.
    pub fn advance_contained(
        &mut self,
        watermark: u64,
        sink: &mut impl CountingSink,
        tell: impl FnMut(Incident),
    ) {
        self.contained(sink, |meter, sink| meter.advance(watermark, sink), tell);
    }

    /// As [`Meter::finish`], and contains panics; each is told.
    pub fn finish_contained(
        &mut self,
        watermark: u64,
        sink: &mut impl CountingSink,
        tell: impl FnMut(Incident),
    ) {
        self.contained(sink, |meter, sink| meter.finish(watermark, sink), tell);
    }

    /// Does what only moves flows' time on until it comes through. Each panic is at a flow; at the second one at the same
    /// flow it is given up, so that this comes to an end.
    pub(crate) fn contained<S: CountingSink>(
        &mut self,
        sink: &mut S,
        mut work: impl FnMut(&mut Self, &mut S),
        mut tell: impl FnMut(Incident),
    ) {
        let mut suspicion = Suspicion::default();
        loop {
            let before = self.begin(sink);
            let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(self, sink))) else { return };
            let (suspect, settled) = self.recover(before, &[], sink.taken());
            let same = suspicion.is_the_same(suspect);
            let given_up = match settled {
                Settled::Short(tally) => {
                    self.book.quarantined += tally;
                    Some(GivenUp::Unknown(tally))
                }
                Settled::Untouched | Settled::Counted => {
                    suspect.filter(|_| same).and_then(|flow| self.give_up_flow(flow))
                }
            };
            tell(Incident { message: panic_message(&*payload), given_up });
            if same && suspect.is_none() {
                // No flow is at hand that could be taken out of the way: left to the next time.
                return;
            }
        }
    }

    /// Tells the start of this observation's flow where it was left out. It carries nothing: if it panics again, the
    /// flow's first record is its next.
    fn start_again(&mut self, o: &Observation, sink: &mut impl CountingSink) {
        let place = self.table.find(o.hash, &FlowKey::of(o));
        let is_untold = |place: &Place| self.table.get(*place).is_some_and(|(_, facts)| facts.sequence == 0);
        let Some(place) = place.filter(is_untold).filter(|_| self.settings.start_records) else { return };
        self.begin(sink);
        let result = catch_unwind(AssertUnwindSafe(|| self.report(place, FlowEvent::Start, None, sink)));
        if result.is_err()
            && let Some((place, event)) = self.touch.telling.take()
            && sink.taken() > self.touch.told
        {
            self.told(place, event);
        }
    }

    fn place_of(&self, (shard, ordinal): Suspect) -> Option<Place> {
        self.table.iter().find(|(_, _, facts)| facts.is(shard, ordinal)).map(|(place, ..)| place)
    }

    /// A call begins; what has been handled so far.
    fn begin(&mut self, sink: &impl CountingSink) -> Tally {
        self.touch.begin(sink.taken());
        self.stood()
    }

    /// What has been handled so far.
    fn stood(&self) -> Tally {
        self.book.metered + self.book.secondary + self.book.quarantined
    }

    /// After a panic at the last of the observations `tried`, before which `before` stood in the books; the sink has
    /// `taken` so many records.
    fn recover(&mut self, before: Tally, tried: &[Observation], taken: u64) -> (Option<Suspect>, Settled) {
        if let Some((place, event)) = self.touch.telling.take()
            && taken > self.touch.told
        {
            self.told(place, event);
        }
        let suspect = self.touch.suspect().and_then(|place| self.table.get(place));
        let suspect = suspect.map(|(_, facts)| (facts.shard, facts.ordinal));
        if let Some(place) = self.touch.ended.take() {
            if let Some((_, facts)) = self.table.get(place) {
                self.hops.forget(facts);
                if let Some(changes) = &mut self.changes {
                    changes.gone(facts);
                }
            }
            self.table.vacate(place);
            self.book.released += 1;
        }
        self.rebuild();
        let ((flows_came, came), (flows_went, went)) = (self.touch.came, self.touch.went);
        self.book.metered = self.book.reported + self.resident() + went - came;
        self.book.created = self.book.released + self.active() as u64 + flows_went - flows_came;
        let due: Tally = before + tried.iter().map(Observation::tally).sum();
        let last = tried.last().map_or(Tally::ZERO, Observation::tally);
        let stands = self.stood();
        let settled = if stands == due {
            Settled::Counted
        } else if stands + last == due {
            Settled::Untouched
        } else if stands.at_least(due) == due {
            Settled::Short(due - stands)
        } else {
            // More stands there than was handed over: nothing is lost, and the ledger shows it.
            Settled::Counted
        };
        (suspect, settled)
    }

    /// Takes a flow out, without a record.
    fn give_up_flow(&mut self, flow: Suspect) -> Option<GivenUp> {
        let place = self.place_of(flow)?;
        let shard = &mut self.shards[usize::from(flow.0)];
        shard.held -= 1;
        shard.wheel.cancel(&mut self.links, place);
        let (entry, mut facts) = self.table.take(place)?;
        let tally = entry.tally(&facts);
        self.samples.forget(&facts);
        self.hops.forget(&facts);
        if let Some(changes) = &mut self.changes {
            changes.gone(&facts);
        }
        self.book.released += 1;
        self.book.metered = self.book.metered - tally;
        self.book.quarantined += tally;
        let community_id = facts.community_id(&entry.key, self.settings.identification.seed);
        Some(GivenUp::Flow(community_id, tally))
    }

    fn give_up_observation(&mut self, o: &Observation, tally: Tally) -> GivenUp {
        self.book.quarantined += tally;
        GivenUp::Observation(CommunityId::of(&FlowKey::of(o), self.settings.identification.seed), tally)
    }
}

/// What became of the observation at which a meter panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// It stands nowhere.
    Untouched,
    /// It stands in the books.
    Counted,
    /// So much is missing.
    Short(Tally),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowConfig;
    use crate::fault;
    use crate::key::HashSecret;
    use crate::record::FlowRecord;
    use crate::sampling::Sampling;
    use crate::tcp::{ACK, FIN, RST, SYN};
    use crate::testing::{SECOND, T0, tcp};
    use proptest::prelude::*;
    use std::num::NonZeroUsize;

    /// Panics where it is told to: before or behind the moment at which a record is taken, or always at the records, or
    /// the creation, of a flow.
    #[derive(Default)]
    struct Sink {
        records: Vec<FlowRecord>,
        poison: Option<(Poison, CommunityId)>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Poison {
        Creation,
        Record,
    }

    impl Sink {
        fn look_out(&self, what: Poison, id: CommunityId) {
            if self.poison == Some((what, id)) {
                std::panic::resume_unwind(Box::new("poison".to_owned()));
            }
        }
    }

    impl RecordSink for Sink {
        fn record(&mut self, record: FlowRecord) {
            fault::point();
            self.look_out(Poison::Record, record.community_id);
            self.records.push(record);
            fault::point();
        }

        fn created(&mut self, community_id: impl FnOnce() -> CommunityId) {
            fault::point();
            self.look_out(Poison::Creation, community_id());
        }
    }

    impl CountingSink for Sink {
        fn taken(&self) -> u64 {
            self.records.len() as u64
        }
    }

    /// `capacity` flows a shard.
    fn meter(capacity: usize) -> Meter {
        let table_capacity = NonZeroUsize::new(crate::SHARDS * capacity).unwrap();
        Meter::new(&FlowConfig { table_capacity, start_records: true, ..FlowConfig::default() }, "")
    }

    /// A packet of one of some flows, all in one of two shards.
    fn packet((flow, flags, reverse, point): (u8, u8, bool, u16), at: u64) -> Observation {
        let (client, server) = (format!("10.0.0.2:{}", 40_000 + u16::from(flow)), "10.0.0.1:443");
        let mut o = if reverse { tcp(server, &client) } else { tcp(&client, server) };
        (o.start, o.end, o.watermark, o.point) = (T0 + at, T0 + at, T0 + at, point);
        (o.tcp_flags, o.has_tcp_flags) = (flags, true);
        o.orient(&HashSecret::new(1));
        o.shard = flow % 2;
        if at.is_multiple_of(3) && !o.is_turn() {
            o.sampling = Sampling::kept(1 + flow % 6, o.bytes);
        }
        o
    }

    type Step = ((u8, u8, bool, u16), u64);

    fn traffic() -> impl Strategy<Value = Vec<Step>> {
        let flags = prop::sample::select(vec![ACK, ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST]);
        let step = prop_oneof![4 => 0..SECOND, 1 => 0..100 * SECOND];
        prop::collection::vec(((0_u8..10, flags, any::<bool>(), 0_u16..2), step), 1..120)
    }

    fn batch(steps: &[Step], at: &mut u64) -> Vec<Observation> {
        let packets = steps.iter().map(|(what, step)| {
            *at += step;
            packet(*what, *at)
        });
        packets.collect()
    }

    fn sorted(mut records: Vec<FlowRecord>) -> Vec<FlowRecord> {
        records.sort_by_key(|record| (record.id.0, record.sequence));
        records
    }

    fn balances(meter: &Meter, fed: Tally) {
        let book = meter.book();
        assert_eq!(book.metered, book.reported + meter.resident());
        assert_eq!(book.metered + book.secondary + book.quarantined, fed);
        assert_eq!(book.created - book.released, meter.active() as u64);
    }

    /// Runs traffic in batches, with at most one panic in each call: at these fault points, by turns.
    fn run(
        traffic: &[Step],
        (size, capacity): (usize, usize),
        every: &[u32],
        poison: Option<(Poison, CommunityId)>,
    ) -> (Vec<FlowRecord>, Vec<Incident>, Meter) {
        let (mut meter, mut sink) = (meter(capacity), Sink { poison, ..Sink::default() });
        let (mut at, mut fed, mut incidents) = (0, Tally::ZERO, Vec::new());
        let mut every = every.iter().copied().cycle();
        let mut next = move || {
            fault::arm(every.next());
        };
        for steps in traffic.chunks(size) {
            let batch = batch(steps, &mut at);
            next();
            meter.observe_contained(&batch, &mut sink, |incident| incidents.push(incident));
            fed += batch.iter().map(Observation::tally).sum();
            balances(&meter, fed);
            next();
            meter.advance_contained(T0 + at, &mut sink, |incident| incidents.push(incident));
            balances(&meter, fed);
        }
        next();
        meter.finish_contained(T0 + at, &mut sink, |incident| incidents.push(incident));
        fault::arm(None);
        balances(&meter, fed);
        assert_eq!(meter.active(), 0);
        (sorted(sink.records), incidents, meter)
    }

    proptest! {
        /// Wherever a meter panics, once: nothing is lost, told twice or split.
        #[test]
        fn a_panic_leaves_no_trace_in_the_records(
            traffic in traffic(), size in 1_usize..70, every in prop::collection::vec(1_u32..200, 1..4),
        ) {
            let (undisturbed, none, _) = run(&traffic, (size, 3), &[], None);
            prop_assert!(none.is_empty());
            let (records, incidents, meter) = run(&traffic, (size, 3), &every, None);
            prop_assert_eq!(meter.book().quarantined, Tally::ZERO, "{:?}", incidents);
            prop_assert!(incidents.iter().all(|incident| incident.given_up.is_none()));
            for (disturbed, undisturbed) in records.iter().zip(&undisturbed) {
                prop_assert_eq!(disturbed, undisturbed);
            }
            prop_assert_eq!(records.len(), undisturbed.len());
        }

        /// What panics every time is given up, exactly, and nothing else.
        #[test]
        fn only_what_panics_again_is_given_up(mut traffic in traffic(), size in 1_usize..70, creation: bool) {
            // One observation point: nothing is secondary.
            traffic.iter_mut().for_each(|((_, _, _, point), _)| *point = 0);
            let poisonous = |flow: u8| CommunityId::of(&FlowKey::of(&packet((flow, 0, false, 0), 0)), 0);
            let poison = if creation { Poison::Creation } else { Poison::Record };
            let (undisturbed, ..) = run(&traffic, (size, 100), &[], None);
            let (records, incidents, meter) = run(&traffic, (size, 100), &[], Some((poison, poisonous(3))));
            let of_flow = traffic.iter().filter(|((flow, ..), _)| *flow == 3).count() as u64;
            prop_assert_eq!(meter.book().quarantined.packets, of_flow);
            let given_up: Tally = incidents.iter().filter_map(|incident| incident.given_up).map(|it| it.tally()).sum();
            prop_assert_eq!(given_up, meter.book().quarantined);
            prop_assert!(incidents.iter().all(|incident| incident.message == "poison"));
            // Flow ids count the shard's flows, so those behind one that is never created have others.
            let told = |records: &[FlowRecord]| {
                let others = records.iter().filter(|record| record.community_id != poisonous(3));
                let of = |record: &FlowRecord| (record.community_id.0, record.start_time, record.sequence, record.event as u8, record.tally.packets);
                let mut told: Vec<_> = others.map(of).collect();
                told.sort_unstable();
                told
            };
            prop_assert_eq!(told(&records).len(), records.len());
            prop_assert_eq!(told(&records), told(&undisturbed));
        }
    }
}
