//! Numbers and forms of the fields. Add at the end of the numbers, never change one: `compatible.rs` holds them against what
//! was released.
//!
//! What a record always has comes first, because numbers up to 15 take one byte of the message, others two. Closed sets of
//! values are texts, as in JSON: names with spaces, as RFC 7012 has them, can't be values of an enum, and SQL shows and
//! compares texts; lz4 leaves a few bytes of each (`docs/design/0026-kafka.md`).

use crate::attributes::ATTRIBUTES;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `string`
    Text,
    /// `repeated string`
    Texts,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `sint64`
    Sint64,
    /// `fixed64`, nanoseconds since 1970.
    Time,
    /// `map<string, string>`: one of a family of attributes by the rest of its name.
    Family,
    /// `repeated Hop`
    Hops,
}

/// A field of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) number: u16,
    pub(crate) form: Form,
}

use Form::{Family, Hops, Sint64, Text, Texts, Time, Uint32, Uint64};

/// By line of the attribute table.
#[rustfmt::skip]
const FIELDS: &[(&str, u16, Form)] = &[
    ("flow.id", 1, Text),
    ("flow.sequence", 2, Uint32),
    ("flow.community_id", 3, Text),
    ("flow.event", 4, Text),
    ("flow.end_reason", 5, Text),
    ("flow.start_time", 6, Time),
    ("flow.end_time", 7, Time),
    ("network.type", 16, Text),
    ("network.transport", 17, Text),
    ("network.transport.number", 8, Uint32),
    ("source.address", 9, Text),
    ("source.port", 10, Uint32),
    ("source.mac", 18, Text),
    ("source.name", 19, Text),
    ("source.k8s.resolution", 20, Text),
    ("source.k8s.namespace.name", 21, Text),
    ("source.k8s.pod.name", 22, Text),
    ("source.k8s.pod.uid", 23, Text),
    ("source.k8s.container.name", 24, Text),
    ("source.k8s.node.name", 25, Text),
    ("source.k8s.node.uid", 26, Text),
    ("source.k8s.deployment.name", 27, Text),
    ("source.k8s.deployment.uid", 28, Text),
    ("source.k8s.replicaset.name", 29, Text),
    ("source.k8s.replicaset.uid", 30, Text),
    ("source.k8s.statefulset.name", 31, Text),
    ("source.k8s.statefulset.uid", 32, Text),
    ("source.k8s.daemonset.name", 33, Text),
    ("source.k8s.daemonset.uid", 34, Text),
    ("source.k8s.job.name", 35, Text),
    ("source.k8s.job.uid", 36, Text),
    ("source.k8s.cronjob.name", 37, Text),
    ("source.k8s.cronjob.uid", 38, Text),
    ("source.k8s.service.name", 39, Text),
    ("source.k8s.service.uid", 40, Text),
    ("source.k8s.namespace.label.<key>", 41, Family),
    ("source.k8s.pod.annotation.<key>", 42, Family),
    ("source.k8s.pod.label.<key>", 43, Family),
    ("destination.address", 11, Text),
    ("destination.port", 12, Uint32),
    ("destination.mac", 44, Text),
    ("destination.name", 45, Text),
    ("destination.k8s.resolution", 46, Text),
    ("destination.k8s.namespace.name", 47, Text),
    ("destination.k8s.pod.name", 48, Text),
    ("destination.k8s.pod.uid", 49, Text),
    ("destination.k8s.container.name", 50, Text),
    ("destination.k8s.node.name", 51, Text),
    ("destination.k8s.node.uid", 52, Text),
    ("destination.k8s.deployment.name", 53, Text),
    ("destination.k8s.deployment.uid", 54, Text),
    ("destination.k8s.replicaset.name", 55, Text),
    ("destination.k8s.replicaset.uid", 56, Text),
    ("destination.k8s.statefulset.name", 57, Text),
    ("destination.k8s.statefulset.uid", 58, Text),
    ("destination.k8s.daemonset.name", 59, Text),
    ("destination.k8s.daemonset.uid", 60, Text),
    ("destination.k8s.job.name", 61, Text),
    ("destination.k8s.job.uid", 62, Text),
    ("destination.k8s.cronjob.name", 63, Text),
    ("destination.k8s.cronjob.uid", 64, Text),
    ("destination.k8s.service.name", 65, Text),
    ("destination.k8s.service.uid", 66, Text),
    ("destination.k8s.namespace.label.<key>", 67, Family),
    ("destination.k8s.pod.annotation.<key>", 68, Family),
    ("destination.k8s.pod.label.<key>", 69, Family),
    ("icmp.type", 70, Uint32),
    ("icmp.code", 71, Uint32),
    ("flow.initiator", 13, Text),
    ("flow.direction", 72, Text),
    ("network.io.direction", 73, Text),
    ("flow.packets.delta", 14, Uint64),
    ("flow.packets.total", 74, Uint64),
    ("flow.bytes.delta", 15, Uint64),
    ("flow.bytes.total", 75, Uint64),
    ("flow.frame_bytes.delta", 76, Uint64),
    ("flow.frame_bytes.total", 77, Uint64),
    ("flow.dscp", 78, Uint32),
    ("flow.ecn", 79, Uint32),
    ("flow.ttl.min", 80, Uint32),
    ("flow.ttl.max", 81, Uint32),
    ("flow.reverse.packets.delta", 82, Uint64),
    ("flow.reverse.packets.total", 83, Uint64),
    ("flow.reverse.bytes.delta", 84, Uint64),
    ("flow.reverse.bytes.total", 85, Uint64),
    ("flow.reverse.frame_bytes.delta", 86, Uint64),
    ("flow.reverse.frame_bytes.total", 87, Uint64),
    ("flow.reverse.dscp", 88, Uint32),
    ("flow.reverse.ecn", 89, Uint32),
    ("flow.reverse.ttl.min", 90, Uint32),
    ("flow.reverse.ttl.max", 91, Uint32),
    ("flow.tcp.flags", 92, Texts),
    ("flow.reverse.tcp.flags", 93, Texts),
    ("flow.tcp.state", 94, Text),
    ("network.vlan.id", 95, Uint32),
    ("network.inner.vlan.id", 96, Uint32),
    ("network.interface.name", 97, Text),
    ("network.interface.index", 98, Uint32),
    ("network.interface.hook", 99, Text),
    ("flow.nat.stage", 117, Text),
    ("source.nat.ip", 118, Text),
    ("source.nat.port", 119, Uint32),
    ("destination.nat.ip", 120, Text),
    ("destination.nat.port", 121, Uint32),
    ("flow.nat.community_id", 122, Text),
    ("flow.hops", 100, Hops),
    ("flow.reverse.hops", 101, Hops),
    ("flow.clock_step", 102, Sint64),
    ("flow.sampling.rate.min", 103, Uint32),
    ("flow.sampling.rate.max", 104, Uint32),
    ("flow.packets.estimate", 105, Uint64),
    ("flow.packets.estimate_error", 106, Uint64),
    ("flow.bytes.estimate", 107, Uint64),
    ("flow.bytes.estimate_error", 108, Uint64),
    ("flow.frame_bytes.estimate", 109, Uint64),
    ("flow.reverse.packets.estimate", 110, Uint64),
    ("flow.reverse.packets.estimate_error", 111, Uint64),
    ("flow.reverse.bytes.estimate", 112, Uint64),
    ("flow.reverse.bytes.estimate_error", 113, Uint64),
    ("flow.reverse.frame_bytes.estimate", 114, Uint64),
    ("enrichment", 115, Text),
    ("enrichment_age", 116, Uint64),
];

/// The field of a line of the attribute table.
pub(crate) const fn field(line: usize) -> Field {
    let (_, number, form) = FIELDS[line];
    Field { number, form }
}

/// What a hop says, in the order of [`crate::attributes::hops::NamedHop::fields`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) name: &'static str,
    pub(crate) number: u8,
    pub(crate) form: &'static str,
    pub(crate) description: &'static str,
}

/// Fields of the message of a hop.
#[rustfmt::skip]
pub(crate) const HOP: [Hop; 6] = [
    Hop { name: "interface", number: 1, form: "string", description: "The interface's name." },
    Hop { name: "hook", number: 2, form: "string", description: "`ingress` or `egress`." },
    Hop { name: "counted", number: 3, form: "bool", description: "Whether the flow's counts have these in them." },
    Hop { name: "packets", number: 4, form: "uint64", description: "Packets since the flow's previous record." },
    Hop { name: "bytes", number: 5, form: "uint64", description: "Their IP bytes." },
    Hop { name: "frame_bytes", number: 6, form: "uint64", description: "Their bytes on the link." },
];

const _: () = assert!(FIELDS.len() == ATTRIBUTES.len(), "each attribute has a field");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{KEY, Kind};
    use std::collections::HashSet;

    #[test]
    fn fields_are_the_attributes_in_their_order_and_of_their_kind() {
        let mut numbers = HashSet::new();
        for ((name, number, form), attribute) in FIELDS.iter().zip(ATTRIBUTES) {
            assert_eq!(*name, attribute.name);
            assert!(*number > 0 && numbers.insert(number), "{name}: {number} twice");
            let fits = match attribute.kind {
                Kind::Text(_) if name.ends_with(KEY) => *form == Family,
                Kind::Text(_) => matches!(form, Text | Time),
                Kind::Count => matches!(form, Uint32 | Uint64),
                Kind::Signed => *form == Sint64,
                Kind::List(_) => *form == Texts,
                Kind::Hops => *form == Hops,
            };
            assert!(fits, "{name} is a {:?}, not {form:?}", attribute.kind);
        }
    }
}
