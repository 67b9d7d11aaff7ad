//! The reference meter: what the rules of counting say, with nothing but vectors.
//!
//! At each observation all flows of its shard are walked, and their deadlines are handled one by one in order of
//! time. It shares with the product the types, the shard of a key, the watermark and the Community ID, which have
//! tests of their own, and nothing else.

use crate::steps::{ACK, FIN, RST, SYN};
use mermin_flow::{
    CommunityId, Counts, Direction, End, Enrichment, FlowConfig, FlowEndReason, FlowEvent, FlowId, FlowKey,
    FlowRecord, Fragment, Hop, Hops, Identity, Initiator, NO_VLAN, Observation, PortForm, Tally, TcpState,
    Watermark,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const FRAGMENT_LIFETIME: u64 = 30_000_000_000;

type Endpoint = (IpAddr, u16);

/// What makes a flow: protocol, form (portless, ports, ICMP pair, one-way ICMP) and two ends in a fixed order.
#[derive(Clone, Debug, PartialEq)]
struct Conversation {
    ip_version: u8,
    protocol: u8,
    form: u8,
    ends: [Endpoint; 2],
}

/// What a point has seen of a side since the last record.
#[derive(Clone)]
struct Seen {
    point: u16,
    counted: bool,
    /// Ends of its first frame, in either order.
    ends: [Vec<u8>; 2],
    counts: Counts,
}

struct Flow {
    conversation: Conversation,
    shard: u8,
    ordinal: u64,
    community_id: CommunityId,
    first: Observation,
    first_side: usize,
    source: usize,
    initiator: Initiator,
    seen: [Vec<Seen>; 2],
    flags: [Option<u8>; 2],
    ttl: [Option<(u8, u8)>; 2],
    traffic_class: [Option<u8>; 2],
    delta: [Counts; 2],
    total: [Counts; 2],
    tally: Tally,
    last: u64,
    end_time: u64,
    active_deadline: u64,
    /// Active intervals, besides one, that what no record has told may lie in.
    more: u64,
    sequence: u32,
    connection: Connection,
}

/// What is known of a TCP connection, as facts instead of a state.
#[derive(Default)]
struct Connection {
    reset: bool,
    closer: Option<usize>,
    both_closed: bool,
    close_acknowledged: bool,
    syn_from: [bool; 2],
    syn_answered: bool,
    open: bool,
}

impl Connection {
    fn packet(&mut self, side: usize, flags: u8) {
        let has = |flag: u8| flags & flag != 0;
        if self.reset || has(RST) {
            self.reset = true;
        } else if let Some(closer) = self.closer {
            if has(FIN) && side != closer && !self.both_closed {
                self.both_closed = true;
                self.close_acknowledged |= has(ACK);
            } else if has(ACK) && !has(FIN) && (side != closer || self.both_closed) {
                self.close_acknowledged = true;
            }
        } else if has(FIN) {
            self.closer = Some(side);
        } else if has(SYN) && !self.open {
            self.syn_from[side] = true;
            self.syn_answered |= has(ACK) || self.syn_from == [true; 2];
        } else if has(ACK) && !has(SYN) {
            self.open = true;
        }
    }

    fn state(&self) -> TcpState {
        if self.reset {
            TcpState::Closed
        } else if self.closer.is_some() {
            match (self.both_closed, self.close_acknowledged) {
                (false, false) => TcpState::FinWait1,
                (false, true) => TcpState::FinWait2,
                (true, false) => TcpState::Closing,
                (true, true) => TcpState::TimeWait,
            }
        } else if self.open {
            TcpState::Established
        } else if self.syn_answered {
            TcpState::SynReceived
        } else if self.syn_from != [false; 2] {
            TcpState::SynSent
        } else {
            TcpState::Unknown
        }
    }
}

fn address(words: &[u64], ip_version: u8) -> IpAddr {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    if ip_version == 4 {
        IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()))
    }
}

/// Request and reply types of ICMP and ICMPv6 (Community ID specification).
const PAIRS: [(u8, u8, u8); 11] = [
    (1, 8, 0),
    (1, 10, 9),
    (1, 13, 14),
    (1, 15, 16),
    (1, 17, 18),
    (58, 128, 129),
    (58, 130, 131),
    (58, 133, 134),
    (58, 135, 136),
    (58, 139, 140),
    (58, 144, 145),
];

/// The conversation of a packet, and the side that sent it.
fn conversation(o: &Observation) -> (Conversation, usize) {
    let source = address(&o.addresses[..2], o.ip_version);
    let destination = address(&o.addresses[2..], o.ip_version);
    let [first, second] = o.ports.map(u16::from_be);
    let (form, from, to) = match o.port_form {
        PortForm::Absent => (0, (source, 0), (destination, 0)),
        PortForm::Ports => (1, (source, first), (destination, second)),
        PortForm::IcmpTypeCode => {
            let own = first as u8;
            let pair = PAIRS.iter().find(|(protocol, request, reply)| {
                *protocol == o.protocol && (*request == own || *reply == own)
            });
            match pair {
                Some(&(_, request, reply)) => {
                    let other = if own == request { reply } else { request };
                    (2, (source, first), (destination, u16::from(other)))
                }
                None => (3, (source, first), (destination, second)),
            }
        }
    };
    let swapped = form != 3 && from > to;
    let ends = if swapped { [to, from] } else { [from, to] };
    let conversation = Conversation { ip_version: o.ip_version, protocol: o.protocol, form, ends };
    (conversation, usize::from(swapped))
}

/// ICMP type or code, which stand where ports would.
fn low_byte(port: u16) -> u8 {
    u16::from_be(port) as u8
}

fn is_group(address: IpAddr) -> bool {
    address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn infer(conversation: &Conversation, o: &Observation, sender: usize) -> (usize, Initiator) {
    let told = if o.protocol == 6 && o.has_tcp_flags && o.tcp_flags & SYN != 0 {
        Some(if o.tcp_flags & ACK == 0 { (sender, Initiator::Syn) } else { (1 - sender, Initiator::SynAck) })
    } else if conversation.form == 2 {
        let asks = PAIRS.iter().any(|(p, request, _)| *p == o.protocol && *request == low_byte(o.ports[0]));
        Some((if asks { sender } else { 1 - sender }, Initiator::IcmpRequest))
    } else {
        None
    };
    let groups = conversation.ends.map(|(address, _)| is_group(address));
    let one_group = groups[0] != groups[1];
    match told {
        Some((source, how)) if !(one_group && groups[source]) => (source, how),
        _ if one_group => (usize::from(groups[0]), Initiator::Multicast),
        Some(told) => told,
        None => {
            let class = |port: u16| u8::from(port >= 1024) + u8::from(port >= 32768);
            let [a, b] = conversation.ends.map(|(_, port)| class(port));
            if conversation.form == 1 && a != b {
                (usize::from(b > a), Initiator::ServicePort)
            } else {
                (sender, Initiator::FirstSeen)
            }
        }
    }
}

struct FirstFragment {
    of: (Vec<u64>, u32, u16, u8),
    seen: u64,
    ports: [u16; 2],
    port_form: PortForm,
    protocol: u8,
}

pub(crate) struct Reference {
    config: FlowConfig,
    watermark: Watermark,
    fragments: Vec<FirstFragment>,
    flows: Vec<Flow>,
    ordinals: [u64; 64],
    pub(crate) records: Vec<FlowRecord>,
    pub(crate) secondary: Tally,
}

impl Reference {
    pub(crate) fn new(config: &FlowConfig) -> Self {
        Self {
            config: config.clone(),
            watermark: Watermark::default(),
            fragments: Vec::new(),
            flows: Vec::new(),
            ordinals: [0; 64],
            records: Vec::new(),
            secondary: Tally::ZERO,
        }
    }

    pub(crate) fn observe(&mut self, raw: &Observation) {
        let now = self.watermark.stamp(raw.end);
        let mut o = *raw;
        self.resolve(&mut o, now);
        let (conversation, side) = conversation(&o);
        let mut oriented = o;
        oriented.orient(&mermin_flow::HashSecret::new(0));
        let key = FlowKey::of(&oriented);
        let shard = key.shard();
        self.pass(now, |flow| flow.shard == shard);

        let mut at = self.flows.iter().position(|flow| flow.conversation == conversation);
        if let Some(known) = at {
            let flags = self.flows[known].flags.iter().flatten().fold(0, |union, flags| union | flags);
            if o.tcp_flags & (SYN | ACK) == SYN && flags & (FIN | RST) != 0 {
                self.end(known, FlowEndReason::EndOfFlowDetected);
                at = None;
            }
        }
        let at = at.unwrap_or_else(|| self.create(conversation, side, shard, &key, &o, now));
        self.add(at, side, &o, now);
    }

    fn resolve(&mut self, o: &mut Observation, now: u64) {
        self.fragments.retain(|first| now - first.seen < FRAGMENT_LIFETIME);
        let of = (o.addresses.to_vec(), o.fragment_id, o.vlan, o.ip_version);
        match o.fragment {
            Fragment::Whole => {}
            Fragment::First => self.fragments.push(FirstFragment {
                of,
                seen: now,
                ports: o.ports,
                port_form: o.port_form,
                protocol: o.protocol,
            }),
            Fragment::Later => {
                if let Some(first) = self.fragments.iter().rev().find(|first| first.of == of) {
                    (o.ports, o.port_form, o.protocol) = (first.ports, first.port_form, first.protocol);
                }
            }
        }
    }

    fn create(
        &mut self,
        conversation: Conversation,
        side: usize,
        shard: u8,
        key: &FlowKey,
        o: &Observation,
        now: u64,
    ) -> usize {
        while self.flows.iter().filter(|flow| flow.shard == shard).count()
            >= self.config.table_capacity.get().div_ceil(64)
        {
            let in_shard = self.flows.iter().enumerate().filter(|(_, flow)| flow.shard == shard);
            let (oldest, _) = in_shard.min_by_key(|(_, flow)| (flow.last, flow.ordinal)).unwrap();
            self.end(oldest, FlowEndReason::LackOfResources);
        }
        let (source, initiator) = infer(&conversation, o, side);
        self.flows.push(Flow {
            conversation,
            shard,
            ordinal: self.ordinals[usize::from(shard)],
            community_id: CommunityId::of(key, self.config.community_id_seed),
            first: *o,
            first_side: side,
            source,
            initiator,
            seen: Default::default(),
            flags: [None; 2],
            ttl: [None; 2],
            traffic_class: [None; 2],
            delta: Default::default(),
            total: Default::default(),
            tally: Tally::ZERO,
            last: now,
            end_time: o.end,
            active_deadline: now + self.config.active_timeout.nanos(),
            more: 0,
            sequence: 0,
            connection: Connection::default(),
        });
        self.ordinals[usize::from(shard)] += 1;
        let at = self.flows.len() - 1;
        if self.config.start_records {
            // It tells what the first packet tells, but no counts of it.
            let flow = &mut self.flows[at];
            flow.facts(side, o);
            let (delta, total) = (Default::default(), Default::default());
            let active = self.config.active_timeout.nanos();
            self.records.push(flow.record((FlowEvent::Start, None), active, delta, total, Tally::ZERO));
            flow.sequence += 1;
            flow.connection = Connection::default();
        }
        at
    }

    fn add(&mut self, at: usize, side: usize, o: &Observation, now: u64) {
        let flow = &mut self.flows[at];
        if !flow.see(side, o) {
            self.secondary += o.tally();
            return;
        }
        if o.has_tcp_flags
            && o.tcp_flags & (SYN | ACK) == SYN
            && flow.sequence == 0
            && !matches!(flow.initiator, Initiator::Syn | Initiator::SynAck | Initiator::Multicast)
        {
            (flow.source, flow.initiator) = (side, Initiator::Syn);
        }
        flow.facts(side, o);
        flow.last = now;
        flow.end_time = flow.end_time.max(o.end);
        flow.delta[side] +=
            Counts { packets: u64::from(o.packets), bytes: o.bytes, frame_bytes: o.frame_bytes };
        flow.tally += o.tally();
    }

    /// Time passes for the flows that `of` names.
    fn pass(&mut self, now: u64, of: impl Fn(&Flow) -> bool) {
        let mut at = 0;
        while at < self.flows.len() {
            let flow = &mut self.flows[at];
            let idle = flow.last + flow.idle_timeout(&self.config);
            let next = idle.min(flow.active_deadline);
            if !of(flow) || next > now {
                at += 1;
            } else if flow.active_deadline == next {
                flow.active_deadline += self.config.active_timeout.nanos();
                if flow.delta.iter().any(|side| side.packets > 0) {
                    self.report(at, FlowEvent::Update, FlowEndReason::ActiveTimeout);
                }
            } else {
                let reason = if flow.is_closed() {
                    FlowEndReason::EndOfFlowDetected
                } else {
                    FlowEndReason::IdleTimeout
                };
                self.end(at, reason);
            }
        }
    }

    /// Other settings from now on. What is due by now goes by those before; an active interval keeps its begin.
    pub(crate) fn change(&mut self, config: &FlowConfig) {
        self.pass(self.watermark.now(), |_| true);
        let (before, active) = (self.config.active_timeout.nanos(), config.active_timeout.nanos());
        for flow in &mut self.flows {
            flow.active_deadline = flow.active_deadline - before + active;
            if active < before && flow.delta.iter().any(|side| side.packets > 0) {
                flow.more = ((flow.more + 1) * before).div_ceil(active) - 1;
            }
        }
        self.config = FlowConfig { community_id_seed: self.config.community_id_seed, ..config.clone() };
    }

    fn report(&mut self, at: usize, event: FlowEvent, reason: FlowEndReason) {
        let flow = &mut self.flows[at];
        let delta = std::mem::take(&mut flow.delta);
        for (total, delta) in flow.total.iter_mut().zip(delta) {
            *total += delta;
        }
        let tally = std::mem::take(&mut flow.tally);
        let active = self.config.active_timeout.nanos();
        self.records.push(flow.record((event, Some(reason)), active, delta, flow.total, tally));
        flow.seen.iter_mut().flatten().for_each(|seen| seen.counts = Counts::default());
        (flow.sequence, flow.more) = (flow.sequence + 1, 0);
    }

    fn end(&mut self, at: usize, reason: FlowEndReason) {
        self.report(at, FlowEvent::End, reason);
        self.flows.remove(at);
    }

    pub(crate) fn finish(&mut self, now: u64) {
        self.pass(now, |_| true);
        while !self.flows.is_empty() {
            self.end(0, FlowEndReason::ForcedEnd);
        }
    }
}

impl Flow {
    /// Whether it counts. Of the points only 0 and 1 are passed by different packets.
    fn see(&mut self, side: usize, o: &Observation) -> bool {
        let counts = Counts { packets: u64::from(o.packets), bytes: o.bytes, frame_bytes: o.frame_bytes };
        if let Some(seen) = self.seen[side].iter_mut().find(|seen| seen.point == o.point) {
            seen.counts += counts;
            return seen.counted;
        }
        let mut ends = [o.macs[..6].to_vec(), o.macs[6..].to_vec()];
        ends.sort();
        let mut counting = self.seen[side].iter().filter(|seen| seen.counted);
        let is_first = self.seen[side].is_empty();
        let is_to_group = o.macs[0] % 2 == 1;
        let has_other_ttl = self.ttl[side].is_some_and(|ttl| ttl != (o.ttl, o.ttl));
        let counted = is_first
            || !is_to_group
                && !has_other_ttl
                && counting
                    .all(|seen| o.point < 2 && seen.point < 2 && (o.macs == [0; 12] || seen.ends != ends));
        self.seen[side].push(Seen { point: o.point, counted, ends, counts });
        counted
    }

    fn hops(&self, event: FlowEvent) -> Option<Box<Hops>> {
        if event == FlowEvent::Start || self.seen.iter().all(|seen| seen.len() < 2) {
            return None;
        }
        let directions = [self.source, 1 - self.source].map(|side| {
            let hop = |(at, seen): (usize, &Seen)| Hop {
                point: seen.point,
                first: at == 0,
                counted: seen.counted,
                counts: seen.counts,
            };
            let mut hops: Vec<_> = self.seen[side].iter().enumerate().map(hop).collect();
            hops.sort_by_key(|hop| [0, 0, 1, 2][usize::from(hop.point)]);
            hops
        });
        Some(Box::new(Hops { directions }))
    }

    fn facts(&mut self, side: usize, o: &Observation) {
        self.traffic_class[side].get_or_insert(o.traffic_class);
        let (low, high) = self.ttl[side].unwrap_or((o.ttl, o.ttl));
        self.ttl[side] = Some((low.min(o.ttl), high.max(o.ttl)));
        if o.has_tcp_flags {
            self.flags[side] = Some(self.flags[side].unwrap_or(0) | o.tcp_flags);
            self.connection.packet(side, o.tcp_flags);
        }
    }

    fn union(&self, side: usize) -> u8 {
        self.flags[side].unwrap_or(0)
    }

    fn is_reset(&self) -> bool {
        (self.union(0) | self.union(1)) & RST != 0
    }

    /// FIN from every side that has had packets.
    fn is_finished(&self) -> bool {
        (0..2).all(|side| self.seen[side].is_empty() || self.union(side) & FIN != 0)
    }

    fn is_closed(&self) -> bool {
        self.is_reset() || self.is_finished()
    }

    fn idle_timeout(&self, config: &FlowConfig) -> u64 {
        let other = config.idle_timeout.nanos();
        match self.conversation.protocol {
            _ if self.is_reset() => config.tcp_rst_timeout.nanos().min(other),
            _ if self.is_finished() => config.tcp_fin_timeout.nanos().min(other),
            17 => config.udp_timeout.nanos(),
            1 | 58 => config.icmp_timeout.nanos(),
            _ => other,
        }
    }

    fn record(
        &self,
        (event, end_reason): (FlowEvent, Option<FlowEndReason>),
        active: u64,
        delta: [Counts; 2],
        total: [Counts; 2],
        tally: Tally,
    ) -> FlowRecord {
        let first = &self.first;
        let direction = |side: usize| Direction {
            delta: delta[side],
            total: total[side],
            tcp_flags: self.flags[side],
            ttl: self.ttl[side],
            traffic_class: self.traffic_class[side],
        };
        let end = |side: usize| {
            let (address, port) = self.conversation.ends[side];
            let mac = if side == self.first_side { &first.macs[6..] } else { &first.macs[..6] };
            End {
                address,
                port: (self.conversation.form == 1).then_some(port),
                mac: (first.macs != [0; 12]).then(|| mac.try_into().unwrap()),
                identity: Identity::default(),
            }
        };
        let vlan = |id: u16| (id != NO_VLAN).then_some(id);
        let (source, destination) = (self.source, 1 - self.source);
        FlowRecord {
            id: FlowId(0),
            sequence: self.sequence,
            community_id: self.community_id,
            event,
            end_reason,
            start_time: first.start,
            end_time: self.end_time,
            counts_from: if total == delta || self.more >= 15 {
                first.start
            } else {
                first.start.max(self.end_time.saturating_sub(active * (self.more + 1) + 1_000_000_000))
            },
            clock_ahead: [0; 2],
            protocol: self.conversation.protocol,
            source: end(source),
            destination: end(destination),
            initiator: self.initiator,
            enrichment: Enrichment::default(),
            icmp: (self.conversation.form >= 2).then(|| (low_byte(first.ports[0]), low_byte(first.ports[1]))),
            forward: direction(source),
            reverse: direction(destination),
            tcp_state: if self.conversation.protocol == 6 {
                self.connection.state()
            } else {
                TcpState::Unknown
            },
            vlan: vlan(first.vlan),
            inner_vlan: vlan(first.inner_vlan),
            point: first.point,
            shard: self.shard,
            tally,
            sampled: None,
            hops: self.hops(event),
            nat: None,
            lease: mermin_flow::Lease::default(),
        }
    }
}
