//! The attribute table: every name that a flow record can have, in record order.
//!
//! One table, so that names, order, units and meaning are written once: the record reference is generated from it, and
//! the JSON writer is tested against it. Names are OpenTelemetry's, else the Elastic Common Schema's, else our own; the
//! information element of RFC 7012 with the same meaning stands beside each.

pub(crate) mod hops;
pub(crate) mod nat;
mod reference;
pub(crate) mod sampling;
pub(crate) mod visit;

pub use reference::record_reference;

/// The type of an attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text; where the values are a closed set, they are listed.
    Text(&'static [&'static str]),
    /// A whole number ≥ 0.
    Count,
    /// A whole number with a sign.
    Signed,
    /// A list of texts out of a closed set.
    List(&'static [&'static str]),
    /// A list of hops, each with names and values of its own.
    Hops,
}

/// Where an attribute's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// OpenTelemetry semantic conventions.
    OpenTelemetry,
    /// Elastic Common Schema.
    ElasticCommonSchema,
    /// No convention has one.
    Own,
}

/// When an attribute is in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In each.
    Always,
    /// In records that the sentence describes.
    When(&'static str),
}

/// An information element of RFC 7012's registry: number and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InformationElement(pub u16, pub &'static str);

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its key.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What is counted, in the notation of UCUM where that has one; empty for names and codes.
    pub unit: &'static str,
    /// When it is there.
    pub presence: Presence,
    /// What it says.
    pub description: &'static str,
    /// Where the name comes from.
    pub origin: Origin,
    /// Elements of the same meaning; two where IPv4 and IPv6 have their own. In the reverse direction RFC 5103's
    /// reverse element.
    pub elements: &'static [InformationElement],
}

use InformationElement as Ie;
use Kind::{Count, Hops, List, Signed, Text};
use Origin::{ElasticCommonSchema, OpenTelemetry, Own};
use Presence::{Always, When};

const TCP_FLAGS: &[&str] = &["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
const TCP_STATES: &[&str] = &[
    "syn_sent",
    "syn_received",
    "established",
    "fin_wait_1",
    "fin_wait_2",
    "closing",
    "time_wait",
    "closed",
];
const END_REASONS: &[&str] =
    &["idle timeout", "active timeout", "end of flow detected", "forced end", "lack of resources"];
const INITIATORS: &[&str] = &["syn", "syn_ack", "service port", "multicast", "icmp request", "first seen"];

const RESOLUTIONS: &[&str] = &["exact", "ambiguous", "unknown"];
const DIRECTIONS: &[&str] = &["inbound", "outbound", "within node", "transit"];

const PORTS: Presence = When("the protocol has ports and the packet that began the flow showed them");
const NAMED: Presence = When("`enrich.names` has a network with this address");
const ASKED: Presence = When("`enrich.kubernetes` is on");
const POD_OR_SERVICE: Presence =
    When("the owner is a pod or a service, or the port is a service's on all nodes");
const POD: Presence = When("the owner is a pod");
const CONTAINER: Presence =
    When("the owner is a pod with one container, or one of its containers declares the port");
const NODE: Presence = When("the owner is a pod or a node");
const OWNED: Presence = When("the pod has such an owner");
const SERVICE: Presence = When(
    "the address is a service's, or address and port are a backend of one service, or its port on all nodes",
);
const LABEL: Presence = When("`enrich.kubernetes.labels` chooses the key and the pod has it");
const ANNOTATION: Presence = When("`enrich.kubernetes.annotations` chooses the key and the pod has it");
const NAMESPACE_LABEL: Presence =
    When("`enrich.kubernetes.namespace_labels` chooses the key and the namespace has it");
const ETHERNET: Presence = When("the link has MAC addresses and the source of packets tells them");
const ICMP: Presence = When("the flow is ICMP or ICMPv6 and the type was captured");
const FORWARD: Presence = When("a packet ran this way");
const SAMPLED: Presence = When("packets that the deltas count were sampled, to keep within `resources.cpu`");
const SEVERAL: Presence =
    When("the flow was seen at several observation points, and this way at one at least");
const TRANSLATED: Presence =
    When("`enrich.conntrack` is on, and this host translates the connection's addresses or ports");
const SOURCE_TRANSLATED: Presence =
    When("that is so, and the source has another address or port in the other tuple");
const DESTINATION_TRANSLATED: Presence =
    When("that is so, and the destination has another address or port in the other tuple");
const TCP: Presence = When("the flow is TCP and a TCP header was captured this way");

const fn attribute(
    name: &'static str,
    kind: Kind,
    presence: Presence,
    origin: Origin,
    elements: &'static [Ie],
    description: &'static str,
) -> Attribute {
    Attribute { name, kind, unit: "", presence, description, origin, elements }
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    elements: &'static [Ie],
    description: &'static str,
) -> Attribute {
    Attribute { name, kind: Count, unit, presence: Always, description, origin: Own, elements }
}

const fn estimate(name: &'static str, unit: &'static str, description: &'static str) -> Attribute {
    Attribute { unit, ..attribute(name, Count, SAMPLED, Own, &[], description) }
}

/// The end of the names of a family of attributes, one for each key that the configuration chooses.
pub const KEY: &str = "<key>";

/// The attribute that a name in a record belongs to.
#[must_use]
pub fn find(name: &str) -> Option<&'static Attribute> {
    let is = |attribute: &&Attribute| match attribute.name.strip_suffix(KEY) {
        Some(family) => name.len() > family.len() && name.starts_with(family),
        None => attribute.name == name,
    };
    ATTRIBUTES.iter().find(is)
}

/// All attributes, in the order in which a record has them.
#[rustfmt::skip]
pub const ATTRIBUTES: &[Attribute] = &[
    attribute("flow.id", Text(&[]), Always, Own, &[], "32 hexadecimal digits, the same in all records of one flow: a hash of the agent's id, the flow key, the start time and a count."),
    attribute("flow.sequence", Count, Always, Own, &[], "0 in the flow's first record, then one more in each that is made. An output that lags behind may get fewer: where the deltas add up to the totals all the same, records were merged on the way; where they don't, one was dropped and stands in that output's book."),
    attribute("flow.community_id", Text(&[]), Always, Own, &[], "Community ID version 1 of the flow key: other tools compute the same."),
    attribute("flow.event", Text(&["start", "update", "end"]), Always, Own, &[], "Why the record was written: `start` of a flow (with `flow.start_records`), periodic `update` of a long one, its `end`."),
    attribute("flow.end_reason", Text(END_REASONS), When("the event is not `start`"), Own, &[Ie(136, "flowEndReason")], "What ended the flow, or the interval that the record reports."),
    attribute("flow.start_time", Text(&[]), Always, Own, &[Ie(156, "flowStartNanoseconds")], "What the wall clock showed at the flow's first packet: RFC 3339, UTC, nine digits of the second."),
    attribute("flow.end_time", Text(&[]), Always, Own, &[Ie(157, "flowEndNanoseconds")], "The same of the last packet so far. Where the clock was set meanwhile, `flow.clock_step` says by how much."),

    attribute("network.type", Text(&["ipv4", "ipv6"]), Always, OpenTelemetry, &[Ie(60, "ipVersion")], "The network layer."),
    attribute("network.transport", Text(&[]), When("IANA has a keyword for the protocol"), OpenTelemetry, &[], "The keyword in lower case: `tcp`, `udp`, `icmp`, `ipv6-icmp`, `sctp`, `gre`, `esp`, `ospfigp` …"),
    attribute("network.transport.number", Count, Always, Own, &[Ie(4, "protocolIdentifier")], "IANA's number of the protocol."),

    attribute("source.address", Text(&[]), Always, OpenTelemetry, &[Ie(8, "sourceIPv4Address"), Ie(27, "sourceIPv6Address")], "Address of the initiator. IPv6 in the form of RFC 5952."),
    attribute("source.port", Count, PORTS, OpenTelemetry, &[Ie(7, "sourceTransportPort")], "Its port."),
    attribute("source.mac", Text(&[]), ETHERNET, ElasticCommonSchema, &[Ie(56, "sourceMacAddress")], "Its MAC address on the link of the observation point, as in `AC-DE-48-23-45-67`: often a router's."),
    attribute("source.name", Text(&[]), NAMED, Own, &[], "The name that the configuration gives to its network."),
    attribute("source.k8s.resolution", Text(RESOLUTIONS), ASKED, Own, &[], "Whether one owner of the address is known for the time of the packets; of several possible ones only what they have in common is said."),
    attribute("source.k8s.namespace.name", Text(&[]), POD_OR_SERVICE, OpenTelemetry, &[], "Its namespace."),
    attribute("source.k8s.pod.name", Text(&[]), POD, OpenTelemetry, &[], "Name of the pod that had the address at the time of the packets."),
    attribute("source.k8s.pod.uid", Text(&[]), POD, OpenTelemetry, &[], "The pod's uid."),
    attribute("source.k8s.container.name", Text(&[]), CONTAINER, OpenTelemetry, &[], "The pod's container: the only one, or the one that declares the port."),
    attribute("source.k8s.node.name", Text(&[]), NODE, OpenTelemetry, &[], "Node that the pod runs on; or the node itself, where the address is a node's and no pod with host network declares the port."),
    attribute("source.k8s.node.uid", Text(&[]), NODE, OpenTelemetry, &[], "The node's uid."),
    attribute("source.k8s.deployment.name", Text(&[]), OWNED, OpenTelemetry, &[], "Deployment that the pod belongs to."),
    attribute("source.k8s.deployment.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("source.k8s.replicaset.name", Text(&[]), OWNED, OpenTelemetry, &[], "Replica set that the pod belongs to."),
    attribute("source.k8s.replicaset.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("source.k8s.statefulset.name", Text(&[]), OWNED, OpenTelemetry, &[], "Stateful set that the pod belongs to."),
    attribute("source.k8s.statefulset.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("source.k8s.daemonset.name", Text(&[]), OWNED, OpenTelemetry, &[], "Daemon set that the pod belongs to."),
    attribute("source.k8s.daemonset.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("source.k8s.job.name", Text(&[]), OWNED, OpenTelemetry, &[], "Job that the pod belongs to."),
    attribute("source.k8s.job.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("source.k8s.cronjob.name", Text(&[]), OWNED, OpenTelemetry, &[], "Cron job that made the job."),
    attribute("source.k8s.cronjob.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("source.k8s.service.name", Text(&[]), SERVICE, OpenTelemetry, &[], "The service."),
    attribute("source.k8s.service.uid", Text(&[]), SERVICE, OpenTelemetry, &[], "Its uid."),
    attribute("source.k8s.namespace.label.<key>", Text(&[]), NAMESPACE_LABEL, OpenTelemetry, &[], "A label of the pod's namespace."),
    attribute("source.k8s.pod.annotation.<key>", Text(&[]), ANNOTATION, OpenTelemetry, &[], "An annotation of the pod."),
    attribute("source.k8s.pod.label.<key>", Text(&[]), LABEL, OpenTelemetry, &[], "A label of the pod."),
    attribute("destination.address", Text(&[]), Always, OpenTelemetry, &[Ie(12, "destinationIPv4Address"), Ie(28, "destinationIPv6Address")], "Address of the other end."),
    attribute("destination.port", Count, PORTS, OpenTelemetry, &[Ie(11, "destinationTransportPort")], "Its port."),
    attribute("destination.mac", Text(&[]), ETHERNET, ElasticCommonSchema, &[Ie(80, "destinationMacAddress")], "Its MAC address on that link."),
    attribute("destination.name", Text(&[]), NAMED, Own, &[], "The name that the configuration gives to its network."),
    attribute("destination.k8s.resolution", Text(RESOLUTIONS), ASKED, Own, &[], "Whether one owner of the address is known for the time of the packets; of several possible ones only what they have in common is said."),
    attribute("destination.k8s.namespace.name", Text(&[]), POD_OR_SERVICE, OpenTelemetry, &[], "Its namespace."),
    attribute("destination.k8s.pod.name", Text(&[]), POD, OpenTelemetry, &[], "Name of the pod that had the address at the time of the packets."),
    attribute("destination.k8s.pod.uid", Text(&[]), POD, OpenTelemetry, &[], "The pod's uid."),
    attribute("destination.k8s.container.name", Text(&[]), CONTAINER, OpenTelemetry, &[], "The pod's container: the only one, or the one that declares the port."),
    attribute("destination.k8s.node.name", Text(&[]), NODE, OpenTelemetry, &[], "Node that the pod runs on; or the node itself, where the address is a node's and no pod with host network declares the port."),
    attribute("destination.k8s.node.uid", Text(&[]), NODE, OpenTelemetry, &[], "The node's uid."),
    attribute("destination.k8s.deployment.name", Text(&[]), OWNED, OpenTelemetry, &[], "Deployment that the pod belongs to."),
    attribute("destination.k8s.deployment.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("destination.k8s.replicaset.name", Text(&[]), OWNED, OpenTelemetry, &[], "Replica set that the pod belongs to."),
    attribute("destination.k8s.replicaset.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("destination.k8s.statefulset.name", Text(&[]), OWNED, OpenTelemetry, &[], "Stateful set that the pod belongs to."),
    attribute("destination.k8s.statefulset.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("destination.k8s.daemonset.name", Text(&[]), OWNED, OpenTelemetry, &[], "Daemon set that the pod belongs to."),
    attribute("destination.k8s.daemonset.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("destination.k8s.job.name", Text(&[]), OWNED, OpenTelemetry, &[], "Job that the pod belongs to."),
    attribute("destination.k8s.job.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("destination.k8s.cronjob.name", Text(&[]), OWNED, OpenTelemetry, &[], "Cron job that made the job."),
    attribute("destination.k8s.cronjob.uid", Text(&[]), OWNED, OpenTelemetry, &[], "Its uid."),
    attribute("destination.k8s.service.name", Text(&[]), SERVICE, OpenTelemetry, &[], "The service."),
    attribute("destination.k8s.service.uid", Text(&[]), SERVICE, OpenTelemetry, &[], "Its uid."),
    attribute("destination.k8s.namespace.label.<key>", Text(&[]), NAMESPACE_LABEL, OpenTelemetry, &[], "A label of the pod's namespace."),
    attribute("destination.k8s.pod.annotation.<key>", Text(&[]), ANNOTATION, OpenTelemetry, &[], "An annotation of the pod."),
    attribute("destination.k8s.pod.label.<key>", Text(&[]), LABEL, OpenTelemetry, &[], "A label of the pod."),
    attribute("icmp.type", Count, ICMP, Own, &[Ie(176, "icmpTypeIPv4"), Ie(178, "icmpTypeIPv6")], "Type of the flow's first packet."),
    attribute("icmp.code", Count, ICMP, Own, &[Ie(177, "icmpCodeIPv4"), Ie(179, "icmpCodeIPv6")], "Code of the flow's first packet."),
    attribute("flow.initiator", Text(INITIATORS), Always, Own, &[Ie(239, "biflowDirection")], "How the initiator was inferred."),
    attribute("flow.direction", Text(DIRECTIONS), When("it is known which addresses are this node's"), Own, &[], "Which way the flow runs, from source to destination, as seen from this node."),
    attribute("network.io.direction", Text(&["receive", "transmit"]), When("`flow.direction` is `inbound` or `outbound`"), OpenTelemetry, &[], "The same in OpenTelemetry's two words."),

    counter("flow.packets.delta", "{packet}", &[Ie(2, "packetDeltaCount")], "Packets from source to destination since the flow's previous record, as on the wire: a segmented buffer counts as its segments."),
    counter("flow.packets.total", "{packet}", &[Ie(86, "packetTotalCount")], "The same since the flow's start."),
    counter("flow.bytes.delta", "By", &[Ie(1, "octetDeltaCount")], "IP bytes, headers included, from source to destination since the previous record."),
    counter("flow.bytes.total", "By", &[Ie(85, "octetTotalCount")], "The same since the flow's start."),
    counter("flow.frame_bytes.delta", "By", &[Ie(352, "layer2OctetDeltaCount")], "Bytes on the link, as captured, from source to destination since the previous record."),
    counter("flow.frame_bytes.total", "By", &[Ie(353, "layer2OctetTotalCount")], "The same since the flow's start."),
    attribute("flow.dscp", Count, FORWARD, Own, &[Ie(195, "ipDiffServCodePoint")], "Differentiated services code point of the first packet from source to destination."),
    attribute("flow.ecn", Count, FORWARD, Own, &[], "Explicit congestion notification bits of that packet (RFC 3168): 0 not capable, 1 and 2 capable, 3 congestion met."),
    attribute("flow.ttl.min", Count, FORWARD, Own, &[Ie(52, "minimumTTL")], "Least TTL or hop limit of the packets from source to destination so far."),
    attribute("flow.ttl.max", Count, FORWARD, Own, &[Ie(53, "maximumTTL")], "Greatest TTL or hop limit of them."),

    counter("flow.reverse.packets.delta", "{packet}", &[Ie(2, "packetDeltaCount")], "Packets from destination to source since the previous record."),
    counter("flow.reverse.packets.total", "{packet}", &[Ie(86, "packetTotalCount")], "The same since the flow's start."),
    counter("flow.reverse.bytes.delta", "By", &[Ie(1, "octetDeltaCount")], "IP bytes from destination to source since the previous record."),
    counter("flow.reverse.bytes.total", "By", &[Ie(85, "octetTotalCount")], "The same since the flow's start."),
    counter("flow.reverse.frame_bytes.delta", "By", &[Ie(352, "layer2OctetDeltaCount")], "Bytes on the link from destination to source since the previous record."),
    counter("flow.reverse.frame_bytes.total", "By", &[Ie(353, "layer2OctetTotalCount")], "The same since the flow's start."),
    attribute("flow.reverse.dscp", Count, FORWARD, Own, &[Ie(195, "ipDiffServCodePoint")], "Differentiated services code point of the first packet from destination to source."),
    attribute("flow.reverse.ecn", Count, FORWARD, Own, &[], "Explicit congestion notification bits of that packet."),
    attribute("flow.reverse.ttl.min", Count, FORWARD, Own, &[Ie(52, "minimumTTL")], "Least TTL or hop limit of the packets from destination to source so far."),
    attribute("flow.reverse.ttl.max", Count, FORWARD, Own, &[Ie(53, "maximumTTL")], "Greatest TTL or hop limit of them."),

    attribute("flow.tcp.flags", List(TCP_FLAGS), TCP, Own, &[Ie(6, "tcpControlBits")], "Union of the flags from source to destination so far."),
    attribute("flow.reverse.tcp.flags", List(TCP_FLAGS), TCP, Own, &[Ie(6, "tcpControlBits")], "Union of the flags from destination to source so far."),
    attribute("flow.tcp.state", Text(TCP_STATES), When("the flow is TCP and its flags were captured"), Own, &[], "State of the connection in RFC 9293's words, as far as the packets tell."),

    attribute("network.vlan.id", Count, When("the first packet had a VLAN tag"), ElasticCommonSchema, &[Ie(243, "dot1qVlanId")], "VLAN id of the first packet's outer tag."),
    attribute("network.inner.vlan.id", Count, When("the first packet had two VLAN tags"), ElasticCommonSchema, &[Ie(245, "dot1qCustomerVlanId")], "VLAN id of the second tag."),
    attribute("network.interface.name", Text(&[]), When("live, and in captures that say it"), OpenTelemetry, &[Ie(82, "interfaceName")], "Interface where the first packet was seen."),
    attribute("network.interface.index", Count, When("live"), Own, &[Ie(10, "ingressInterface"), Ie(14, "egressInterface")], "The kernel's number of that interface."),
    attribute("network.interface.hook", Text(&["ingress", "egress"]), When("live"), Own, &[Ie(61, "flowDirection")], "Whether the first packet came in by that interface or went out."),

    attribute("flow.nat.stage", Text(&["before", "behind"]), TRANSLATED, Own, &[], "Which of the connection's two tuples the record's own is: the one `before` translation, or the one `behind` it, as the packets have it that run as the connection was opened. The other tuple follows. Where the stage is `before`, it is what RFC 7012 calls post-NAT (information elements 225 to 228, 281 and 282)."),
    attribute("source.nat.ip", Text(&[]), SOURCE_TRANSLATED, ElasticCommonSchema, &[], "The source's address in the other tuple."),
    attribute("source.nat.port", Count, SOURCE_TRANSLATED, ElasticCommonSchema, &[], "Its port there."),
    attribute("destination.nat.ip", Text(&[]), DESTINATION_TRANSLATED, ElasticCommonSchema, &[], "The destination's address in the other tuple."),
    attribute("destination.nat.port", Count, DESTINATION_TRANSLATED, ElasticCommonSchema, &[], "Its port there."),
    attribute("flow.nat.community_id", Text(&[]), TRANSLATED, Own, &[], "Community ID of the other tuple: `flow.community_id` of the records of those who see the connection on the translation's other side."),

    attribute("flow.hops", Hops, SEVERAL, Own, &[], "The way of the packets through this host, source to destination: each observation point with what it saw since the flow's previous record, see below."),
    attribute("flow.reverse.hops", Hops, SEVERAL, Own, &[], "The same, destination to source."),

    attribute("flow.clock_step", Signed, When("the wall clock was set between the flow's first and last packet"), Own, &[], "Nanoseconds by which it was set forward, negative: back. The flow took the time from `flow.start_time` to `flow.end_time` less these."),
    attribute("flow.sampling.rate.min", Count, SAMPLED, Own, &[], "Of the packets that were sampled, one in so many was metered: at the least. Kept or left out is a socket buffer or frame as a whole; one with SYN, FIN or RST is never left out."),
    attribute("flow.sampling.rate.max", Count, SAMPLED, Own, &[], "The same at the most: another number where the rate changed meanwhile."),
    estimate("flow.packets.estimate", "{packet}", "Packets since the flow's previous record, source to destination, those that were left out too, as far as the sample tells."),
    estimate("flow.packets.estimate_error", "{packet}", "Its standard error, see below."),
    estimate("flow.bytes.estimate", "By", "IP bytes of these packets."),
    estimate("flow.bytes.estimate_error", "By", "Its standard error."),
    estimate("flow.frame_bytes.estimate", "By", "Bytes on the link of these packets."),
    estimate("flow.reverse.packets.estimate", "{packet}", "The same, destination to source."),
    estimate("flow.reverse.packets.estimate_error", "{packet}", "Its standard error."),
    estimate("flow.reverse.bytes.estimate", "By", "IP bytes, destination to source."),
    estimate("flow.reverse.bytes.estimate_error", "By", "Its standard error."),
    estimate("flow.reverse.frame_bytes.estimate", "By", "Bytes on the link, destination to source."),
    attribute("enrichment", Text(&["degraded", "omitted"]), When("Kubernetes doesn't answer, or processor time is short"), Own, &[], "`degraded`: identities are the last that were known. `omitted`: nobody was asked, to keep within `resources.cpu`."),
    Attribute { unit: "s", ..attribute("enrichment_age", Count, When("Kubernetes doesn't answer"), Own, &[], "Age of those identities: seconds since Kubernetes was last heard of.") },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = HashSet::new();
        for attribute in ATTRIBUTES {
            assert!(seen.insert(attribute.name), "{} twice", attribute.name);
            let well_formed = |c: char| c.is_ascii_lowercase() || c == '.' || c == '_';
            let name = attribute.name.strip_suffix(KEY).unwrap_or(attribute.name).replace("k8s.", "");
            assert!(name.chars().all(well_formed), "{}", attribute.name);
            assert!(attribute.description.ends_with(['.', '…']), "{}", attribute.name);
        }
    }

    #[test]
    fn both_directions_have_the_same_attributes() {
        let names: HashSet<_> = ATTRIBUTES.iter().map(|attribute| attribute.name).collect();
        let of = |part: &str| names.contains(format!("flow.{part}").as_str());
        for reverse in names.iter().filter_map(|name| name.strip_prefix("flow.reverse.")) {
            assert!(of(reverse), "flow.{reverse}");
        }
        for name in [
            "packets.delta",
            "bytes.total",
            "frame_bytes.delta",
            "dscp",
            "ecn",
            "ttl.min",
            "ttl.max",
            "tcp.flags",
        ] {
            assert!(of(name) && names.contains(format!("flow.reverse.{name}").as_str()), "{name}");
        }
    }

    /// The domain has its names of Kubernetes' attributes in one place, the table in another.
    #[test]
    fn each_end_has_all_attributes_of_kubernetes_in_their_order() {
        for end in ["source", "destination"] {
            let prefix = format!("{end}.");
            let own = ATTRIBUTES.iter().filter_map(|attribute| attribute.name.strip_prefix(&prefix));
            let own = own.filter(|name| name.starts_with("k8s.") && !name.ends_with(KEY));
            let own: Vec<_> = own.filter(|name| *name != "k8s.resolution").collect();
            let domain: Vec<_> =
                mermin_flow::KubernetesAttribute::ALL.iter().map(|attribute| attribute.name()).collect();
            assert_eq!(own, domain);
        }
    }

    #[test]
    fn a_name_is_found_by_itself_or_by_its_family() {
        let name = |name| find(name).map(|attribute| attribute.name);
        assert_eq!(name("source.port"), Some("source.port"));
        assert_eq!(name("source.k8s.pod.label.app"), Some("source.k8s.pod.label.<key>"));
        assert_eq!(name("source.k8s.pod.label."), None);
        assert_eq!(name("source.ports"), None);
    }
}
