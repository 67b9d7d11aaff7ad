//! Counts, sizes and durations in few columns: exact while they fit, then three digits and a unit, cut and not rounded,
//! so that nothing looks larger than it is.

use crate::form::{push_number, push_two};

/// At most five columns.
pub(super) fn push_packets(out: &mut Vec<u8>, count: u64) {
    push_scaled(out, count);
}

/// At most six columns; units of 1 000.
pub(super) fn push_bytes(out: &mut Vec<u8>, count: u64) {
    push_scaled(out, count);
}

fn push_scaled(out: &mut Vec<u8>, count: u64) {
    if count < 100_000 {
        return push_number(out, count);
    }
    let (mut unit, mut rest) = (0, count);
    // Down to thousandths of the unit: 1 000 ≤ rest < 1 000 000.
    while rest >= 1_000_000 {
        rest /= 1_000;
        unit += 1;
    }
    let (whole, thousandths) = (rest / 1_000, rest % 1_000);
    push_number(out, whole);
    match whole {
        0..10 => {
            out.push(b'.');
            push_two(out, thousandths / 10);
        }
        10..100 => {
            out.push(b'.');
            push_number(out, thousandths / 100);
        }
        _ => {}
    }
    out.push(b"kMGTPE"[unit]);
}

/// At most seven columns.
pub(super) fn push_duration(out: &mut Vec<u8>, nanos: u64) {
    let (micros, millis, seconds) = (nanos / 1_000, nanos / 1_000_000, nanos / 1_000_000_000);
    let (first, second, units): (u64, u64, [&[u8]; 2]) = match nanos {
        0 => return out.push(b'0'),
        1..1_000 => return push_unit(out, nanos, b"ns"),
        1_000..1_000_000 => return push_unit(out, micros, b"us"),
        1_000_000..1_000_000_000 => return push_unit(out, millis, b"ms"),
        _ if seconds < 60 => (seconds, millis / 10 % 100, [b".", b"s"]),
        _ if seconds < 3_600 => (seconds / 60, seconds % 60, [b"m", b"s"]),
        _ if seconds < 86_400 => (seconds / 3_600, seconds / 60 % 60, [b"h", b"m"]),
        _ => (seconds / 86_400, seconds / 3_600 % 24, [b"d", b"h"]),
    };
    push_unit(out, first, units[0]);
    push_two(out, second);
    out.extend_from_slice(units[1]);
}

fn push_unit(out: &mut Vec<u8>, number: u64, unit: &[u8]) {
    push_number(out, number);
    out.extend_from_slice(unit);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(push: fn(&mut Vec<u8>, u64), number: u64) -> String {
        let mut out = Vec::new();
        push(&mut out, number);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn counts() {
        for (count, expected) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (999_999, "999k"),
            (1_000_000, "1.00M"),
            (1_059_999, "1.05M"),
            (12_349_999, "12.3M"),
            (10_000_000_000, "10.0G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(text(push_packets, count), expected);
            assert_eq!(text(push_bytes, count), expected);
        }
    }

    #[test]
    fn durations() {
        const SECOND: u64 = 1_000_000_000;
        for (nanos, expected) in [
            (0, "0"),
            (999, "999ns"),
            (1_000, "1us"),
            (999_999, "999us"),
            (1_000_000, "1ms"),
            (999_999_999, "999ms"),
            (SECOND, "1.00s"),
            (59 * SECOND + 999_999_999, "59.99s"),
            (60 * SECOND, "1m00s"),
            (3_599 * SECOND, "59m59s"),
            (3_600 * SECOND, "1h00m"),
            (86_399 * SECOND, "23h59m"),
            (90_000 * SECOND, "1d01h"),
        ] {
            assert_eq!(text(push_duration, nanos), expected);
        }
    }
}
