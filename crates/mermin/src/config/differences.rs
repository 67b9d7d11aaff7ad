//! In what two configurations differ, key by key.

use super::schema::{Form, Schema};
use super::{Config, json_schema};
use serde_json::Value;

/// A key that has another value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    /// Its path; that of a section, where only one of both has it.
    pub(crate) key: String,
    /// `Null` where the key or section isn't there.
    pub(crate) before: Value,
    pub(crate) after: Value,
}

/// Every key, and every section that may be left out, by its path and in the order of the structs.
#[cfg(test)]
pub(crate) fn keys() -> Vec<String> {
    fn collect(schema: Schema<'_>, path: &str, keys: &mut Vec<String>) {
        for property in schema.properties() {
            let below = under(path, property.key);
            match property.schema.form() {
                Form::Section => collect(property.schema, &below, keys),
                _ => keys.push(below),
            }
        }
    }
    let (json_schema, mut keys) = (json_schema(), Vec::new());
    collect(Schema::new(&json_schema), "", &mut keys);
    keys
}

/// The keys in which `after` differs from `before`, in the order of the structs.
pub(crate) fn differences(before: &Config, after: &Config) -> Vec<Difference> {
    fn compare(
        schema: Schema<'_>,
        path: &str,
        (before, after): (&Value, &Value),
        differences: &mut Vec<Difference>,
    ) {
        for property in schema.properties() {
            let key = under(path, property.key);
            let value = |of: &Value| of.get(property.key).cloned().unwrap_or_default();
            let (before, after) = (value(before), value(after));
            if before == after {
                continue;
            }
            let sections = before.is_object() && after.is_object();
            if sections && matches!(property.schema.form(), Form::Section) {
                compare(property.schema, &key, (&before, &after), differences);
            } else {
                differences.push(Difference { key, before, after });
            }
        }
    }
    let (json_schema, mut differences) = (json_schema(), Vec::new());
    let (before, after) = (before.to_json(), after.to_json());
    compare(Schema::new(&json_schema), "", (&before, &after), &mut differences);
    differences
}

fn under(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Config {
    fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("its keys are texts")
    }

    /// With the values of these keys.
    ///
    /// # Errors
    /// When that is no configuration.
    pub(crate) fn with<'d>(
        &self,
        differences: impl IntoIterator<Item = &'d Difference>,
    ) -> Result<Self, serde_json::Error> {
        let mut json = self.to_json();
        for Difference { key, after, .. } in differences {
            let (section, name) = match key.rsplit_once('.') {
                Some((path, name)) => (json.pointer_mut(&format!("/{}", path.replace('.', "/"))), name),
                None => (Some(&mut json), key.as_str()),
            };
            let Some(section) = section.and_then(Value::as_object_mut) else { continue };
            if after.is_null() {
                section.remove(name);
            } else {
                section.insert(name.to_owned(), after.clone());
            }
        }
        serde_json::from_value(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn differ(before: &str, after: &str) -> Vec<(String, String, String)> {
        let differences = differences(&parse(before).unwrap(), &parse(after).unwrap());
        differences.into_iter().map(|d| (d.key, d.before.to_string(), d.after.to_string())).collect()
    }

    #[test]
    fn only_keys_that_differ_are_named() {
        assert!(differ("flow: {idle_timeout: 30s}", "log_level: info").is_empty(), "defaults are values");
        for (before, after, key, values) in [
            ("", "log_level: debug", "log_level", (r#""info""#, r#""debug""#)),
            ("flow: {idle_timeout: 9s}", "", "flow.idle_timeout", (r#""9s""#, r#""30s""#)),
            ("", "pipeline: {flow_workers: auto}", "pipeline.flow_workers", ("2", r#""auto""#)),
            ("", "pipeline: {breaker: {failures: 3}}", "pipeline.breaker.failures", ("5", "3")),
            ("enrich: {names: {10.0.0.0/8: a}}", "", "enrich.names", (r#"{"10.0.0.0/8":"a"}"#, "{}")),
            (
                "",
                "enrich: {kubernetes: {kubeconfig: /a}}",
                "enrich.kubernetes.kubeconfig",
                ("null", r#""/a""#),
            ),
            (
                "server: {token_file: t}",
                "",
                "server",
                (r#"{"enabled":true,"listen":"127.0.0.1:9464","token_file":"t"}"#, "null"),
            ),
            ("server: {token_file: t}", "server: {}", "server.token_file", (r#""t""#, "null")),
        ] {
            let expected = (key.to_owned(), values.0.to_owned(), values.1.to_owned());
            assert_eq!(differ(before, after), [expected], "{before} {after}");
        }
        let both = differ("", "log_level: warn\nflow: {udp_timeout: 1s, icmp_timeout: 1s}");
        let keys: Vec<_> = both.iter().map(|(key, ..)| key.as_str()).collect();
        assert_eq!(keys, ["log_level", "flow.udp_timeout", "flow.icmp_timeout"]);
    }

    #[test]
    fn a_configuration_with_all_differences_is_the_other_one() {
        let texts = [
            "",
            "log_level: debug\nflow: {idle_timeout: 1s}\nserver: {token_file: t}",
            "server: {}\nexport: {otlp: {endpoint: 'http://a:1'}, files: [{path: a}]}",
            "pipeline: {priority: [{match: {ports: [1]}, class: low}], flow_workers: {min: 1, max: 3}}",
            "enrich: {names: {10.0.0.0/8: a}, kubernetes: {kubeconfig: /k}}\ncapture: {source: ebpf}",
        ];
        for before in texts {
            for after in texts {
                let (before, after) = (parse(before).unwrap(), parse(after).unwrap());
                let differences = differences(&before, &after);
                assert_eq!(before.with(&differences).unwrap(), after);
                // One key alone leaves all others.
                for one in &differences {
                    let mixed = before.with([one]).unwrap();
                    let left = super::differences(&mixed, &after);
                    assert_eq!(left.len(), differences.len() - 1, "{one:?}");
                }
            }
        }
    }
}
