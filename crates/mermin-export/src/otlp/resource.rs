//! Who sends: the resource's attributes.
//!
//! Of one name the configuration's value counts, then that of `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, then
//! what Kubernetes' downward API put into the environment (`K8S_POD_NAME` is `k8s.pod.name`), then what Mermin finds out.

use super::config::OtlpConfig;
use super::environment::{Environment, pairs};
use super::settings::problem;
use crate::error::ExportError;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use std::collections::BTreeMap;
use std::fs;

/// Attributes that the downward API can give.
const KUBERNETES: [&str; 6] = [
    "k8s.cluster.name",
    "k8s.container.name",
    "k8s.namespace.name",
    "k8s.node.name",
    "k8s.pod.name",
    "k8s.pod.uid",
];

/// Names and values, sorted by name.
pub(crate) fn attributes(
    config: &OtlpConfig,
    environment: &Environment,
) -> Result<BTreeMap<String, String>, ExportError> {
    let mut attributes = host();
    let mut set = |name: &str, value: &str| attributes.insert(name.to_owned(), value.to_owned());
    set("service.name", "mermin");
    set("service.version", env!("CARGO_PKG_VERSION"));
    for name in KUBERNETES {
        let variable = name.replace('.', "_").to_ascii_uppercase();
        environment.get(&variable).map(|value| set(name, value));
    }
    if let Some(text) = environment.get("OTEL_RESOURCE_ATTRIBUTES") {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let pairs = pairs(text).ok_or_else(|| {
            problem(name, format!("{name} is not a list of attributes"), "write name=value,name=value")
        })?;
        pairs.iter().for_each(|(name, value)| drop(set(name, value)));
    }
    environment.get("OTEL_SERVICE_NAME").map(|value| set("service.name", value));
    config.resource.iter().for_each(|(name, value)| drop(set(name, value)));
    if !attributes.contains_key("service.instance.id") {
        let known = ["k8s.pod.uid", "host.id", "host.name"];
        let instance = known.iter().find_map(|name| attributes.get(*name)).cloned();
        attributes.extend(instance.map(|instance| ("service.instance.id".to_owned(), instance)));
    }
    Ok(attributes)
}

fn host() -> BTreeMap<String, String> {
    let read = |path| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let pairs = [
        ("host.name", read("/proc/sys/kernel/hostname")),
        ("host.id", read("/etc/machine-id")),
        ("os.type", Some("linux".to_owned())),
    ];
    let known = pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.filter(|value| !value.is_empty())?)));
    known.collect()
}

/// As a message.
pub(crate) fn resource(attributes: &BTreeMap<String, String>) -> Resource {
    let attribute = |(name, value): (&String, &String)| KeyValue {
        key: name.clone(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.clone())) }),
        ..KeyValue::default()
    };
    Resource { attributes: attributes.iter().map(attribute).collect(), ..Resource::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = Environment::new(&variables.iter().map(owned).collect::<Vec<_>>());
        attributes(&serde_json::from_str(config).unwrap(), &environment).unwrap()
    }

    #[test]
    fn whoever_says_more_goes_first() {
        let alone = found("{}", &[]);
        assert_eq!((alone["service.name"].as_str(), alone["os.type"].as_str()), ("mermin", "linux"));
        assert!(alone.contains_key("service.instance.id") && alone.contains_key("host.name"));
        let variables = [
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=net%20ops,k8s.pod.name=theirs"),
            ("K8S_POD_NAME", "mermin-x"),
            ("K8S_POD_UID", "1-2"),
            ("K8S_NODE_NAME", "n1"),
        ];
        let all = found(r#"{"resource": {"team": "mine", "k8s.cluster.name": "c"}}"#, &variables);
        for (name, value) in [
            ("service.name", "a"),
            ("team", "mine"),
            ("k8s.pod.name", "theirs"),
            ("k8s.node.name", "n1"),
            ("k8s.cluster.name", "c"),
            ("service.instance.id", "1-2"),
        ] {
            assert_eq!(all[name], value, "{name}");
        }
        let named = found("{}", &[("OTEL_SERVICE_NAME", "b"), variables[0]]);
        assert_eq!(named["service.name"], "b");
        assert_eq!(found(r#"{"resource": {"service.instance.id": "i"}}"#, &[])["service.instance.id"], "i");
    }
}
