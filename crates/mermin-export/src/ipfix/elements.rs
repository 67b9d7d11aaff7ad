//! The table of fields that a record can have in IPFIX, in the order in which a data record has them.
//!
//! IANA's elements where one means the same (RFC 7012), their reverse ones under RFC 5103's number, and elements of our own,
//! whose numbers stand here and never change: one that goes leaves a gap. A field's place in the table is its bit in a
//! [`super::shape::Shape`], so there are 127 at most.

use mermin_flow::KubernetesAttribute;

/// What is said of an element by RFC 5610's type information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// So many octets.
    Octets(u16),
    Unsigned8,
    Unsigned16,
    Unsigned32,
    Unsigned64,
    /// An unsigned64 that is written in four octets in records whose counts all fit (RFC 7011 section 6.2).
    Counter,
    Signed64,
    Mac,
    /// UTF-8 of any length up to 65 535.
    String,
    /// UTF-8 of so many octets.
    Text(u16),
    Milliseconds,
    Nanoseconds,
    Ipv4,
    Ipv6,
}

impl Type {
    /// Length in a template: 65 535 stands for any (RFC 7011 section 7).
    pub(crate) const fn length(self, wide: bool) -> u16 {
        match self {
            Self::Octets(length) | Self::Text(length) => length,
            Self::Unsigned8 => 1,
            Self::Unsigned16 => 2,
            Self::Unsigned32 | Self::Ipv4 => 4,
            Self::Counter => {
                if wide {
                    8
                } else {
                    4
                }
            }
            Self::Unsigned64 | Self::Signed64 | Self::Milliseconds | Self::Nanoseconds => 8,
            Self::Mac => 6,
            Self::String => VARIABLE,
            Self::Ipv6 => 16,
        }
    }

    /// informationElementDataType (RFC 5610 section 3.1).
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Octets(_) => 0,
            Self::Unsigned8 => 1,
            Self::Unsigned16 => 2,
            Self::Unsigned32 => 3,
            Self::Unsigned64 | Self::Counter => 4,
            Self::Signed64 => 8,
            Self::Mac => 12,
            Self::String | Self::Text(_) => 13,
            Self::Milliseconds => 15,
            Self::Nanoseconds => 17,
            Self::Ipv4 => 18,
            Self::Ipv6 => 19,
        }
    }

    /// The abstract data type's name (RFC 7012 section 3.1).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Octets(_) => "octetArray",
            Self::Unsigned8 => "unsigned8",
            Self::Unsigned16 => "unsigned16",
            Self::Unsigned32 => "unsigned32",
            Self::Unsigned64 | Self::Counter => "unsigned64",
            Self::Signed64 => "signed64",
            Self::Mac => "macAddress",
            Self::String | Self::Text(_) => "string",
            Self::Milliseconds => "dateTimeMilliseconds",
            Self::Nanoseconds => "dateTimeNanoseconds",
            Self::Ipv4 => "ipv4Address",
            Self::Ipv6 => "ipv6Address",
        }
    }
}

/// The length that says that each value says its own.
pub(crate) const VARIABLE: u16 = u16::MAX;

/// informationElementSemantics (RFC 5610 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Semantics {
    Default = 0,
    Quantity = 1,
    TotalCounter = 2,
    Identifier = 4,
}

/// informationElementUnits (RFC 5610 section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Units {
    None = 0,
    Octets = 2,
    Packets = 3,
    Seconds = 5,
    Nanoseconds = 8,
}

/// Under whose number an element is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registry {
    /// IANA's, which has none.
    Iana,
    /// The reverse of IANA's: 29305.
    Reverse,
    /// The configured enterprise number.
    Own,
}

/// RFC 5103 section 6.1.
pub(crate) const REVERSE_PEN: u32 = 29_305;

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) registry: Registry,
    /// Its number there.
    pub(crate) number: u16,
    /// Its name there.
    pub(crate) name: &'static str,
    pub(crate) kind: Type,
    pub(crate) semantics: Semantics,
    pub(crate) units: Units,
    /// The greatest value of a closed set, which begins with 0 or 1; 0: no such set.
    pub(crate) greatest: u8,
    /// The attributes of a record that it carries.
    pub(crate) attributes: &'static [&'static str],
}

const fn iana(number: u16, name: &'static str, kind: Type, attributes: &'static [&'static str]) -> Field {
    Field {
        registry: Registry::Iana,
        number,
        name,
        kind,
        semantics: Semantics::Default,
        units: Units::None,
        greatest: 0,
        attributes,
    }
}

const fn reverse(number: u16, name: &'static str, kind: Type, attributes: &'static [&'static str]) -> Field {
    Field { registry: Registry::Reverse, ..iana(number, name, kind, attributes) }
}

const fn own(number: u16, kind: Type, semantics: Semantics, attributes: &'static [&'static str]) -> Field {
    Field { registry: Registry::Own, semantics, ..iana(number, attributes[0], kind, attributes) }
}

/// One of a closed set of `greatest` values, numbered from 1.
const fn choice(number: u16, greatest: u8, attributes: &'static [&'static str]) -> Field {
    Field { greatest, ..own(number, Unsigned8, Identifier, attributes) }
}

const fn quantity(number: u16, units: Units, attributes: &'static [&'static str]) -> Field {
    Field { units, ..own(number, Type::Unsigned64, Quantity, attributes) }
}

const fn text(number: u16, attributes: &'static [&'static str]) -> Field {
    own(number, Type::String, Semantics::Default, attributes)
}

use Semantics::{Identifier, Quantity};
use Type::{
    Counter, Ipv4, Ipv6, Mac, Milliseconds, Nanoseconds, Octets, Signed64, Text, Unsigned8, Unsigned16,
    Unsigned32,
};

/// All fields, in order.
#[rustfmt::skip]
pub(crate) const FIELDS: &[Field] = &[
    iana(152, "flowStartMilliseconds", Milliseconds, &["flow.start_time"]),
    iana(153, "flowEndMilliseconds", Milliseconds, &["flow.end_time"]),
    iana(156, "flowStartNanoseconds", Nanoseconds, &["flow.start_time"]),
    iana(157, "flowEndNanoseconds", Nanoseconds, &["flow.end_time"]),
    iana(22, "flowStartSysUpTime", Unsigned32, &["flow.start_time"]),
    iana(21, "flowEndSysUpTime", Unsigned32, &["flow.end_time"]),
    iana(136, "flowEndReason", Unsigned8, &["flow.end_reason"]),
    iana(60, "ipVersion", Unsigned8, &["network.type"]),
    iana(4, "protocolIdentifier", Unsigned8, &["network.transport.number", "network.transport"]),
    iana(8, "sourceIPv4Address", Ipv4, &["source.address"]),
    iana(12, "destinationIPv4Address", Ipv4, &["destination.address"]),
    iana(27, "sourceIPv6Address", Ipv6, &["source.address"]),
    iana(28, "destinationIPv6Address", Ipv6, &["destination.address"]),
    iana(7, "sourceTransportPort", Unsigned16, &["source.port"]),
    iana(11, "destinationTransportPort", Unsigned16, &["destination.port"]),
    iana(32, "icmpTypeCodeIPv4", Unsigned16, &["icmp.type", "icmp.code"]),
    iana(139, "icmpTypeCodeIPv6", Unsigned16, &["icmp.type", "icmp.code"]),
    iana(239, "biflowDirection", Unsigned8, &[]),

    // Totals first: nfdump 1.7 has one place for both, and keeps what comes last.
    iana(86, "packetTotalCount", Counter, &["flow.packets.total"]),
    iana(2, "packetDeltaCount", Counter, &["flow.packets.delta"]),
    iana(85, "octetTotalCount", Counter, &["flow.bytes.total"]),
    iana(1, "octetDeltaCount", Counter, &["flow.bytes.delta"]),
    iana(353, "layer2OctetTotalCount", Counter, &["flow.frame_bytes.total"]),
    iana(352, "layer2OctetDeltaCount", Counter, &["flow.frame_bytes.delta"]),
    iana(5, "ipClassOfService", Unsigned8, &["flow.dscp", "flow.ecn"]),
    iana(52, "minimumTTL", Unsigned8, &["flow.ttl.min"]),
    iana(53, "maximumTTL", Unsigned8, &["flow.ttl.max"]),
    iana(6, "tcpControlBits", Unsigned8, &["flow.tcp.flags"]),

    reverse(86, "reversePacketTotalCount", Counter, &["flow.reverse.packets.total"]),
    reverse(2, "reversePacketDeltaCount", Counter, &["flow.reverse.packets.delta"]),
    reverse(85, "reverseOctetTotalCount", Counter, &["flow.reverse.bytes.total"]),
    reverse(1, "reverseOctetDeltaCount", Counter, &["flow.reverse.bytes.delta"]),
    reverse(353, "reverseLayer2OctetTotalCount", Counter, &["flow.reverse.frame_bytes.total"]),
    reverse(352, "reverseLayer2OctetDeltaCount", Counter, &["flow.reverse.frame_bytes.delta"]),
    reverse(5, "reverseIpClassOfService", Unsigned8, &["flow.reverse.dscp", "flow.reverse.ecn"]),
    reverse(52, "reverseMinimumTTL", Unsigned8, &["flow.reverse.ttl.min"]),
    reverse(53, "reverseMaximumTTL", Unsigned8, &["flow.reverse.ttl.max"]),
    reverse(6, "reverseTcpControlBits", Unsigned8, &["flow.reverse.tcp.flags"]),

    iana(56, "sourceMacAddress", Mac, &["source.mac"]),
    iana(80, "destinationMacAddress", Mac, &["destination.mac"]),
    iana(58, "vlanId", Unsigned16, &["network.vlan.id"]),
    iana(243, "dot1qVlanId", Unsigned16, &["network.vlan.id"]),
    iana(245, "dot1qCustomerVlanId", Unsigned16, &["network.inner.vlan.id"]),
    iana(82, "interfaceName", Type::String, &["network.interface.name"]),
    iana(10, "ingressInterface", Unsigned32, &["network.interface.index"]),
    iana(14, "egressInterface", Unsigned32, &["network.interface.index"]),
    iana(61, "flowDirection", Unsigned8, &["network.interface.hook"]),

    own(1, Octets(16), Identifier, &["flow.id"]),
    own(2, Unsigned32, Identifier, &["flow.sequence"]),
    own(3, Text(30), Identifier, &["flow.community_id"]),
    choice(4, 3, &["flow.event"]),
    choice(5, 6, &["flow.initiator"]),
    choice(6, 4, &["flow.direction", "network.io.direction"]),
    choice(7, 8, &["flow.tcp.state"]),
    choice(8, 2, &["enrichment"]),
    Field { units: Units::Seconds, ..own(9, Unsigned32, Quantity, &["enrichment_age"]) },
    Field { units: Units::Nanoseconds, ..own(10, Signed64, Quantity, &["flow.clock_step"]) },

    own(20, Unsigned32, Quantity, &["flow.sampling.rate.min"]),
    own(21, Unsigned32, Quantity, &["flow.sampling.rate.max"]),
    quantity(22, Units::Packets, &["flow.packets.estimate"]),
    quantity(23, Units::Packets, &["flow.packets.estimate_error"]),
    quantity(24, Units::Octets, &["flow.bytes.estimate"]),
    quantity(25, Units::Octets, &["flow.bytes.estimate_error"]),
    quantity(26, Units::Octets, &["flow.frame_bytes.estimate"]),
    quantity(27, Units::Packets, &["flow.reverse.packets.estimate"]),
    quantity(28, Units::Packets, &["flow.reverse.packets.estimate_error"]),
    quantity(29, Units::Octets, &["flow.reverse.bytes.estimate"]),
    quantity(30, Units::Octets, &["flow.reverse.bytes.estimate_error"]),
    quantity(31, Units::Octets, &["flow.reverse.frame_bytes.estimate"]),
    text(32, &["flow.hops"]),
    text(33, &["flow.reverse.hops"]),

    choice(40, 2, &["flow.nat.stage"]),
    own(41, Text(30), Identifier, &["flow.nat.community_id"]),
    // Of a record whose tuple is the one before translation: the one behind it.
    iana(225, "postNATSourceIPv4Address", Ipv4, &["source.nat.ip"]),
    iana(281, "postNATSourceIPv6Address", Ipv6, &["source.nat.ip"]),
    iana(227, "postNAPTSourceTransportPort", Unsigned16, &["source.nat.port"]),
    iana(226, "postNATDestinationIPv4Address", Ipv4, &["destination.nat.ip"]),
    iana(282, "postNATDestinationIPv6Address", Ipv6, &["destination.nat.ip"]),
    iana(228, "postNAPTDestinationTransportPort", Unsigned16, &["destination.nat.port"]),
    // Of one whose tuple is the one behind it: `address port` of the one before, for which IANA has no elements.
    Field { name: "source.nat.before", ..text(42, &["source.nat.ip", "source.nat.port"]) },
    Field { name: "destination.nat.before", ..text(43, &["destination.nat.ip", "destination.nat.port"]) },

    text(100, &["source.name"]),
    choice(101, 3, &["source.k8s.resolution"]),
    text(102, &["source.k8s.namespace.name"]),
    text(103, &["source.k8s.pod.name"]),
    text(104, &["source.k8s.pod.uid"]),
    text(105, &["source.k8s.container.name"]),
    text(106, &["source.k8s.node.name"]),
    text(107, &["source.k8s.node.uid"]),
    text(108, &["source.k8s.deployment.name"]),
    text(109, &["source.k8s.deployment.uid"]),
    text(110, &["source.k8s.replicaset.name"]),
    text(111, &["source.k8s.replicaset.uid"]),
    text(112, &["source.k8s.statefulset.name"]),
    text(113, &["source.k8s.statefulset.uid"]),
    text(114, &["source.k8s.daemonset.name"]),
    text(115, &["source.k8s.daemonset.uid"]),
    text(116, &["source.k8s.job.name"]),
    text(117, &["source.k8s.job.uid"]),
    text(118, &["source.k8s.cronjob.name"]),
    text(119, &["source.k8s.cronjob.uid"]),
    text(120, &["source.k8s.service.name"]),
    text(121, &["source.k8s.service.uid"]),
    Field {
        name: "source.k8s.labels",
        ..text(122, &["source.k8s.namespace.label.<key>", "source.k8s.pod.annotation.<key>", "source.k8s.pod.label.<key>"])
    },

    text(200, &["destination.name"]),
    choice(201, 3, &["destination.k8s.resolution"]),
    text(202, &["destination.k8s.namespace.name"]),
    text(203, &["destination.k8s.pod.name"]),
    text(204, &["destination.k8s.pod.uid"]),
    text(205, &["destination.k8s.container.name"]),
    text(206, &["destination.k8s.node.name"]),
    text(207, &["destination.k8s.node.uid"]),
    text(208, &["destination.k8s.deployment.name"]),
    text(209, &["destination.k8s.deployment.uid"]),
    text(210, &["destination.k8s.replicaset.name"]),
    text(211, &["destination.k8s.replicaset.uid"]),
    text(212, &["destination.k8s.statefulset.name"]),
    text(213, &["destination.k8s.statefulset.uid"]),
    text(214, &["destination.k8s.daemonset.name"]),
    text(215, &["destination.k8s.daemonset.uid"]),
    text(216, &["destination.k8s.job.name"]),
    text(217, &["destination.k8s.job.uid"]),
    text(218, &["destination.k8s.cronjob.name"]),
    text(219, &["destination.k8s.cronjob.uid"]),
    text(220, &["destination.k8s.service.name"]),
    text(221, &["destination.k8s.service.uid"]),
    Field {
        name: "destination.k8s.labels",
        ..text(222, &["destination.k8s.namespace.label.<key>", "destination.k8s.pod.annotation.<key>", "destination.k8s.pod.label.<key>"])
    },
];

const _: () = assert!(FIELDS.len() <= 127, "the 128th bit of a shape is that of wide counters");

const fn tally(number: u16, units: Units, name: &'static str) -> Field {
    let field = iana(number, name, Type::Unsigned64, &[]);
    Field { registry: Registry::Own, semantics: Semantics::TotalCounter, units, ..field }
}

/// The agent's ledger, which options records tell.
#[rustfmt::skip]
pub(crate) const LEDGER: &[Field] = &[
    tally(300, Units::Packets, "ledger.seen.packets"),
    tally(301, Units::Octets, "ledger.seen.bytes"),
    tally(302, Units::Packets, "ledger.metered.packets"),
    tally(303, Units::Octets, "ledger.metered.bytes"),
    tally(304, Units::Packets, "ledger.secondary.packets"),
    tally(305, Units::Octets, "ledger.secondary.bytes"),
    tally(306, Units::Packets, "ledger.unmetered.packets"),
    tally(307, Units::Octets, "ledger.unmetered.bytes"),
    tally(308, Units::Packets, "ledger.filtered.packets"),
    tally(309, Units::Octets, "ledger.filtered.bytes"),
    tally(310, Units::Packets, "ledger.sampled_out.packets"),
    tally(311, Units::Octets, "ledger.sampled_out.bytes"),
    tally(312, Units::Packets, "ledger.lost.packets"),
    tally(313, Units::Octets, "ledger.lost.bytes"),
];

/// The place of a field in the table; where there is none, the program doesn't compile.
pub(crate) const fn place(name: &str) -> u8 {
    let mut place = 0;
    while place < FIELDS.len() {
        if FIELDS[place].name.len() == name.len() && same(FIELDS[place].name.as_bytes(), name.as_bytes()) {
            return place as u8;
        }
        place += 1;
    }
    panic!("no such field")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// The place of an attribute of Kubernetes behind that of its end's first one: they stand in their order.
pub(crate) const fn of_kubernetes(first: u8, attribute: KubernetesAttribute) -> u8 {
    first + attribute as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::ATTRIBUTES;
    use std::collections::HashSet;

    #[test]
    fn numbers_and_names_are_unique() {
        let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
        for field in FIELDS.iter().chain(LEDGER) {
            assert!(
                numbers.insert((format!("{:?}", field.registry), field.number)),
                "{} twice",
                field.number
            );
            assert!(names.insert(field.name), "{} twice", field.name);
            assert!(field.number > 0 && field.number < 0x8000, "{}", field.name);
        }
    }

    /// What a record says, IPFIX says.
    #[test]
    fn every_attribute_has_a_field_and_every_field_an_attribute() {
        for attribute in ATTRIBUTES {
            let carried = FIELDS.iter().any(|field| field.attributes.contains(&attribute.name));
            assert!(carried, "{} is in no field", attribute.name);
        }
        for field in FIELDS {
            for name in field.attributes {
                assert!(ATTRIBUTES.iter().any(|attribute| attribute.name == *name), "{name}");
            }
        }
    }

    /// A number that a collector has learnt means the same for good. New ones are added at the end of this list.
    #[test]
    fn our_numbers_never_change() {
        let own = crate::ipfix::options::own_elements();
        let own = own.map(|field| format!("{} {} {}", field.number, field.name, field.kind.name()));
        let text = own.collect::<Vec<_>>().join("\n") + "\n";
        crate::sample::assert_golden("ipfix-elements.txt", text.as_bytes());
    }

    #[test]
    fn kubernetes_attributes_stand_in_their_order() {
        for (end, first) in [
            ("source", place("source.k8s.namespace.name")),
            ("destination", place("destination.k8s.namespace.name")),
        ] {
            for attribute in KubernetesAttribute::ALL {
                let field = &FIELDS[usize::from(of_kubernetes(first, *attribute))];
                assert_eq!(field.name, format!("{end}.{}", attribute.name()));
            }
        }
    }
}
