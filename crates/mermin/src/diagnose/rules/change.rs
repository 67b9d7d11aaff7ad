//! Settings to change: from what they are to what is suggested, within what the configuration takes.

use crate::config::largest;
use crate::diagnose::figures::Figures;
use mermin_capture::RING_BYTES_MAX;
use mermin_flow::{ByteSize, Interval};
use serde_json::{Value, json};

/// A setting to change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) key: &'static str,
    /// `Null`: the agent doesn't tell.
    pub(crate) present: Value,
    pub(crate) suggested: Value,
    pub(crate) why: &'static str,
}

pub(super) fn set(figures: &Figures, key: &'static str, suggested: Value, why: &'static str) -> Change {
    Change { key, present: figures.setting(key).cloned().unwrap_or_default(), suggested, why }
}

/// Twice the room.
pub(super) fn more_room(figures: &Figures, key: &'static str, why: &'static str) -> Option<Change> {
    let present = figures.number(key)?;
    let more = present.saturating_mul(2).min(largest(key)?);
    (more > present).then(|| set(figures, key, json!(more), why))
}

/// Half the room.
pub(super) fn less_room(
    figures: &Figures,
    key: &'static str,
    least: u64,
    why: &'static str,
) -> Option<Change> {
    let present = figures.number(key)?;
    let less = (present / 2).max(least);
    (less < present).then(|| set(figures, key, json!(less), why))
}

/// One worker more, or one that may come where the load decides. How many is left to the agent where it is to choose itself.
pub(super) fn one_more(figures: &Figures, key: &'static str, why: &'static str) -> Option<Change> {
    let largest = largest(key)?;
    let mut suggested = figures.setting(key)?.clone();
    let number = if suggested.is_object() { suggested.get_mut("max")? } else { &mut suggested };
    let more = number.as_u64().filter(|present| *present < largest)? + 1;
    *number = json!(more);
    Some(set(figures, key, suggested, why))
}

/// One worker fewer.
pub(super) fn one_fewer(figures: &Figures, key: &'static str, why: &'static str) -> Option<Change> {
    let present = figures.number(key)?;
    (present > 1).then(|| set(figures, key, json!(present - 1), why))
}

/// Twice the ring between kernel and reader.
pub(super) fn larger_ring(figures: &Figures) -> Option<Change> {
    let key = "capture.ring_bytes";
    let ByteSize(present) = figures.setting(key)?.as_str()?.parse().ok()?;
    let more = present.saturating_mul(2).min(RING_BYTES_MAX);
    let why = "the kernel itself holds longer bursts";
    (more > present).then(|| set(figures, key, json!(ByteSize(more)), why))
}

/// Twice the time.
pub(super) fn longer(figures: &Figures, key: &'static str, why: &'static str) -> Option<Change> {
    let Interval(present) = figures.setting(key)?.as_str()?.parse().ok()?;
    Some(set(figures, key, json!(Interval(present.checked_mul(2)?)), why))
}

#[cfg(test)]
mod tests {
    use super::super::tests::well;
    use super::*;

    fn suggested(change: Option<Change>) -> Option<Value> {
        change.map(|change| change.suggested)
    }

    /// An agent that is well, but for this.
    fn with(key: &str, value: Value) -> Figures {
        let mut figures = well();
        figures.settings.insert(key.to_owned(), value);
        figures
    }

    #[test]
    fn room_stays_within_what_each_key_takes() {
        for (key, largest) in [
            ("pipeline.packet_channel_capacity", 16_777_216),
            ("pipeline.enrichment_channel_capacity", 16_777_216),
            ("flow.table_capacity", 268_435_456),
            ("export.queue_capacity", u64::MAX),
        ] {
            for (present, more) in [(1, Some(2)), (largest - 1, Some(largest)), (largest, None)] {
                let change = more_room(&with(key, json!(present)), key, "");
                assert_eq!(suggested(change), more.map(Value::from), "{key} {present}");
            }
            let text = format!(
                "{{{}: {{{}: {largest}}}}}",
                key.split('.').next().unwrap(),
                key.split('.').nth(1).unwrap()
            );
            if largest < u64::MAX {
                assert!(crate::config::parse(&text).is_ok(), "{text}");
                assert!(
                    crate::config::parse(&text.replace(&largest.to_string(), &(largest + 1).to_string()))
                        .is_err()
                );
            }
        }
    }

    #[test]
    fn half_the_room_has_a_least() {
        let key = "pipeline.packet_channel_capacity";
        for (present, less) in [(10_000, Some(5_000)), (7_000, Some(5_000)), (5_000, None), (1, None)] {
            let change = less_room(&with(key, json!(present)), key, 5_000, "");
            assert_eq!(suggested(change), less.map(Value::from), "{present}");
        }
    }

    #[test]
    fn workers_come_and_go_one_by_one() {
        let key = "pipeline.flow_workers";
        for (present, more, fewer) in [(1, Some(2), None), (2, Some(3), Some(1)), (64, None, Some(63))] {
            let figures = with(key, json!(present));
            assert_eq!(suggested(one_more(&figures, key, "")), more.map(Value::from));
            assert_eq!(suggested(one_fewer(&figures, key, "")), fewer.map(Value::from));
        }
        let auto = with(key, json!("auto"));
        assert_eq!((one_more(&auto, key, ""), one_fewer(&auto, key, "")), (None, None));
        let range = with(key, json!({"min": 1, "max": 4}));
        assert_eq!(suggested(one_more(&range, key, "")), Some(json!({"min": 1, "max": 5})));
        assert_eq!(one_fewer(&range, key, ""), None, "they go by themselves");
        assert_eq!(one_more(&with(key, json!({"min": 1, "max": 64})), key, ""), None);
    }

    #[test]
    fn a_ring_grows_to_what_the_kernel_gets() {
        for (present, more) in [
            ("16MiB", Some("32MiB")),
            ("256KiB", Some("512KiB")),
            ("512MiB", Some("1GiB")),
            ("768MiB", Some("1GiB")),
            ("1GiB", None),
            ("2GiB", None),
            ("soon", None),
        ] {
            let change = larger_ring(&with("capture.ring_bytes", json!(present)));
            assert_eq!(suggested(change), more.map(Value::from), "{present}");
        }
    }

    #[test]
    fn times_are_doubled() {
        let key = "pipeline.shutdown_timeout";
        for (present, more) in [("5s", Some("10s")), ("45s", Some("1m30s")), ("5", None)] {
            assert_eq!(suggested(longer(&with(key, json!(present)), key, "")), more.map(Value::from));
        }
    }
}
