//! Durations and sizes as users write them: `30s`, `500ms`, `1m30s`; `64MiB`.

use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration in the configuration, written with units; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(pub Duration);

impl Interval {
    /// Whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Whole milliseconds.
    #[must_use]
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// In nanoseconds; 2^64 − 1 for anything longer than 584 years.
    #[must_use]
    pub fn nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A text that is not a duration or a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("`{0}` is not a duration; write a number with a unit, for example 30s, 500ms or 1m30s")]
    Interval(String),
    /// Nothing would ever happen, or all the time.
    #[error("`{0}` is no time at all; the shortest duration is 1ns")]
    Zero(String),
    /// Not a size.
    #[error("`{0}` is not a size; write a number with a unit, for example 64MiB or 1GiB")]
    Size(String),
}

const INTERVAL_UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// One `number unit` from the front of `text`: the number, the unit's factor, the rest.
fn quantity<'t>(text: &'t str, units: &[(&str, u64)]) -> Option<(u64, &'t str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let rest = text.get(digits..)?;
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    Some((number.checked_mul(factor)?, rest))
}

impl FromStr for Interval {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::Interval(text.to_owned());
        let (mut total, mut rest) = quantity(text, &INTERVAL_UNITS).ok_or_else(error)?;
        while !rest.is_empty() {
            let (nanos, after) = quantity(rest, &INTERVAL_UNITS).ok_or_else(error)?;
            total = total.checked_add(nanos).ok_or_else(error)?;
            rest = after;
        }
        if total == 0 {
            return Err(UnitError::Zero(text.to_owned()));
        }
        Ok(Self(Duration::from_nanos(total)))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.nanos();
        for (name, factor) in INTERVAL_UNITS.iter().rev() {
            if rest >= *factor {
                write!(f, "{}{name}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// A number of bytes in the configuration, written with units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl FromStr for ByteSize {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        match quantity(text, &SIZE_UNITS) {
            Some((bytes, "")) => Ok(Self(bytes)),
            _ => Err(UnitError::Size(text.to_owned())),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(_, factor): &&(&str, u64)| self.0.is_multiple_of(*factor);
        match SIZE_UNITS.iter().rev().find(exact) {
            Some((name, factor)) if self.0 > 0 => write!(f, "{}{name}", self.0 / factor),
            _ => write!(f, "{}B", self.0),
        }
    }
}

macro_rules! written_as_text {
    ($type:ident, $expecting:literal, $pattern:literal, $example:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(|error: UnitError| E::custom(error))
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$type, E> {
                        Err(E::invalid_value(Unexpected::Unsigned(number), &self))
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}

written_as_text!(Interval, "a duration with a unit, for example 30s", "^([0-9]+(ns|us|ms|s|m|h))+$", "30s");
written_as_text!(
    ByteSize,
    "a size with a unit, for example 64MiB",
    "^[0-9]+(B|kB|KiB|MB|MiB|GB|GiB|TiB)$",
    "64MiB"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_read_and_print() {
        for (text, nanos) in [
            ("30s", 30_000_000_000),
            ("500ms", 500_000_000),
            ("1m30s", 90_000_000_000),
            ("2h", 7_200_000_000_000),
            ("1h1m1s1ms1us1ns", 3_661_001_001_001),
            ("59m59s999ms", 3_599_999_000_000),
        ] {
            let interval: Interval = text.parse().unwrap();
            assert_eq!(interval.nanos(), nanos);
            assert_eq!(interval.to_string(), text);
        }
        for bad in ["", "30", "s", "1.5s", "30 s", "5 minutes", "1m30", "-1s", "18446744073709551615h"] {
            assert_eq!(bad.parse::<Interval>(), Err(UnitError::Interval(bad.to_owned())), "{bad}");
        }
        assert_eq!("0s".parse::<Interval>(), Err(UnitError::Zero("0s".to_owned())));
    }

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes) in [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("1500B", 1_500), ("0B", 0)] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.0, bytes);
        }
        for (bytes, text) in [(64 << 20, "64MiB"), (0, "0B"), (1, "1B"), (1_500, "1500B"), (2_000, "2kB")] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        for bad in ["", "64", "64mib", "1MiB1B", "x"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
