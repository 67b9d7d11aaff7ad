//! The one currency downstream of the flow table.

use crate::hops::Hops;
use crate::identity::{Enrichment, Identity};
use crate::lease::Lease;
use crate::nat::Nat;
use crate::sampled::Sampled;
use crate::tally::Tally;
use crate::wall::shown;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// 128 bits, the same over all records of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u128);

/// Why the record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowEvent {
    /// The flow was created; no counts yet.
    Start,
    /// A long flow's periodic report.
    Update,
    /// The flow's last record.
    End,
}

impl FlowEvent {
    /// The value of `flow.event`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Update => "update",
            Self::End => "end",
        }
    }
}

/// RFC 7012 information element 136, flowEndReason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlowEndReason {
    /// 1
    IdleTimeout = 1,
    /// 2
    ActiveTimeout = 2,
    /// 3
    EndOfFlowDetected = 3,
    /// 4
    ForcedEnd = 4,
    /// 5
    LackOfResources = 5,
}

impl FlowEndReason {
    /// The value of `flow.end_reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle timeout",
            Self::ActiveTimeout => "active timeout",
            Self::EndOfFlowDetected => "end of flow detected",
            Self::ForcedEnd => "forced end",
            Self::LackOfResources => "lack of resources",
        }
    }
}

/// How the initiator was inferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// A SYN without ACK: its sender.
    Syn,
    /// A SYN with ACK came first: its receiver.
    SynAck,
    /// The end with the higher class of port.
    ServicePort,
    /// The other end is a multicast or broadcast address.
    Multicast,
    /// The sender of the ICMP request.
    IcmpRequest,
    /// The sender of the first packet.
    FirstSeen,
}

impl Initiator {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Syn, Self::SynAck, Self::ServicePort, Self::Multicast, Self::IcmpRequest, Self::FirstSeen];

    /// The value of `flow.initiator`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAck => "syn_ack",
            Self::ServicePort => "service port",
            Self::Multicast => "multicast",
            Self::IcmpRequest => "icmp request",
            Self::FirstSeen => "first seen",
        }
    }
}

/// RFC 9293 section 3.3.2, of the end that closes first; before a close, of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing is known: no flags were captured.
    #[default]
    Unknown,
    /// SYN seen.
    SynSent,
    /// SYN and ACK seen.
    SynReceived,
    /// Handshake done, or data seen without one.
    Established,
    /// One end has sent FIN.
    FinWait1,
    /// That FIN was followed by an acknowledgement.
    FinWait2,
    /// Both ends have sent FIN, neither acknowledged.
    Closing,
    /// Both ends have sent FIN.
    TimeWait,
    /// RST.
    Closed,
}

impl TcpState {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::Closing,
        Self::TimeWait,
        Self::Closed,
    ];

    /// The value of `flow.tcp.state`; `None` where nothing is known.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Unknown => return None,
            Self::SynSent => "syn_sent",
            Self::SynReceived => "syn_received",
            Self::Established => "established",
            Self::FinWait1 => "fin_wait_1",
            Self::FinWait2 => "fin_wait_2",
            Self::Closing => "closing",
            Self::TimeWait => "time_wait",
            Self::Closed => "closed",
        })
    }
}

/// Counts of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets on the wire.
    pub packets: u64,
    /// IP bytes.
    pub bytes: u64,
    /// Bytes on the link.
    pub frame_bytes: u64,
}

impl std::ops::AddAssign for Counts {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.frame_bytes += other.frame_bytes;
    }
}

impl std::ops::SubAssign for Counts {
    #[inline]
    fn sub_assign(&mut self, other: Self) {
        debug_assert!(self.packets >= other.packets, "a part is not more than the whole");
        self.packets = self.packets.saturating_sub(other.packets);
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.frame_bytes = self.frame_bytes.saturating_sub(other.frame_bytes);
    }
}

/// What is known of one direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// Since the flow's previous record.
    pub delta: Counts,
    /// Since the flow's start.
    pub total: Counts,
    /// Union of the TCP flags so far; `None` where no TCP header was captured.
    pub tcp_flags: Option<u8>,
    /// Least and greatest TTL or hop limit so far; `None` before the direction's first packet.
    pub ttl: Option<(u8, u8)>,
    /// Traffic class (DSCP in the upper six bits, ECN in the lower two) of the direction's first packet.
    pub traffic_class: Option<u8>,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub address: IpAddr,
    /// Its port, where the protocol has ports and they are known.
    pub port: Option<u16>,
    /// Its MAC address on the observed link, from the flow's first packet.
    pub mac: Option<[u8; 6]>,
    /// What enrichment found out about it.
    pub identity: Identity,
}

/// A flow, or its part since the previous record of the same `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// Of the flow.
    pub id: FlowId,
    /// 0 for the flow's first record, then one more each time.
    pub sequence: u32,
    /// SHA-1 of the Community ID's input; see [`crate::CommunityId`].
    pub community_id: crate::CommunityId,
    /// Why the record was written.
    pub event: FlowEvent,
    /// Absent on `start`.
    pub end_reason: Option<FlowEndReason>,
    /// First packet's time on the clock of the observations, ns since 1970; never changes.
    pub start_time: u64,
    /// Last packet's time so far, on the same clock.
    pub end_time: u64,
    /// No packet that the deltas count came before this, ns since 1970: the flow's start, or, where it was reported before,
    /// as many active intervals before its last packet as there may be in it. Allows for packets that are handed on late;
    /// but a first record not for disorder of less than a second.
    pub counts_from: u64,
    /// What the wall clock was ahead of that clock at the first and at the last packet, ns: other than 0 after the wall
    /// clock was set.
    pub clock_ahead: [i64; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// The initiator.
    pub source: End,
    /// The other end.
    pub destination: End,
    /// How the initiator was inferred.
    pub initiator: Initiator,
    /// What enrichment found out about the flow as a whole.
    pub enrichment: Enrichment,
    /// Type and code of the flow's first packet.
    pub icmp: Option<(u8, u8)>,
    /// Source to destination.
    pub forward: Direction,
    /// Destination to source.
    pub reverse: Direction,
    /// `Unknown` for everything but TCP.
    pub tcp_state: TcpState,
    /// Of the flow's first packet, outermost tag first.
    pub vlan: Option<u16>,
    /// The second tag's.
    pub inner_vlan: Option<u16>,
    /// Where the flow's first packet was seen.
    pub point: u16,
    /// The shard that metered it: chooses the enrichment worker.
    pub shard: u8,
    /// What the record takes out of the metering book: packets and frame bytes of both deltas, with their buffers.
    pub tally: Tally,
    /// What was sampled of the packets that the deltas count; `None` where all were metered.
    pub sampled: Option<Box<Sampled>>,
    /// What each observation point saw of the packets; `None` where each direction was seen at one.
    pub hops: Option<Box<Hops>>,
    /// The connection's other tuple, where this host translated it and enrichment knows.
    pub nat: Option<Box<Nat>>,
    /// Where a journal has the record, too.
    pub lease: Lease,
}

// What the guides and `diagnose` say of queues and channels: about half a KiB a record.
const _: () = assert!(size_of::<FlowRecord>() <= 512);

impl FlowRecord {
    /// What the wall clock showed at the first packet, ns since 1970.
    #[inline]
    #[must_use]
    pub const fn start_shown(&self) -> u64 {
        shown(self.start_time, self.clock_ahead[0])
    }

    /// What the wall clock showed at the last packet so far. Before the start, where the clock was set back meanwhile.
    #[inline]
    #[must_use]
    pub const fn end_shown(&self) -> u64 {
        shown(self.end_time, self.clock_ahead[1])
    }

    /// What there was since the flow's previous record, as far as it is known, source to destination and the other way: the
    /// deltas, or estimates where packets were sampled.
    #[inline]
    #[must_use]
    pub fn estimates(&self) -> [Counts; 2] {
        let mut counts = [self.forward.delta, self.reverse.delta];
        if let Some(sampled) = &self.sampled {
            counts.iter_mut().zip(&sampled.directions).for_each(|(counts, more)| *counts += more.excess);
        }
        counts
    }

    /// By how much the wall clock was set forward between first and last packet, ns; negative: back.
    #[inline]
    #[must_use]
    pub const fn clock_step(&self) -> i64 {
        self.clock_ahead[1].saturating_sub(self.clock_ahead[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dashboards and scripts are written against these.
    #[test]
    fn names_are_those_of_the_standards() {
        let events = [FlowEvent::Start, FlowEvent::Update, FlowEvent::End];
        assert_eq!(events.map(FlowEvent::name), ["start", "update", "end"]);
        let reasons = [
            (FlowEndReason::IdleTimeout, 1, "idle timeout"),
            (FlowEndReason::ActiveTimeout, 2, "active timeout"),
            (FlowEndReason::EndOfFlowDetected, 3, "end of flow detected"),
            (FlowEndReason::ForcedEnd, 4, "forced end"),
            (FlowEndReason::LackOfResources, 5, "lack of resources"),
        ];
        for (reason, number, name) in reasons {
            assert_eq!((reason as u8, reason.name()), (number, name));
        }
        let initiators = [
            (Initiator::Syn, "syn"),
            (Initiator::SynAck, "syn_ack"),
            (Initiator::ServicePort, "service port"),
            (Initiator::Multicast, "multicast"),
            (Initiator::IcmpRequest, "icmp request"),
            (Initiator::FirstSeen, "first seen"),
        ];
        for (initiator, name) in initiators {
            assert_eq!(initiator.name(), name);
        }
        let states = [
            (TcpState::Unknown, None),
            (TcpState::SynSent, Some("syn_sent")),
            (TcpState::SynReceived, Some("syn_received")),
            (TcpState::Established, Some("established")),
            (TcpState::FinWait1, Some("fin_wait_1")),
            (TcpState::FinWait2, Some("fin_wait_2")),
            (TcpState::Closing, Some("closing")),
            (TcpState::TimeWait, Some("time_wait")),
            (TcpState::Closed, Some("closed")),
        ];
        for (state, name) in states {
            assert_eq!(state.name(), name);
        }
    }
}
