//! Observations merged while they wait give the flows that they would have given one by one.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "model/steps.rs"]
mod steps;

use mermin_flow::{
    CommunityId, FlowConfig, FlowEvent, FlowKey, FlowRecord, Fragment, HashSecret, Interval, Lateness, Meter,
    NO_VLAN, Observation, Orientation, RecordSink, Sampling, Tally,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use steps::{SECRET, Step, observations, points, step};

#[derive(Default)]
struct Records(Vec<FlowRecord>);

impl RecordSink for Records {
    fn record(&mut self, record: FlowRecord) {
        self.0.push(record);
    }
}

/// What waits, the naive way.
#[derive(Default)]
struct Waiting(Vec<Observation>);

impl Waiting {
    /// Whether it was merged.
    fn push(&mut self, o: &Observation, gap: u64) -> bool {
        for waiting in self.0.iter_mut().rev().filter(|waiting| waiting.is_of_flow_of(o)) {
            if waiting.is_turn() {
                break;
            }
            if waiting.is_beside(o) {
                if waiting.absorb(o, gap) {
                    return true;
                }
                break;
            }
        }
        self.0.push(*o);
        false
    }
}

fn prepared(steps: &[Step]) -> (Vec<Observation>, Lateness) {
    let mut orientation = Orientation::new(HashSecret::new(SECRET));
    let mut prepared = observations(steps);
    for o in &mut prepared {
        orientation.prepare(o);
        // Some conversations are sampled, now at this rate and now at that.
        let exponent = (o.hash % 3 + (o.watermark / 10_000_000_000 % 2) as u32) as u8;
        if exponent > 0 && !o.is_turn() {
            o.sampling = Sampling::kept(exponent, o.bytes);
        }
    }
    (prepared, orientation.lateness())
}

/// Meters `packets`, of which those that `holds` names wait and are merged until one comes that it doesn't name. Checks
/// books, and that every record tells from when on it counts. Records, and how many observations were merged.
fn meter(
    config: &FlowConfig,
    (packets, lateness): &(Vec<Observation>, Lateness),
    holds: impl Fn(usize) -> bool,
) -> (Vec<FlowRecord>, usize) {
    let gap = config.shortest_idle_timeout();
    let (mut meter, mut records) = (Meter::new(config, ""), Records::default());
    meter.observe_at(points());
    meter.allow_for(lateness.clone());
    let (mut waiting, mut merged, mut seen) = (Waiting::default(), 0, Tally::ZERO);
    // By flow, the first packet that no record has carried.
    let mut uncounted: HashMap<[u8; 20], u64> = HashMap::new();
    for (number, packet) in packets.iter().enumerate() {
        seen += packet.tally();
        merged += usize::from(waiting.push(packet, gap));
        if holds(number) {
            continue;
        }
        for o in std::mem::take(&mut waiting.0) {
            let (told, metered) = (records.0.len(), meter.book().metered);
            meter.observe(&[o], &mut records);
            for record in &records.0[told..] {
                if record.tally != Tally::ZERO {
                    let first = uncounted.remove(&record.community_id.0);
                    assert!(first.is_none_or(|first| record.counts_from <= first), "{record:?} {first:?}");
                }
            }
            if meter.book().metered != metered {
                uncounted.entry(CommunityId::of(&FlowKey::of(&o), 0).0).or_insert(o.start);
            }
            let book = meter.book();
            assert_eq!(book.metered, book.reported + meter.resident());
        }
    }
    for o in std::mem::take(&mut waiting.0) {
        meter.observe(&[o], &mut records);
    }
    meter.finish(packets.last().map_or(0, |o| o.watermark), &mut records);
    let book = meter.book();
    assert_eq!((book.metered + book.secondary, meter.resident()), (seen, Tally::ZERO));
    (records.0, merged)
}

/// What is known of each flow at its end, and how many packets stood in its records together, or were estimated by them.
fn ends(records: &[FlowRecord]) -> BTreeMap<u128, String> {
    let mut packets: HashMap<u128, [u64; 3]> = HashMap::new();
    let mut ends = BTreeMap::new();
    for r in records {
        let sums = packets.entry(r.id.0).or_default();
        sums[0] += r.tally.packets;
        for counts in r.estimates() {
            sums[1] += counts.packets;
            sums[2] += counts.bytes;
        }
        if r.event == FlowEvent::End {
            let FlowRecord { start_time, end_time, initiator, tcp_state, end_reason, source, .. } = r;
            let sides = [&r.forward, &r.reverse]
                .map(|side| (side.total, side.tcp_flags, side.ttl, side.traffic_class));
            let end = format!(
                "{start_time} {end_time} {initiator:?} {tcp_state:?} {end_reason:?} {source:?} {sides:?} {:?} {sums:?}",
                (r.vlan, r.inner_vlan, r.point)
            );
            assert!(ends.insert(r.id.0, end).is_none());
        }
    }
    ends
}

fn config() -> impl Strategy<Value = FlowConfig> {
    let seconds = |choices: &'static [u64]| prop::sample::select(choices).prop_map(Interval::seconds);
    (seconds(&[7, 60, 7_200]), seconds(&[30, 9, 3_600]), any::<bool>()).prop_map(
        |(active_timeout, idle_timeout, start_records)| FlowConfig {
            table_capacity: NonZeroUsize::new(64 * 1_000).unwrap(),
            active_timeout,
            idle_timeout,
            start_records,
            ..FlowConfig::default()
        },
    )
}

/// Few flows with many packets each, most of them near each other.
fn steps(conversations: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = (step(conversations), any::<bool>()).prop_map(|(step, dense)| Step {
        step: if dense { step.step.rem_euclid(500_000_000) } else { step.step },
        ttl: if dense { 64 } else { step.ttl },
        flags: if dense { Some(0x10) } else { step.flags },
        ..step
    });
    prop::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// In order of time and seen at one point: the same flows to the bit, whatever waits how long. (What another point
    /// saw of a flow that ended meanwhile is that flow's to the last, not the next one's.)
    #[test]
    fn what_waited_merged_gives_the_same_flows(config in config(), steps in steps(0..8), held in prop::collection::vec(0..10_u8, 150), hold in 0..10_u8) {
        let mut steps = steps;
        steps.iter_mut().for_each(|step| (step.step, step.point) = (step.step.abs(), 0));
        let packets = prepared(&steps);
        let (one_by_one, none) = meter(&config, &packets, |_| false);
        prop_assert_eq!(none, 0);
        let (together, _) = meter(&config, &packets, |number| held[number] < hold);
        let (mut one_by_one, mut together) = (ends(&one_by_one), ends(&together));
        let same = |id: &u128, end: &mut String| together.get(id) == Some(end);
        let others: BTreeMap<_, _> = one_by_one.iter_mut().filter_map(|(id, end)| (!same(id, end)).then(|| (*id, end.clone()))).collect();
        together.retain(|id, end| one_by_one.get(id) != Some(end));
        prop_assert_eq!(others, together);
    }

    /// With packets out of order and clocks that are set: every packet is counted, and records tell from when on.
    #[test]
    fn disorder_costs_no_packet(config in config(), steps in steps(0..60), held in prop::collection::vec(0..10_u8, 150), hold in 0..10_u8) {
        meter(&config, &prepared(&steps), |number| held[number] < hold);
    }
}

/// A packet in the middle of a conversation, a microsecond after the one before.
const fn plain(conversation: usize, back: bool) -> Step {
    Step {
        conversation,
        back,
        step: 1_000,
        flags: Some(0x10),
        fragment: Fragment::Whole,
        fragment_id: 0,
        point: 0,
        packets: 1,
        bytes: 40,
        ttl: 64,
        vlan: NO_VLAN,
        macs: false,
    }
}

/// A conversation without turns takes two places, however much of it waits.
#[test]
fn plain_packets_of_a_conversation_become_two() {
    let steps: Vec<_> = (0..10_000).map(|n| plain(7, n % 2 == 1)).collect();
    let mut waiting = Waiting::default();
    let merged = prepared(&steps).0.iter().filter(|o| waiting.push(o, 1_000_000_000)).count();
    assert_eq!((merged, waiting.0.len()), (9_998, 2));
    assert_eq!(waiting.0.iter().map(|o| o.packets).sum::<u32>(), 10_000);
}
