//! A flow in the table: two cache lines that every packet touches, and apart from them its facts, two more, that records
//! and first packets need.

mod kept;

use crate::community_id::CommunityId;
use crate::initiator;
use crate::key::FlowKey;
use crate::observation::Observation;
use crate::record::{Counts, FlowEvent, Initiator, TcpState};
use crate::sampling::Sampling;
use crate::spread::Spread;
use crate::tally::Tally;
use crate::tcp::{self, ACK, FIN, RST, SYN};
use mermin_wire::NO_VLAN;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Which timeout ends an idle flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum IdleClass {
    Other,
    Udp,
    Icmp,
    TcpFin,
    TcpRst,
    /// Another connection has taken its ends; it is over when the watermark has come to that one's begin.
    Superseded,
}

impl IdleClass {
    pub(crate) const COUNT: usize = 6;

    const fn of_protocol(protocol: u8) -> Self {
        match protocol {
            UDP => Self::Udp,
            ICMP | ICMPV6 => Self::Icmp,
            _ => Self::Other,
        }
    }
}

/// The side has had packets.
const HAS_PACKETS: u8 = 0b0000_0001;
/// A TCP header of the side was captured.
const FLAGS_KNOWN: u8 = 0b0000_0100;
/// The flow's first packet came from the side.
const SENT_FIRST: u8 = 0b0001_0000;
/// The side is the initiator.
const INITIATED: u8 = 0b0100_0000;

/// One flow. Arrays of two are by side: packets from the key's first end, and from its second.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct Entry {
    // Line 1: is it this flow, and what does this packet change?
    pub(crate) key: FlowKey,
    /// Watermark of the last packet that counted.
    pub(crate) last: u64,
    /// Observation point of each side's first packet.
    points: [u16; 2],
    pub(crate) tcp_flags: [u8; 2],
    ttl_min: [u8; 2],
    ttl_max: [u8; 2],
    pub(crate) tcp_state: TcpState,
    pub(crate) idle_class: IdleClass,
    /// How the initiator was inferred.
    pub(crate) initiator: Initiator,
    /// Two bits, one a side: [`HAS_PACKETS`], [`FLAGS_KNOWN`], [`SENT_FIRST`], [`INITIATED`].
    sides: u8,
    /// Of each side's first packet.
    traffic_class: [u8; 2],

    // Line 2: counts since the last record.
    pub(crate) delta: [Counts; 2],
    /// Time of the last packet.
    pub(crate) end_time: u64,
    /// When the next periodic record is due, on the watermark's scale.
    pub(crate) active_deadline: u64,
}

/// What only records and first packets need of a flow.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct Facts {
    pub(crate) total: [Counts; 2],
    pub(crate) start_time: u64,
    /// The shard's creation ordinal: with key and start time it makes the flow id.
    pub(crate) ordinal: u64,
    pub(crate) sequence: u32,
    pub(crate) hash: u32,
    /// Packets beyond the buffers that carried them, and bytes beyond the buffers' (negative for a frame check
    /// sequence that the link did not show), since the last record.
    packets_over_buffers: u64,
    bytes_over_buffers: i64,
    /// All zero until it is needed.
    community_id: CommunityId,
    pub(crate) macs: [u8; 12],
    pub(crate) vlan: u16,
    pub(crate) inner_vlan: u16,
    /// Type and code of the first packet, where the key's form is one of ICMP.
    pub(crate) icmp: [u8; 2],
    pub(crate) shard: u8,
    /// Of what no record has carried yet.
    pub(crate) spread: Spread,
}

const _: () = assert!(size_of::<Option<Entry>>() == 128 && size_of::<Facts>() == 128);

/// What became of an observation that met its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It is in the flow's counts.
    Yes,
    /// It is, and the flow's idle timeout may have become shorter.
    Sooner,
    /// Another observation point counts this direction.
    Secondary,
}

impl Entry {
    /// A flow without packets yet; [`Entry::count`] adds the first.
    pub(crate) fn new(key: FlowKey, first: &Observation, active_timeout: u64) -> Self {
        let (side, how) = initiator::infer(&key, first);
        Self {
            key,
            last: first.ended(),
            points: [0; 2],
            tcp_flags: [0; 2],
            ttl_min: [u8::MAX; 2],
            ttl_max: [0; 2],
            tcp_state: TcpState::Unknown,
            idle_class: IdleClass::of_protocol(key.protocol()),
            initiator: how,
            sides: INITIATED << side | SENT_FIRST << u8::from(first.reversed),
            traffic_class: [0; 2],
            delta: [Counts::default(); 2],
            end_time: first.end,
            active_deadline: first.started().saturating_add(active_timeout),
        }
    }

    #[inline(always)]
    const fn is(&self, what: u8, side: usize) -> bool {
        self.sides & (what << side) != 0
    }

    /// The initiator's side.
    pub(crate) const fn initiator_side(&self) -> usize {
        self.is(INITIATED, 1) as usize
    }

    /// The side of the flow's first packet.
    pub(crate) const fn first_side(&self) -> usize {
        self.is(SENT_FIRST, 1) as usize
    }

    /// The observation point that the flow's first packet was seen at.
    pub(crate) const fn point(&self) -> u16 {
        self.point_of(self.first_side())
    }

    /// The one that a side's first packet was seen at.
    pub(crate) const fn point_of(&self, side: usize) -> u16 {
        self.points[side]
    }

    /// Whether the side of this observation has had no packets.
    pub(crate) fn begins_with(&self, o: &Observation) -> bool {
        !self.is(HAS_PACKETS, usize::from(o.reversed))
    }

    /// The side is counted at another point from the start: what was counted of it is taken back.
    pub(crate) fn begin_again(&mut self, side: usize, o: &Observation) {
        self.points[side] = o.point;
        self.delta[side] = Counts::default();
        (self.ttl_min[side], self.ttl_max[side]) = (u8::MAX, 0);
        self.traffic_class[side] = o.traffic_class;
    }

    /// It turns out that the flow began with this observation.
    pub(crate) fn began_with(&mut self, o: &Observation) {
        if self.initiator == Initiator::FirstSeen {
            self.sides = self.sides & !(3 * INITIATED) | INITIATED << u8::from(o.reversed);
        }
    }

    /// Whether the side of this observation is counted at another point.
    pub(crate) fn is_counted_elsewhere(&self, o: &Observation) -> bool {
        let side = usize::from(o.reversed);
        self.is(HAS_PACKETS, side) && self.points[side] != o.point
    }

    /// The flags of a side, if a TCP header of it was captured.
    pub(crate) fn known_flags(&self, side: usize) -> Option<u8> {
        self.is(FLAGS_KNOWN, side).then_some(self.tcp_flags[side])
    }

    /// Least and greatest TTL of a side that has had packets.
    pub(crate) fn ttl(&self, side: usize) -> Option<(u8, u8)> {
        self.is(HAS_PACKETS, side).then_some((self.ttl_min[side], self.ttl_max[side]))
    }

    /// Traffic class of the first packet of a side that has had packets.
    pub(crate) fn first_traffic_class(&self, side: usize) -> Option<u8> {
        self.is(HAS_PACKETS, side).then_some(self.traffic_class[side])
    }

    /// Whether this packet opens another connection between the same ends.
    #[inline(always)]
    pub(crate) fn is_reopened_by(&self, o: &Observation) -> bool {
        o.tcp_flags & (SYN | ACK) == SYN && (self.tcp_flags[0] | self.tcp_flags[1]) & (FIN | RST) != 0
    }

    /// Whether a side has answered with RST, and never with SYN.
    pub(crate) fn was_refused(&self) -> bool {
        self.tcp_flags.iter().any(|flags| flags & (SYN | RST) == RST)
    }

    /// Adds an observation of this flow, if it is like nearly all: of a side that has had packets, from where that side
    /// is counted, no connection's begin or end, one packet a buffer, not sampled. Otherwise does nothing.
    #[inline(always)]
    pub(crate) fn count_plain(&mut self, o: &Observation) -> bool {
        let side = usize::from(o.reversed);
        let plain = self.is(HAS_PACKETS, side)
            && self.points[side] == o.point
            && o.tcp_flags & (SYN | FIN | RST) == 0
            && !o.is_segmented()
            && o.sampling == Sampling::NONE;
        if plain {
            self.add(side, o);
            if o.has_tcp_flags {
                self.add_flags(side, o.tcp_flags);
            }
        }
        plain
    }

    /// Adds an observation of this flow that is not of packets which were counted.
    pub(crate) fn count(&mut self, o: &Observation, facts: &mut Facts) -> Counted {
        let side = usize::from(o.reversed);
        if !self.is(HAS_PACKETS, side) {
            self.begin_side(side, o);
        }
        self.add(side, o);
        if o.is_segmented() {
            facts.segmented(o);
        }
        if !o.has_tcp_flags {
            return Counted::Yes;
        }
        self.add_flags(side, o.tcp_flags);
        if o.tcp_flags & (SYN | FIN | RST) == 0 { Counted::Yes } else { self.turn(side, o.tcp_flags, facts) }
    }

    #[inline(always)]
    fn add(&mut self, side: usize, o: &Observation) {
        // One that was merged may have come before and reach beyond this one.
        self.last = self.last.max(o.ended());
        self.end_time = self.end_time.max(o.end);
        self.ttl_min[side] = self.ttl_min[side].min(o.ttl);
        self.ttl_max[side] = self.ttl_max[side].max(o.ttl);
        self.delta[side] += o.counts();
    }

    #[cold]
    fn begin_side(&mut self, side: usize, o: &Observation) {
        self.sides |= HAS_PACKETS << side;
        self.points[side] = o.point;
        self.traffic_class[side] = o.traffic_class;
        if self.idle_class == IdleClass::TcpFin {
            // The other side has closed, this one has not.
            self.idle_class = IdleClass::Other;
        }
    }

    #[inline(always)]
    fn add_flags(&mut self, side: usize, flags: u8) {
        self.sides |= FLAGS_KNOWN << side;
        self.tcp_state = tcp::next(self.tcp_state, self.tcp_flags[side], self.tcp_flags[1 - side], flags);
        self.tcp_flags[side] |= flags;
    }

    /// Handshake and close: the initiator may become certain and the idle timeout shorter.
    fn turn(&mut self, side: usize, flags: u8, facts: &Facts) -> Counted {
        // A group can't have opened a connection, whatever was sent in its name.
        let certain = matches!(self.initiator, Initiator::Syn | Initiator::SynAck | Initiator::Multicast);
        if flags & (SYN | ACK) == SYN && !certain && facts.sequence == 0 {
            self.initiator = Initiator::Syn;
            self.sides = self.sides & !(3 * INITIATED) | INITIATED << side;
        }
        if self.idle_class == IdleClass::Superseded {
            return Counted::Yes;
        }
        let open = |side: usize| self.is(HAS_PACKETS, side) && self.tcp_flags[side] & FIN == 0;
        let class = if (self.tcp_flags[0] | self.tcp_flags[1]) & RST != 0 {
            IdleClass::TcpRst
        } else if open(0) || open(1) {
            IdleClass::Other
        } else {
            IdleClass::TcpFin
        };
        let before = std::mem::replace(&mut self.idle_class, class);
        if before == class || class == IdleClass::Other { Counted::Yes } else { Counted::Sooner }
    }

    /// Whether TCP says that the flow is over, so that its end is no mere timeout.
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.idle_class, IdleClass::TcpFin | IdleClass::TcpRst | IdleClass::Superseded)
    }

    /// What no record has carried yet, in the ledger's units.
    pub(crate) fn tally(&self, facts: &Facts) -> Tally {
        let [a, b] = self.delta;
        let (packets, bytes) = (a.packets + b.packets, a.frame_bytes + b.frame_bytes);
        Tally {
            packets,
            bytes,
            buffers: packets.wrapping_sub(facts.packets_over_buffers),
            buffer_bytes: bytes.wrapping_sub(facts.bytes_over_buffers as u64),
        }
    }

    pub(crate) const fn is_tcp(&self) -> bool {
        self.key.protocol() == TCP
    }
}

impl Facts {
    /// Of no flow.
    pub(crate) const EMPTY: Self = Self {
        total: [Counts { packets: 0, bytes: 0, frame_bytes: 0 }; 2],
        start_time: 0,
        ordinal: 0,
        sequence: 0,
        hash: 0,
        packets_over_buffers: 0,
        bytes_over_buffers: 0,
        community_id: CommunityId([0; 20]),
        macs: [0; 12],
        vlan: NO_VLAN,
        inner_vlan: NO_VLAN,
        icmp: [0; 2],
        shard: 0,
        spread: Spread::NONE,
    };

    /// Whether they belong to the flow that was the shard's `ordinal`th.
    pub(crate) const fn is(&self, shard: u8, ordinal: u64) -> bool {
        self.shard == shard && self.ordinal == ordinal
    }

    /// What a flow's first packet says.
    pub(crate) fn new(first: &Observation, ordinal: u64) -> Self {
        Self {
            start_time: first.start,
            ordinal,
            hash: first.hash,
            macs: first.macs,
            vlan: first.vlan,
            inner_vlan: first.inner_vlan,
            icmp: [first.icmp_type(), first.icmp_code()],
            shard: first.shard,
            ..Self::EMPTY
        }
    }

    /// Computed on first use.
    pub(crate) fn community_id(&mut self, key: &FlowKey, seed: u16) -> CommunityId {
        if self.community_id.0 == [0; 20] {
            self.community_id = CommunityId::of(key, seed);
        }
        self.community_id
    }

    /// Whether packets and bytes since the last record are others than the buffers'.
    pub(crate) const fn is_segmented(&self) -> bool {
        self.packets_over_buffers != 0 || self.bytes_over_buffers != 0
    }

    /// Notes by how much packets and bytes differ from the buffers that carried them.
    #[cold]
    fn segmented(&mut self, o: &Observation) {
        let packets = u64::from(o.packets).wrapping_sub(u64::from(o.buffers));
        self.packets_over_buffers = self.packets_over_buffers.wrapping_add(packets);
        let bytes = o.frame_bytes.wrapping_sub(u64::from(o.buffer_bytes)) as i64;
        self.bytes_over_buffers = self.bytes_over_buffers.wrapping_add(bytes);
    }

    /// A record was taken: moves what it carried from the entry's deltas into the totals.
    pub(crate) fn told(&mut self, entry: &mut Entry, event: FlowEvent) {
        self.sequence += 1;
        if event == FlowEvent::Start {
            return;
        }
        for (total, delta) in self.total.iter_mut().zip(&mut entry.delta) {
            *total += std::mem::take(delta);
        }
        self.packets_over_buffers = 0;
        self.bytes_over_buffers = 0;
        self.spread = Spread::NONE;
    }
}
