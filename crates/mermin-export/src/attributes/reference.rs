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
`flow.reverse.…` it is RFC 5103's reverse element.

| name | type | when | meaning | name from | IE |
|---|---|---|---|---|---|
";

const SAMPLING: &str = "
## Sampled packets

Deltas and totals count what was metered, and these alone stand in the books. A packet that was kept by a draw of one in
n stands for n: *estimate* is the delta plus n − 1 for each, whatever n was at the time. It is unbiased: over all draws
its mean is what there was, of each flow and of any sum of flows (a flow of which nothing was kept has no record, and
its share stands in the estimates of others). In a record without these attributes the deltas are exact; so what there was
is, over any records, the sum of the estimates and, where there is none, of the deltas.

*Error* is the estimate's standard error: the root of the sum of n (n − 1) x² over all that was kept by a draw, where x is
the packets or IP bytes of one socket buffer or frame (one packet, or those of a segmented buffer). Errors of several
records are added as squares. Where a hundred or more were kept, what there was is within 1.96 errors of the estimate in at
least 93 of 100 cases (simulated in the tests: single packets of one length and of any, and segmented buffers, at 1:2 to
1:64); where few were, the error itself is uncertain. As a rule of thumb, where k packets were kept the error is at most
1 / √k of the estimate: 10 % for a hundred.
";

/// The page `docs/reference/records.md`.
#[must_use]
pub fn record_reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for attribute in ATTRIBUTES {
        row(&mut page, attribute);
    }
    page + SAMPLING
}

fn row(page: &mut String, attribute: &Attribute) {
    let kind = match (attribute.kind, attribute.unit) {
        (Kind::Text(_), _) => "text",
        (Kind::List(_), _) => "list",
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
