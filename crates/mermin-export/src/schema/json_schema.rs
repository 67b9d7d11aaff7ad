//! JSON Schema of a JSON line (<https://json-schema.org/draft/2020-12>): of what goes to files, and to Kafka with
//! `encoding: json`.
//!
//! Keys that it doesn't know are allowed: a later version may add some.

use super::fields::{Form, HOP, field};
use super::proto::json_name;
use super::{MESSAGE, SCHEMA};
use crate::attributes::{ATTRIBUTES, Attribute, Kind, Presence};
use serde_json::{Map, Value, json};

/// `schemas/mermin/flow/v1/flow.schema.json`.
#[must_use]
pub fn json_schema() -> String {
    let (mut properties, mut patterns, mut required) = (Map::new(), Map::new(), Vec::new());
    for (line, attribute) in ATTRIBUTES.iter().enumerate() {
        let form = field(line).form;
        let schema = schema(attribute, form);
        if form == Form::Family {
            let start = json_name(attribute.name).replace('.', "\\.");
            patterns.insert(format!("^{start}\\..+$"), schema);
        } else {
            properties.insert(attribute.name.to_owned(), schema);
        }
        if attribute.presence == Presence::Always {
            required.push(attribute.name);
        }
    }
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("urn:{}:{MESSAGE}", SCHEMA.replace('.', ":")),
        "title": "A flow record, as a JSON line has it",
        "description": "Generated from the attribute table by `UPDATE=1 cargo test -p mermin-export`. What the attributes mean in full: docs/reference/records.md.",
        "type": "object",
        "properties": properties,
        "patternProperties": patterns,
        "required": required,
        "$defs": { "Hop": hop() },
    });
    format!("{document:#}\n")
}

fn schema(attribute: &Attribute, form: Form) -> Value {
    let mut schema = match form {
        Form::Text | Form::Family => json!({"type": "string"}),
        Form::Time => json!({"type": "string", "format": "date-time"}),
        Form::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Form::Uint32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
        Form::Uint64 => json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
        Form::Sint64 => json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
        Form::Hops => json!({"type": "array", "items": {"$ref": "#/$defs/Hop"}}),
    };
    match attribute.kind {
        Kind::Text(values) if !values.is_empty() => schema["enum"] = json!(values),
        Kind::List(values) => schema["items"]["enum"] = json!(values),
        _ => {}
    }
    schema["description"] = attribute.description.into();
    schema
}

fn hop() -> Value {
    let properties = HOP.map(|hop| {
        let mut schema = match hop.form {
            "string" => json!({"type": "string"}),
            "bool" => json!({"type": "boolean"}),
            _ => json!({"type": "integer", "minimum": 0}),
        };
        schema["description"] = hop.description.into();
        (hop.name.to_owned(), schema)
    });
    json!({
        "type": "object",
        "properties": properties.into_iter().collect::<Map<_, _>>(),
        "required": ["counted", "packets", "bytes", "frame_bytes"],
    })
}

#[cfg(test)]
mod tests {
    use super::super::assert_fresh;
    use super::*;
    use crate::format::Format as _;
    use crate::json::JsonLines;
    use crate::sample;

    #[test]
    fn the_committed_schema_is_fresh() {
        assert_fresh("flow.schema.json", &json_schema());
    }

    /// Of the keywords that the schema has.
    fn is_valid(schema: &Value, value: &Value, root: &Value) -> bool {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let path = name.strip_prefix('#').unwrap();
            return is_valid(root.pointer(path).unwrap(), value, root);
        }
        let listed = schema.get("enum").is_none_or(|known| known.as_array().unwrap().contains(value));
        let number = |value: &Value| value.to_string().parse::<i128>().unwrap();
        let within = |value: &Value| {
            let least = schema.get("minimum").is_none_or(|min| number(min) <= number(value));
            least && schema.get("maximum").is_none_or(|max| number(value) <= number(max))
        };
        listed
            && match schema["type"].as_str().unwrap() {
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_number() && within(value),
                "array" => {
                    value.as_array().unwrap().iter().all(|item| is_valid(&schema["items"], item, root))
                }
                "object" => {
                    let object = value.as_object().unwrap();
                    let has = |key: &Value| object.contains_key(key.as_str().unwrap());
                    schema["required"].as_array().unwrap().iter().all(has)
                        && object.iter().all(|(key, value)| {
                            let of_family = || {
                                let families = schema.get("patternProperties")?.as_object()?;
                                families.iter().find_map(|(pattern, schema)| {
                                    let start = pattern.strip_prefix('^')?.strip_suffix(".+$")?;
                                    key.starts_with(&start.replace('\\', "")).then_some(schema)
                                })
                            };
                            let found = schema["properties"].get(key).or_else(of_family);
                            found.is_some_and(|schema| is_valid(schema, value, root))
                        })
                }
                other => panic!("{other}"),
            }
    }

    #[test]
    fn each_sample_is_a_line_of_this_schema_and_others_are_not() {
        let schema: Value = serde_json::from_str(&json_schema()).unwrap();
        let mut json = JsonLines::new(sample::points());
        let mut line = |record: &mermin_flow::FlowRecord| {
            let mut line = Vec::new();
            json.push(record, &mut line);
            serde_json::from_slice::<Value>(&line).unwrap()
        };
        for record in sample::all() {
            let line = line(&record);
            assert!(is_valid(&schema, &line, &schema), "{line:#}");
        }
        for (key, bad) in [
            ("flow.event", json!("middle")),
            ("source.port", json!(-1)),
            ("source.port", json!("443")),
            ("flow.tcp.flags", json!(["SIN"])),
            ("flow.hops", json!([{"counted": true}])),
            ("source.k8s.pod.labels", json!("app")),
        ] {
            let mut line = line(&sample::tcp());
            line[key] = bad;
            assert!(!is_valid(&schema, &line, &schema), "{key}");
        }
        let mut line = line(&sample::tcp());
        line.as_object_mut().unwrap().shift_remove("flow.id");
        assert!(!is_valid(&schema, &line, &schema));
    }
}
