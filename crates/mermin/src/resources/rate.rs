//! How few packets may be metered: one in `1`, `2`, `4` … `64`.

use mermin_pipeline::LOWEST_RATE;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// One in so many; a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Rate(u32);

impl Rate {
    /// How many one is kept of.
    pub(crate) const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self(LOWEST_RATE)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let one_in = u32::deserialize(deserializer)?;
        if one_in.is_power_of_two() && one_in <= LOWEST_RATE {
            Ok(Self(one_in))
        } else {
            Err(de::Error::custom(format_args!(
                "`{one_in}` is not a rate; write a power of two from 1 (never) to {LOWEST_RATE}"
            )))
        }
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": LOWEST_RATE, "examples": [1] })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn rates_are_powers_of_two_and_reach_the_budget() {
        let budget = |text: &str| parse(text).unwrap().resources.budget(0).sampling;
        assert_eq!(budget("resources: {}"), 64);
        for one_in in [1, 2, 4, 8, 16, 32, 64] {
            assert_eq!(budget(&format!("resources: {{sampling: {one_in}}}")), one_in);
        }
        for bad in ["0", "3", "128", "-1", "0.5", "true", "1:4"] {
            let problems = parse(&format!("resources: {{sampling: {bad}}}")).unwrap_err().to_string();
            assert!(problems.contains("resources.sampling"), "{bad}: {problems}");
        }
    }
}
