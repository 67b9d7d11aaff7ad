//! Whether the books of an agent's statistics balance, reckoned anew from the figures: the agent's own word isn't taken.

use serde_json::Value;

const SIGHTINGS: [&str; 7] =
    ["in_flight", "metered", "secondary", "unmetered", "filtered", "sampled_out", "lost"];

/// The names of those that don't. Where a term isn't known, nothing can be said.
pub(super) fn unbalanced(statistics: &Value) -> Vec<String> {
    let ledger = &statistics["ledger"];
    let mut wrong = Vec::new();
    // What is seen is counted in buffers; its packets are the sum of the other side.
    if ["buffers", "buffer_bytes"].iter().any(|unit| differ(ledger, &["seen"], &SIGHTINGS, unit)) {
        wrong.push("sightings".to_owned());
    }
    let units = ["packets", "bytes", "buffers", "buffer_bytes"];
    if units.iter().any(|unit| differ(ledger, &["metered"], &["resident", "released"], unit)) {
        wrong.push("metering".to_owned());
    }
    let outputs = statistics["outputs"].as_object().into_iter().flatten();
    let differs = |book: &Value| {
        // Merged records' packets and bytes go on in others.
        ["records", "packets", "bytes"].iter().any(|unit| {
            let merged: &[&str] = if *unit == "records" { &["merged"] } else { &[] };
            // Only what waits on disk can be of an earlier run.
            let recovered: &[&str] = if book.get("recovered").is_some() { &["recovered"] } else { &[] };
            let out = [&["delivered", "queued", "spooled", "dropped"], merged].concat();
            differ(book, &[&["handed"], recovered].concat(), &out, unit)
        })
    };
    wrong.extend(outputs.filter(|(_, book)| differs(book)).map(|(name, _)| format!("output {name}")));
    wrong
}

/// Whether the sum of `left` is known to be another number than that of `right`.
fn differ(book: &Value, left: &[&str], right: &[&str], unit: &str) -> bool {
    let side = |terms: &[&str]| terms.iter().map(|term| sum(&book[*term], unit)).sum::<Option<u64>>();
    side(left).zip(side(right)).is_some_and(|(left, right)| left != right)
}

/// Of a term, or of all its members; none where one of them isn't known.
fn sum(term: &Value, unit: &str) -> Option<u64> {
    let term = term.as_object()?;
    match term.get(unit) {
        Some(count) => count.as_u64(),
        None => term.values().map(|member| member.get(unit)?.as_u64()).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn statistics() -> Value {
        let of = |n: u64| json!({"packets": n, "bytes": n, "buffers": n, "buffer_bytes": n});
        let amount = |n: u64| json!({"records": n, "packets": n, "bytes": n});
        json!({
            "ledger": {
                "seen": of(10), "in_flight": {"ring": of(1), "packet_channel": of(0)}, "metered": of(6), "secondary": of(0),
                "unmetered": {"arp": of(1)}, "filtered": {}, "sampled_out": of(0), "lost": {"ring_full": of(2)},
                "resident": {"flow_table": of(4)}, "released": of(2),
            },
            "outputs": {"text:/x": {
                "handed": amount(5), "delivered": amount(2), "queued": amount(2), "spooled": amount(0),
                "dropped": {"queue_full": amount(1)}, "merged": amount(0),
            }},
        })
    }

    #[test]
    fn each_book_is_reckoned() {
        assert_eq!(unbalanced(&statistics()), [""; 0]);
        assert_eq!(unbalanced(&json!({})), [""; 0]);
        for (place, wrong) in [
            ("/ledger/seen/buffers", "sightings"),
            ("/ledger/unmetered/arp/buffer_bytes", "sightings"),
            ("/ledger/in_flight/packet_channel/buffers", "sightings"),
            ("/ledger/released/bytes", "metering"),
            ("/outputs/text:~1x/delivered/records", "output text:/x"),
            ("/outputs/text:~1x/merged/records", "output text:/x"),
            ("/outputs/text:~1x/dropped/queue_full/packets", "output text:/x"),
        ] {
            let mut statistics = statistics();
            *statistics.pointer_mut(place).unwrap() = json!(77);
            assert_eq!(unbalanced(&statistics), [wrong], "{place}");
        }
    }

    #[test]
    fn what_an_earlier_run_left_on_disk_is_in_the_book() {
        let mut statistics = statistics();
        let book = &mut statistics["outputs"]["text:/x"];
        book["recovered"] = json!({"records": 3, "packets": 30, "bytes": 300});
        assert_eq!(unbalanced(&statistics), ["output text:/x"]);
        statistics["outputs"]["text:/x"]["delivered"] = json!({"records": 5, "packets": 32, "bytes": 302});
        assert_eq!(unbalanced(&statistics), [""; 0]);
    }

    #[test]
    fn of_what_is_not_known_nothing_is_said() {
        let mut statistics = statistics();
        statistics["ledger"]["lost"]["ring_full"]["buffer_bytes"] = Value::Null;
        assert_eq!(unbalanced(&statistics), [""; 0]);
        statistics["ledger"]["lost"]["ring_full"]["buffers"] = json!(3);
        assert_eq!(unbalanced(&statistics), ["sightings"], "buffers are known");
        statistics["ledger"]["lost"] = Value::Null;
        assert_eq!(unbalanced(&statistics), [""; 0]);
    }
}
