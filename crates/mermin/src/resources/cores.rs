//! A number of cores as users write it: `2`, `0.5`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;

/// The least that can be told from nothing: a thousandth.
const LEAST: f64 = 0.001;
/// No machine has more.
const MOST: f64 = 65_536.0;

/// Cores, or parts of one; in thousandths, as control groups and Kubernetes have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores(u32);

impl Cores {
    /// How many.
    pub(crate) fn get(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.get())
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let cores = f64::deserialize(deserializer)?;
        if (LEAST..=MOST).contains(&cores) {
            Ok(Self((cores * 1_000.0).round() as u32))
        } else {
            Err(de::Error::custom(format_args!(
                "`{cores}` is not a number of cores; write one from {LEAST} to {MOST}, for example 0.5"
            )))
        }
    }
}

impl JsonSchema for Cores {
    fn schema_name() -> Cow<'static, str> {
        "Cores".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": LEAST, "maximum": MOST, "examples": [0.5] })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn cores_are_written_as_whole_or_decimal_numbers() {
        for (text, cores) in [("2", 2.0), ("0.5", 0.5), ("1.25", 1.25), ("0.001", 0.001)] {
            let config = parse(&format!("resources: {{cpu: {text}}}")).unwrap();
            assert_eq!(config.resources.cpu.map(super::Cores::get), Some(cores), "{text}");
        }
        for bad in ["0", "-1", "0.0001", "100000", "500m", "true", ".inf", ".nan"] {
            let problems = parse(&format!("resources: {{cpu: {bad}}}")).unwrap_err().to_string();
            assert!(problems.contains("resources.cpu"), "{bad}: {problems}");
        }
    }
}
