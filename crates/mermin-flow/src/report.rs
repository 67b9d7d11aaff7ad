//! From a flow in the table to a flow record: sides become source and destination, deltas and totals are closed.

use crate::clock::DISORDER;
use crate::community_id::CommunityId;
use crate::entry::{Entry, Facts};
use crate::hop_table::HopTable;
use crate::hops::Hops;
use crate::identity::{Enrichment, Identity};
use crate::key::KeyForm;
use crate::lease::Lease;
use crate::point::ObservationPoints;
use crate::record::{Counts, Direction, End, FlowEndReason, FlowEvent, FlowId, FlowRecord, TcpState};
use crate::sampled::{Sampled, Samples};
use crate::settings::Settings;
use crate::tally::Tally;
use mermin_wire::NO_VLAN;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// What goes into flow ids and Community IDs besides the flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identification {
    agent: u64,
    pub(crate) seed: u16,
}

impl Identification {
    pub(crate) fn new(agent_id: &str, seed: u16) -> Self {
        Self { agent: if agent_id.is_empty() { 0 } else { xxh3_64(agent_id.as_bytes()) }, seed }
    }

    fn flow_id(&self, entry: &Entry, facts: &Facts) -> FlowId {
        let mut input = [0; 72];
        let [a, b, c, d, e] = entry.key.words();
        let words = [self.agent, a, b, c, d, e, facts.start_time, facts.ordinal, u64::from(facts.shard)];
        for (bytes, word) in input.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        FlowId(xxh3_128(&input))
    }
}

/// What is known of a flow beside its entry.
#[derive(Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) samples: &'a Samples,
    pub(crate) hops: &'a HopTable,
    pub(crate) points: &'a ObservationPoints,
}

impl Beside<'_> {
    fn hops(&self, entry: &Entry, facts: &Facts) -> Option<Hops> {
        self.hops.of(entry, facts, entry.initiator_side(), self.points)
    }
}

/// The record that the flow gives now. The flow stays as it is until the record was taken ([`Facts::told`]).
pub(crate) fn record(
    entry: &Entry,
    facts: &mut Facts,
    (event, end_reason): (FlowEvent, Option<FlowEndReason>),
    beside: Beside<'_>,
    settings: &Settings,
) -> FlowRecord {
    let community_id = facts.community_id(&entry.key, settings.identification.seed);
    // A start announces the flow and carries nothing: the packet that created it belongs to the next record.
    let carries = event != FlowEvent::Start;
    let part = Part {
        community_id,
        sequence: facts.sequence,
        event,
        end_reason,
        counts_from: counts_from(entry, facts, settings),
        deltas: if carries { entry.delta } else { [Counts::default(); 2] },
        totals: if carries { totals(entry, facts) } else { facts.total },
        tally: if carries { entry.tally(facts) } else { Tally::ZERO },
        sampled: beside.samples.of(facts).filter(|_| carries),
        hops: if carries { beside.hops(entry, facts) } else { None },
    };
    describe(entry, facts, part, settings)
}

/// What records have carried, and what the next one will.
fn totals(entry: &Entry, facts: &Facts) -> [Counts; 2] {
    let mut totals = facts.total;
    totals.iter_mut().zip(entry.delta).for_each(|(total, delta)| *total += delta);
    totals
}

/// The update that the flow would give now. It has no end reason.
pub(crate) fn glance(entry: &Entry, facts: &Facts, beside: Beside<'_>, settings: &Settings) -> FlowRecord {
    let part = Part {
        community_id: CommunityId::of(&entry.key, settings.identification.seed),
        sequence: facts.sequence,
        event: FlowEvent::Update,
        end_reason: None,
        counts_from: counts_from(entry, facts, settings),
        deltas: entry.delta,
        totals: totals(entry, facts),
        tally: entry.tally(facts),
        sampled: beside.samples.of(facts),
        hops: beside.hops(entry, facts),
    };
    describe(entry, facts, part, settings)
}

/// The earliest time of what no record has carried yet. A deadline comes before the packets behind it, so that is of one
/// active interval, and of those that [`crate::spread`] tells of: no packet needs to be timed for it. Intervals are the
/// watermark's, which is at least a packet's time, so they are counted back from the last packet's, and packets that were
/// late are allowed for.
fn counts_from(entry: &Entry, facts: &Facts, settings: &Settings) -> u64 {
    let late = settings.lateness.get();
    let start = facts.start_time.saturating_sub(late);
    let is_first = facts.total == [Counts::default(); 2];
    let Some(more) = facts.spread.intervals().filter(|_| !is_first) else { return start };
    let reach = settings.active.saturating_mul(more + 1);
    entry.end_time.saturating_sub(reach.saturating_add(late.max(DISORDER))).max(start)
}

/// What one record of a flow says and others of it don't. Arrays are by side.
struct Part<'a> {
    community_id: CommunityId,
    sequence: u32,
    event: FlowEvent,
    end_reason: Option<FlowEndReason>,
    counts_from: u64,
    deltas: [Counts; 2],
    totals: [Counts; 2],
    tally: Tally,
    sampled: Option<&'a Sampled>,
    hops: Option<Hops>,
}

fn describe(entry: &Entry, facts: &Facts, part: Part<'_>, settings: &Settings) -> FlowRecord {
    let direction = |side: usize| Direction {
        delta: part.deltas[side],
        total: part.totals[side],
        tcp_flags: entry.known_flags(side),
        ttl: entry.ttl(side),
        traffic_class: entry.first_traffic_class(side),
    };
    let source = entry.initiator_side();
    let [first, second] = ends(entry, facts);
    let (source_end, destination_end) = if source == 0 { (first, second) } else { (second, first) };
    FlowRecord {
        id: settings.identification.flow_id(entry, facts),
        sequence: part.sequence,
        community_id: part.community_id,
        event: part.event,
        end_reason: part.end_reason,
        start_time: facts.start_time,
        end_time: entry.end_time,
        counts_from: part.counts_from,
        clock_ahead: [facts.start_time, entry.end_time].map(|time| settings.steps.ahead(time)),
        protocol: entry.key.protocol(),
        source: source_end,
        destination: destination_end,
        initiator: entry.initiator,
        enrichment: Enrichment::default(),
        icmp: matches!(entry.key.form(), KeyForm::IcmpTwoWay | KeyForm::IcmpOneWay)
            .then_some((facts.icmp[0], facts.icmp[1])),
        forward: direction(source),
        reverse: direction(1 - source),
        tcp_state: if entry.is_tcp() { entry.tcp_state } else { TcpState::Unknown },
        vlan: vlan(facts.vlan),
        inner_vlan: vlan(facts.inner_vlan),
        point: entry.point(),
        shard: facts.shard,
        tally: part.tally,
        sampled: part.sampled.map(|sampled| Box::new(sampled.seen_from(source))),
        hops: part.hops.map(Box::new),
        nat: None,
        lease: Lease::default(),
    }
}

const fn vlan(id: u16) -> Option<u16> {
    if id == NO_VLAN { None } else { Some(id) }
}

/// The two ends in the key's order.
fn ends(entry: &Entry, facts: &Facts) -> [End; 2] {
    let addresses = entry.key.addresses();
    let ports = (entry.key.form() == KeyForm::Ports).then(|| entry.key.ports());
    let (destination_mac, source_mac) = facts.macs.split_at(6);
    let by_sender = [source_mac, destination_mac];
    let has_macs = facts.macs != [0; 12];
    std::array::from_fn(|side| {
        let sent_first = entry.first_side() == side;
        let mac = by_sender[usize::from(!sent_first)];
        End {
            address: addresses[side],
            port: ports.map(|ports| ports[side]),
            mac: has_macs.then(|| std::array::from_fn(|i| mac[i])),
            identity: Identity::default(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{FlowKey, HashSecret};
    use crate::testing::udp;

    /// An id of a flow between `from` and a server, in its other parts as told.
    fn id(from: &str, agent: &str, start: u64, ordinal: u64, shard: u8) -> FlowId {
        let mut o = udp(from, "10.0.0.1:53");
        o.start = start;
        o.orient(&HashSecret::new(1));
        o.shard = shard;
        let entry = Entry::new(FlowKey::of(&o), &o, 1);
        Identification::new(agent, 0).flow_id(&entry, &Facts::new(&o, ordinal))
    }

    #[test]
    fn a_flow_id_depends_on_agent_key_start_ordinal_and_shard_and_on_nothing_else() {
        let same = id("10.0.0.9:9", "", 7, 3, 5);
        assert_eq!(same, id("10.0.0.9:9", "", 7, 3, 5));
        for other in [
            id("10.0.0.9:8", "", 7, 3, 5),
            id("10.0.0.8:9", "", 7, 3, 5),
            id("10.0.0.9:9", "host", 7, 3, 5),
            id("10.0.0.9:9", "", 8, 3, 5),
            id("10.0.0.9:9", "", 7, 4, 5),
            id("10.0.0.9:9", "", 7, 3, 6),
        ] {
            assert_ne!(other, same);
        }
    }
}
