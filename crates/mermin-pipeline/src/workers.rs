//! How many workers a stage has: as users write it.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, Unexpected, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroUsize;
use std::thread;

/// There are so many shards: more workers would have none.
const MOST: usize = mermin_flow::SHARDS;

/// A number of workers, or a range that follows the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Always so many.
    Fixed(NonZeroUsize),
    /// As many as the load asks for, from the first to the second.
    Between(NonZeroUsize, NonZeroUsize),
    /// As many as the load asks for, and the cores allow beside the packet reader.
    Auto,
}

impl Workers {
    /// The least and the most that there may be.
    #[must_use]
    pub fn range(self) -> (usize, usize) {
        match self {
            Self::Fixed(workers) => (workers.get(), workers.get()),
            Self::Between(least, most) => (least.get(), most.get()),
            Self::Auto => {
                let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
                (1, cores.saturating_sub(1).clamp(1, MOST))
            }
        }
    }

    /// The most.
    #[must_use]
    pub fn most(self) -> usize {
        self.range().1
    }
}

impl From<NonZeroUsize> for Workers {
    fn from(workers: NonZeroUsize) -> Self {
        Self::Fixed(workers)
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(workers) => write!(f, "{workers}"),
            Self::Between(least, most) => write!(f, "{least} to {most}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(workers) => workers.serialize(serializer),
            Self::Auto => serializer.serialize_str("auto"),
            Self::Between(least, most) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("min", least)?;
                map.serialize_entry("max", most)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Workers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 1 to {MOST}, auto, or {{min: 1, max: 4}}")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Workers, E> {
                let n = usize::try_from(n).ok().filter(|n| *n <= MOST).and_then(NonZeroUsize::new);
                n.map(Workers::Fixed).ok_or_else(|| E::invalid_value(Unexpected::Other("this number"), &self))
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Workers, E> {
                Err(E::invalid_value(Unexpected::Signed(n), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Workers, E> {
                match text {
                    "auto" => Ok(Workers::Auto),
                    _ => Err(E::invalid_type(Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Workers, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Range {
                    min: NonZeroUsize,
                    max: NonZeroUsize,
                }
                let Range { min, max } = Range::deserialize(de::value::MapAccessDeserializer::new(map))?;
                if max.get() > MOST {
                    return Err(de::Error::custom(format_args!(
                        "`max` is more than {MOST}, the number of shards"
                    )));
                }
                if min > max {
                    return Err(de::Error::custom("`min` is more than `max`"));
                }
                Ok(Workers::Between(min, max))
            }
        }

        deserializer.deserialize_any(Form)
    }
}

impl JsonSchema for Workers {
    fn schema_name() -> Cow<'static, str> {
        "Workers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let number = json_schema!({"type": "integer", "minimum": 1, "maximum": MOST});
        json_schema!({"oneOf": [
            number,
            {"const": "auto"},
            {
                "type": "object",
                "properties": {"min": number, "max": number},
                "required": ["min", "max"],
                "additionalProperties": false,
            },
        ]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json, to_value};

    fn count(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    #[test]
    fn every_form_is_read_and_written() {
        for (text, workers) in [
            (json!(3), Workers::Fixed(count(3))),
            (json!("auto"), Workers::Auto),
            (json!({"min": 1, "max": 64}), Workers::Between(count(1), count(64))),
            (json!({"min": 2, "max": 2}), Workers::Between(count(2), count(2))),
        ] {
            assert_eq!(from_value::<Workers>(text.clone()).unwrap(), workers);
            assert_eq!(to_value(workers).unwrap(), text);
        }
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for text in [
            json!(0),
            json!(-1),
            json!(65),
            json!(1.5),
            json!("2"),
            json!({"min": 3, "max": 2}),
            json!({"min": 0, "max": 2}),
            json!({"min": 1, "max": 65}),
            json!({"min": 1}),
            json!({"min": 1, "max": 2, "more": 3}),
            Value::Null,
        ] {
            assert!(from_value::<Workers>(text.clone()).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_are_as_written_and_auto_leaves_a_core() {
        assert_eq!(Workers::Fixed(count(3)).range(), (3, 3));
        assert_eq!(Workers::Between(count(2), count(5)).range(), (2, 5));
        let (least, most) = Workers::Auto.range();
        let cores = thread::available_parallelism().unwrap().get();
        assert_eq!((least, most), (1, (cores - 1).clamp(1, 64)));
    }
}
