//! The meter against a naive reference: the same records for any batches, workers and ticks.
#![expect(clippy::unwrap_used, reason = "a failure here fails the test")]

#[path = "model/reference.rs"]
mod reference;
#[path = "model/steps.rs"]
mod steps;

use mermin_flow::{
    CommunityId, CountingSink, FlowConfig, FlowEvent, FlowId, FlowRecord, HashSecret, Interval, Meter,
    Observation, Orientation, RecordSink, Tally,
};
use proptest::prelude::*;
use reference::Reference;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use steps::{SECRET, back, observations, points, step};

fn timeout(choices: &'static [u64]) -> impl Strategy<Value = Interval> {
    prop::sample::select(choices)
        .prop_map(|milliseconds| Interval(std::time::Duration::from_millis(milliseconds)))
}

fn config() -> impl Strategy<Value = FlowConfig> {
    (
        (prop::sample::select(vec![1, 2, 3, 100]), timeout(&[7_000, 60_000, 60_001, 700, 7_200_000])),
        (timeout(&[30_000, 9_500, 3_600_000]), timeout(&[30_000, 3_000]), timeout(&[10_000, 650])),
        (timeout(&[5_000, 1_000]), timeout(&[5_000, 2_000]), any::<bool>()),
    )
        .prop_map(|((per_shard, active_timeout), (idle_timeout, udp_timeout, icmp_timeout), rest)| {
            let (tcp_fin_timeout, tcp_rst_timeout, start_records) = rest;
            FlowConfig {
                table_capacity: NonZeroUsize::new(64 * per_shard).unwrap(),
                active_timeout,
                idle_timeout,
                udp_timeout,
                icmp_timeout,
                tcp_fin_timeout,
                tcp_rst_timeout,
                community_id_seed: per_shard as u16,
                start_records,
            }
        })
}

/// Records, and the ids of flows as they were created.
#[derive(Default)]
struct Records(Vec<FlowRecord>, Vec<CommunityId>);

impl RecordSink for Records {
    fn record(&mut self, record: FlowRecord) {
        self.0.push(record);
    }

    fn created(&mut self, community_id: impl FnOnce() -> CommunityId) {
        self.1.push(community_id());
    }
}

impl CountingSink for Records {
    fn taken(&self) -> u64 {
        self.0.len() as u64
    }
}

/// How observations reach the meters.
#[derive(Clone, Copy, Debug)]
struct Way {
    workers: usize,
    batch: usize,
    ticks: bool,
}

const WAYS: [Way; 6] = [
    Way { workers: 1, batch: 1, ticks: false },
    Way { workers: 1, batch: 1, ticks: true },
    Way { workers: 1, batch: 1_000, ticks: false },
    Way { workers: 2, batch: 7, ticks: false },
    Way { workers: 8, batch: 100, ticks: false },
    Way { workers: 8, batch: 3, ticks: true },
];

/// Other settings, and ahead of which observation they begin to count.
type Changes = Vec<(usize, FlowConfig)>;

/// Meters raw observations one way; the books are checked after every batch.
fn meter(
    (config, changes): (&FlowConfig, &Changes),
    raw: &[Observation],
    way: Way,
) -> (Vec<FlowRecord>, Tally) {
    let mut orientation = Orientation::new(HashSecret::new(SECRET));
    let mut prepared = raw.to_vec();
    for o in &mut prepared {
        orientation.prepare(o);
    }
    let end = prepared.last().map_or(0, |o| o.watermark);
    let borders = changes.iter().map(|(at, _)| *at).chain([prepared.len()]);
    let starts: Vec<_> = std::iter::once(0).chain(borders).collect();
    let (mut records, mut secondary) = (Records::default(), Tally::ZERO);
    for worker in 0..way.workers {
        let mut meter = Meter::new(config, "");
        meter.observe_at(points());
        let mut taken = Tally::ZERO;
        for (part, ends) in starts.windows(2).enumerate() {
            if part > 0 {
                let now = prepared[..ends[0]].last().map_or(0, |o| o.watermark);
                meter.change(&changes[part - 1].1, now, &mut records, |incident| panic!("{incident:?}"));
                balances(&meter, taken);
            }
            let is_own = |o: &&Observation| usize::from(o.shard) % way.workers == worker;
            let own: Vec<_> = prepared[ends[0]..ends[1]].iter().filter(is_own).copied().collect();
            let batches: Vec<_> = own.chunks(way.batch).collect();
            for (number, batch) in batches.iter().enumerate() {
                meter.observe(batch, &mut records);
                taken += batch.iter().map(Observation::tally).sum();
                balances(&meter, taken);
                if way.ticks {
                    let now = batch.last().unwrap().watermark;
                    let next = batches.get(number + 1).map_or(now, |batch| batch[0].watermark);
                    for quarter in 0..=4 {
                        meter.advance(now + (next - now) / 4 * quarter, &mut records);
                        balances(&meter, taken);
                    }
                }
            }
        }
        meter.finish(end, &mut records);
        balances(&meter, taken);
        assert_eq!((meter.active(), meter.resident()), (0, Tally::ZERO));
        assert_eq!(meter.book().created, meter.book().released);
        secondary += meter.book().secondary;
    }
    let ended = records.0.iter().filter(|record| record.event == FlowEvent::End);
    let mut ended: Vec<_> = ended.map(|record| record.community_id.0).collect();
    let mut created: Vec<_> = records.1.iter().map(|id| id.0).collect();
    ended.sort_unstable();
    created.sort_unstable();
    assert!(created == ended, "each flow is created once and ends once");
    (records.0, secondary)
}

fn balances(meter: &Meter, taken: Tally) {
    let book = meter.book();
    assert_eq!(book.metered, book.reported + meter.resident());
    assert_eq!(book.metered + book.secondary, taken);
    assert_eq!(meter.active() as u64, book.created - book.released);
}

/// Flows in a fixed order, each as its records. The reference doesn't know ids, so they become 0; that each flow has
/// one of its own is checked on the way.
fn flows_of(records: &[FlowRecord]) -> Vec<Vec<FlowRecord>> {
    let mut flows: HashMap<FlowId, Vec<FlowRecord>> = HashMap::new();
    for record in records {
        let flow = flows.entry(record.id).or_default();
        assert_eq!(record.sequence as usize, flow.len(), "records of a flow come in order");
        flow.push(record.clone());
    }
    let mut flows: Vec<_> = flows.into_values().collect();
    for record in flows.iter_mut().flatten() {
        record.id = FlowId(0);
    }
    flows.sort_by_cached_key(|flow| format!("{flow:?}"));
    flows
}

/// The reference's records as flows: each ends with its `end`.
fn flows_of_reference(reference: Vec<FlowRecord>) -> Vec<Vec<FlowRecord>> {
    let mut open: BTreeMap<String, Vec<FlowRecord>> = BTreeMap::new();
    let mut flows = Vec::new();
    for record in reference {
        let mut ends = [format!("{:?}", record.source), format!("{:?}", record.destination)];
        if record.icmp.is_none_or(|(kind, _)| kind != 3) {
            ends.sort();
        }
        let icmp = record.icmp.is_some();
        let key = format!("{ends:?} {} {icmp} {:?}", record.protocol, record.community_id);
        open.entry(key.clone()).or_default().push(record.clone());
        if record.event == FlowEvent::End {
            flows.extend(open.remove(&key));
        }
    }
    assert!(open.is_empty());
    flows.sort_by_cached_key(|flow| format!("{flow:?}"));
    flows
}

fn same_as_the_reference(
    config: &FlowConfig,
    changes: &Changes,
    raw: &[Observation],
) -> Result<(), TestCaseError> {
    let mut reference = Reference::new(config);
    let mut clock = mermin_flow::Watermark::default();
    let change = |reference: &mut Reference, here: usize| {
        changes.iter().filter(|(at, _)| *at == here).for_each(|(_, config)| reference.change(config));
    };
    for (number, o) in raw.iter().enumerate() {
        change(&mut reference, number);
        clock.stamp(o.end);
        reference.observe(o);
    }
    change(&mut reference, raw.len());
    reference.finish(clock.now());
    let expected = flows_of_reference(std::mem::take(&mut reference.records));
    let mut ids: Option<Vec<_>> = None;
    for way in WAYS {
        let (records, secondary) = meter((config, changes), raw, way);
        let flows = flows_of(&records);
        for (flow, expected) in flows.iter().zip(&expected) {
            prop_assert_eq!(flow, expected, "{:?}", way);
        }
        prop_assert_eq!(flows.len(), expected.len(), "{:?}", way);
        prop_assert_eq!(secondary, reference.secondary);
        let mut own: Vec<_> = records.iter().map(|record| (record.id, record.sequence)).collect();
        own.sort_unstable();
        prop_assert_eq!(ids.get_or_insert_with(|| own.clone()), &own, "ids, {:?}", way);
    }
    Ok(())
}

fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn meters_as_the_reference_does(config in config(), steps in prop::collection::vec(step(0..60), 1..150)) {
        same_as_the_reference(&config, &Vec::new(), &observations(&steps))?;
    }

    /// Flows under way live by the new settings from a change on, and what was due before it by the old ones.
    #[test]
    fn settings_that_change_count_from_where_the_change_stands(
        config in config(),
        changes in prop::collection::btree_map(0_usize..150, config(), 1..5),
        steps in prop::collection::vec(step(0..60), 1..150),
    ) {
        let raw = observations(&steps);
        let changes = changes.into_iter().filter(|(at, _)| *at <= raw.len()).collect();
        same_as_the_reference(&config, &changes, &raw)?;
    }

    /// The same packets the other way round: what one end sent, the other has now sent.
    #[test]
    fn mirrored_packets_give_mirrored_records(config in config(), steps in prop::collection::vec(step(0..42), 1..100)) {
        let config = FlowConfig { table_capacity: NonZeroUsize::new(64 * 100).unwrap(), ..config };
        let raw = observations(&steps);
        let mirrored: Vec<_> = raw.iter().copied().map(back).collect();
        let by_end = |records: &[FlowRecord], swap: bool| {
            let mut facts: Vec<_> = records.iter().map(|r| {
                let mut ends = [(r.source.address, r.source.port), (r.destination.address, r.destination.port)];
                if swap {
                    ends.swap(0, 1);
                }
                let mut sent = [(ends[0], r.forward), (ends[1], r.reverse)];
                sent.sort_by_key(|(end, _)| *end);
                format!("{:?} {} {sent:?} {:?} {:?} {:?}", r.start_time, r.sequence, r.end_reason, r.end_time, r.tcp_state)
            }).collect();
            facts.sort();
            facts
        };
        let (there, _) = meter((&config, &Vec::new()), &raw, WAYS[0]);
        let (mirror, _) = meter((&config, &Vec::new()), &mirrored, WAYS[0]);
        prop_assert_eq!(by_end(&there, false), by_end(&mirror, true));
    }
}
