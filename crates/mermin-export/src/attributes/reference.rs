//! The record reference page, rendered from the table.

use super::{ATTRIBUTES, Attribute, Kind, Origin, Presence};
use std::fmt::Write as _;

const INTRODUCTION: &str = "\
# Flow records

<!-- Generated from crates/mermin-export/src/attributes/mod.rs by `UPDATE=1 cargo test -p mermin-export`. -->

A record reports a flow, or the part of it since the flow's previous record. As a JSON line it is one compact object
with flat keys, always in this order. What is unknown has no key; there is no `null`. The twelve counters are always
there, also when they are 0. The deltas of one `flow.id` add up to its totals.

`source` is the flow's initiator, `flow.…` counts from source to destination, `flow.reverse.…` the other way.

Texts that come from outside (names, interface names) are cut after 255 bytes, and control characters in them are
escaped.

Names are those of the OpenTelemetry semantic conventions (OTel) where they have one, else of the Elastic Common Schema
(ECS), else Mermin's own. *IE* is the information element of the IPFIX registry (RFC 7012) that means the same; of
`flow.reverse.…` it is RFC 5103's reverse element. Which elements are sent over [IPFIX](ipfix.md), and the numbers of Mermin's own, says
its reference.

| name | type | when | meaning | name from | IE |
|---|---|---|---|---|---|
";

const HOPS: &str = "
## Hops

A packet that crosses a host is seen at several observation points: at the ingress of a veth, of the bridge, at the egress
of another veth. The point that saw a direction's first packet counts the direction. So do points that no packet of it can
pass besides (the members of a bond, two uplinks), as far as links, TTLs and addresses of frames tell
([how](../design/0021-hops.md)). What others see are the same packets again: they are in no delta or total, and in the
ledger they are `secondary`. The list has all of them: first ingress, from the lowest link up, then egress, from the highest
down; on loopback egress comes first. That is the order of packets' way, but for what comes back by another link. A packet
that was lost on the way is missing from the next hop on: over a flow's life, for of single records a hop may have an
epoch's packets more or less than another. Sampling draws at each hop by itself.

A hop is an object (in OTLP a list of keys and values; in log events a text like `eth0 ingress 10`, ten being packets):

| name | type | meaning |
|---|---|---|
| `interface` | text | The interface's name. |
| `hook` | text | `ingress` or `egress`. |
| `counted` | truth value | Whether the flow's counts have these in them; the packets of these hops add up to the delta. |
| `packets` | number | Packets since the flow's previous record. |
| `bytes` | number | Their IP bytes. |
| `frame_bytes` | number | Their bytes on the link. |

A hop comes into the list when it has first seen the flow, and stays until the flow ends. A direction has eight at most;
what more points see is `secondary`, and no more is known of it.
";

const SAMPLING: &str = "
## Sampled packets

Deltas and totals count what was metered, and these alone stand in the books. A packet that was kept by a draw of one in
n stands for n: *estimate* is the delta plus n − 1 for each, whatever n was at the time. Where packets pass one
observation point it is unbiased: over all draws its mean is what there was, of each flow and of any sum of flows (a flow
of which nothing was kept has no record, and its share stands in the estimates of others). In a record without these attributes the deltas are exact; so what there was
is, over any records, the sum of the estimates and, where there is none, of the deltas.

Where packets pass several points that are captured (a veth and eth0), each sighting is drawn by itself, and a direction is
counted at the point of its first sighting that was kept. So its estimate is too large, unless it begins with a packet that
is never left out (a SYN): with two points, a direction of one packet is estimated at 2 − 1/n in the mean, a longer one at
about n / 2 packets too many, once per flow. Short UDP flows are nearly doubled, also in sums. Capture one point of each
packet's way where estimates matter.

*Error* is the estimate's standard error: the root of the sum of n (n − 1) x² over all that was kept by a draw, where x is
the packets or IP bytes of one socket buffer or frame (one packet, or those of a segmented buffer). Errors of several
records are added as squares. It tells nothing of the excess that several points make.

The error is itself an estimate. Where it is at most about 10 % of what is estimated, what there was is within 1.96 errors
in at least 93 of 100 cases (simulated in the tests at 1:2 to 1:64). Of packets without segmentation that takes a hundred
that were kept: of k the error is at most 1 / √k. Of bytes, and of segmented packets, it is √((1 + c²) / k) at most, c
being the standard deviation of what a buffer has as a part of its mean: where most bytes are in a few large buffers, many
more than a hundred must be kept. Of 64 kB buffers among a hundred times as many acknowledgements, one kept in the mean,
65 of 100 cases are within, because often none of them was kept and the error knows nothing of them.
";

/// The page `docs/reference/records.md`.
#[must_use]
pub fn record_reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for attribute in ATTRIBUTES {
        row(&mut page, attribute);
    }
    page + HOPS + SAMPLING
}

fn row(page: &mut String, attribute: &Attribute) {
    let kind = match (attribute.kind, attribute.unit) {
        (Kind::Text(_), _) => "text",
        (Kind::List(_), _) => "list",
        (Kind::Hops, _) => "list of hops",
        (Kind::Count, "By") => "number, bytes",
        (Kind::Count, "{packet}") => "number, packets",
        (Kind::Count, _) => "number",
        (Kind::Signed, _) => "number, signed",
    };
    let presence = match attribute.presence {
        Presence::Always => "always",
        Presence::When(sentence) => sentence,
    };
    let origin = match attribute.origin {
        Origin::OpenTelemetry => "OTel",
        Origin::ElasticCommonSchema => "ECS",
        Origin::Own => "own",
    };
    let values = match attribute.kind {
        Kind::Text(values) | Kind::List(values) if !values.is_empty() => {
            format!(" One of `{}`.", values.join("`, `"))
        }
        _ => String::new(),
    };
    let values =
        if matches!(attribute.kind, Kind::List(_)) { values.replace("One of", "Of") } else { values };
    let elements: Vec<String> =
        attribute.elements.iter().map(|element| format!("{} {}", element.0, element.1)).collect();
    writeln!(
        page,
        "| `{}` | {kind} | {presence} | {}{values} | {origin} | {} |",
        attribute.name,
        attribute.description,
        elements.join(", "),
    )
    .expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_committed_page_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/records.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, record_reference()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == record_reference(),
            "{} is stale: UPDATE=1 cargo test -p mermin-export",
            path.display()
        );
    }
}
