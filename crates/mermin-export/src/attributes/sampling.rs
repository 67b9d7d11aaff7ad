//! What a record of sampled packets has beside others.

use mermin_flow::FlowRecord;

/// Names, in the table's order.
pub(crate) const NAMES: [&str; 12] = [
    "flow.sampling.rate.min",
    "flow.sampling.rate.max",
    "flow.packets.estimate",
    "flow.packets.estimate_error",
    "flow.bytes.estimate",
    "flow.bytes.estimate_error",
    "flow.frame_bytes.estimate",
    "flow.reverse.packets.estimate",
    "flow.reverse.packets.estimate_error",
    "flow.reverse.bytes.estimate",
    "flow.reverse.bytes.estimate_error",
    "flow.reverse.frame_bytes.estimate",
];

/// Their values; `None` of a record whose packets were all metered.
#[inline]
pub(crate) fn values(record: &FlowRecord) -> Option<[u64; 12]> {
    let sampled = record.sampled.as_deref()?;
    let [least, most] = sampled.one_in;
    let ([forward, reverse], [f, r]) = (record.estimates(), &sampled.directions);
    Some([
        least.into(),
        most.into(),
        forward.packets,
        f.packets_error(),
        forward.bytes,
        f.bytes_error(),
        forward.frame_bytes,
        reverse.packets,
        r.packets_error(),
        reverse.bytes,
        r.bytes_error(),
        reverse.frame_bytes,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::ATTRIBUTES;
    use crate::sample;

    #[test]
    fn the_table_has_them_in_this_order() {
        let first = ATTRIBUTES.iter().position(|attribute| attribute.name == NAMES[0]).unwrap();
        let table: Vec<_> = ATTRIBUTES[first..first + NAMES.len()].iter().map(|line| line.name).collect();
        assert_eq!(table, NAMES);
    }

    #[test]
    fn an_estimate_is_what_was_metered_and_what_that_stands_for() {
        assert_eq!(values(&sample::tcp()), None);
        assert_eq!(
            values(&sample::sampled()),
            Some([4, 8, 402, 35, 20_904, 1_802, 26_532, 3_600, 160, 5_400_000, 240_000, 5_450_400])
        );
    }
}
