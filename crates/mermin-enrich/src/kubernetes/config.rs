//! The `enrich.kubernetes` section of the configuration.

use crate::kubernetes::Kind;
use mermin_flow::Interval;
use schemars::JsonSchema;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

/// Pods, services and nodes as the ends of flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// Whether a cluster's API server is asked. `auto`: in a pod (the environment says where the API server is), or
    /// when `kubeconfig` is given. `true`: always; outside a pod and without `kubeconfig` the files that `KUBECONFIG`
    /// names count, else `~/.kube/config`. A replay asks only with `true`.
    pub enabled: Switch,
    /// The file that says where the API server is and who asks; its own relative paths start at its folder. Without
    /// it: the pod's service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of that file, instead of its current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// This node's name. The manifest of the DaemonSet sets it from `spec.nodeName`. Without it the node is found by
    /// this host's addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Which pods are watched. `node` takes the least memory and load, but leaves pods on other nodes without names,
    /// and needs `node`.
    pub scope: Scope,
    /// Kinds that are not watched: `namespaces` (without them no namespace labels), `replicasets` (no deployments),
    /// `jobs` (no cron jobs), `endpointslices` (no services of backends), `services`, `nodes`, `pods`.
    pub leave_out: Vec<Kind>,
    /// How long a flow record may wait until the cluster is known up to its last packet's time: the API server may be
    /// told of a pod's address up to 5 seconds after the pod's first packets. Most records are older than that when
    /// they are made; one that is not held long enough says `ambiguous`.
    pub wait: Interval,
    /// Labels of pods that records carry, as `k8s.pod.label.NAME`: names, with `*` for any characters. At most 32 for
    /// each object, in the order of their names; values are cut at 256 bytes.
    pub labels: Vec<String>,
    /// Annotations of pods that records carry, as `k8s.pod.annotation.NAME`; as `labels`.
    pub annotations: Vec<String>,
    /// Labels of namespaces that records of their pods and services carry, as `k8s.namespace.label.NAME`; as `labels`.
    pub namespace_labels: Vec<String>,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            enabled: Switch::Auto,
            kubeconfig: None,
            context: None,
            node: None,
            scope: Scope::Cluster,
            leave_out: Vec::new(),
            wait: Interval::seconds(8),
            labels: Vec::new(),
            annotations: Vec::new(),
            namespace_labels: Vec::new(),
        }
    }
}

/// Which pods are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All of the cluster.
    #[default]
    Cluster,
    /// Those that run on this node.
    Node,
}

/// `auto`, `true` or `false`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// Where there is reason to.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::On => serializer.serialize_bool(true),
            Self::Off => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AutoOrBool;
        impl Visitor<'_> for AutoOrBool {
            type Value = Switch;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("auto, true or false")
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Switch, E> {
                Ok(if on { Switch::On } else { Switch::Off })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Switch, E> {
                match text {
                    "auto" => Ok(Switch::Auto),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(AutoOrBool)
    }
}

impl JsonSchema for Switch {
    fn schema_name() -> Cow<'static, str> {
        "Switch".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "boolean" }] })
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.resource())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let found = Self::ALL.into_iter().find(|kind| kind.resource() == text);
        found.ok_or_else(|| de::Error::unknown_variant(&text, &RESOURCES))
    }
}

impl JsonSchema for Kind {
    fn schema_name() -> Cow<'static, str> {
        "Kind".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "enum": RESOURCES })
    }
}

/// As in [`Kind::ALL`].
const RESOURCES: [&str; Kind::ALL.len()] = {
    let mut names = [""; Kind::ALL.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = Kind::ALL[i].resource();
        i += 1;
    }
    names
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_reads_and_prints() {
        let text = concat!(
            r#"{"enabled":true,"kubeconfig":"k","context":"c","node":"n","scope":"node","leave_out":["jobs","#,
            r#""replicasets"],"wait":"500ms","labels":["app"],"annotations":["a/*"],"namespace_labels":["team"]}"#
        );
        let config: KubernetesConfig = serde_json::from_str(text).unwrap();
        assert_eq!((config.enabled, config.scope), (Switch::On, Scope::Node));
        assert_eq!(config.leave_out, [Kind::Job, Kind::ReplicaSet]);
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
        let default = serde_json::to_string(&KubernetesConfig::default()).unwrap();
        assert!(default.starts_with(r#"{"enabled":"auto","scope":"cluster","#), "{default}");
        assert_eq!(serde_json::from_str::<KubernetesConfig>("{}").unwrap(), KubernetesConfig::default());
    }

    #[test]
    fn errors_say_what_there_is() {
        for (text, expected) in [
            (r#"{"enabled":"yes"}"#, "expected auto, true or false"),
            (r#"{"leave_out":["pod"]}"#, "expected one of `pods`, `nodes`, `services`"),
        ] {
            let error = serde_json::from_str::<KubernetesConfig>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
