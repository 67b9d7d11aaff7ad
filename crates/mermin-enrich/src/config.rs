//! The `enrich` section of the configuration.

use crate::conntrack::ConntrackConfig;
use crate::kubernetes::KubernetesConfig;
use mermin_flow::Network;
use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// What is added to flow records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EnrichConfig {
    /// `false` leaves records as they are, at no cost.
    pub enabled: bool,
    /// Names of networks, for `source.name` and `destination.name`. Of several networks that hold an address the
    /// smallest counts; the order here doesn't matter. As an option: `--set enrich.names.10.0.0.0/8=office`.
    pub names: Names,
    /// Pods, services and nodes as the ends of flows.
    pub kubernetes: KubernetesConfig,
    /// Translated addresses and ports.
    pub conntrack: ConntrackConfig,
}

impl Default for EnrichConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            names: Names::default(),
            kubernetes: KubernetesConfig::default(),
            conntrack: ConntrackConfig::default(),
        }
    }
}

/// Names by network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub BTreeMap<Network, String>);

/// Longer names are refused.
const NAME_MAX: usize = 255;

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(network, name)| (network.0.to_string(), name)))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("networks with their names, for example 10.0.0.0/8: office")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let network: Network = key.parse().map_err(de::Error::custom)?;
                    let name: String = map.next_value()?;
                    if name.is_empty() || name.len() > NAME_MAX {
                        let what =
                            format!("the name of `{key}` has {} bytes, not 1 to {NAME_MAX}", name.len());
                        return Err(de::Error::custom(what));
                    }
                    if names.insert(network, name).is_some() {
                        return Err(de::Error::custom(format!("`{key}` is named twice")));
                    }
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl JsonSchema for Names {
    fn schema_name() -> Cow<'static, str> {
        "Names".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "propertyNames": { "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$" },
            "additionalProperties": { "type": "string", "minLength": 1, "maxLength": NAME_MAX },
            "examples": [{ "10.0.0.0/8": "office" }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_and_print() {
        let text =
            r#"{"enabled":true,"names":{"10.0.0.0/8":"office","192.0.2.1/32":"door","2001:db8::/32":"lab"}}"#;
        let config: EnrichConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.names.0.len(), 3);
        let printed = serde_json::to_string(&config).unwrap();
        assert!(printed.starts_with(text.trim_end_matches('}')), "{printed}");
        let single: Names = serde_json::from_str(r#"{"192.0.2.1":"door","::1":"me"}"#).unwrap();
        assert_eq!(serde_json::to_string(&single).unwrap(), r#"{"192.0.2.1/32":"door","::1/128":"me"}"#);
        assert_eq!(serde_json::from_str::<EnrichConfig>("{}").unwrap(), EnrichConfig::default());
        let around_the_mapped = r#"{"::/0":"all","::fffe:0:0/95":"more","::fffe:0:0/96":"beside"}"#;
        assert_eq!(serde_json::from_str::<Names>(around_the_mapped).unwrap().0.len(), 3);
    }

    #[test]
    fn errors_name_the_key() {
        for (text, expected) in [
            (
                r#"{"10.0.0.1/8":"a"}"#,
                "`10.0.0.1/8` has bits set behind its prefix; the network is 10.0.0.0/8",
            ),
            (r#"{"2001:db8::1/32":"a"}"#, "the network is 2001:db8::/32"),
            (
                r#"{"::ffff:10.0.0.0/104":"a"}"#,
                "`::ffff:10.0.0.0/104` stands for IPv4 addresses, which packets carry as such; write 10.0.0.0/8",
            ),
            (r#"{"::ffff:192.0.2.1":"a"}"#, "write 192.0.2.1/32"),
            (r#"{"::ffff:0:0/96":"a"}"#, "write 0.0.0.0/0"),
            (r#"{"10.0.0.0/33":"a"}"#, "`10.0.0.0/33` is not a network"),
            (r#"{"office":"10.0.0.0/8"}"#, "`office` is not a network"),
            (r#"{"10.0.0.0/8":""}"#, "the name of `10.0.0.0/8` has 0 bytes"),
            (r#"{"2001:db8::/32":"a","2001:0db8::/32":"b"}"#, "`2001:0db8::/32` is named twice"),
        ] {
            let error = serde_json::from_str::<Names>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
