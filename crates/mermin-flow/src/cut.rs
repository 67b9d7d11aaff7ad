//! What has changed in a meter's flows since it was asked before, written down: with all that was said before it is all that the
//! meter holds, so that another process can go on with it.
//!
//! Flows are called by shard and ordinal, as in flow ids. A change is the whole flow as it is now: where it was changed several
//! times between two cuts it is written once.

use crate::bytes::{Bytes, Put as _};
use crate::entry::{Entry, Facts};
use crate::hop_table::Sighting;
use crate::index::Place;
use crate::key::SHARDS;
use crate::meter::Meter;
use crate::point::{Hook, ObservationPoint, ObservationPoints};
use crate::sampled::Sampled;
use crate::shard::Shard;
use crate::tally::Tally;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const UNKNOWN: u16 = ObservationPoints::UNKNOWN;

/// Which flows have changed, and which have gone.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// By place, a bit.
    marks: Vec<u64>,
    /// Places that have one.
    places: Vec<Place>,
    /// Shard and ordinal.
    gone: Vec<(u8, u64)>,
    /// By shard, the next flow's as it was written down.
    ordinals: Vec<u64>,
}

impl Changes {
    /// The flow at `place` has changed, or is new.
    #[inline(always)]
    pub(crate) fn mark(&mut self, place: Place) {
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        if self.marks.get(word).is_none_or(|marks| marks & bit == 0) {
            self.mark_first(place, word, bit);
        }
    }

    #[cold]
    fn mark_first(&mut self, place: Place, word: usize, bit: u64) {
        if self.marks.len() <= word {
            self.marks.resize(word + 1, 0);
        }
        self.marks[word] |= bit;
        self.places.push(place);
    }

    /// A flow is no more.
    pub(crate) fn gone(&mut self, facts: &Facts) {
        self.gone.push((facts.shard, facts.ordinal));
    }
}

/// What a flow has, in memory.
type Whole = (Entry, Facts, Vec<Sighting>, Option<Sampled>);

/// What an item of a cut is.
mod item {
    /// Shard, ordinal of the next flow.
    pub(super) const SHARD: u8 = 1;
    /// Shard, flow.
    pub(super) const FLOW: u8 = 2;
    /// Shard, ordinal.
    pub(super) const GONE: u8 = 3;
    /// Hook, number, interface index or zero, length of the name, name.
    pub(super) const POINT: u8 = 4;
}

/// A hook, written down.
const HOOKS: [Option<Hook>; 3] = [None, Some(Hook::Ingress), Some(Hook::Egress)];

impl ObservationPoints {
    /// Appends what all points are called: with it goes what the flows of a cut say of points.
    pub fn cut(&self, out: &mut Vec<u8>) {
        for (number, point) in self.all().iter().enumerate() {
            let hook = HOOKS.iter().position(|hook| *hook == point.hook).unwrap_or_default();
            let name = point.interface.as_deref().unwrap_or_default().as_bytes();
            out.put([item::POINT, hook as u8]);
            out.put((number as u16).to_le_bytes());
            out.put(point.index.unwrap_or_default().to_le_bytes());
            out.put([name.len() as u8]);
            out.extend_from_slice(&name[..name.len() & 0xff]);
        }
    }
}

impl Meter {
    /// From now on it can be asked what has changed.
    pub fn keep_track(&mut self) {
        self.changes = Some(Changes::default());
    }

    /// Appends what has changed since it was asked before; nothing, unless it keeps track.
    pub fn cut(&mut self, out: &mut Vec<u8>) {
        let Some(changes) = &mut self.changes else { return };
        for (shard, ordinal) in changes.gone.drain(..) {
            out.put([item::GONE, shard]);
            out.put(ordinal.to_le_bytes());
        }
        changes.ordinals.resize(SHARDS, 0);
        for ((number, shard), written) in self.shards.iter().enumerate().zip(&mut changes.ordinals) {
            if *written != shard.ordinal {
                *written = shard.ordinal;
                out.put([item::SHARD, number as u8]);
                out.put(shard.ordinal.to_le_bytes());
            }
        }
        for place in changes.places.drain(..) {
            changes.marks[place as usize / 64] &= !(1 << (place % 64));
            let Some((entry, facts)) = self.table.get(place) else { continue };
            out.put([item::FLOW, facts.shard]);
            entry.write(out);
            facts.write(out);
            self.hops.write(facts, out);
            match self.samples.of(facts) {
                Some(sampled) => {
                    out.put([1]);
                    sampled.write(out);
                }
                None => out.put([0]),
            }
        }
    }

    /// As [`Meter::cut`], with all flows, whether they have changed or not.
    pub fn cut_whole(&mut self, out: &mut Vec<u8>) {
        if let Some(changes) = &mut self.changes {
            (0..self.table.places() as Place).for_each(|place| changes.mark(place));
            changes.ordinals.clear();
        }
        self.cut(out);
    }

    /// Records that were made of flows in an earlier process are handed on in this one.
    pub fn takes_over_records(&mut self, tally: Tally) {
        self.book.metered += tally;
        self.book.reported += tally;
    }

    /// Goes on with a shard that was written down; it must have nothing of it itself.
    pub fn restore(&mut self, number: usize, kept: KeptShard) {
        let KeptShard { ordinal, flows } = kept;
        self.begin_shard(number, &Shard { ordinal, ..Shard::new(number as u8) });
        for (entry, facts, sightings, sampled) in flows.into_values() {
            self.book.metered += entry.tally(&facts);
            self.book.created += 1;
            self.hops.restore(&facts, sightings);
            self.samples.restore(&facts, sampled);
            self.put((entry, facts));
        }
    }
}

/// A shard as it was written down.
#[derive(Debug, Default)]
pub struct KeptShard {
    ordinal: u64,
    flows: BTreeMap<u64, Whole>,
}

impl KeptShard {
    /// Flows in it.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// What no record has carried yet of them.
    #[must_use]
    pub fn resident(&self) -> Tally {
        self.flows.values().map(|(entry, facts, ..)| entry.tally(facts)).sum()
    }
}

/// All shards of an agent as they were written down, cut by cut.
#[derive(Debug)]
pub struct KeptFlows {
    shards: [KeptShard; SHARDS],
    /// By number.
    points: BTreeMap<u16, ObservationPoint>,
}

impl Default for KeptFlows {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| KeptShard::default()), points: BTreeMap::new() }
    }
}

impl KeptFlows {
    /// Takes in what a meter has appended in one cut. `None`: it can't be read to its end.
    #[must_use]
    pub fn take_in(&mut self, cut: &[u8]) -> Option<()> {
        let mut bytes = Bytes(cut);
        while !bytes.0.is_empty() {
            let [kind, number] = bytes.array()?;
            if kind == item::POINT {
                let (point, of) = ObservationPoint::read(&mut bytes, *HOOKS.get(usize::from(number))?)?;
                self.points.insert(point, of);
                continue;
            }
            let shard = self.shards.get_mut(usize::from(number))?;
            match kind {
                item::SHARD => shard.ordinal = shard.ordinal.max(bytes.number()?),
                item::GONE => drop(shard.flows.remove(&bytes.number()?)),
                item::FLOW => {
                    let entry = Entry::read(&mut bytes)?;
                    let facts = Facts::read(&mut bytes, number)?;
                    let sightings = Sighting::read_all(&mut bytes)?;
                    let sampled = if bytes.byte()? == 0 { None } else { Some(Sampled::read(&mut bytes)?) };
                    shard.flows.insert(facts.ordinal, (entry, facts, sightings, sampled));
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// What no record has carried yet.
    #[must_use]
    pub fn resident(&self) -> Tally {
        self.shards.iter().map(KeptShard::resident).sum()
    }

    /// Flows in all shards.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.shards.iter().map(KeptShard::flows).sum()
    }

    /// From now on points have the numbers that they have in this run.
    pub fn renumber(&mut self, points: &ObservationPoints) {
        let known = std::mem::take(&mut self.points);
        let mut numbers = HashMap::new();
        let mut again = |number: &mut u16| {
            let of = |number: &u16| known.get(number).map(|point| points.again(point));
            *number = *numbers.entry(*number).or_insert_with_key(|number| of(number).unwrap_or(UNKNOWN));
        };
        for (entry, _, sightings, _) in self.shards.iter_mut().flat_map(|shard| shard.flows.values_mut()) {
            entry.points_mut().iter_mut().for_each(&mut again);
            sightings.iter_mut().for_each(|sighting| again(sighting.point_mut()));
        }
    }

    /// The shards, by number.
    #[must_use]
    pub fn into_shards(self) -> [KeptShard; SHARDS] {
        self.shards
    }
}

impl ObservationPoint {
    /// Its number and itself, of what [`ObservationPoints::cut`] has appended.
    fn read(bytes: &mut Bytes<'_>, hook: Option<Hook>) -> Option<(u16, Self)> {
        let (number, index, length) = (bytes.half()?, bytes.word()?, bytes.byte()?);
        let name = std::str::from_utf8(bytes.take(length.into())?).ok()?;
        let interface = (!name.is_empty()).then(|| Arc::from(name));
        Some((number, Self { interface, index: (index > 0).then_some(index), hook }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlowConfig;
    use crate::key::HashSecret;
    use crate::observation::Observation;
    use crate::record::FlowRecord;
    use crate::sampling::Sampling;
    use crate::tcp::{ACK, FIN, RST, SYN};
    use crate::testing::{Records, SECOND, T0, tcp};
    use proptest::prelude::*;
    use std::num::NonZeroUsize;

    type Step = ((u8, u8, bool, u16), u64);

    fn traffic() -> impl Strategy<Value = Vec<Step>> {
        let flags = prop::sample::select(vec![ACK, ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST]);
        let step = prop_oneof![4 => 0..SECOND, 1 => 0..100 * SECOND];
        prop::collection::vec(((0_u8..10, flags, any::<bool>(), 0_u16..3), step), 1..120)
    }

    fn packet((flow, flags, reverse, point): (u8, u8, bool, u16), at: u64) -> Observation {
        let (client, server) = (format!("10.0.0.2:{}", 40_000 + u16::from(flow)), "10.0.0.1:443");
        let mut o = if reverse { tcp(server, &client) } else { tcp(&client, server) };
        (o.start, o.end, o.watermark, o.point) = (T0 + at, T0 + at, T0 + at, point);
        (o.tcp_flags, o.has_tcp_flags, o.macs[5]) = (flags, true, flow);
        o.orient(&HashSecret::new(1));
        o.shard = flow % 2;
        if at.is_multiple_of(3) && !o.is_turn() {
            o.sampling = Sampling::kept(1 + flow % 6, o.bytes);
        }
        o
    }

    fn meter() -> Meter {
        let table_capacity = NonZeroUsize::new(SHARDS * 3).unwrap();
        let config = FlowConfig { table_capacity, start_records: true, ..FlowConfig::default() };
        let mut meter = Meter::new(&config, "host");
        meter.keep_track();
        meter
    }

    fn sorted(mut records: Vec<FlowRecord>) -> Vec<FlowRecord> {
        records.sort_by_key(|record| (record.id.0, record.sequence));
        records
    }

    #[test]
    fn points_get_the_numbers_that_they_have_in_this_run() {
        let point = |name: &str, index, hook| ObservationPoint {
            interface: Some(name.into()),
            index: Some(index),
            hook: Some(hook),
        };
        let (before, now) = (ObservationPoints::default(), ObservationPoints::default());
        for (name, index) in [("eth0", 2), ("gone", 9), ("veth1", 7)] {
            before.register(point(name, index, Hook::Ingress), 0);
        }
        now.register(point("new", 3, Hook::Ingress), 0);
        // Its other hook, and its name has changed meanwhile.
        now.register(point("veth2", 7, Hook::Egress), 0);
        now.register(point("veth2", 7, Hook::Ingress), 0);
        let mut meter = meter();
        for number in 0..4 {
            let client = format!("10.0.0.2:{number}");
            let mut o = tcp(&client, "10.0.0.1:443");
            o.point = number;
            o.orient(&HashSecret::new(1));
            meter.observe(&[o], &mut Records::default());
        }
        let (mut cut, mut kept) = (Vec::new(), KeptFlows::default());
        before.cut(&mut cut);
        meter.cut(&mut cut);
        assert!(kept.take_in(&cut).is_some());
        assert_eq!(kept.flows(), 4);
        kept.renumber(&now);
        let flows = kept.into_shards().into_iter().flat_map(|shard| shard.flows.into_values());
        let name = |(entry, ..): Whole| Some(now.get(entry.point())?.interface.as_ref()?.to_string());
        let mut names: Vec<_> = flows.map(name).collect();
        names.sort();
        assert_eq!(names, [None, Some("eth0".into()), Some("gone".into()), Some("veth2".into())]);
    }

    proptest! {
        /// Killed behind any cut and gone on with: the same records, and books that balance.
        #[test]
        fn another_process_goes_on_from_a_cut(
            traffic in traffic(), every in 1_usize..20, killed in prop::collection::vec(any::<bool>(), 1..8),
        ) {
            let (mut undisturbed, mut expected) = (meter(), Records::default());
            let (mut current, mut records) = (meter(), Records::default());
            let (mut kept, mut at) = (KeptFlows::default(), 0);
            let mut dies = killed.into_iter().cycle();
            for steps in traffic.chunks(every) {
                for (what, step) in steps {
                    at += step;
                    let o = packet(*what, at);
                    undisturbed.observe(&[o], &mut expected);
                    current.observe(&[o], &mut records);
                }
                let mut cut = Vec::new();
                current.cut(&mut cut);
                prop_assert!(kept.take_in(&cut).is_some());
                prop_assert_eq!(kept.resident(), current.resident());
                if dies.next().unwrap_or_default() {
                    // What comes behind the cut and is lost with the process, is metered again.
                    current.observe(&[packet((1, SYN, false, 0), at)], &mut Records::default());
                    current = meter();
                    let shards = std::mem::take(&mut kept).into_shards();
                    shards.into_iter().enumerate().for_each(|(number, shard)| current.restore(number, shard));
                    let mut whole = Vec::new();
                    current.cut(&mut whole);
                    prop_assert!(kept.take_in(&whole).is_some());
                    let book = current.book();
                    prop_assert_eq!(book.metered, current.resident());
                    prop_assert_eq!(book.created, current.active() as u64);
                }
            }
            undisturbed.finish(T0 + at, &mut expected);
            current.finish(T0 + at, &mut records);
            let (records, expected) = (sorted(records.0), sorted(expected.0));
            prop_assert_eq!(records.len(), expected.len());
            for (record, expected) in records.iter().zip(&expected) {
                prop_assert_eq!(record, expected);
            }
        }

        /// Nothing that is read is trusted.
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), kind in 0_u8..5) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let _ = KeptFlows::default().take_in(&bytes);
        }
    }
}
